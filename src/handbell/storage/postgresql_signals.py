"""Signals between processes on one PostgreSQL, by LISTEN and NOTIFY.

NOTIFY is a transaction of its own, after the one that it tells of: those with it commit one after
the other, and would each wait for the disk. LISTEN needs a connection of its own that no pooler
shares, so what is sent is also looked for: where it does not arrive, ``is_prompt`` is False and
everybody polls as without signals (docs/decisions/0030-the-seam.md).
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from handbell._back_off import BackOff

from .signals import EVERYTHING, Hear, LocalSignals, Signal, read_signals, write_signals

if TYPE_CHECKING:
    import psycopg

CHANNEL: Final = "handbell"
RECONNECTS: Final = BackOff(0.1, 2, 10.0)
"""The pauses before a lost connection is made anew, in seconds."""

RETRIES: Final = BackOff(1.0, 2, 60.0)
"""The pauses before it is tried again whether signals arrive, where they did not."""

_KEEPALIVE_SECONDS: Final = 5.0
_CHECK_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 2.0
_PROBE: Final = "probe"
_NOTIFY: Final = "SELECT pg_notify(%s, %s)"
_NOTIFY_SOON: Final = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"
_CONNECT: Final[dict[str, Any]] = {
    "application_name": "handbell signals",
    "connect_timeout": 5,
    # A link that is cut without a word is noticed within some ten seconds.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 6000,
}

_log = logging.getLogger(__name__)


class PostgresSignals(LocalSignals):
    """The signals of one PostgreSQL database, for this process.

    They are sent through ``engine``, and heard on a connection to ``url`` that a thread holds while
    there are subscribers.
    """

    def __init__(self, engine: Engine, url: URL) -> None:
        super().__init__()
        self._engine = engine
        self._url = url
        self._listener: _Listener | None = None

    @property
    def is_prompt(self) -> bool:
        """See :class:`~handbell.storage.signals.Signals`."""
        listener = self._listener
        return listener is not None and listener.is_prompt

    def subscribe(self, hear: Hear) -> Callable[[], None]:
        """See :class:`~handbell.storage.signals.Signals`."""
        leave = super().subscribe(hear)
        with self._lock:
            if self._listener is None:
                self._listener = _Listener(self._engine, self._url, self._tell)
                self._listener.start()

        def end() -> None:
            leave()
            self._stop_if_left()

        return end

    def send(self, signals: Sequence[Signal]) -> None:
        """Notify everybody who listens, and oneself, without waiting for the disk."""
        if not signals:
            return
        try:
            with contextlib.closing(self._engine.raw_connection()) as pooled:
                driver: Any = pooled.driver_connection
                driver.autocommit = True
                try:
                    driver.execute(_NOTIFY_SOON, (CHANNEL, write_signals(signals)))
                finally:
                    if not driver.closed:
                        driver.autocommit = False
        except _failures() as error:
            _log.debug("Signal lost, the change is polled for: %s", _one_line(error))

    def check(self) -> bool:
        """See :class:`~handbell.storage.signals.Signals`. Raises nothing."""
        try:
            with contextlib.closing(_connect(self._engine, self._url)) as connection:
                return _arrives(connection, self._engine)
        except _failures() as error:
            _log.debug("Signals could not be checked: %s", error)
            return False

    def close(self) -> None:
        """See :class:`~handbell.storage.signals.Signals`."""
        listener, self._listener = self._listener, None
        super().close()
        if listener is not None:
            listener.stop(within=_STOP_SECONDS)

    def _stop_if_left(self) -> None:
        with self._lock:
            if self._subscribers:
                return
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()


class _Listener(threading.Thread):
    """Holds the connection that listens; tells what it hears, and when it may have missed some."""

    def __init__(self, engine: Engine, url: URL, tell: Callable[[Sequence[Signal]], None]) -> None:
        super().__init__(name="handbell-signals", daemon=True)
        self.is_prompt = False
        self._engine = engine
        self._url = url
        self._tell = tell
        self._stopping = threading.Event()
        self._connection: psycopg.Connection[Any] | None = None
        self._pid = os.getpid()
        self._losses = 0
        self._misses = 0

    def run(self) -> None:
        """Listen until :meth:`stop`."""
        while not self._stopping.is_set():
            pause = self._listen()
            if self.is_prompt:
                self.is_prompt = False
                self._tell(EVERYTHING)
            self._stopping.wait(pause)

    def stop(self, *, within: float = 0.0) -> None:
        """Listen no more; returns once the connection is closed, or ``within`` seconds."""
        self._stopping.set()
        connection = self._connection
        if self._pid != os.getpid():
            return  # the parent's
        if connection is not None:
            # Who waits for signals is woken by the end of the connection.
            with (
                contextlib.suppress(OSError, *_failures()),
                socket.socket(fileno=os.dup(connection.fileno())) as end,
            ):
                end.shutdown(socket.SHUT_RDWR)
        if within and threading.current_thread() is not self:
            self.join(within)

    def _listen(self) -> float:
        """Hear signals as long as the connection lasts; return the pause before the next one."""
        try:
            with contextlib.closing(_connect(self._engine, self._url)) as connection:
                self._connection = connection
                if not _arrives(connection, self._engine):
                    return self._note_deaf()
                self._note_prompt()
                while not self._stopping.is_set():
                    self._hear(connection)
        except _failures() as error:
            if not self._stopping.is_set():
                return self._note_loss(error)
        finally:
            self._connection = None
        return 0.0

    def _hear(self, connection: "psycopg.Connection[Any]") -> None:
        for note in connection.notifies(timeout=_KEEPALIVE_SECONDS):
            if not note.payload.startswith(_PROBE):
                self._tell(read_signals(note.payload))
        connection.execute("SELECT 1")

    def _note_prompt(self) -> None:
        if self._losses or self._misses:
            _log.info("Database signals arrive again")
        self._losses = self._misses = 0
        self.is_prompt = True
        # Whatever was told before is missed.
        self._tell(EVERYTHING)

    def _note_deaf(self) -> float:
        if not self._misses:
            _log.warning(
                "Database signals do not arrive, so changes are polled for: if the database is "
                "behind a pooler, set HANDBELL_SIGNALS_URL to the address of the server itself"
            )
        self._misses += 1
        return RETRIES.delay(self._misses - 1)

    def _note_loss(self, error: BaseException) -> float:
        if not self._losses:
            _log.warning("Database signals lost, changes are polled for: %s", _one_line(error))
        self._losses += 1
        return RECONNECTS.delay(self._losses - 1)


def _connect(engine: Engine, url: URL) -> "psycopg.Connection[Any]":
    import psycopg  # noqa: PLC0415 - of the extra `postgresql`

    positional, named = engine.dialect.create_connect_args(url)
    connection: psycopg.Connection[Any] = psycopg.connect(
        *positional, **{**_CONNECT, **named, "autocommit": True}
    )
    try:
        connection.execute(f"LISTEN {CHANNEL}")
    except BaseException:
        connection.close()
        raise
    return connection


def _arrives(connection: "psycopg.Connection[Any]", engine: Engine) -> bool:
    """Return whether what is sent through the database's own address is heard here."""
    probe = f"{_PROBE} {token_hex(8)}"
    with engine.begin() as sending:
        sending.exec_driver_sql(_NOTIFY, (CHANNEL, probe))
    deadline = time.monotonic() + _CHECK_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        for note in connection.notifies(timeout=left, stop_after=1):
            if note.payload == probe:
                return True
    return False


def _failures() -> tuple[type[Exception], ...]:
    import psycopg  # noqa: PLC0415 - of the extra `postgresql`

    return psycopg.Error, SQLAlchemyError, OSError


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
