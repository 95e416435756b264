"""A connection that is lost at its COMMIT: what was committed counts, and is not done again."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from typing import Any, Final

import psycopg
import pytest
from bench.postgresql import PostgresServer
from sqlalchemy import insert, select
from sqlalchemy.engine import make_url

from handbell.errors import DatabaseUnavailableError, HandbellError, StoppedError, StorageError
from handbell.storage.connections import Quick, driver_of
from handbell.storage.database import Database
from handbell.storage.signals import Kind, Signal
from handbell.storage.tables import installation

_COMMIT: Final = b"COMMIT\0"


class _Cutter:
    """A way to a server that is cut at the first COMMIT after ``arm``.

    ``is_passed_on`` has the server get that COMMIT; its answer comes to nobody.
    """

    def __init__(self, target: int, *, is_passed_on: bool) -> None:
        self._target = target
        self._is_passed_on = is_passed_on
        self._is_armed = threading.Event()
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends = [self._listener]
        self._threads: list[threading.Thread] = []
        self.port = self._listener.getsockname()[1]
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def arm(self) -> None:
        self._is_armed.set()

    def close(self) -> None:
        for end in self._ends:
            _end(end)
        for thread in self._threads:
            thread.join(10)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [client, server]
                self._start(self._carry_requests, client, server)
                self._start(self._carry_answers, server, client)

    def _carry_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65_536):
                if self._is_armed.is_set() and _COMMIT in data:
                    self._cut(data, client, server)
                    return
                server.sendall(data)
        _end(server)

    def _carry_answers(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65_536):
                client.sendall(data)
        _end(client)

    def _cut(self, data: bytes, client: socket.socket, server: socket.socket) -> None:
        self._is_armed.clear()
        self.cuts += 1
        # Nobody is told what becomes of it.
        _end(client)
        if self._is_passed_on:
            server.sendall(data)
        server.shutdown(socket.SHUT_WR)


def _end(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


@contextmanager
def _database(server: PostgresServer, *, is_passed_on: bool) -> Iterator[tuple[Database, _Cutter]]:
    with ExitStack() as stack:
        url = stack.enter_context(server.database())
        name = url.partition("@/")[2].partition("?")[0]
        cutter = _Cutter(server.port, is_passed_on=is_passed_on)
        stack.callback(cutter.close)
        database = Database(server.url(name, port=cutter.port))
        stack.callback(database.close)
        with database.read() as connection:
            connection.execute(select(installation.c.name))
        yield database, cutter


def _write(database: Database, *, is_quick: bool) -> None:
    if is_quick:
        with database.quick_write() as driver:
            quick: Any = driver
            quick.execute(
                "INSERT INTO installation (name, value) VALUES ('lost', 'commit')"
                " ON CONFLICT DO NOTHING"
            )
    else:
        with database.write() as connection:
            connection.execute(insert(installation).values(name="lost", value="commit"))


def _written(database: Database) -> list[str]:
    with database.read() as connection:
        return list(
            connection.scalars(select(installation.c.value).where(installation.c.name == "lost"))
        )


@pytest.mark.parametrize("is_quick", [False, True], ids=["core", "driver"])
def test_what_was_committed_is_no_failure(postgresql: PostgresServer, *, is_quick: bool) -> None:
    """The answer to COMMIT is lost, and the writer hears that it is done."""
    with _database(postgresql, is_passed_on=True) as (database, cutter):
        cutter.arm()
        _write(database, is_quick=is_quick)
        assert cutter.cuts == 1
        assert _written(database) == ["commit"]


@pytest.mark.parametrize("is_quick", [False, True], ids=["core", "driver"])
def test_what_was_not_committed_is_a_failure(postgresql: PostgresServer, *, is_quick: bool) -> None:
    """COMMIT itself is lost: the writer hears of it, and nothing is there."""
    with _database(postgresql, is_passed_on=False) as (database, cutter):
        cutter.arm()
        with pytest.raises(StorageError):
            _write(database, is_quick=is_quick)
        assert cutter.cuts == 1
        assert _written(database) == []
        _write(database, is_quick=is_quick)
        assert _written(database) == ["commit"]


_END_ME: Final = "SELECT pg_terminate_backend(pg_backend_pid())"
_END_ALL: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


def _lose(use: Callable[[], AbstractContextManager[Quick]], *, is_noticed: bool = True) -> None:
    with use() as connection:
        driver: Any = driver_of(connection)
        with nullcontext() if is_noticed else suppress(psycopg.Error):
            driver.execute(_END_ME)
        raise StoppedError("this caller has no more use for it")


def test_a_lost_connection_is_told_to_its_user_and_to_nobody_else(
    postgresql: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever used it gets an error; no traceback is logged, and the next one gets another."""
    with postgresql.database() as url, closing(Database(url)) as database:
        uses: list[Callable[[], AbstractContextManager[Quick]]] = [
            database.read,
            database.write,
            database.quick_read,
            database.quick_write,
        ]
        for use in uses:
            with pytest.raises(DatabaseUnavailableError):
                _lose(use)
            with pytest.raises(HandbellError):
                _lose(use, is_noticed=False)
            _write(database, is_quick=True)
            postgresql.execute(_END_ALL.format(make_url(url).database))
            database.signals.send([Signal(Kind.WORK)])
            assert _written(database) == ["commit"]
    assert [one for one in caplog.records if one.exc_info or one.levelno > logging.WARNING] == []
