"""What only PostgreSQL knows: how to connect, and what its errors mean.

Everything works behind PgBouncer in transaction mode: no statement is prepared on the server, and
nothing is set for longer than a transaction (docs/decisions/0027-postgresql.md).
"""

import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, PoolProxiedConnection, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    ProgrammingError,
    SQLAlchemyError,
)

from handbell.errors import (
    DatabaseFullError,
    DatabaseLockedError,
    DatabaseUnavailableError,
    ReadOnlyError,
    SettingsError,
    StorageError,
)

from .connections import make_pool

DRIVER: Final = "postgresql+psycopg"
"""How SQLAlchemy names psycopg 3."""

POOL_SIZE: Final = 5
"""How many connections of one process stay open."""

MOST_CONNECTIONS: Final = 15
"""How many connections one process has at once at most."""

SNAPSHOT: Final[dict[str, Any]] = {
    "isolation_level": "REPEATABLE READ",
    "postgresql_readonly": True,
}
"""The options of a connection whose transaction sees one state, and changes nothing."""

_REPEATABLE_READ: Final = 3  # psycopg.IsolationLevel.REPEATABLE_READ
ANSWER_SECONDS: Final = 20.0
"""How long a server is asked what became of a transaction whose connection was lost.

It is longer than a worker's lease: what an unknown commit took comes back when the lease is over.
"""

_COMMIT_ID: Final = "SELECT pg_current_xact_id_if_assigned()::text"
_COMMIT_STATUS: Final = "SELECT pg_xact_status(%s::xid8)"
_ASK_SECONDS: Final = 0.1
_IDLE_SECONDS: Final = 1.0
_CONNECT: Final[dict[str, Any]] = {
    # Prepared statements belong to a connection, and a pooler hands out another one each time.
    "prepare_threshold": None,
    "application_name": "handbell",
    "connect_timeout": 5,
    # Whatever the database or the environment says: texts are not of one language.
    "client_encoding": "utf8",
    # A link that is cut without a word is noticed in half a minute, not in two hours.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}


def read_url(url: URL) -> URL:
    """Return the URL with the driver that is used; any other driver is refused."""
    if url.drivername not in ("postgresql", DRIVER):
        raise SettingsError(
            f"The database URL names a driver that Handbell does not use: {url.drivername}",
            fix="Write postgresql://user:password@host/name in HANDBELL_DATABASE_URL",
        )
    return url.set(drivername=DRIVER)


def make_engine(url: URL) -> Engine:
    """Return an engine whose connections are pooled, and found anew when they are lost.

    What the query of the URL says comes before what is chosen here.
    """
    chosen = {name: value for name, value in _CONNECT.items() if name not in url.query}
    engine = make_pool(
        url,
        connect_args=chosen,
        pool_size=POOL_SIZE,
        max_overflow=MOST_CONNECTIONS - POOL_SIZE,
        # Those that are seldom needed are the ones that a server or a pooler closes.
        pool_use_lifo=True,
    )
    watch = _Watch()
    event.listen(engine, "checkin", watch.note_use)
    event.listen(engine, "checkout", watch.check)
    event.listen(engine, "invalidate", watch.note_loss)
    return engine


@contextmanager
def transaction(pooled: PoolProxiedConnection, engine: Engine, *, is_write: bool) -> Iterator[None]:
    """Have what the driver of a pooled connection runs be one transaction, committed at the end.

    One that does not write sees one state, and changes nothing. A connection that is lost in it is
    not used again; one that is lost at the commit raises only where nothing was committed.
    """
    driver: Any = pooled.driver_connection
    if not is_write:
        driver.isolation_level = _REPEATABLE_READ
        driver.read_only = True
    commit: str | None = None
    try:
        yield
        commit = driver.execute(_COMMIT_ID).fetchone()[0] if is_write else None
        driver.commit()
    except driver_errors() as error:
        if driver.closed:
            pooled.invalidate(error)
        if not driver.closed or not was_committed(engine, commit):
            raise
    finally:
        if not is_write and not driver.closed:
            driver.rollback()
            driver.isolation_level = driver.read_only = None


@contextmanager
def committed(connection: Connection, engine: Engine) -> Iterator[None]:
    """Have what SQLAlchemy's connection runs be one transaction, as :func:`transaction` does."""
    commit: str | None = None
    begun = connection.begin()
    try:
        yield
        commit = connection.exec_driver_sql(_COMMIT_ID).scalar()
        begun.commit()
    except DBAPIError as error:
        begun.close()
        if not error.connection_invalidated or not was_committed(engine, commit):
            raise
    except BaseException:
        begun.close()
        raise


def was_committed(engine: Engine, commit: str | None) -> bool:
    """Return whether a transaction was committed whose connection was lost at its end.

    ``commit`` is its id; one without an id changed nothing. The server is asked until it answers,
    for :data:`ANSWER_SECONDS` at most; False after that: what is done then may be done again.
    """
    if commit is None:
        return False
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            with engine.connect() as connection:
                status = connection.exec_driver_sql(_COMMIT_STATUS, (commit,)).scalar()
        except (DataError, ProgrammingError):  # a server that took over has never heard of it
            return False
        except SQLAlchemyError:
            status = "in progress"
        if status != "in progress" or time.monotonic() >= deadline:
            return status == "committed"
        time.sleep(_ASK_SECONDS)


def driver_errors() -> tuple[type[Exception], ...]:
    """Return the class of the driver's errors, if it is in use here."""
    driver: Any = sys.modules.get("psycopg")
    return () if driver is None else (driver.Error,)


def check_encoding(connection: Connection, name: str) -> None:
    """Raise StorageError for a database that cannot hold every text."""
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise StorageError(
            f"The database {name} is encoded in {encoding}, which does not hold every text",
            fix="Create it with ENCODING 'UTF8' TEMPLATE template0",
        )


def wait_for_turn(connection: Connection, name: str) -> None:
    """Wait until no other transaction has the turn of this name, and take it to the end of ours."""
    number = zlib.crc32(name.encode()) - (1 << 31)
    connection.execute(_TURN, {"space": _TURNS, "number": number})


_TURNS: Final = 0x68626C6C
_TURN: Final = text("SELECT pg_advisory_xact_lock(:space, :number)")


class _Watch:
    """Replaces connections that were lost while they were idle, before somebody works with one.

    After a loss each of the others is asked once: a server that was started anew took them all.
    """

    def __init__(self) -> None:
        self._lost_at = 0.0

    def note_use(self, connection: Any, record: Any) -> None:
        record.info["used_at"] = time.monotonic()
        if connection is not None and not connection.closed:
            # SQLAlchemy leaves False after a snapshot, and would write where the server says no.
            connection.read_only = None

    def note_loss(self, *_told: object) -> None:
        self._lost_at = time.monotonic()

    def check(self, connection: Any, record: Any, _proxy: object) -> None:
        used_at = record.info.get("used_at")
        if used_at is None or (
            used_at > self._lost_at and time.monotonic() - used_at < _IDLE_SECONDS
        ):
            return
        try:
            connection.execute("SELECT 1")
            connection.rollback()
        except driver_errors() as error:
            raise DisconnectionError from error


def failure(name: str, error: BaseException | None) -> StorageError:
    """Return the error for what PostgreSQL, or the way to it, failed in. ``name`` is the URL's."""
    state = getattr(error, "sqlstate", None) or ""
    told = _one_line(error)
    for states, kind, message, fix in _FAILURES:
        if state.startswith(states):
            return kind(message.format(name=name, error=told), fix=fix)
    for words, kind, message, fix in _TOLD:
        if words in told:
            return kind(message.format(name=name, error=told), fix=fix)
    return StorageError(f"The database {name} failed: {told}", fix=_CHECK)


def _one_line(error: BaseException | None) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())


