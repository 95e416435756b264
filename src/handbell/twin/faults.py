"""Fault injection: what the twin does wrong, for which requests, and how often.

The plan is pure; the server acts on it. The kinds are faults that were observed or documented of
the real service, and those of any network.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, Final

from handbell._text import nearest
from handbell.errors import TwinError
from handbell.services.apns.reasons import REASONS

from .fcm.codes import CODES, OAUTH_ERRORS
from .sides import OAUTH_SIDE, SERVICE_OF_SIDE

KINDS: Final = {
    "answer": "answers with a status and a reason",
    "cut-answer": "begins an answer with a status and a reason, and ends the stream amid its body",
    "slow": "handles the push, and answers late",
    "silence": "never answers",
    "reset": "ends the stream with RST_STREAM INTERNAL_ERROR",
    "refuse-stream": "ends the stream with RST_STREAM REFUSED_STREAM: nothing was processed",
    "stream-limit": "announces another limit of concurrent streams, and answers",
    "goaway": "sends GOAWAY with a reason, and closes the connection",
    "cut": "cuts the TCP connection",
}
"""Every kind of fault, and its effect."""

REASON_STATUSES: Final = MappingProxyType(
    {
        "apns": {name: reason.status for name, reason in REASONS.items()},
        "fcm": {name: code.status for name, code in CODES.items()},
        OAUTH_SIDE: dict(OAUTH_ERRORS),
    }
)
"""The status of each reason, by the service that gives it, or the token endpoint."""
_STATUSES: Final = {
    name: status for reasons in REASON_STATUSES.values() for name, status in reasons.items()
}

ANSWERING: Final = ("answer", "cut-answer")
_UNKNOWN_ENDS: Final = ("silence", "reset", "cut")
_MAX_COUNT: Final = 1_000_000
_MAX_SECONDS: Final = 3600.0
_MAX_LIMIT: Final = 2**31 - 1
_HEX: Final = re.compile(r"[0-9a-fA-F]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault: its kind, and which requests it affects.

    ``left`` requests are still to be affected, of ``count``; ``after`` matching requests pass
    before the first. ``token`` and ``side`` narrow it down. ``status``, ``reason``, ``timestamp``
    (milliseconds) and ``retry_after`` (seconds) belong to ``answer`` and ``cut-answer``;
    ``reason`` also to ``goaway``; ``seconds`` to ``slow``; ``limit`` to ``stream-limit``.

    ``graceful`` belongs to ``goaway``: the affected request and earlier ones are answered;
    otherwise it and all later ones are left unprocessed. ``delivers`` belongs to ``silence``,
    ``reset`` and ``cut``: the phone gets the push and only the answer is lost.
    """

    id: str
    kind: str
    count: int = 1
    left: int = 1
    token: str | None = None
    side: str | None = None
    status: int | None = None
    reason: str | None = None
    seconds: float | None = None
    limit: int | None = None
    after: int = 0
    timestamp: int | None = None
    retry_after: int | None = None
    graceful: bool = True
    delivers: bool = False

    @classmethod
    def read(cls, posted: Mapping[str, Any], *, name: str) -> "Fault":
        """Parse a requested fault; ``name`` becomes its id.

        Raises TwinError, naming the field, for an invalid one.
        """
        known = {field.name for field in fields(cls)} - {"id", "left"}
        for key in posted:
            if key not in known:
                near = nearest(key, known)
                raise TwinError(
                    f"A fault has no field {key!r}",
                    fix=f"Did you mean {near!r}?" if near else f"Known: {', '.join(sorted(known))}",
                )
        kind = posted.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            raise TwinError(f"There is no fault {kind!r}", fix=f"Known: {', '.join(KINDS)}")
        count = _whole(posted, "count", 1, _MAX_COUNT) or 1
        fault = cls(
            id=name,
            kind=kind,
            count=count,
            left=count,
            token=_token(posted),
            side=_side(posted),
            status=_whole(posted, "status", 200, 599),
            reason=_text(posted, "reason"),
            seconds=_seconds(posted),
            limit=_whole(posted, "limit", 0, _MAX_LIMIT),
            after=_whole(posted, "after", 0, _MAX_COUNT) or 0,
            timestamp=_whole(posted, "timestamp", 0, 2**53),
            retry_after=_whole(posted, "retry_after", 0, 86400),
            graceful=_flag(posted, "graceful", default=True),
            delivers=_flag(posted, "delivers", default=False),
        )
        return fault._completed()

    def _completed(self) -> "Fault":
        if self.kind in ANSWERING and self.status is None:
            if self.reason is None or self.reason not in _STATUSES:
                raise TwinError(
                    f"A fault of kind {self.kind!r} needs a status, or a push service's reason",
                    fix='Add for example "reason": "Unregistered", or "UNREGISTERED" for FCM',
                )
            return replace(self, status=_STATUSES[self.reason])
        if self.delivers and self.kind not in _UNKNOWN_ENDS:
            raise TwinError(
                f"A fault of kind {self.kind!r} cannot deliver the push as well",
                fix=f"'delivers' goes with {', '.join(_UNKNOWN_ENDS)}",
            )
        needed = {"slow": self.seconds, "stream-limit": self.limit}
        if self.kind in needed and needed[self.kind] is None:
            field = "seconds" if self.kind == "slow" else "limit"
            raise TwinError(f"A fault of kind {self.kind!r} needs {field!r}", fix=f"Add {field!r}")
        return self

    @property
    def is_processed(self) -> bool:
        """Return whether the push is processed and delivered in spite of the fault."""
        handled = self.kind in {"slow", "stream-limit"} or self.delivers
        return handled or (self.kind == "goaway" and self.graceful)

    def strikes(self, side: str, token: str | None) -> bool:
        """Return whether the fault applies to a request to this token on this side.

        Where neither is named, a reason of one service applies to that service alone, and the
        token endpoint of FCM is struck by its own errors only.
        """
        if self.side is None and self.token is None:
            service = self._service_of_reason
            if OAUTH_SIDE in {side, service}:
                return service == side
            if service is not None and service != SERVICE_OF_SIDE[side]:
                return False
        return self.side in (None, side) and self.token in (None, token)

    @property
    def _service_of_reason(self) -> str | None:
        return next((name for name, known in REASON_STATUSES.items() if self.reason in known), None)

    def to_dict(self) -> dict[str, Any]:
        """Return the fault as requested, with its id and remaining count."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


Faults = tuple[Fault, ...]


def take(plan: Faults, side: str, token: str | None) -> tuple[Fault | None, Faults]:
    """Return the fault for this request, if any, and the remaining plan.

    The oldest matching fault applies; those waiting for ``after`` requests count this one.
    """
    struck: Fault | None = None
    remaining: list[Fault] = []
    for fault in plan:
        later = fault
        if struck is None and fault.strikes(side, token):
            if fault.after:
                later = replace(fault, after=fault.after - 1)
            else:
                later = struck = replace(fault, left=fault.left - 1)
        if later.left:
            remaining.append(later)
    return struck, tuple(remaining)


class FaultPlan:
    """The planned faults. ``on_change`` is called for each that is added, used or removed."""

    def __init__(
        self, on_change: Callable[[str, Fault], None] = lambda _event, _fault: None
    ) -> None:
        self._plan: Faults = ()
        self._names = (f"fault-{number}" for number in itertools.count(1))
        self._on_change = on_change

    def __iter__(self) -> Iterator[Fault]:
        return iter(self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    def add(self, kind: str, **details: Any) -> Fault:
        """Add a fault and return it; ``details`` are the fields of :class:`Fault`.

        Raises TwinError when they are invalid.
        """
        return self.ask({"kind": kind, **details})

    def ask(self, posted: Mapping[str, Any]) -> Fault:
        """Add a posted fault and return it; raises TwinError as :meth:`add`."""
        fault = Fault.read(posted, name=next(self._names))
        self._plan = (*self._plan, fault)
        self._on_change("fault", fault)
        return fault

    def remove(self, fault_id: str) -> bool:
        """Remove a fault; return whether it existed."""
        found = [fault for fault in self._plan if fault.id == fault_id]
        self._plan = tuple(fault for fault in self._plan if fault.id != fault_id)
        for fault in found:
            self._on_change("fault-removed", fault)
        return bool(found)

    def clear(self) -> None:
        """Remove all faults."""
        for fault in self._plan:
            self.remove(fault.id)

    def take(self, side: str, token: str | None) -> Fault | None:
        """Return the fault for this request and use it up by one; see :func:`take`."""
        if not self._plan:
            return None
        struck, self._plan = take(self._plan, side, token)
        if struck is not None:
            self._on_change("fault" if struck.left else "fault-removed", struck)
        return struck


def _whole(posted: Mapping[str, Any], field: str, lowest: int, highest: int) -> int | None:
    value = posted.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise TwinError(
            f"{field!r} of a fault is {value!r}", fix=f"Use a whole number, {lowest} to {highest}"
        )
    return value


def _seconds(posted: Mapping[str, Any]) -> float | None:
    value = posted.get("seconds")
    if value is None:
        return None
    if (
        not isinstance(value, int | float)
        or isinstance(value, bool)
        or not 0 <= value <= _MAX_SECONDS
    ):
        raise TwinError(f"'seconds' of a fault is {value!r}", fix="Use a number from 0 to 3600")
    return float(value)


def _text(posted: Mapping[str, Any], field: str) -> str | None:
    value = posted.get(field)
    if value is not None and not isinstance(value, str):
        raise TwinError(f"{field!r} of a fault is {value!r}", fix="Use a text")
    return value or None


def _flag(posted: Mapping[str, Any], field: str, *, default: bool) -> bool:
    value = posted.get(field, default)
    if not isinstance(value, bool):
        raise TwinError(f"{field!r} of a fault is {value!r}", fix="Use true or false")
    return value


def _token(posted: Mapping[str, Any]) -> str | None:
    value = _text(posted, "token")
    return value.lower() if value and _HEX.fullmatch(value) else value


def _side(posted: Mapping[str, Any]) -> str | None:
    value = _text(posted, "side")
    if value is not None and value not in SERVICE_OF_SIDE:
        raise TwinError(f"The twin has no side {value!r}", fix=f"Use {', '.join(SERVICE_OF_SIDE)}")
    return value
