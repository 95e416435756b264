"""The thread in which libcurl works on one connection, so that the event loop never waits for it.

A :class:`Driver` is handed easy handles that are ready to go and tells which of them have ended.
It decides nothing. libcurl gives up the interpreter while it works: that is what the thread is for.

Answers are not read one by one. Whenever libcurl reads, it looks after every handle of the
connection, so with hundreds in flight each reading costs as much as dozens of requests. The kernel
is therefore asked to wake the thread when about half of the answers are there, or some milliseconds
have passed.
"""

import asyncio
import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

import pycurl

WITHDRAWN: Final = -1
"""Stands for libcurl's code where a handle was taken back at the wish of :meth:`withdraw`."""

_ROUND: Final = 64  # requests that go out together: more would let the server wait for the first
_FEW: Final = 32  # up to so many in flight each answer is read as it comes
_ANSWER_BYTES: Final = 40  # of a short answer on the wire, with its share of TLS
_REST_SECONDS: Final = 0.003
_AT_ONCE: Final = 3  # steps that libcurl wants to take without waiting
_LOOK_SECONDS: Final = 0.5  # so soon is it seen that the event loop is closed
_TCP_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)  # Linux only

Failed = tuple[pycurl.Curl, int, str]
"""A handle, libcurl's code (or :data:`WITHDRAWN`), and libcurl's text."""


class Ended(NamedTuple):
    """What one turn brought to an end; the handles are free to be used again.

    ``held`` is how many requests the connection holds after that, ``most`` how many it held at the
    same time since it last took fewer than it was given.
    """

    answered: Sequence[pycurl.Curl]
    failed: Sequence[Failed]
    held: int
    most: int


class Witness(Protocol):
    """Whom the driver tells that libcurl asked for a second connection for a handle.

    ``is_refused`` says that the first one was still open then.
    """

    is_second: bool
    is_refused: bool


class _Address(Protocol):
    """What libcurl wants to connect to."""

    family: int
    socktype: int
    protocol: int


