"""The twin's answers over HTTP: status, headers and body as Apple documents them.

Source: handling-notification-responses-from-apns.
"""

import json
from email.utils import formatdate
from typing import Any, Final
from uuid import uuid4

from handbell.services.apns.protocol import APNS_ID, APNS_UNIQUE_ID
from handbell.twin.faults import Fault
from handbell.twin.wire.exchange import TwinResponse

_OK: Final = 200
GONE: Final = 410


def make_answer(
    status: int,
    apns_id: str | None,
    side: str,
    now: float,
    *,
    reason: str | None = None,
    timestamp: int | None = None,
    retry_after: int | None = None,
) -> TwinResponse:
    """Return an answer in APNs' form.

    ``apns-id`` is echoed or generated; ``apns-unique-id`` is for accepted pushes on the
    development side. An accepted push has no body, a refused one the reason as JSON, 410 also when
    the token was found inactive, in milliseconds. ``date`` is plain HTTP (RFC 9110, 6.6.1);
    ``retry-after`` (RFC 9110, 10.2.3) is not documented by Apple and only set by a fault.
    """
    headers = [("date", formatdate(now, usegmt=True)), (APNS_ID, apns_id or str(uuid4()))]
    if status == _OK and side == "development":
        headers.append((APNS_UNIQUE_ID, str(uuid4())))
    if retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    content: dict[str, Any] = {} if reason is None else {"reason": reason}
    if timestamp is not None:
        content["timestamp"] = timestamp
    if not content:
        return TwinResponse(status, tuple(headers))
    headers.append(("content-type", "application/json"))
    return TwinResponse(status, tuple(headers), json.dumps(content, separators=(",", ":")).encode())


def fault_answer(fault: Fault, apns_id: str | None, side: str, now: float) -> TwinResponse:
    """Return the answer that a fault requests; a 410 always gets a timestamp."""
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
