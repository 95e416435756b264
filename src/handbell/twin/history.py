"""The twin's history: requests, counts, and listeners to changes."""

import asyncio
import contextlib
import itertools
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from .faults import Fault
from .phone import Phone
from .web_token import describe_authorization
from .wire.exchange import Request

MAX_REQUESTS: Final = 1000
"""The number of requests that the twin remembers."""

_AUTHORIZATION: Final = "authorization"
_MAX_TALLIED: Final = 200_000
_MAX_MISSED_EVENTS: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A received request and its result.

    ``side`` is where it came in, ``token`` the address that it names, and ``push_id`` the id by
    which its sender knows it: ``apns-id``, or FCM's message name. ``status`` is the answer's, None
    when a fault suppressed it; ``verdict`` is one plain sentence; ``what`` is ``shown``,
    ``silent``, ``stored``, ``sent`` (to a real browser), ``refused``, ``discarded``, ``fault``,
    ``checked`` (not delivered, as was asked for) or ``token`` (an access token was issued).
    ``plain`` is what a virtual browser decrypted.
    """

    id: str
    at: int
    side: str
    phone_id: str | None
    status: int | None
    reason: str | None
    push_id: str | None
    verdict: str
    what: str
    fault: str | None
    request: Request
    token: str = ""
    unique_id: str | None = None
    plain: bytes | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Return the headers by name; what proves the sender is not shown."""
        shown = dict(self.request.headers)
        if _AUTHORIZATION in shown:
            shown[_AUTHORIZATION] = describe_authorization(shown[_AUTHORIZATION])
        return shown

    @property
    def payload(self) -> str | None:
        """Return the body as text, decrypted where the twin can; None when it is not UTF-8."""
        try:
            return (self.request.body if self.plain is None else self.plain).decode()
        except UnicodeDecodeError:
            return None

    def to_dict(self) -> dict[str, Any]:
        """Return the request in the page's JSON form."""
        return {
            "id": self.id,
            "at": self.at,
            "side": self.side,
            "phone_id": self.phone_id,
            "token": self.token,
            "status": self.status,
            "reason": self.reason,
            "push_id": self.push_id,
            "unique_id": self.unique_id,
            "path": self.request.path,
            "headers": self.headers,
            "payload": self.payload,
            "size": self.request.size,
            "verdict": self.verdict,
            "what": self.what,
            "fault": self.fault,
        }


class IdEvent:
    """An event that has only an id."""

    def __init__(self, name: str) -> None:
        self._name = name

    def to_dict(self) -> dict[str, Any]:
        """Return the id."""
        return {"id": self._name}


What = Phone | ReceivedRequest | Fault | IdEvent
Change = tuple[str, What]


class Subscription:
    """A subscription to changes; one that falls far behind is closed and has to start anew."""

    def __init__(self) -> None:
        self._events: deque[Change] = deque()
        self._ready = asyncio.Event()
        self.is_closed = False

    def put(self, event: Change) -> None:
        """Add an event; called by the twin."""
        if len(self._events) >= _MAX_MISSED_EVENTS:
            self.close()
        elif not self.is_closed:
            self._events.append(event)
            self._ready.set()

    def close(self) -> None:
        """End the subscription; :meth:`next` returns None from then on."""
        self.is_closed = True
        self._ready.set()

    async def next(self) -> Change | None:
        """Return the next event, or None when the listener was closed."""
        while not self._events and not self.is_closed:
            self._ready.clear()
            await self._ready.wait()
        return self._events.popleft() if self._events else None


class History:
    """The last requests that the twin received, and the subscribers to all changes."""

    def __init__(self) -> None:
        self._requests: deque[ReceivedRequest] = deque(maxlen=MAX_REQUESTS)
        self._ids = itertools.count(1)
        self._listeners: set[Subscription] = set()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Return the last requests, newest first."""
        return list(reversed(self._requests))

    def next_id(self) -> str:
        """Return the id of the next request."""
        return str(next(self._ids))

    def add(self, received: ReceivedRequest) -> None:
        """Add a request and publish it."""
        self._requests.append(received)
        self.publish("request", received)

    def publish(self, name: str, subject: What) -> None:
        """Publish a change to all listeners."""
        for listener in self._listeners:
            listener.put((name, subject))

    @contextlib.contextmanager
    def listen(self) -> Iterator[Subscription]:
        """Yield a listener that receives every change while the block runs."""
        listener = Subscription()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def close(self) -> None:
        """Close all listeners."""
        for listener in self._listeners:
            listener.close()


class PushCounts:
    """Counts by token and push id, bounded: the oldest tokens are dropped first."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {}
        self._size = 0

    def add(self, token: str, push_id: str) -> None:
        """Count one."""
        self._counts.setdefault(token, Counter())[push_id] += 1
        self._size += 1
        if self._size > _MAX_TALLIED:
            oldest = self._counts.pop(next(iter(self._counts)))
            self._size -= oldest.total()

    def of(self, token: str) -> dict[str, int]:
        """Return the counts of a token by push id; of hex digits the case does not matter."""
        return dict(self._counts.get(token) or self._counts.get(token.lower()) or {})
