"""The delivery rules of an app, and the state of its circuits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from handbell.errors import AppError, RegistryError
from handbell.registry.session import read_time_zone
from handbell.services.reactions import Reaction
from handbell.services.table import SERVICES

from .cap import Cap, read_cap
from .circuit import LONGEST_ASKED_SECONDS, CircuitStop, StoredCircuit
from .decision import CERTIFICATE_REASONS
from .quiet_hours import QuietHours, read_quiet_hours
from .rate_limit import RateLimit, read_rate_limit
from .standing import Key, RefusedCredential, Standing, standing
from .zones import DEFAULT_ZONE

NO_RULE: Final = "none"
"""The text that removes a rule."""

HELD_BY: Final = {
    "quiet_hours": frozenset({"QuietHours"}),
    "cap": frozenset[str](),
    "rate_limit": frozenset({"RateLimit"}),
    "time_zone": frozenset({"QuietHours", "Scheduled"}),
}
"""The hold reasons whose deliveries are checked again when a rule changes, by rule."""

_OF_CONFIGURATION: Final = (
    Reaction.FIX_CONFIGURATION,
    Reaction.TRY_OTHER_ENVIRONMENT,
    Reaction.WRONG_APP,
)


def stopped_by() -> frozenset[str]:
    """Return the hold reasons of an open circuit, of all push services."""
    refusals = (
        reason.name
        for service in SERVICES.values()
        for reason in service.reasons.values()
        if reason.reaction in _OF_CONFIGURATION
    )
    return frozenset({"CircuitOpen", *CERTIFICATE_REASONS, *refusals})


def _read_zone(text: str) -> str:
    try:
        return read_time_zone(text)
    except RegistryError as error:
        raise AppError(error.what, fix=error.fix) from None


def _read_rate(text: str) -> RateLimit:
    # A bare number counts per second, as in the Python API.
    return read_rate_limit(f"{text}/s" if text.strip().isdecimal() else text)


_READERS: Final = {
    "quiet_hours": read_quiet_hours,
    "cap": read_cap,
    "rate_limit": _read_rate,
    "time_zone": _read_zone,
}


def read_rules(given: Mapping[str, str]) -> dict[str, str | None]:
    """Return rules given as text in their stored form, by the names of :data:`HELD_BY`.

    ``none`` removes a rule. Raises :class:`~handbell.errors.AppError` for invalid values.
    """
    return {
        name: None if text.strip().lower() == NO_RULE else str(_READERS[name](text))
        for name, text in given.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class AppRules:
    """The rules of one app (quiet hours, cap per person, rate limit) and the state of its circuits.

    An app that is not registered has no rules. ``circuits`` are the app's own, ``services`` those
    of push services in an outage; ``keys`` are the app's credentials, the newest first.
    """

    is_registered: bool = True
    is_enabled: bool = True
    quiet: QuietHours | None = None
    cap: Cap | None = None
    rate: RateLimit | None = None
    time_zone: str = DEFAULT_ZONE
    circuits: tuple[StoredCircuit, ...] = ()
    services: tuple[StoredCircuit, ...] = ()
    keys: tuple[Key, ...] = ()

    @property
    def service_order(self) -> tuple[str, ...]:
        """Return the push services in the order in which a device is reached by one of several.

        Those that the app has a credential of come first: nobody waits for one of the others.
        """
        held = {key.service for key in self.keys}
        return tuple(sorted(SERVICES, key=lambda name: name not in held))

    @property
    def standing(self) -> Standing:
        """Return whether the app is stopped, and which of its credentials are skipped."""
        return standing(self.circuits, self.keys, is_registered=self.is_registered)

    @property
    def stops(self) -> tuple[CircuitStop, ...]:
        """Return the stops for the app's configuration, the longest stopped first."""
        return self.standing.stops

    @property
    def cautions(self) -> tuple[RefusedCredential, ...]:
        """Return the credentials that are refused while another one is used."""
        return self.standing.cautions

    @property
    def stop(self) -> CircuitStop | None:
        """The first of the :attr:`stops`, or None."""
        return next(iter(self.stops), None)

    def outages(self, now: float) -> tuple[CircuitStop, ...]:
        """Return the outages that affect the app, as known at ``now``.

        Outages that were not probed for a long time are left out.
        """
        mine = {key.fingerprint for key in self.keys}
        return tuple(
            service.stop
            for service in self.services
            if service.stop is not None
            and service.place.credential in mine
            and now - service.stop.probe_at <= LONGEST_ASKED_SECONDS
        )

    @classmethod
    def read(cls, row: Any, **circuits: Any) -> Self:
        """Return the rules and circuit states in a row of the table ``apps``."""
        return cls(
            is_enabled=row.is_enabled,
            quiet=None if row.quiet_hours is None else read_quiet_hours(row.quiet_hours),
            cap=None if row.cap is None else read_cap(row.cap),
            rate=None if row.rate_limit is None else read_rate_limit(row.rate_limit),
            time_zone=row.time_zone or DEFAULT_ZONE,
            **circuits,
        )
