"""The one thread in which the asynchronous core runs for callers that are not asynchronous."""

import _thread
import asyncio
import atexit
import contextlib
import os
import select
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from types import BuiltinFunctionType
from typing import Any, Final, NoReturn, TypeVar

from ._threads import resolve
from .errors import DeadlockError, SettingsError, StoppedError

T = TypeVar("T")

EXIT_SECONDS: Final = 1.0
"""How long the end of a program waits for what is on its way; then it is handed back."""

_PATIENCE_SECONDS: Final = 1.0
"""How much longer it waits for the hand-over, which a database or a hook may hold up."""
_WIND_UP_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.5


class Portal:
    """An event loop in a thread of its own, opened when first needed and shut at exit."""

    def __init__(self) -> None:
        self._loop = new_loop()
        self._pid = os.getpid()
        self._is_shut = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="handbell", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise _too_late() from None

    @property
    def is_usable(self) -> bool:
        """Whether its thread lives in this process; a fork leaves it behind."""
        return self._pid == os.getpid() and self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether this is its thread, in which nobody may wait for it."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the thread and return what it returns, or raise what it raises.

        Interrupted from the keyboard, the work is cancelled before the interruption goes on. Raises
        DeadlockError within that thread itself, and StoppedError once the program ends.
        """
        if self.is_here:
            work.close()
            raise DeadlockError(
                "This call was made in the thread that has to answer it, by a hook for example",
                fix="Hand it to a thread of your own, or await AsyncPushNotification in a task",
            )
        if self._is_shut:
            work.close()
            _refuse()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            # A signal that comes while the thread falls asleep is noticed when it wakes next.
            while not future.done():
                with contextlib.suppress(TimeoutError, CancelledError):
                    future.exception(_LOOK_SECONDS)
            return future.result()
        except BaseException:
            future.cancel()
            if self._is_shut:
                _park()
            raise

    def shut(self) -> None:
        """Close what the core holds open and hand back what it has not sent, then end the thread.

        Bounded in time, and silent whatever happens: nobody is left who could do anything.
        """
        self._is_shut = True
        if not self.is_usable:
            return
        try:
            self._loop.set_exception_handler(tell_nobody)
            # No coroutine is made here: one that never begins would be told on standard error.
            self._loop.call_soon_threadsafe(self._wind_up)
            if self._ended.wait(EXIT_SECONDS + _PATIENCE_SECONDS):
                self._thread.join(_WIND_UP_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()
        except KeyboardInterrupt:
            pass  # whoever interrupts this does not want to wait

    def leave_behind(self) -> None:
        """Stop in a forked process, in which threads that gevent has replaced go on.

        The parent is at the same work, on the same sockets.
        """
        self._ended.set()
        if isinstance(self._loop, asyncio.BaseEventLoop):
            self._loop.stop()

    def _serve(self) -> None:
        # A hook that calls sys.exit() breaks the loop, and others wait for what runs in it.
        while not self._ended.is_set():
            with contextlib.suppress(BaseException):
                self._loop.run_forever()

    def _wind_up(self) -> None:
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        for close in _closing:
            with contextlib.suppress(Exception):
                await close()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_WIND_UP_SECONDS)
        # What is closed with its event loop, as the connections to a send server are.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_WIND_UP_SECONDS):
                await self._loop.shutdown_asyncgens()
        self._ended.set()
        self._loop.stop()


def tell_nobody(_loop: asyncio.AbstractEventLoop, _what: dict[str, Any]) -> None:
    """Tell nobody of a mistake."""


def _refuse() -> NoReturn:
    _park()
    raise _too_late()


def _park() -> None:
    """Keep a daemon thread from going on while the program ends.

    It ends with the program in any case; an error raised in it would only be printed.
    """
    if threading.current_thread().daemon:
        threading.Event().wait()


def _too_late() -> StoppedError:
    return StoppedError(
        "The program ends, so nothing can be sent any more",
        fix="Send before that: not in a callback of atexit",
    )


_lock = threading.Lock()
_opened: Final[list[Portal]] = []
_closing: Final[list[Callable[[], Awaitable[None]]]] = []
_silencing: Final[list[Callable[[], None]]] = []
_left_behind: Final[list[Portal]] = []
_is_over = False


def portal() -> Portal:
    """Return this process's portal, opened when first asked for.

    Raises StoppedError once the program ends, where there is none yet.
    """
    with _lock:
        if not _opened or not _opened[-1].is_usable:
            if _is_over or _is_at_exit():
                _refuse()
            # A parent's loop must not be closed here: it shares what it waits for with us.
            _left_behind.extend(_opened)
            _opened[:] = [Portal()]
            _shut_with_worker()
        return _opened[-1]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do as :meth:`Portal.run` of this process's portal."""
    return _portal_for(work).run(work)