class Driver:
    """One ``CurlMulti`` that may connect once, in a thread of its own.

    ``tell`` is called in the event loop when something is to be had from :meth:`ended`, or
    ``has_sent`` or ``error`` was set: ``has_sent`` answers :meth:`look`, ``error`` is what stopped
    the thread against its will. ``acted_on`` counts the handles that were handed over and tried.
    """

    def __init__(
        self, *, streams: int, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]
    ) -> None:
        self.acted_on = 0
        self.has_sent = False
        self.error: Exception | None = None
        self._loop = loop
        self._tell = tell
        self._ended: deque[Ended] = deque()
        self._inbox: deque[pycurl.Curl | Callable[[], None]] = deque()
        self._is_told = False
        self._is_asleep = False
        self._is_stopping = False
        self._has_news = False
        self._has_answered = False
        self._held = 0
        self._most = 0
        self._sockets: list[socket.socket] = []
        self._reading: set[int] = set()
        self._threshold = 1
        self._read_at = 0.0
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, streams)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="handbell-http2", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is still there."""
        return self._thread.is_alive()

    # -- called in the event loop ----------------------------------------------------------------

    def hand_over(self, handles: Sequence[pycurl.Curl]) -> None:
        """Put requests on the wire; the handles belong to the driver until they have ended."""
        self._inbox.extend(handles)
        self._wake()

    def withdraw(self, handles: Sequence[pycurl.Curl]) -> None:
        """Take requests back that have not ended; they end as failed with :data:`WITHDRAWN`."""
        self._inbox.append(partial(self._take_back, handles))
        self._wake()

    def look(self, handle: pycurl.Curl) -> None:
        """Find out whether a request is on the wire; if it is, ``has_sent`` becomes true."""
        self._inbox.append(partial(self._look, handle))
        self._wake()

    def ended(self) -> Ended | None:
        """Return what ended next, or None for now."""
        return self._ended.popleft() if self._ended else None

    def close(self) -> None:
        """Let the thread close the connection and end; returns at once."""
        self._inbox.append(self._stop)
        self._wake()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def open_socket(
        self, witness: Witness, _purpose: int, address: _Address
    ) -> socket.socket | int:
        """Give libcurl its socket, but never one for a second connection."""
        if self._has_answered or any(_has_peer(each) for each in self._sockets):
            witness.is_second = True
            witness.is_refused |= any(_is_open(each) for each in self._sockets)
            return int(pycurl.SOCKET_BAD)
        try:
            opened = socket.socket(address.family, address.socktype, address.protocol)
        except OSError:
            return int(pycurl.SOCKET_BAD)
        self._sockets.append(opened)
        return opened

    def _wake(self) -> None:
        if self._is_asleep:
            self._is_asleep = False
            with contextlib.suppress(OSError):  # it is awake, or over
                self._rope.send(b"\0")

    def _tell_in_loop(self) -> None:
        self._is_told = False
        self._tell()

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        except Exception as error:  # noqa: BLE001 - what waits for an end must hear of it
            self.error = error
            self._post()
        finally:
            self._multi.close()
            self._selector.close()
            for each in (*self._sockets, self._bell, self._rope):
                each.close()

    def _turn(self) -> None:
        """Put a round on the wire, wait for something to do, do it, and tell what ended."""
        fed = self._feed()
        self._wait()
        self._collect()
        self.acted_on += fed
        if self._has_news:
            self._post()

    def _feed(self) -> int:
        fed = 0
        inbox, add = self._inbox, self._multi.add_handle
        while inbox and fed < _ROUND:
            given = inbox.popleft()
            if type(given) is pycurl.Curl:
                add(given)
                fed += 1
            else:
                given()
        if fed:
            self._held += fed
            self._act()
            self._collect()
        return fed

    def _cork(self, is_on: int) -> None:
        if _TCP_CORK is not None and self._has_answered:
            for each in self._sockets:
                each.setsockopt(socket.IPPROTO_TCP, _TCP_CORK, is_on)

    def _wait(self) -> None:
        """Wait for the socket, a timer of libcurl or something to send, and let libcurl work."""
        self._set_threshold()
        seconds = self._patience()
        self._is_asleep = True
        is_busy = self._inbox or self._has_news or self._is_stopping
        ready = self._selector.select(0 if is_busy else seconds)
        self._is_asleep = False
        is_idle = True
        for key, events in ready:
            if key.fileobj is self._bell:
                self._bell.recv(64)
            else:
                is_idle = False
                self._act_on(key.fd, events)
        if is_idle:
            self._act_on_time()

    def _patience(self) -> float:
        milliseconds = self._multi.timeout()
        seconds = _LOOK_SECONDS if milliseconds < 0 else min(_LOOK_SECONDS, milliseconds / 1000)
        if self._threshold == 1:
            return seconds
        return min(seconds, max(0.0, self._read_at + _REST_SECONDS - time.monotonic()))

    def _act(self, fd: int = pycurl.SOCKET_TIMEOUT, what: int = 0) -> None:
        """Let libcurl work, and the kernel send what it wrote in one go.

        A round of requests costs a quarter less CPU so. And when libcurl leaves a connection after
        GOAWAY, its farewell waits until each refused request was seen to find TCP still open.
        """
        self._cork(1)
        self._multi.socket_action(fd, what)
        for _ in range(_AT_ONCE):
            if self._multi.timeout() != 0:
                break
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._cork(0)

    def _act_on(self, fd: int, events: int) -> None:
        what = 0
        if events & selectors.EVENT_READ:
            what |= pycurl.CSELECT_IN
            self._read_at = time.monotonic()
        if events & selectors.EVENT_WRITE:
            what |= pycurl.CSELECT_OUT
        self._act(fd, what)

    def _act_on_time(self) -> None:
        """Read what has rested long enough, and let libcurl look after its timers."""
        is_rested = self._threshold > 1 and time.monotonic() >= self._read_at + _REST_SECONDS
        if is_rested and self._reading:
            for fd in tuple(self._reading):
                self._act_on(fd, selectors.EVENT_READ)
        elif self._multi.timeout() == 0:
            self._act()
        elif self._loop.is_closed():
            self._is_stopping = True

    def _set_threshold(self) -> None:
        """Have the kernel wake us for half of the answers, where many are in flight."""
        wanted = self._held * _ANSWER_BYTES // 2 if self._held > _FEW else 1
        if self._threshold // 2 < wanted <= self._threshold * 2:
            return
        self._threshold = wanted
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wanted)

    def _on_socket(self, what: int, fd: int, _multi: object, _data: object) -> None:
        events = 0
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            events |= selectors.EVENT_READ
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            events |= selectors.EVENT_WRITE
        (self._reading.add if events & selectors.EVENT_READ else self._reading.discard)(fd)
        if fd in self._selector.get_map():
            self._selector.unregister(fd)
        if events:
            self._selector.register(fd, events)

    # -- what has ended --------------------------------------------------------------------------

    def _collect(self) -> None:
        waiting = 1
        while waiting:
            waiting, answered, failed = self._multi.info_read()
            if answered and not self._has_answered:
                self._first_answer(answered[0])
            for easy in answered:
                self._multi.remove_handle(easy)
            for easy, _, _ in failed:
                self._multi.remove_handle(easy)
            self._note(answered, failed)

    def _note(self, answered: Sequence[pycurl.Curl], failed: Sequence[Failed]) -> None:
        self._held -= len(answered) + len(failed)
        most = self._most
        if any(code == pycurl.E_COULDNT_CONNECT for _, code, _ in failed):
            self._most = self._held
        else:
            self._most = max(most, self._held)
        if answered or failed:
            self._ended.append(Ended(answered, failed, self._held, most))
            self._has_news = True

    def _first_answer(self, easy: pycurl.Curl) -> None:
        self._has_answered = True
        port = easy.getinfo(pycurl.LOCAL_PORT)
        # Of the addresses that were tried at the same time, only one carries the connection.
        for each in [each for each in self._sockets if _local_port(each) != port]:
            self._sockets.remove(each)
            each.close()

    def _take_back(self, handles: Sequence[pycurl.Curl]) -> None:
        held = [easy for easy in handles if easy in self._multi]
        for easy in held:
            self._multi.remove_handle(easy)
        self._note([], [(easy, WITHDRAWN, "") for easy in held])

    def _look(self, handle: pycurl.Curl) -> None:
        if handle in self._multi and handle.getinfo(pycurl.REQUEST_SIZE) > 0:
            self.has_sent = True
            self._post()

    def _stop(self) -> None:
        self._is_stopping = True

    def _post(self) -> None:
        self._has_news = False
        if self._is_told:
            return
        self._is_told = True
        try:
            self._loop.call_soon_threadsafe(self._tell_in_loop)
        except RuntimeError:  # the loop is closed: there is nobody to tell
            self._is_stopping = True


def _has_peer(opened: socket.socket) -> bool:
    """Return whether TCP is connected and was not reset."""
    try:
        opened.getpeername()
    except OSError:
        return False
    return True


def _is_open(opened: socket.socket) -> bool:
    """Return whether the other side has neither ended nor reset the connection, as far as read."""
    try:
        return opened.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def _local_port(opened: socket.socket) -> int | None:
    try:
        return int(opened.getsockname()[1])
    except OSError:
        return None
