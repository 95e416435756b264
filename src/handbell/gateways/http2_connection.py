"""One connection as the event loop sees it: how much is on it, and what every end means.

The work is done by a :class:`~handbell.gateways.http2_driver.Driver`; all decisions are made here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import pycurl

from .http2_driver import WITHDRAWN, Driver, Ended, Failed
from .http2_values import HTTP2_STREAM, Answer, End, Limits, Lost, NotSent, Request, failure

T = TypeVar("T")

_STREAM_ONLY: Final = frozenset({HTTP2_STREAM, pycurl.E_FILESIZE_EXCEEDED, pycurl.E_PARTIAL_FILE})
_OK: Final = 200
_ROUND: Final = 64  # so many are prepared before the thread is told of them
_FIRST_WINDOW: Final = 16
_PATIENCE_SECONDS: Final = 1.0
_LISTEN_SECONDS: Final = 1.0  # each line is a call into Python, for which the thread must wait
_BARE_OK: Final = Answer(_OK)


class Owner(Protocol[T]):
    """What a connection needs of the pool that it belongs to; see there."""

    limits: Limits
    wants_headers: bool
    prepare: Callable[[T], Request | None]
    requests: int
    answered_at: float

    def new_handle(self) -> pycurl.Curl:
        """Return an easy handle with everything set that does not change."""

    def settle(self, connection: "Connection[T]") -> None:
        """Report what ended on a connection, and send more."""

    def end(self, item: T, end: End) -> None:
        """Report one item's end."""

    def again(self, item: T) -> None:
        """Send an item again that was certainly not processed."""

    def put_back(self, items: list[T]) -> None:
        """Put items back to the head of the backlog, in their order."""


class _Slot(Generic[T]):
    """One easy handle with what it is carrying; reused for one request after the other."""

    __slots__ = (
        "body",
        "chunks",
        "easy",
        "getinfo",
        "is_late",
        "is_refused",
        "is_second",
        "item",
        "lines",
        "setopt",
        "shelf",
        "started",
    )

    def __init__(self, easy: pycurl.Curl, shelf: "list[_Slot[T]]") -> None:
        self.easy = easy
        # Bound once: pycurl looks its methods up in several places each time.
        self.setopt = easy.setopt
        self.getinfo = easy.getinfo
        self.shelf = shelf
        self.lines: list[bytes] = []
        self.chunks: list[bytes] = []
        self.body: bytes | None = None
        self.item: T
        self.started = 0.0
        self.is_late = False
        self.is_second = False
        self.is_refused = False


class _Window:
    """How many requests may be on the wire of one connection.

    One until the first answer, then doubling with each round of answers up to ``most``. When the
    server's own limit shows, the window falls to what the server takes, and feels its way up: by
    one after a full round, by two after the next, and so on.
    """

    __slots__ = ("_answers", "_is_doubling", "_limit", "_most", "_step", "size")

    def __init__(self, most: int) -> None:
        self.size = 1
        self._most = most
        self._limit = 0
        self._is_doubling = True
        self._step = 1
        self._answers = 0

    @property
    def is_wide(self) -> bool:
        """Whether it has grown as far as it may, or as the server takes.

        A limit that is lower than the first window is one that APNs lifts with its first answers.
        """
        return self.size >= self._most or self._limit >= _FIRST_WINDOW

    def open(self) -> None:
        """Leave the first-request gate."""
        self.size = max(self.size, min(_FIRST_WINDOW, self._most))

    def widen(self) -> None:
        """Count one answer."""
        if self.size >= self._most:
            return
        self._answers += 1
        if self._is_doubling:
            self.size += 1
        elif self._answers >= self.size:
            self.size = min(self._most, self.size + self._step)
            self._step *= 2
            self._answers = 0

    def shrink(self, size: int) -> None:
        """Take the server's limit as it shows."""
        self.size = self._limit = max(1, size)
        self._is_doubling = False
        self._step = 1
        self._answers = 0


