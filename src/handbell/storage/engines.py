"""One engine per database and process, shared by all users of that database.

SQLite's locks belong to the process and the file: closing any descriptor of the file drops them
all, and a fork does not inherit them. So only SQLite opens an existing database file, its users
share one engine, and all connections are closed before a fork; parent and child open their own
afterwards. See docs/decisions/0015-the-database-file-has-one-owner.md.
"""

import contextlib
import errno
import os
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from handbell.errors import StorageError

from .dialects import is_sqlite
from .postgresql_signals import PostgresSignals
from .signals import LocalSignals, Signals

FORK_SECONDS: Final = 5.0
"""How long a fork waits for other threads that use a database."""

Identity = tuple[object, ...]
"""The key that identifies a database."""


class SharedEngine:
    """The engine of one database. ``turn`` serializes writers where the database needs it.

    ``is_writing`` says that the holder of the turn has SQLite's lock and is not waiting for it.
    ``signals`` notify its users of writes, by this and other processes.

    ``path`` is the file under its first known name, None for a database server. Each use is
    between :meth:`enter` and :meth:`leave`. Connections stay open as long as there are users; a
    caller that is not one gets a connection for one use.
    """

    def __init__(
        self, engine: Engine, identity: Identity, path: str | None, signals: Signals
    ) -> None:
        self.engine = engine
        self.signals = signals
        self.turn = threading.Lock()
        self.is_writing = False
        self._identity = identity
        self._path = path
        self._users = 0
        self._gate = threading.Condition()
        self._inside: dict[int, int] = {}
        self._is_forking = False
        self._was_torn = False

    def join(self) -> None:
        """Add a user."""
        with self._gate:
            self._users += 1

    def part(self) -> None:
        """Remove a user; close all connections after the last one."""
        with self._gate:
            self._users -= 1
            is_left = self._users > 0
        if not is_left:
            self.signals.close()
            self.engine.pool.dispose()

    def enter(self) -> int:
        """Begin a use of connections; return the argument for :meth:`leave`.

        Raises StorageError where the file is no longer the one that was opened, or the process was
        forked while it was in use.
        """
        me = threading.get_ident()
        with self._gate:
            while self._is_forking and me not in self._inside:
                self._gate.wait()
            if self._was_torn:
                raise StorageError(
                    f"This process was forked while its parent worked in {self._path or 'it'}, "
                    "so it cannot use this database",
                    fix="Fork while nothing is sent, or start processes by spawn or forkserver",
                )
            self._inside[me] = self._inside.get(me, 0) + 1
        try:
            self.check()
        except BaseException:
            self.leave(me)
            raise
        return me

    def leave(self, thread: int) -> None:
        """End a use, after its connections were returned."""
        with self._gate:
            uses = self._inside.pop(thread, 0)
            if uses > 1:
                self._inside[thread] = uses - 1
            elif self._is_forking:
                self._gate.notify_all()
            is_left = self._users > 0
        if not is_left:
            # Or another thread's last close() could miss the connection.
            self.engine.pool.dispose()

    @property
    def is_of_use(self) -> bool:
        """Return whether it has users, or its file is still in place."""
        return self._users > 0 or self._is_in_place

    @property
    def _is_in_place(self) -> bool:
        return self._path is None or _number_of(self._path) == self._identity[1]

    def check(self) -> None:
        """Raise StorageError when the file in use was removed or replaced.

        Writes to an unlinked file are lost.
        """
        if not self._is_in_place:
            raise StorageError(
                f"The database {self._path} was moved, removed or replaced while it is in use",
                fix="Put it back; or stop all processes of Handbell, and start them again",
            )

    def is_made_of(self, number: tuple[int, int] | None, name: str) -> bool:
        """Return whether a file is the database or one of SQLite's files next to it."""
        if self._path is None:
            return False
        return number == self._identity[1] or name in (f"{self._path}-wal", f"{self._path}-shm")

    # A fork

    def rest(self, deadline: float) -> None:
        """Block new uses and close every connection; return at the deadline at the latest.

        The threads' own lock stays held until :meth:`go_on` or :meth:`begin_anew`.
        """
        me = threading.get_ident()
        self._gate.acquire()
        self._is_forking = True
        while any(thread != me for thread in self._inside) and time.monotonic() < deadline:
            self._gate.wait(max(0.0, deadline - time.monotonic()))
        self.engine.pool.dispose()

    def go_on(self) -> None:
        """Resume in the parent process after a fork."""
        self._is_forking = False
        self._gate.notify_all()
        self._gate.release()

    def begin_anew(self) -> None:
        """Start anew in the child process, which has none of the other threads."""
        self._was_torn = self._was_torn or bool(self._inside)
        # A fork from C calls this alone. SQLite has to forget what it inherited; a socket to a
        # server belongs to the parent too, and closing it would end the parent's session.
        is_file = is_sqlite(self.engine)
        self.engine.dispose(close=is_file and not self._inside)
        self.signals.close()
        self._inside = {}
        self._is_forking = False
        self._gate = threading.Condition()
        self.turn = threading.Lock()
        self.is_writing = False


