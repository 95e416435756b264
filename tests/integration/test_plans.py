"""How PostgreSQL searches large tables for each operation, and how much it reads."""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import psycopg
import pytest
from bench.postgresql import PostgresServer
from sqlalchemy import event, text

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.accept.store import Order
from handbell.delivery.delivery import Target
from handbell.delivery.ledger.receipts import Receipt
from handbell.delivery.ledger.store import NAMED_AMONG
from handbell.delivery.queue.session_pages import Shard
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.system import System

MANY: Final = 50_000
FEW: Final = 2_500
# It searches the texts of the newest, and of no more.
MOST_READ: Final = {"why": 2 * NAMED_AMONG + FEW}

LARGE: Final = ("users", "sessions", "notifications", "deliveries", "idempotency", "webhook_calls")
"""The tables with many rows; those that are partitioned are named in the names of their parts."""


def _accept(system: System, app: App) -> None:
    content = Notification.read({"title": "Hello"})
    order = Order(
        app=app,
        content=content,
        recipients={"mails": ["user11@example.com"]},
        idempotency_key="order-11",
    )
    target = Target(
        gateway="apns",
        address="11",
        environment="production",
        session_id=11,
        mail="user11@example.com",
        user_id=11,
    )
    system.sends.accept(order, [target])


def _read_page(system: System, app: App) -> object:
    shard = Shard(
        id=0,
        notification=0,
        app_row=app.row or 0,
        source=None,
        urgency=1,
        position=MANY // 2,
        last=MANY,
        is_resumed=True,
    )
    return system.queue.page(shard, 500)


def _call_webhooks(system: System, _app: App) -> None:
    with system.database.write() as connection:
        connection.execute(text(_CALLS_DUE))
    sender = system._make_sender()  # noqa: SLF001 - as the engine has it
    assert sender is not None
    assert asyncio.run(sender.send_due()) > 0


def _newest(system: System) -> str:
    with system.database.read() as connection:
        return str(connection.scalar(text(_NEWEST)))


_CALLS_DUE: Final = """
    UPDATE webhook_calls SET state = 'queued', due_at = 1 WHERE message_id IN ('10000', '20000')
"""
_NEWEST: Final = "SELECT public_id FROM notifications ORDER BY id DESC LIMIT 1"

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
    "first sessions": lambda system, app: system.registry.page_of_active(app, after_id=MANY // 2),
    "page of a broadcast": _read_page,
    "accepting": _accept,
    "looking for work": lambda system, _: system.queue.look(),
    "work that is due": lambda system, _: system.queue.claim_due(5, 5, 20),
    "shards": lambda system, _: system.queue.claim_shards(5),
    "dead workers": lambda system, _: system.known_workers.reclaim(),
    "webhook calls": _call_webhooks,
    "why": lambda system, app: system.why(app, "user12@example.com"),
    "deliveries of one": lambda system, _: system.ledger.deliveries_of(_newest(system)),
    "receipts": lambda system, app: system.receipts.note(
        [Receipt.read(event="opened", notification_id=_newest(system))], app, 7
    ),
    "keys that are old": lambda system, _: system.pruner.remove_keys(),
    "retention, step by step": lambda system, _: system.pruner.step(50),
    "retention, to its end": lambda system, _: (system.pruner.step(), system.pruner.step()),
}

SEARCHED: Final[dict[str, tuple[str, ...]]] = {
    "recipients": ("uq_users_app_id_mail", "ix_sessions_user_id"),
    "device tokens": ("uq_sessions_owner",),
    "page of a broadcast": ("pk_sessions",),
    "looking for work": ("urgency_due_at_idx",),
    "work that is due": ("urgency_due_at_idx",),
    "webhook calls": ("ix_webhook_calls_due_at",),
    "retention, step by step": ("ix_notifications_created_at_before",),
}
"""By which indexes the hottest operations have to search."""


@dataclass(frozen=True)
class Filled:
    """A database with many rows, of one app."""

    settings: Settings
    app: App