def ask(work: Coroutine[Any, Any, T]) -> T:
    """Do as :meth:`Portal.run`, for a question that needs nothing of what the portal is about.

    A hook may ask one: in the portal's thread it runs in an event loop and a thread of its own.
    """
    here = _portal_for(work)
    return _run_aside(work) if here.is_here else here.run(work)


def _portal_for(work: Coroutine[Any, Any, T]) -> Portal:
    try:
        return portal()
    except BaseException:
        # What never begins would be told on standard error.
        work.close()
        raise


def _run_aside(work: Coroutine[Any, Any, T]) -> T:
    future: Future[T] = Future()

    def serve() -> None:
        try:
            future.set_result(asyncio.run(work))
        except BaseException as error:  # noqa: BLE001 - it is raised where somebody waits
            future.set_exception(error)

    try:
        threading.Thread(target=serve, name="handbell-aside", daemon=True).start()
    except RuntimeError:
        work.close()
        raise _too_late() from None
    return future.result()


def at_end(close: Callable[[], Awaitable[None]], silence: Callable[[], None]) -> None:
    """Have ``close`` awaited in a portal's loop before that ends, ``silence`` called at exit."""
    _closing.append(close)
    _silencing.append(silence)


def _is_at_exit() -> bool:
    """Return whether this is a callback of atexit: the main thread goes on after its end."""
    main = threading.main_thread()
    return threading.current_thread() is main and not main.is_alive()


@atexit.register
def _shut_at_exit() -> None:
    global _is_over  # noqa: PLW0603 - a program ends once
    _is_over = True
    for opened in _opened:
        opened.shut()
    for silence in _silencing:
        silence()


def _shut_with_worker() -> None:
    """Shut at the end of a process that multiprocessing started: it calls no atexit callbacks.

    Celery's processes are made by billiard, a copy of it.
    """
    for name in ("multiprocessing", "billiard"):
        process, util = (sys.modules.get(f"{name}.{part}") for part in ("process", "util"))
        if process is None or util is None:
            continue
        # The process that was started first has no parent; the name is as private in either.
        if getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, _shut_in_worker, exitpriority=0)


def _shut_in_worker() -> None:
    # Its threads are waited for after this, and may still send. What they leave is found by others.
    others = set(threading.enumerate()) - {threading.main_thread(), threading.current_thread()}
    if all(thread.daemon for thread in others):
        _shut_at_exit()


def _begin_anew() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.Lock()
    for opened in _opened:
        opened.leave_behind()


os.register_at_fork(after_in_child=_begin_anew)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return the fastest event loop that is installed and works here."""
    if _are_threads_patched():
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - an extra, and only this thread wants it
    except ImportError:
        return asyncio.new_event_loop()

    class Loop(uvloop.Loop):
        """Resolves in threads of ours: whoever is forked after those of libuv crashes at its end.

        Connecting resolves as well, numeric addresses among them.
        """

        async def getaddrinfo(self, host: Any, port: Any, **how: int) -> Any:
            return await resolve(host, port, **how)

    return Loop()


def _are_threads_patched() -> bool:
    """Return whether gevent or eventlet makes all threads share one.

    uvloop waits where they cannot let others go on; Python's own loop waits in what they replaced.
    Raises SettingsError where they have not replaced that: an event loop would hold up all.
    """
    if _is_pythons_own(_thread.start_new_thread):
        return False
    if _is_pythons_own(select.select):
        raise SettingsError(
            "Threads are replaced by gevent or eventlet here, and select is not",
            fix="Replace both, as gevent.monkey.patch_all() does",
        )
    return True


def _is_pythons_own(what: Callable[..., Any]) -> bool:
    return isinstance(what, BuiltinFunctionType)