# The garbage collector may run anywhere, and finalizers take the lock again.
_lock = threading.RLock()
_shared: Final["weakref.WeakValueDictionary[Identity, SharedEngine]"] = (
    weakref.WeakValueDictionary()
)
_resting: Final[list[SharedEngine]] = []


def share_file(
    path: Path, url: URL, make: Callable[[URL], Engine], *, is_named: bool = True, **unlike: Any
) -> SharedEngine:
    """Return the engine of a file; create it when this process has none.

    ``path`` has its links resolved: SQLite names its journals after what they point to. Without
    ``is_named``, only SQLite knows which file a URI means. Uses that differ in ``unlike`` share no
    engine. A new file is private; raises OSError where it cannot be created.
    """
    with _lock:
        if not is_named:
            return _known(("uri", str(url), *unlike.values()), url, make, None)
        name = str(path)
        number = _number_of(name) or _make(name)
        identity = ("file", number, url.drivername, str(url.query), *unlike.values())
        return _known(identity, url.set(database=name), make, name)


def share_server(url: URL, make: Callable[[URL], Engine], *, signals_url: URL) -> SharedEngine:
    """Return the engine of a database server; create it when this process has none."""
    with _lock:
        return _known(("server", url, signals_url), url, make, None, signals_url)


def _known(
    identity: Identity,
    url: URL,
    make: Callable[[URL], Engine],
    path: str | None,
    signals_url: URL | None = None,
) -> SharedEngine:
    shared = _shared.get(identity)
    if shared is None or not shared.is_of_use:
        engine = make(url)
        signals = LocalSignals() if signals_url is None else PostgresSignals(engine, signals_url)
        shared = _shared[identity] = SharedEngine(engine, identity, path, signals)
    return shared


def refuse_ours(path: Path) -> None:
    """Raise OSError for a database file of this process, which only SQLite may open."""
    number, name = _number_of(str(path)), os.path.realpath(path)
    with _lock:
        if any(shared.is_made_of(number, name) for shared in _shared.values()):
            raise OSError(errno.EBUSY, "it is a database that is in use here", str(path))


def _number_of(path: str) -> tuple[int, int] | None:
    """Return device and inode of a file, None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - at each use; a Path takes twice the time
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _make(path: str) -> tuple[int, int] | None:
    # SQLite gives its journal files the mode of the database; both hold mails and tokens. No other
    # descriptor of the new file exists when it is closed, since this process holds the lock above.
    with contextlib.suppress(FileExistsError):  # another process was faster
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o600))
    return _number_of(path)


def _before_fork() -> None:
    _lock.acquire()
    deadline = time.monotonic() + FORK_SECONDS
    for shared in list(_shared.values()):
        shared.rest(deadline)
        _resting.append(shared)


def _after_fork_in_parent() -> None:
    for shared in _resting:
        shared.go_on()
    _resting.clear()
    _lock.release()


def _after_fork_in_child() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _lock = threading.RLock()
    for shared in list(_shared.values()):
        shared.begin_anew()
    _resting.clear()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
