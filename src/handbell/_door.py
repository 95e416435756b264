"""The one thread in which the asynchronous core runs for callers that are not asynchronous."""

import asyncio
import atexit
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

T = TypeVar("T")

_CLOSE_SECONDS: Final = 10


class _Inline(ThreadPoolExecutor):
    """Runs work where it is handed in: when the interpreter ends, no pool takes any more."""

    def submit(self, work: Callable[..., T], /, *arguments: Any, **named: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(work(*arguments, **named))
        except BaseException as error:  # noqa: BLE001 - it is raised to whoever waits
            done.set_exception(error)
        return done


class Door:
    """An event loop in a thread of its own, opened when first needed and shut at exit."""

    def __init__(self) -> None:
        self._loop = new_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, name="handbell", daemon=True)
        self._thread.start()

    @property
    def is_usable(self) -> bool:
        """Whether its thread lives in this process; a fork leaves it behind."""
        return self._pid == os.getpid() and self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the thread and return what it returns, or raise what it raises.

        Interrupted from the keyboard, the work is cancelled before the interruption goes on.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def shut(self) -> None:
        """Close what the core holds open, then end the thread."""
        if not self.is_usable:
            return
        from .system import close_shared  # noqa: PLC0415 - loaded only by those who sent

        self._loop.call_soon_threadsafe(self._loop.set_default_executor, _Inline(1))
        closing = asyncio.run_coroutine_threadsafe(close_shared(), self._loop)
        try:
            closing.result(_CLOSE_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()


_lock: Final = threading.Lock()
_opened: list[Door] = []


def door() -> Door:
    """Return this process's door, opened when first asked for."""
    with _lock:
        if not _opened or not _opened[-1].is_usable:
            _opened[:] = [Door()]
        return _opened[-1]


@atexit.register
def _shut_at_exit() -> None:
    for opened in _opened:
        opened.shut()


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the fastest event loop that is installed."""
    try:
        import uvloop  # noqa: PLC0415 - an extra, and only this thread wants it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
