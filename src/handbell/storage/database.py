"""The one database: open it, read it, write it, bring its schema up to date.

SQLite is the default and needs no server; docs/decisions/0002-sqlite-first.md says what settings
it uses and why. The stores use portable SQLAlchemy Core only.
"""

import logging
import sqlite3
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    NoSuchModuleError,
)

from handbell.errors import (
    DatabaseLockedError,
    HandbellError,
    SettingsError,
    StorageError,
)

from . import postgresql, sqlite
from .connections import Driver, Quick, driver_of
from .dialects import is_sqlite
from .engines import SharedEngine, share_file, share_server
from .folders import private_folder, storage_error
from .installation import check_open
from .migrations import NEEDED
from .migrations.backup import back_up
from .signals import Kind, Outbox, Signals
from .translation import Translator
from .upgrade import (
    Waiting,
    check_revision,
    is_enough,
    is_newest,
    plan_steps,
    read_revision,
    read_waiting,
    take_steps,
)

WAIT_SECONDS: Final = 5.0
"""How long a write waits for its turn before :class:`DatabaseLockedError`."""

_log = logging.getLogger(__name__)

_MIGRATION_LOCK: Final = 0x68616E6462656C6C
_LOCK_MILLISECONDS: Final = 5000


class Database:
    """A database, shared by threads; several processes may use the same one.

    ``url`` is an SQLAlchemy URL. Nothing is opened before the first use; :meth:`open` returns a
    database that is ready. ``wait`` is in seconds. ``signals_url`` is where signals of other
    processes are heard, if not at ``url``. An error inside :meth:`read` or :meth:`write`
    is raised as a :class:`~handbell.errors.StorageError`.
    """

    def __init__(self, url: str, *, wait: float = WAIT_SECONDS, signals_url: str = "") -> None:
        self._url = _understood(url)
        self._signals_url = _understood(signals_url) if signals_url else self._url
        self._wait = wait
        self._outbox = Outbox()
        _check_driver(self._url)

    @cached_property
    def _shared(self) -> SharedEngine:
        """Return this process's shared engine, with this database counted as a user of it."""
        shared = _share(self._url, self._wait, self._signals_url)
        shared.join()
        self._part = weakref.finalize(self, shared.part)
        # At exit the operating system closes them faster.
        self._part.atexit = False
        return shared

    @cached_property
    def _translator(self) -> Translator:
        return Translator(self.name, self.path, self._wait)

    @property
    def _engine(self) -> Engine:
        return self._shared.engine

    def __repr__(self) -> str:
        return f"Database({self.name!r})"

    @property
    def name(self) -> str:
        """Return the URL without its password and its driver, for messages."""
        url = self._url.set(drivername=self._url.get_backend_name())
        return url.render_as_string(hide_password=True)

    @cached_property
    def path(self) -> Path | None:
        """Return the file of an SQLite database, else None."""
        return sqlite.file_of(self._url)

    @property
    def kind(self) -> str:
        """Return ``sqlite`` or ``postgresql``."""
        return self._url.get_backend_name()

    @property
    def signals(self) -> Signals:
        """Return what tells this process of changes in the database."""
        return self._shared.signals

    def signal(self, kind: Kind, numbers: Collection[int] | None = None) -> None:
        """Tell other users of the database of what this thread writes, once it is committed.

        Call it within :meth:`write`. Those of one kind become one; without ``numbers``, or with
        many, it says to look at everything.
        """
        self._outbox.add(kind, numbers)

    @classmethod
    def open(
        cls,
        url: str,
        *,
        migrate: bool | None = None,
        even_closed: bool = False,
        wait: float = WAIT_SECONDS,
        signals_url: str = "",
    ) -> Self:
        """Return a database with the current schema; create it when it does not exist.

        ``migrate`` allows an older schema to be upgraded; None allows it for SQLite only, since a
        shared server is upgraded once, with ``handbell db upgrade``. Raises :class:`StorageError`
        when the schema is newer than this Handbell, is older and may not be migrated, or is not
        Handbell's; and, unless ``even_closed``, for one that is copied elsewhere, or to which a
        copy is not complete.
        """
        database = cls(url, wait=wait, signals_url=signals_url)
        try:
            database._prepare(allowed=database.path is not None if migrate is None else migrate)
            if not even_closed:
                with database.read() as connection:
                    check_open(connection, database.name)
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection with one consistent snapshot of the database."""
        with self._in_use(), self._engine.connect() as connection:
            if self.path is None:
                connection.execution_options(**postgresql.SNAPSHOT)
            with connection.begin():
                yield connection

    @contextmanager
    def write(self, *, is_lasting: bool = True, alone: str = "") -> Iterator[Connection]:
        """Yield a connection whose transaction is committed at the end, or rolled back on an error.

        Writers are serialized: do not nest them, and keep them short. What is committed survives a
        crash of the process and of the machine; unless it ``is_lasting``, only of the process, and
        nothing waits for the disk.

        A database server lets others write meanwhile: who judges by what was read before writing
        locks those rows, or names what it is about in ``alone``; of one name there is one
        transaction at a time.
        """
        with self._outbox.opened() as signals, self._writing():
            with self._engine.connect() as connection:
                if self.path is None:
                    with postgresql.committed(connection, self._engine):
                        if alone:
                            postgresql.wait_for_turn(connection, alone)
                        if not is_lasting:
                            connection.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")
                        yield connection
                else:
                    connection.execution_options(**{sqlite.WRITES: True})
                    with sqlite.waiting_for_disk(connection, is_lasting), connection.begin():
                        self._shared.is_writing = True
                        yield connection
            self.signals.send(signals())

    @contextmanager
    def quick_read(self) -> Iterator[Quick]:
        """Yield the driver's own connection, with what :meth:`read` promises.

        For hot paths: setting up SQLAlchemy's connection takes longer than the query. What runs on
        it is of :mod:`~handbell.storage.bulk` or :mod:`~handbell.storage.statements`.
        """
        with self._in_use(), self._driver(is_write=False) as driver:
            yield driver

    @contextmanager
    def quick_write(self) -> Iterator[Quick]:
        """Yield the driver's own connection, with what :meth:`write` promises."""
        with self._outbox.opened() as signals, self._writing():
            with self._driver(is_write=True) as driver:
                self._shared.is_writing = True
                yield driver
            self.signals.send(signals())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        turn = nullcontext() if self.path is None else self._turn()
        with turn, self._in_use():
            yield

    @contextmanager
    def _turn(self) -> Iterator[None]:
        # Waiting threads are woken in order here; SQLite would let them poll for its lock.
        shared = self._shared
        turn = shared.turn
        if not turn.acquire(timeout=self._wait):
            raise self._translator.busy() if shared.is_writing else self._translator.locked()
        try:
            yield
        finally:
            shared.is_writing = False
            turn.release()

    @contextmanager
    def _driver(self, *, is_write: bool) -> Iterator[Driver]:
        pooled = self._engine.raw_connection()
        driver: Any = pooled.driver_connection
        try:
            # The pool rolls back uncommitted work when the connection is returned.
            if isinstance(driver, sqlite3.Connection):
                driver.execute("BEGIN IMMEDIATE" if is_write else "BEGIN").close()
                yield driver
                driver.execute("COMMIT").close()
            else:
                with postgresql.transaction(pooled, self._engine, is_write=is_write):
                    yield driver
        finally:
            pooled.close()

    def revision(self) -> str | None:
        """Return the revision of the schema, or None when there is none yet."""
        with self.read() as connection:
            return read_revision(connection)

    def usable_revision(self) -> str:
        """Return the revision of the schema, or raise where this Handbell does not work on it."""
        with self.read() as connection:
            revision = check_revision(connection, self.name)
        if revision is None or not is_enough(revision):
            raise self._too_old(revision)
        return revision

    def waiting(self) -> Waiting | None:
        """Return the step of the schema that waits for nodes to be upgraded, if there is one."""
        with self.read() as connection:
            return read_waiting(connection)

    def migrate(self) -> bool:
        """Upgrade the schema as far as running nodes allow; return whether anything was done.

        Safe when several processes start at once: one migrates while the others wait. An SQLite
        database with data is copied first, to :meth:`backup_path`. Raises :class:`StorageError`
        where nodes that run keep it from what this Handbell needs.
        """
        with self._migrating() as connection:
            if not is_sqlite(connection):
                lock = text("SELECT pg_advisory_xact_lock(:lock)")
                connection.execute(lock, {"lock": _MIGRATION_LOCK})
                # Whoever sends waits behind a step that waits for a table.
                connection.execute(text(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}"))
            before = check_revision(connection, self.name)
            if before is None and is_sqlite(connection):
                sqlite.create_schema(connection)
                return True
            if before is None:
                postgresql.check_encoding(connection, self.name)
            steps = [] if is_newest(before) else plan_steps(connection)
            if steps:
                backup = None if before is None else self.backup_path(before)
                if backup is not None:
                    self._back_up(backup)
                take_steps(connection, steps)
        return bool(steps)

    def backup_path(self, revision: str) -> Path | None:
        """Return the path of the backup that is made of an SQLite database before a migration."""
        path = self.path
        return None if path is None else path.with_name(f"{path.name}.{revision}.backup")

    def _back_up(self, target: Path) -> None:
        # Uses a separate connection, which sees committed data only: the migration holds the write
        # lock and has written nothing yet.
        with self._engine.connect() as connection:
            source = driver_of(connection)
            assert isinstance(source, sqlite3.Connection)  # noqa: S101 - only SQLite's are copied
            try:
                back_up(source, target)
            except OSError as error:
                raise storage_error(error, target) from error
        _log.warning("Upgrading database schema: database=%s backup=%s", self.name, target)

    @contextmanager
    def _migrating(self) -> Iterator[Connection]:
        """Yield a write transaction in which foreign keys are checked only at the end."""
        if self.path is None:
            with self.write() as connection:
                yield connection
            return
        with self._turn(), self._in_use(), self._engine.connect() as connection:
            connection.execution_options(**{sqlite.WRITES: True})
            # A rebuilt table is dropped first, which must not cascade.
            sqlite.act_on_references(connection, is_on=False)
            try:
                with connection.begin():
                    self._shared.is_writing = True
                    yield connection
                    sqlite.check_references(connection)
            finally:
                sqlite.act_on_references(connection, is_on=True)

    def close(self) -> None:
        """Close all connections, those of other threads included, unless the database is shared.

        Connections in use are closed when they are returned. Later calls get a connection for one
        use. A database that is garbage-collected is closed too.
        """
        if "_shared" in self.__dict__:
            self._part()

    def _prepare(self, *, allowed: bool) -> None:
        if self.path is not None and not sqlite.is_uri(self._url):
            self._use_wal()
        with self.read() as connection:
            revision = check_revision(connection, self.name)
        if is_newest(revision) or (is_enough(revision) and not allowed):
            return
        if not allowed:
            raise self._too_old(revision)
        self.migrate()

    def _too_old(self, revision: str | None) -> StorageError:
        return StorageError(
            f"The schema of {self.name} is at {revision or 'nothing'}, but {NEEDED} is needed",
            fix="Run: handbell db upgrade",
        )

    def _use_wal(self) -> None:
        # SQLite fails at once, without its busy timeout, while another process switches too.
        deadline = time.monotonic() + self._wait
        while True:
            try:
                with self._in_use(), self._engine.connect() as connection:
                    raw = connection.connection.driver_connection
                    if raw is not None:
                        raw.execute("PRAGMA journal_mode = WAL").close()
                    return
            except DatabaseLockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _in_use(self) -> Iterator[None]:
        # Translates errors; it is entered before the connection and left after it.
        shared = self._shared
        use = shared.enter()
        try:
            yield
        except HandbellError:
            raise
        except Exception as error:
            translated = self._translator.translate(error)
            if translated is None:
                raise
            raise translated from error
        finally:
            shared.leave(use)


def _understood(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise SettingsError(
            "The database URL is not one that Handbell understands",
            fix="Set HANDBELL_DATABASE_URL to sqlite:////path/to/handbell.db or to "
            "postgresql://user:password@host/name, or remove it",
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SettingsError(
            "A database in memory is gone with its connection",
            fix="Set HANDBELL_DATABASE_URL to a file: sqlite:////path/to/handbell.db",
        )
    return parsed if parsed.get_backend_name() == "sqlite" else postgresql.read_url(parsed)


def _check_driver(url: URL) -> None:
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise SettingsError(
            f"The driver of the database URL is not installed: {error}",
            fix="Run: pip install 'handbell[postgresql]'",
        ) from error


def _share(url: URL, wait: float, signals_url: URL) -> SharedEngine:
    path = sqlite.file_of(url)
    if path is None:
        return share_server(url, postgresql.make_engine, signals_url=signals_url)
    is_uri = sqlite.is_uri(url)
    if not is_uri:
        path = path.resolve()
        private_folder(path.parent)
    try:
        return share_file(
            path, url, partial(sqlite.make_engine, wait=wait), is_named=not is_uri, wait=wait
        )
    except OSError as error:
        raise storage_error(error, path) from error
