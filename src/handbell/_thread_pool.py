"""Daemon threads for blocking calls: database, name resolution, other servers.

Not the pools of :mod:`concurrent.futures`: Python joins their threads at exit, however slow their
work, and refuses new work while parts of the program still shut down.
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


class ThreadPool:
    """A pool of daemon threads, started when needed and ended when idle.

    They are not joined at exit. When no thread exists or can be started, work runs in the caller.
    A forked process starts with none.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        self._max_threads = max_threads
        self._name = name
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._threads = 0
        self._unfinished = 0

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call a function in a thread; return its result or raise its error.

        Cancelled before it begins, it is not called; once begun it finishes, and its result is
        dropped.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            if not future.cancelled():
                _carry_out(loop, future, function, arguments)

        self.submit(work)
        return await future

    def submit(self, work: Callable[[], None]) -> None:
        """Run work in a thread, in the order of submission; it must not raise."""
        with self._lock:
            self._unfinished += 1
            self._jobs.put(work)
            if self._unfinished > self._threads and self._threads < self._max_threads:
                self._start()
            if self._threads:
                return
            work = self._jobs.get()
            self._unfinished -= 1
        work()

    def _start(self) -> None:
        thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
        # Python starts no thread at exit, and none beyond the system's limit.
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
    function: Callable[..., T],
    arguments: tuple[Any, ...],
) -> None:
    try:
        deliver = partial(_finish, future, function(*arguments))
    except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits
        deliver = partial(_fail, future, error)
    # The loop may be closed by now; then nobody waits.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(deliver)


def _finish(future: "asyncio.Future[Any]", result: object) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)


_all: Final["weakref.WeakSet[ThreadPool]"] = weakref.WeakSet()


def _reset_all() -> None:
    for threads in list(_all):
        threads._reset()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_reset_all)

# Created on first use: gevent and eventlet may have patched its parts by then.
_blocking: Final = cache(partial(ThreadPool, MOST_THREADS, "handbell-blocking"))
_resolving: Final = cache(partial(ThreadPool, MOST_RESOLVERS, "handbell-resolver"))
_resolving_theirs: Final = cache(partial(ThreadPool, MOST_RESOLVERS, "handbell-their-resolver"))


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking call in one of the few threads that the process shares."""
    return await _blocking().run(function, *arguments)


async def resolve(host: Any, port: Any, **options: int) -> list[tuple[Any, ...]]:
    """Return what :func:`socket.getaddrinfo` does, without blocking other calls."""
    return await _resolving().run(partial(socket.getaddrinfo, host, port, **options))


async def resolve_theirs(host: Any, port: Any, **options: int) -> list[tuple[Any, ...]]:
    """Return what :func:`resolve` does, for a host that somebody else chose.

    Such hosts have threads of their own: their name servers may be as slow as they like.
    """
    return await _resolving_theirs().run(partial(socket.getaddrinfo, host, port, **options))