_CHECK: Final = "Check HANDBELL_DATABASE_URL, and that the server runs and can be reached"
_AGAIN: Final = "Try again; what was accepted is not lost"
_FULL: Final = (
    DatabaseFullError,
    "There is no space left for the database {name}: {error}",
    "Free space on the disk of the database server; nothing that was accepted is lost",
)
_BUSY: Final = (
    DatabaseUnavailableError,
    "The database {name} takes no more connections: {error}",
    "Raise max_connections of the server, put PgBouncer before it, or run fewer processes",
)
_READ_ONLY: Final = (
    ReadOnlyError,
    "The database {name} cannot be written: {error}",
    "Name the primary server in HANDBELL_DATABASE_URL (see target_session_attrs)",
)
_GONE: Final = (
    DatabaseUnavailableError,
    "The connection to the database {name} was lost: {error}",
    _AGAIN,
)
_STARTING: Final = (
    DatabaseUnavailableError,
    "The database {name} takes nothing now: {error}",
    _AGAIN,
)
_UNREACHED: Final = (
    DatabaseUnavailableError,
    "The database {name} cannot be reached: {error}",
    _CHECK,
)
_Kind = tuple[type[StorageError], str, str]
_FAILURES: Final[tuple[tuple[tuple[str, ...] | str, type[StorageError], str, str], ...]] = (
    (("53100",), *_FULL),
    (("53300",), *_BUSY),
    (("25006",), *_READ_ONLY),
    (
        ("42501",),
        ReadOnlyError,
        "The database {name} may not be written by this user: {error}",
        "Let this user own the database, or grant it all rights on its tables",
    ),
    (
        ("42P01",),
        StorageError,
        "The database {name} does not hold Handbell's tables: {error}",
        "Check that HANDBELL_DATABASE_URL names the right database, and that it was restored",
    ),
    (
        ("40", "55P03"),
        DatabaseLockedError,
        "Others changed the same rows of the database {name} at once: {error}",
        _AGAIN,
    ),
    (("57014",), StorageError, "The database {name} took too long: {error}", _AGAIN),
    (("57P03",), *_STARTING),
    (("57P", "08", "25P03", "25P04"), *_GONE),
    (
        ("28", "3D000"),
        StorageError,
        "The database {name} lets nobody in by this URL: {error}",
        "Check user, password and name of the database in HANDBELL_DATABASE_URL",
    ),
    (
        ("XX001", "XX002"),
        StorageError,
        "The database {name} is damaged: {error}",
        "Restore it from a backup",
    ),
)
# Who is not let in is told in words alone.
_TOLD: Final[tuple[tuple[str, type[StorageError], str, str], ...]] = (
    ("too many clients", *_BUSY),
    ("remaining connection slots", *_BUSY),
    ("too many connections", *_BUSY),
    ("no more connections allowed", *_BUSY),
    ("the database system is", *_STARTING),
    ("Connection refused", *_UNREACHED),
    ("No such file or directory", *_UNREACHED),
    ("timeout expired", *_UNREACHED),
    ("could not translate host name", *_UNREACHED),
    ("Network is unreachable", *_UNREACHED),
    ("No route to host", *_UNREACHED),
    ("server closed the connection", *_GONE),
    ("the connection is lost", *_GONE),
    ("the connection is closed", *_GONE),
    ("No space left on device", *_FULL),
)
