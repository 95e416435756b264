"""What only a database server does: it goes away, comes back, refuses, and chooses plans."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
from bench.postgresql import PostgresServer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, LargeBinary, Text, func, insert, select, text
from tests.postgresql import start_postgresql

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.accept.store import Order
from handbell.delivery.delivery import Target
from handbell.delivery.ledger.receipts import Receipt
from handbell.delivery.ledger.store import NAMED_AMONG
from handbell.errors import (
    DatabaseLockedError,
    ReadOnlyError,
    RequestError,
    SettingsError,
    StorageError,
)
from handbell.settings import Settings
from handbell.storage.bulk import Columns, upsert_rows
from handbell.storage.database import Database
from handbell.storage.lists import each, rows_of
from handbell.storage.postgresql import failure
from handbell.storage.statements import Statement
from handbell.storage.tables import apps, tallies
from handbell.system import System


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


class _Told(Exception):  # noqa: N818 - it stands for a driver's
    def __init__(self, state: str) -> None:
        super().__init__("as the server says")
        self.sqlstate = state


@pytest.mark.parametrize(
    ("state", "code", "words"),
    [
        ("53100", "database-full", "Free space"),
        ("53300", "storage", "max_connections"),
        ("25006", "read-only", "primary"),
        ("40001", "database-locked", "Try again"),
        ("40P01", "database-locked", "Try again"),
        ("57P01", "storage", "was lost"),
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


def _order(system: System, app: App, number: int) -> None:
    content = Notification.read({"title": "Hello"})
    order = Order(app=app, content=content, recipients={"mails": [f"user{number}@example.com"]})
    target = Target(
        gateway="apns",
        address=str(number),
        environment="production",
        session_id=number,
        mail=f"user{number}@example.com",
        user_id=number,
    )
    system.sends.accept(order, [target])


def _count_sessions(system: System) -> object:
    with system.database.read() as connection:
        return connection.scalar(text("SELECT count(*) FROM sessions WHERE locale IS NULL"))


_NEWEST: Final = "SELECT public_id FROM notifications ORDER BY id DESC LIMIT 1"


def _newest(system: System) -> str:
    with system.database.read() as connection:
        return str(connection.scalar(text(_NEWEST)))


OPERATIONS: Final[dict[str, Callable[[System, App], object]]] = {
    "registration": lambda system, app: system.registry.register(
        app, "user7@example.com", "00000007"
    ),
    "switch of the account": lambda system, app: system.registry.register(
        app, "new@example.com", "00000008"
    ),
    "recipients": lambda system, app: system.registry.recipient_sessions(
        app, ["user9@example.com"] * 9
    ),
    "device tokens": lambda system, app: system.registry.holders(
        app, ["00000007", "00000009", "00"]
    ),
    "page of sessions": lambda system, app: system.registry.page_of_active(app, after_id=MANY // 2),
    "accepting": lambda system, app: _order(system, app, 11),
    "looking for work": lambda system, _: system.queue.look(),
    "work that is due": lambda system, _: system.queue.claim_due(5, 5, 20),
    "shards": lambda system, _: system.queue.claim_shards(5),
    "dead workers": lambda system, _: system.known_workers.reclaim(),
    "why": lambda system, app: system.why(app, "user12@example.com"),
    "deliveries of one": lambda system, _: system.ledger.deliveries_of(_newest(system)),
    "receipts": lambda system, app: system.receipts.note(
        [Receipt.read(event="opened", notification_id=_newest(system))], app, 7
    ),
    "keys that are old": lambda system, _: system.pruner.remove_keys(),
}


def test_nothing_of_a_send_walks_through_a_large_table(
    postgresql: PostgresServer, tmp_path: Path
) -> None:
    """Counted by the server: what each operation reads of tables and indexes with many rows."""
    with postgresql.database() as url:
        settings = Settings.load(home=tmp_path, database_url=url)
        app = _fill(settings)
        asked = _rows_read(settings, app, lambda system, _: _count_sessions(system))
        assert asked >= MANY
        walked = {
            name: read
            for name, operation in OPERATIONS.items()
            if (read := _rows_read(settings, app, operation)) > MOST_READ.get(name, FEW)
        }
    assert walked == {}


def _fill(settings: Settings) -> App:
    system = System(settings)
    with closing(system.database) as database:
        app = system.apps.add("TEAM123456", "com.sample.large", name="Large")
        with database.write() as connection:
            for statement in _ROWS:
                values = {"many": MANY, "row": app.row, "app": app.id}
                connection.execute(text(statement), values)
        with database.write() as connection:
            connection.execute(text("ANALYZE"))
    return app


def _rows_read(settings: Settings, app: App, operation: Callable[[System, App], object]) -> int:
    """Return how many rows an operation looked at; a connection tells that when it ends."""
    before = _counted(settings)
    system = System(settings)
    with closing(system.database):
        operation(system, app)
    return _counted(settings) - before


def _counted(settings: Settings) -> int:
    with closing(Database(settings.database_url)) as database, database.read() as connection:
        return int(connection.scalar(text(_READ)) or 0)


MANY = 50_000
FEW: Final = 2_500
# It searches the texts of the newest, and of no more.
MOST_READ: Final = {"why": 2 * NAMED_AMONG + FEW}
_READ: Final = """
    SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables)
        + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)
"""
_ROWS: Final = (
    """INSERT INTO users (id, app_id, mail, created_at)
    SELECT n, :row, 'user' || n || '@example.com', 1 FROM generate_series(1, :many) AS n""",
    """INSERT INTO sessions
    (id, app_id, user_id, token, platform, environment, status, created_at, registered_at)
    SELECT n, :row, n, lpad(n::text, 8, '0'), 'ios', 'production', 'active', 1, 1
    FROM generate_series(1, :many) AS n""",
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :many)",
    "SELECT setval(pg_get_serial_sequence('sessions', 'id'), :many)",
    """INSERT INTO notifications (public_id, app, content, recipients, created_at)
    SELECT lpad(to_hex(n), 15, '0'), :app, '{"title": "Hello"}', '{}',
        extract(epoch FROM now()) * 1000
    FROM generate_series(1, :many / 2) AS n""",
    """INSERT INTO deliveries (notification_id, number, gateway, environment, state, urgency)
    SELECT id, 1 + (id * 4 + n) % :many, 'apns', 'production', 'sent', 5
    FROM notifications CROSS JOIN generate_series(1, 4) AS n""",
    """INSERT INTO idempotency (app, key, fingerprint, notification_id, created_at)
    SELECT :app, n::text, '', '', extract(epoch FROM now()) * 1000
    FROM generate_series(1, :many) AS n""",
)
