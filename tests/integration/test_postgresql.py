"""What only a database server does: it goes away, comes back, refuses, and chooses plans."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any, Final

import pytest
from bench.postgresql import PostgresServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, LargeBinary, Text, func, insert, select, text
from sqlalchemy.engine import make_url
from tests.postgresql import start_postgresql

from handbell.errors import (
    DatabaseLockedError,
    ReadOnlyError,
    RequestError,
    SettingsError,
    StorageError,
)
from handbell.storage.bulk import Columns, upsert_rows
from handbell.storage.database import Database
from handbell.storage.lists import each, rows_of
from handbell.storage.postgresql import failure
from handbell.storage.statements import Statement
from handbell.storage.tables import apps, tallies


@pytest.fixture
def database(postgresql: PostgresServer) -> Iterator[Database]:
    """Give a database on the run's server."""
    with postgresql.database() as url, closing(Database.open(url)) as opened:
        yield opened


def _count(database: Database, hour: int) -> None:
    counted: Columns = {"app": ["one"], "hour": [hour], "sent": [1]}
    with database.quick_write() as connection:
        upsert_rows(
            connection,
            tallies,
            counted,
            key=("app", "hour", "service"),
            changed={"sent": "tallies.sent + excluded.sent"},
        )


def test_a_read_sees_one_state_and_changes_nothing(database: Database) -> None:
    """What is committed meanwhile is not seen, by either kind of read; a write in it is refused."""
    asked = Statement(select(func.count()).select_from(tallies))
    with database.read() as slow, database.quick_read() as quick:
        assert slow.scalar(select(func.count()).select_from(tallies)) == 0
        assert asked.rows(quick) == [(0,)]
        _count(database, 1)
        assert slow.scalar(select(func.count()).select_from(tallies)) == 0
        assert asked.rows(quick) == [(0,)]
    with database.quick_read() as quick:
        assert asked.rows(quick) == [(1,)]
    with pytest.raises(ReadOnlyError, match="primary server"), database.read() as connection:
        connection.execute(text("DELETE FROM tallies"))


def test_a_key_that_occurs_twice_is_inserted_and_changed(database: Database) -> None:
    """PostgreSQL changes no row twice in one statement; the later row is the one that stays."""
    with database.write() as connection:
        upsert_rows(
            connection,
            tallies,
            {"app": ["a", "b", "a"], "hour": [1, 1, 1], "sent": [1, 2, 3]},
            key=("app", "hour", "service"),
            replaced=["sent"],
        )
        rows = connection.execute(select(tallies.c.app, tallies.c.sent).order_by(tallies.c.app))
        assert [tuple(row) for row in rows] == [("a", 3), ("b", 2)]


