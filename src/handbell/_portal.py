"""The thread that runs the asynchronous core for synchronous callers."""

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

from ._thread_pool import resolve
from .errors import DeadlockError, SettingsError, StoppedError

T = TypeVar("T")

EXIT_SECONDS: Final = 1.0
"""How long the end of a program waits for what is on its way; then it is handed back."""

_PATIENCE_SECONDS: Final = 1.0
"""How much longer it waits for the hand-over, which a database or a hook may hold up."""
_WIND_UP_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.5


class Portal:
    """An event loop in a thread, opened on first use and shut down at exit."""

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
        """Return whether its thread runs in this process; a fork leaves it behind."""
        return self._pid == os.getpid() and self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether this is its thread, in which nobody may wait for it."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine in the thread; return its result or raise its error.

        A KeyboardInterrupt cancels the work first. Raises DeadlockError when called in that
        thread, and StoppedError at exit.
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
            # A signal that arrives while the thread goes to sleep is noticed at its next wake-up.
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
        """Close the core, give unsent deliveries back, then end the thread.

        Bounded in time, and silent on errors: nobody could react to them.
        """
        self._is_shut = True
        if not self.is_usable:
            return
        try:
            self._loop.set_exception_handler(ignore_loop_error)
            # No coroutine is created here: one that never begins would warn on standard error.
            self._loop.call_soon_threadsafe(self._wind_up)
            if self._ended.wait(EXIT_SECONDS + _PATIENCE_SECONDS):
                self._thread.join(_WIND_UP_SECONDS)
            if not self._thread.is_alive():
                self._loop.close()
        except KeyboardInterrupt:
            pass  # the user who interrupts this does not want to wait

    def leave_behind(self) -> None:
        """Stop in a forked process, in which gevent's threads continue.

        The parent does the same work on the same sockets.
        """
        self._ended.set()
        if isinstance(self._loop, asyncio.BaseEventLoop):
            self._loop.stop()

    def _serve(self) -> None:
        # A hook that calls sys.exit() breaks the loop while others wait for their results.
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
        # Closed with their event loop, such as the connections to a send server.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_WIND_UP_SECONDS):
                await self._loop.shutdown_asyncgens()
        self._ended.set()
        self._loop.stop()


def ignore_loop_error(_loop: asyncio.AbstractEventLoop, _what: dict[str, Any]) -> None:
    """Ignore a loop's error."""


def _refuse() -> NoReturn:
    _park()
    raise _too_late()


def _park() -> None:
    """Block a daemon thread while the program exits.

    It ends with the program anyway; an error in it would only be printed.
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
    """Return this process's portal; open it on first use.

    Raises StoppedError at exit if there is none yet.
    """
    with _lock:
        if not _opened or not _opened[-1].is_usable:
            if _is_over or _is_at_exit():
                _refuse()
            # The parent's loop must not be closed here: it shares its selector with us.
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
    """Register ``close``, awaited as the portal's loop ends, and ``silence``, called at exit."""
    _closing.append(close)
    _silencing.append(silence)


def _is_at_exit() -> bool:
    """Return whether this is an atexit callback: the main thread continues after its end."""
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
    """Shut down at the end of a multiprocessing child, which runs no atexit callbacks.

    Celery's processes come from billiard, a fork of it.
    """
    for name in ("multiprocessing", "billiard"):
        process, util = (sys.modules.get(f"{name}.{part}") for part in ("process", "util"))
        if process is None or util is None:
            continue
        # The first process has no parent; the name is private in both modules.
        if getattr(process.current_process(), "_parent_pid", None) is not None:
            util.Finalize(None, _shut_in_worker, exitpriority=0)


def _shut_in_worker() -> None:
    # Its threads are joined after this and may still send. Other hooks find what they leave.
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
    """Return the fastest installed event loop that works here."""
    if _are_threads_patched():
        return asyncio.new_event_loop()
    try:
        import uvloop  # noqa: PLC0415 - an extra, and only this thread wants it
    except ImportError:
        return asyncio.new_event_loop()

    class Loop(uvloop.Loop):
        """Resolves names in our threads: a process forked after libuv's crashes at exit.

        Connecting resolves too, even numeric addresses.
        """

        async def getaddrinfo(self, host: Any, port: Any, **options: int) -> Any:
            return await resolve(host, port, **options)

    return Loop()


def _are_threads_patched() -> bool:
    """Return whether gevent or eventlet has patched threads.

    uvloop blocks where they cannot switch; Python's loop uses what they patched. Raises
    SettingsError if they have not patched that: an event loop would block everything.
    """
    if _is_pythons_own(_thread.start_new_thread):
        return False
    if _is_pythons_own(select.select):
        raise SettingsError(
            "Threads are replaced by gevent or eventlet here, and select is not",
            fix="Replace both, as gevent.monkey.patch_all() does",
        )
    return True


def _is_pythons_own(function: Callable[..., Any]) -> bool:
    return isinstance(function, BuiltinFunctionType)