class Connection(Generic[T]):
    """One connection to the host, opened by the first request; it never opens a second one."""

    def __init__(self, pool: Owner[T], loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.in_flight: dict[pycurl.Curl, _Slot[T]] = {}
        self.answered_at: float | None = None
        self.is_draining = False
        self.failure: NotSent | Lost | None = None
        self._window = _Window(pool.limits.in_flight)
        self._patience = min(_PATIENCE_SECONDS, pool.limits.request_timeout / 4)
        self._is_gated = True
        self._doubted_at: float | None = None
        self._trial: int | None = None
        self._handed_over = 0
        self._listens_at = 0.0
        self._silent: list[_Slot[T]] = []
        self._listening: list[_Slot[T]] = []
        streams = max(100, pool.limits.in_flight)
        self._driver = Driver(streams=streams, loop=loop, tell=self._settle)

    @property
    def room(self) -> int:
        """How many more requests would go on the wire now."""
        if self.is_draining:
            return 0
        room = max(0, self._window.size - len(self.in_flight))
        if self._doubted_at is None:
            return room
        return min(room, 1) if self._trial is None else 0

    @property
    def is_stretched(self) -> bool:
        """Whether a second connection would help: this one does all it can."""
        return self.answered_at is not None and self._window.is_wide

    @property
    def is_closed(self) -> bool:
        """Whether the connection was closed, and its thread has ended."""
        return not self._driver.is_alive

    # -- sending ---------------------------------------------------------------------------------

    def take(self, backlog: deque[T]) -> bool:
        """Put a round of the backlog on the wire, as there is room; say whether any was."""
        begun = self._begin_round(backlog, min(self.room, _ROUND))
        if not begun:
            return False
        self._handed_over += len(begun)
        if self._doubted_at is not None:
            self._trial = self._handed_over
        self._driver.hand_over(begun)
        return True

    def _begin_round(self, backlog: deque[T], room: int) -> list[pycurl.Curl]:
        now = self.loop.time()
        is_listening = self.pool.wants_headers or now >= self._listens_at
        shelf = self._listening if is_listening else self._silent
        begun: list[pycurl.Curl] = []
        while len(begun) < room and backlog:
            easy = self._begin(backlog.popleft(), now, shelf)
            if easy is not None:
                begun.append(easy)
                if not self.pool.wants_headers:
                    self._listens_at = max(self._listens_at, now + _LISTEN_SECONDS)
                    shelf = self._silent
        return begun

    def _begin(self, item: T, now: float, shelf: list[_Slot[T]]) -> pycurl.Curl | None:
        """Prepare one item, unless it is no longer wanted or cannot be written as a request."""
        try:
            request = self.pool.prepare(item)
            return None if request is None else self._prepare(item, request, now, shelf)
        except (ValueError, TypeError, pycurl.error) as error:
            self.pool.end(item, NotSent("RequestUnusable", str(error)))
            return None

    def _prepare(self, item: T, request: Request, now: float, shelf: list[_Slot[T]]) -> pycurl.Curl:
        path, headers, body = request
        if path.split() != [path]:
            raise ValueError("the path is empty or has white space, which cannot be sent")
        slot = shelf.pop() if shelf else self._new_slot(shelf)
        # Not a URL of its own: libcurl would take it apart anew for each request.
        slot.setopt(pycurl.REQUEST_TARGET, path)
        slot.setopt(pycurl.HTTPHEADER, headers)
        if slot.body is not body:
            slot.setopt(pycurl.POSTFIELDS, body)
            slot.body = body
        slot.item = item
        slot.started = now
        slot.is_late = slot.is_second = slot.is_refused = False
        self.in_flight[slot.easy] = slot
        self.pool.requests += 1
        return slot.easy

    def _new_slot(self, shelf: list[_Slot[T]]) -> _Slot[T]:
        slot = _Slot(self.pool.new_handle(), shelf)
        # Built-in methods as callbacks: no Python frame for each line of an answer.
        if shelf is self._listening:
            slot.setopt(pycurl.HEADERFUNCTION, slot.lines.append)
        slot.setopt(pycurl.WRITEFUNCTION, slot.chunks.append)
        slot.setopt(pycurl.OPENSOCKETFUNCTION, partial(self._driver.open_socket, slot))
        return slot

    # -- the end of a request --------------------------------------------------------------------

    def _settle(self) -> None:
        self.pool.settle(self)

    def drain(self) -> None:
        """Report every request that has ended."""
        acted_on = self._driver.acted_on  # before what ended: a trial that failed shows there
        while (ended := self._driver.ended()) is not None:
            if ended.answered:
                self.answered_at = self.pool.answered_at = self.loop.time()
            for easy in ended.answered:
                self._finish(easy)
            if ended.failed:
                self._sort_out(ended)
        if self._trial is not None and acted_on >= self._trial:
            self._doubted_at = self._trial = None
        if self._is_gated and self._driver.has_sent and self._doubted_at is None:
            self._window.open()
        if self._driver.error is not None:
            self._break_off(self._driver.error)

    def _finish(self, easy: pycurl.Curl) -> None:
        slot = self._release(easy)
        if self._is_gated:
            self._is_gated = False
            self._window.open()
        self._window.widen()
        status = slot.getinfo(pycurl.RESPONSE_CODE)
        if status == _OK and not slot.lines and not slot.chunks:
            answer = _BARE_OK
        else:
            answer = _read_answer(slot, status)
        self.pool.end(slot.item, answer)

    def _release(self, easy: pycurl.Curl) -> _Slot[T]:
        slot = self.in_flight.pop(easy)
        slot.shelf.append(slot)
        return slot

    def _sort_out(self, ended: Ended) -> None:
        crowded: list[T] = []
        for failed in ended.failed:
            easy, code, _ = failed
            slot = self.in_flight[easy]
            if code != WITHDRAWN and slot.getinfo(pycurl.RESPONSE_CODE) >= 200:  # noqa: PLR2004
                self._finish(easy)
            elif code != pycurl.E_COULDNT_CONNECT or not slot.is_second:
                self._fail(failed)
            elif slot.getinfo(pycurl.REQUEST_SIZE) == 0:
                crowded.append(self._forget(easy))
            elif slot.is_refused:
                self.is_draining = True
                self.pool.again(self._forget(easy))
            else:
                self._fail(failed)
        if crowded:
            self._make_room(crowded, ended)

    def _fail(self, failed: Failed) -> None:
        easy, code, text = failed
        if code == WITHDRAWN:
            code = pycurl.E_OPERATION_TIMEDOUT
        else:
            self.is_draining |= code not in _STREAM_ONLY
        is_sent = easy.getinfo(pycurl.REQUEST_SIZE) > 0
        self.failure = failure(code, text, is_sent=is_sent)
        self.pool.end(self._forget(easy), self.failure)

    def _forget(self, easy: pycurl.Curl) -> T:
        slot = self._release(easy)
        slot.lines.clear()
        slot.chunks.clear()
        return slot.item

    def _make_room(self, crowded: list[T], ended: Ended) -> None:
        """Put back what the connection did not take: its limit is reached, or it is closing."""
        self.pool.put_back(crowded)
        self._trial = None
        if ended.held < ended.most or self.answered_at is None:
            # It took more before, or never answered: has its limit fallen, or is it closing? The
            # next try will show.
            self._doubted_at = self._doubted_at or self.loop.time()
        self._window.shrink(ended.held)
        self.is_draining |= not ended.held

    def _break_off(self, error: Exception) -> None:
        """End everything where the thread has stopped; whether it was sent is not known."""
        self.is_draining = True
        self.failure = Lost("ConnectionLost", str(error))
        for easy in tuple(self.in_flight):
            self.pool.end(self._forget(easy), self.failure)

    # -- time ------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """End what has taken too long; look after the gate and a connection in doubt."""
        self.drain()
        if self._doubted_at is not None and now - self._doubted_at > self._patience:
            self.is_draining = True
        oldest = next(iter(self.in_flight.values()), None)
        if oldest is None:
            return
        if self._is_gated and now - oldest.started > self._patience:
            self._driver.look(oldest.easy)
        if now - oldest.started > self.pool.limits.request_timeout:
            self.is_draining |= self.answered_at is None or self.answered_at < oldest.started
            self._expire(now - self.pool.limits.request_timeout)

    def _expire(self, started_before: float) -> None:
        slots = self.in_flight.values()
        late = [slot for slot in slots if slot.started < started_before and not slot.is_late]
        for slot in late:
            slot.is_late = True
        if late:
            self._driver.withdraw([slot.easy for slot in late])

    def close(self) -> None:
        """Close the connection; nothing may be in flight."""
        self._driver.close()
        if self._driver.error is None:
            for slot in self._silent + self._listening:
                slot.easy.close()

    def join(self) -> None:
        """Wait until the connection is closed."""
        self._driver.join()


def _read_answer(slot: _Slot[T], status: int) -> Answer:
    lines = tuple(slot.lines)
    if not lines and (seconds := slot.getinfo(pycurl.RETRY_AFTER)) > 0:
        lines = (b"retry-after: %d" % seconds,)
    answer = Answer(status, b"".join(slot.chunks), lines)
    slot.lines.clear()
    slot.chunks.clear()
    return answer
