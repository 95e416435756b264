"""The twin's answers as HTTP: status, headers and body as Apple documents them.

Source: handling-notification-responses-from-apns.
"""

import json
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Final
from uuid import uuid4

from handbell.gateways.apns.protocol import APNS_ID, APNS_UNIQUE_ID

from .faults import Fault

_OK: Final = 200
GONE: Final = 410


@dataclass(frozen=True, slots=True)
class TwinAnswer:
    """An HTTP answer: status, headers but ``:status``, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What to do about a request: the answer, if there is one, and the fault that strikes it."""

    answer: TwinAnswer | None
    fault: Fault | None = None


def make_answer(
    status: int,
    apns_id: str | None,
    side: str,
    now: float,
    *,
    reason: str | None = None,
    timestamp: int | None = None,
    retry_after: int | None = None,
) -> TwinAnswer:
    """Return an answer as APNs gives it.

    ``apns-id`` is echoed or made; ``apns-unique-id`` comes on the development side, for what was
    accepted. An accepted push has no body, a refused one the reason as JSON, 410 also when the
    token was found inactive, in milliseconds. ``date`` is plain HTTP (RFC 9110, 6.6.1);
    ``retry-after`` (RFC 9110, 10.2.3) is not documented by Apple and comes by a fault alone.
    """
    headers = [("date", formatdate(now, usegmt=True)), (APNS_ID, apns_id or str(uuid4()))]
    if status == _OK and side == "development":
        headers.append((APNS_UNIQUE_ID, str(uuid4())))
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    said: dict[str, Any] = {} if reason is None else {"reason": reason}
    if timestamp is not None:
        said["timestamp"] = timestamp
    if not said:
        return TwinAnswer(status, tuple(headers))
    headers.append(("content-type", "application/json"))
    return TwinAnswer(status, tuple(headers), json.dumps(said, separators=(",", ":")).encode())


def fault_answer(fault: Fault, apns_id: str | None, side: str, now: float) -> TwinAnswer:
    """Return the answer that a fault asks for; 410 gets a timestamp anyway."""
    status = fault.status or _OK
    timestamp = fault.timestamp
    if status == GONE and timestamp is None:
        timestamp = int(now * 1000)
    return make_answer(
        status,
        apns_id,
        side,
        now,
        reason=fault.reason,
        timestamp=timestamp,
        retry_after=fault.retry_after,
    )
