"""Threads for calls that block: of the database, of resolvers, of other people's servers.

Not the pools of :mod:`concurrent.futures`: Python joins their threads when a program ends, however
slow what they are at, and refuses them work before the last of us has been told that it ends.
"""

import asyncio
import concurrent.futures.thread  # noqa: F401 - Python does not let it be loaded when a program ends
import contextlib
import os
import queue
import socket
import threading
import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

MOST_THREADS: Final = 16
MOST_RESOLVERS: Final = 4
_IDLE_SECONDS: Final = 20.0


class Threads:
    """At most so many daemon threads, started when needed and ended when idle.

    Nobody waits for them when the program ends. Where no thread can be started any more, and none
    is there, work is done where it is handed in. A forked process starts with none.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._unfinished = 0

    async def run(self, what: Callable[..., T], *arguments: Any) -> T:
        """Call it in a thread and return what it returns, or raise what it raises.

        Cancelled, it is not begun any more; what has begun goes on, and nobody hears of it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if not future.cancelled():
                _carry_out(loop, future, what, arguments)

        self.submit(work)
        return await future

    def submit(self, work: Callable[[], None]) -> None:
        """Do it in a thread, after what was handed in before; it must not raise."""
        with self._lock:
            self._unfinished += 1
            self._jobs.put(work)
            if self._unfinished > self._threads and self._threads < self._most:
                self._start()
            if self._threads:
                return
            work = self._jobs.get()
            self._unfinished -= 1
        work()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        # Python starts none while the program ends, and none beyond the system's limit.
        with contextlib.suppress(RuntimeError):
            thread.start()
            self._threads += 1

    def _serve(self) -> None:
        while True:
            try:
                self._jobs.get(timeout=_IDLE_SECONDS)()
            except queue.Empty:
                with self._lock:
                    if self._jobs.empty():
                        self._threads -= 1
                        return
            else:
                with self._lock:
                    self._unfinished -= 1


def _carry_out(
    loop: asyncio.AbstractEventLoop,
    future: "asyncio.Future[T]",
    what: Callable[..., T],
    arguments: tuple[Any, ...],
) -> None:
    try:
        told = partial(_finish, future, what(*arguments))
    except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits
        told = partial(_fail, future, error)
    # The loop may be closed by now; then nobody waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(told)


def _finish(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


_all: Final["weakref.WeakSet[Threads]"] = weakref.WeakSet()


def _reset_all() -> None:
    for threads in list(_all):
        threads._reset()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_reset_all)

# Made when first needed: gevent and eventlet may have replaced what they are made of by then.
_blocking: Final = cache(partial(Threads, MOST_THREADS, "handbell-blocking"))
_resolving: Final = cache(partial(Threads, MOST_RESOLVERS, "handbell-resolver"))


async def in_thread(what: Callable[..., T], *arguments: Any) -> T:
    """Call something that blocks, in one of the few threads that the whole process shares."""
    return await _blocking().run(what, *arguments)


async def resolve(host: Any, port: Any, **how: int) -> list[tuple[Any, ...]]:
    """Return what :func:`socket.getaddrinfo` does. It may take long, and holds up nothing else."""
    return await _resolving().run(partial(socket.getaddrinfo, host, port, **how))
