"""What an operator lays down for an app's deliveries, and whether its circuit is open."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from handbell.errors import AppError, RegistryError
from handbell.gateways.apns.protocol import REASONS, Reaction
from handbell.registry.session import read_time_zone

from .timing import (
    DEFAULT_ZONE,
    Cap,
    QuietHours,
    RateLimit,
    read_cap,
    read_quiet_hours,
    read_rate_limit,
)

NO_RULE: Final = "none"
"""What is written to remove a rule."""

HELD_BY: Final = {
    "quiet_hours": frozenset({"QuietHours"}),
    "cap": frozenset[str](),
    "rate_limit": frozenset({"RateLimit"}),
    "time_zone": frozenset({"QuietHours", "Scheduled"}),
}
"""Each rule, and why deliveries wait that are to be looked at again when it changes."""

STOPPED_BY: Final = frozenset(
    {
        "CircuitOpen",
        *(
            reason.name
            for reason in REASONS.values()
            if reason.reaction
            in (Reaction.FIX_CONFIGURATION, Reaction.TRY_OTHER_ENVIRONMENT, Reaction.WRONG_APP)
        ),
    }
)
"""Why deliveries wait while a circuit is open."""


def _read_zone(text: str) -> str:
    try:
        return read_time_zone(text)
    except RegistryError as error:
        raise AppError(error.what, fix=error.fix) from None


def _read_rate(text: str) -> RateLimit:
    # A number alone counts per second, as it does where a program gives one.
    return read_rate_limit(f"{text}/s" if text.strip().isdecimal() else text)


_READERS: Final = {
    "quiet_hours": read_quiet_hours,
    "cap": read_cap,
    "rate_limit": _read_rate,
    "time_zone": _read_zone,
}


def read_rules(given: Mapping[str, str]) -> dict[str, str | None]:
    """Return an operator's texts as they are stored, by the names of :data:`HELD_BY`.

    ``none`` removes a rule. Raises :class:`~handbell.errors.AppError` for what cannot be.
    """
    return {
        name: None if text.strip().lower() == NO_RULE else str(_READERS[name](text))
        for name, text in given.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """An open circuit: why sending stopped, and when one push is let through (UNIX seconds)."""

    reason: str
    detail: str
    since: float
    probe_at: float
    probes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRules:
    """The rules of one app: quiet hours, a cap per person, a rate, and the circuit.

    An app that is not registered has none, and nobody but its sender knows of its circuit.
    """

    is_registered: bool = True
    is_enabled: bool = True
    quiet: QuietHours | None = None
    cap: Cap | None = None
    rate: RateLimit | None = None
    time_zone: str = DEFAULT_ZONE
    stop: Stop | None = None

    @classmethod
    def read(cls, row: Any) -> Self:
        """Return the rules that a row of the table ``apps`` holds."""
        stop = None
        if row.stopped_reason is not None:
            stop = Stop(
                reason=row.stopped_reason,
                detail=row.stopped_detail or "",
                since=row.stopped_at / 1000,
                probe_at=row.probe_at / 1000,
                probes=row.probes,
            )
        return cls(
            is_enabled=row.is_enabled,
            quiet=None if row.quiet_hours is None else read_quiet_hours(row.quiet_hours),
            cap=None if row.cap is None else read_cap(row.cap),
            rate=None if row.rate_limit is None else read_rate_limit(row.rate_limit),
            time_zone=row.time_zone or DEFAULT_ZONE,
            stop=stop,
        )