@pytest.fixture(scope="module")
def filled(
    postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    """Give one database for the file."""
    with postgresql.database() as url:
        home = tmp_path_factory.mktemp("home")
        settings = Settings.load(home=home, database_url=url, webhook_allow_private=True)
        yield Filled(settings, _fill(settings))


def test_nothing_of_a_send_walks_through_a_large_table(filled: Filled) -> None:
    """Counted by the server: what each operation reads of tables and indexes with many rows."""
    assert _rows_read(filled, _count_sessions) >= MANY
    walked = {
        name: read
        for name, operation in OPERATIONS.items()
        if (read := _rows_read(filled, operation)) > MOST_READ.get(name, FEW)
    }
    assert walked == {}


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_statement_searches_by_an_index(filled: Filled, name: str) -> None:
    """As the planner chooses: no large table is scanned, and the hottest have their own index."""
    system = System(filled.settings)
    ran: list[tuple[Any, Any]] = []

    class Recording(psycopg.Cursor[Any]):
        def execute(self, query: Any, params: Any = None, **how: Any) -> Any:
            ran.append((query, params))
            return super().execute(query, params, **how)

    def listen(connection: Any, *_more: object) -> None:
        connection.cursor_factory = Recording

    with closing(system.database) as database:
        event.listen(database._engine, "checkout", listen)  # noqa: SLF001 - to see its statements
        OPERATIONS[name](system, filled.app)
        plans = [*_plans(database, list(ran))]
    scans = [
        (node.get("Relation Name"), node["Node Type"], plan["sql"])
        for plan in plans
        for node in _nodes(plan)
        if node["Node Type"] == "Seq Scan" and _is_large(node)
    ]
    assert scans == []
    searched = {node.get("Index Name", "") for plan in plans for node in _nodes(plan)}
    wanted = SEARCHED.get(name, ())
    assert [one for one in wanted if not any(one in index for index in searched)] == [], searched


def _plans(database: Database, ran: list[tuple[Any, Any]]) -> Iterator[dict[str, Any]]:
    """Yield how the server would run statements; nothing of it is done."""
    for query, params in ran:
        sql = query.decode() if isinstance(query, bytes) else str(query)
        if sql.split(maxsplit=1)[0] not in ("SELECT", "INSERT", "UPDATE", "DELETE"):
            continue
        with database.quick_read() as driver:
            assert isinstance(driver, psycopg.Connection)
            asked = driver.execute(f"EXPLAIN (FORMAT JSON) {sql}".encode(), params)
            (told,) = asked.fetchone() or ("[]",)
        listed = told if isinstance(told, list) else json.loads(told)
        yield {**listed[0]["Plan"], "sql": sql}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


def _is_large(node: dict[str, Any]) -> bool:
    """Return whether a scan is one of a large table; an empty part of it is none."""
    name, rows = str(node["Relation Name"]), int(node["Plan Rows"])
    return name.startswith(LARGE) and rows > FEW


def _count_sessions(system: System, _app: App) -> object:
    with system.database.read() as connection:
        return connection.scalar(text("SELECT count(*) FROM sessions WHERE locale IS NULL"))


def _fill(settings: Settings) -> App:
    system = System(settings)
    with closing(system.database) as database:
        app = system.apps.add("TEAM123456", "com.sample.large", name="Large")
        webhook, _ = system.webhooks.add(app, "http://127.0.0.1:9/")
        with database.write() as connection:
            for statement in _ROWS:
                values = {"many": MANY, "row": app.row, "app": app.id, "webhook": webhook.id}
                connection.execute(text(statement), values)
        with database.write() as connection:
            connection.execute(text("ANALYZE"))
    return app


def _rows_read(filled: Filled, operation: Callable[[System, App], object]) -> int:
    """Return how many rows an operation looked at; a connection tells that when it ends."""
    before = _counted(filled.settings)
    system = System(filled.settings)
    with closing(system.database):
        operation(system, filled.app)
    return _counted(filled.settings) - before


def _counted(settings: Settings) -> int:
    with closing(Database(settings.database_url)) as database, database.read() as connection:
        return int(connection.scalar(text(_READ)) or 0)


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
    # Of another database that was copied; the first of them are old.
    """INSERT INTO notifications (id, public_id, app, content, recipients, created_at)
    SELECT n, 'a' || lpad(to_hex(n), 14, '0'), :app, '{"title": "Hello"}', '{}',
        CASE WHEN n <= 100 THEN n ELSE extract(epoch FROM now()) * 1000 END
    FROM generate_series(1, :many / 4) AS n""",
    """INSERT INTO deliveries
    (notification_id, number, gateway, environment, state, urgency, finished_at)
    SELECT id, 1 + (id * 4 + n) % :many, 'apns', 'production', 'sent', 5, created_at
    FROM notifications CROSS JOIN generate_series(1, 4) AS n""",
    # A few are due.
    """UPDATE deliveries SET state = 'queued', finished_at = NULL, due_at = 1
    WHERE notification_id IN (SELECT id FROM notifications ORDER BY id DESC LIMIT 10)""",
    """INSERT INTO idempotency (app, key, fingerprint, notification_id, created_at)
    SELECT :app, n::text, '', '', extract(epoch FROM now()) * 1000
    FROM generate_series(1, :many) AS n""",
    """INSERT INTO webhook_calls
    (webhook_id, message_id, body, state, created_at, due_at, finished_at)
    SELECT :webhook, n::text, '{}', CASE WHEN n % 10000 = 0 THEN 'queued' ELSE 'sent' END, 1,
        CASE WHEN n % 10000 = 0 THEN 1 END,
        CASE WHEN n % 10000 > 0 THEN extract(epoch FROM now()) * 1000 END
    FROM generate_series(1, :many) AS n""",
)