_LISTS: Final[tuple[tuple[type[Any], st.SearchStrategy[Any]], ...]] = (
    (Text, st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    (BigInteger, st.integers(-(2**63), 2**63 - 1)),
    (Boolean, st.booleans()),
    (LargeBinary, st.binary()),
)


@pytest.mark.parametrize(("kind", "values"), _LISTS, ids=[kind.__name__ for kind, _ in _LISTS])
def test_a_list_arrives_as_it_was(
    database: Database, kind: type[Any], values: st.SearchStrategy[Any]
) -> None:
    """Whatever a list holds, the database reads the same values in the same order."""
    listed = rows_of("listed", value=kind, place=BigInteger)
    asked = Statement(select(listed.c.value).order_by(listed.c.place))
    alone = Statement(select(each("listed", kind).c.value))
    with database.quick_read() as connection:

        @settings(max_examples=60, deadline=None)
        @given(st.lists(st.none() | values))
        @example(["NULL", "null", "", " ", "{}", '"', "\\", "\\n", "\n", "a,b", None, "\x7f"])
        def check(sent: list[Any]) -> None:
            if kind is not Text and any(isinstance(one, str) for one in sent):
                return
            numbered = [(one, place) for place, one in enumerate(sent)]
            assert [row[0] for row in asked.rows(connection, listed=numbered)] == sent
            assert Counter(row[0] for row in alone.rows(connection, listed=sent)) == Counter(sent)

        check()


@pytest.mark.parametrize("name", ["nul \x00 in it", "\udcff"])
def test_a_text_that_cannot_be_stored_is_the_mistake_of_who_wrote_it(
    database: Database, name: str
) -> None:
    """It is neither a failure of the database, nor is the text repeated."""
    where = apps.c.name == name
    with pytest.raises((RequestError, UnicodeError)) as caught, database.read() as connection:
        connection.execute(select(apps).where(where))
    if isinstance(caught.value, RequestError):
        assert "U+0000" in str(caught.value)
        assert "in it" not in str(caught.value)


def test_two_that_wait_for_each_other_are_told_to_try_again(database: Database) -> None:
    """A deadlock costs one of them a retry."""
    for hour in (1, 2):
        _count(database, hour)
    both = threading.Barrier(2, timeout=20)
    told: list[str] = []

    def change(first: int, second: int) -> None:
        try:
            with database.write() as connection:
                for hour in (first, second):
                    values = {"sent": tallies.c.sent + 1}
                    connection.execute(
                        tallies.update().where(tallies.c.hour == hour).values(values)
                    )
                    if hour == first:
                        both.wait()
        except DatabaseLockedError as error:
            told.append(str(error))

    threads = [threading.Thread(target=change, args=pair) for pair in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (error,) = told
    assert "same rows" in error
    assert "Try again" in error


def test_a_server_that_crashes_costs_the_transaction_that_was_in_it() -> None:
    """All idle connections are lost with it; the first use after the restart works."""
    with (
        start_postgresql("synchronous_commit=on") as server,
        server.database() as url,
        closing(Database.open(url)) as database,
    ):
        with database.read(), database.read():
            _count(database, 1)
        with pytest.raises(StorageError, match="was lost"):
            _crash_in_a_write(database, server)
        with pytest.raises(StorageError, match="HANDBELL_DATABASE_URL"):
            _count(database, 2)
        server.start()
        for hour in (3, 4, 5):
            _count(database, hour)
        with database.read(), database.read(), database.read() as connection:
            hours = connection.scalars(select(tallies.c.hour).order_by(tallies.c.hour)).all()
        assert list(hours) == [1, 3, 4, 5]


def _crash_in_a_write(database: Database, server: PostgresServer) -> None:
    with database.quick_write() as writer:
        server.kill()
        Statement(select(tallies.c.sent)).rows(writer)


def test_what_a_server_refuses_is_told_in_words(postgresql: PostgresServer) -> None:
    """Who is not let in, and too many connections: what is wrong, and what to do."""
    nobody = postgresql.url("postgres").replace("postgres@", "nobody@")
    with pytest.raises(StorageError, match="HANDBELL_DATABASE_URL"):
        Database.open(nobody)
    with pytest.raises(SettingsError, match="postgresql://user"):
        Database("postgresql+asyncpg://postgres@/postgres")
    with postgresql.database() as url, ExitStack() as stack:
        name = url.split("/")[3].split("?")[0]
        postgresql.execute(
            "DROP ROLE IF EXISTS few", "CREATE ROLE few LOGIN CONNECTION LIMIT 1 SUPERUSER"
        )
        postgresql.execute("ALTER ROLE few NOSUPERUSER", f"GRANT ALL ON DATABASE {name} TO few")
        postgresql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO few", database=name)
        few = stack.enter_context(closing(Database(url.replace("postgres@", "few@"))))
        with few.read() as connection:
            connection.execute(text("SELECT 1"))
            with pytest.raises(StorageError, match=r"no more connections.*max_connections"):
                few.revision()
        with pytest.raises(ReadOnlyError, match="grant it all rights"), few.write() as connection:
            connection.execute(insert(tallies).values(app="a", hour=1))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(
    postgresql: PostgresServer, encoding: str
) -> None:
    """Before anything is made in it, with the words by which to make another one."""
    name = f"encoded_{encoding.lower()}"
    postgresql.execute(
        f"DROP DATABASE IF EXISTS {name}",
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'",
    )
    with pytest.raises(StorageError, match=f"{encoding}.*ENCODING 'UTF8'"):
        Database.open(postgresql.url(name), migrate=True)
    postgresql.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_database_that_was_made_read_only_is_not_written(postgresql: PostgresServer) -> None:
    """Also by a connection that has read before; and what is wrong is told."""
    with postgresql.database() as url:
        name = make_url(url).database
        postgresql.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        with closing(Database(url)) as opened:
            opened.revision()
            with pytest.raises(ReadOnlyError, match="primary"), opened.write() as connection:
                connection.execute(insert(tallies).values(app="a", hour=1))


class _Told(Exception):  # noqa: N818 - it stands for a driver's
    def __init__(self, state: str) -> None:
        super().__init__("as the server says")
        self.sqlstate = state


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("53100", "database-full", "Free space"),
        ("53300", "database-unavailable", "max_connections"),
        ("25006", "read-only", "primary"),
        ("40001", "database-locked", "Try again"),
        ("40P01", "database-locked", "Try again"),
        ("42P01", "storage-failed", "restored"),
        ("57P01", "database-unavailable", "was lost"),
        ("25P03", "database-unavailable", "was lost"),
        ("57P03", "storage", "Try again"),
        ("08006", "storage", "was lost"),
        ("XX001", "storage", "backup"),
        ("99999", "storage", "HANDBELL_DATABASE_URL"),
    ],
)
def test_each_state_has_its_error(state: str, code: str, words: str) -> None:
    """By SQLSTATE, whatever language the server speaks."""
    error = failure("db", _Told(state))
    assert code in error.code or code == "storage"
    assert words in str(error)
