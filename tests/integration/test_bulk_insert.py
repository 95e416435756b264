"""Many rows in one step say the same as one row at a time."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.registry.store import Registry
from handbell.settings import Settings
from handbell.storage.bulk import insert_new, insert_numbered, insert_rows, upsert_rows
from handbell.storage.connections import Quick
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, idempotency, notifications, tallies

pytestmark = pytest.mark.databases

TITLES = ["Hello", 'quote " and \\', "Grüße, 你好 👋🏽", "line\nbreak \u2028 \x00 nul"]


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give an empty database."""
    with closing(Database.open(database_url)) as opened:
        yield opened


def insert_notifications(connection: Quick, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """Insert notifications, and return their ids in their order."""
    return insert_numbered(connection, notifications, columns, by="public_id")


def _columns(rows: Sequence[Mapping[str, object]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _notification(number: int, sealed: bytes | None = None) -> dict[str, object]:
    return {
        "public_id": f"{number:015x}",
        "app": "TEAM123456.com.sample.myapp",
        "content": json.dumps({"title": TITLES[number % len(TITLES)]}, ensure_ascii=False),
        "recipients": "{}",
        "created_at": 1_764_000_000_123 + number,
        "urgency": 5,
        "send_at": None,
        "is_development": bool(number % 2),
        "is_loud": True,
        "sealed_key": sealed,
        "replaces": None,
    }


@pytest.mark.parametrize("sealed", [None, b"\x00\xff"])
def test_notifications_come_back_as_they_were(database: Database, sealed: bytes | None) -> None:
    """Every text, flag and instant; the ids are returned in the order of the rows."""
    rows = [_notification(number) for number in range(7)] + [_notification(7, sealed)]
    with database.write() as connection:
        first = insert_notifications(connection, _columns(rows[:3]))
        second = insert_notifications(connection, _columns(rows[3:]))
    with database.read() as connection:
        statement = select(notifications).order_by(notifications.c.id)
        stored = [dict(row) for row in connection.execute(statement).mappings()]
    assert [row["id"] for row in stored] == [*first, *second]
    for row, given in zip(stored, rows, strict=True):
        assert {name: row[name] for name in given} == given
        assert (row["cancelled"], row["cancelled_at"]) == (0, None)


def test_deliveries_come_back_as_they_were(database: Database) -> None:
    """Numbers beyond 52 bits and all that is null; what is not given has its default."""
    rows = [
        {
            "notification_id": 0,
            "number": number,
            "gateway": "apns",
            "address": address,
            "environment": "production",
            "urgency": 9,
            "state": "queued",
            "reason": None,
            "worker_id": worker,
            "due_at": 1_764_000_000_123,
        }
        for number, address, worker in [(1, None, None), ((1 << 52) + 1, "ab" * 32, (1 << 53) - 1)]
    ]
    with database.write() as connection:
        (row,) = insert_notifications(connection, _columns([_notification(0)]))
        rows = [{**each, "notification_id": row} for each in rows]
        insert_rows(connection, deliveries, _columns(rows))
        insert_rows(connection, deliveries, {name: [] for name in rows[0]})
        found = connection.execute(select(deliveries).order_by(deliveries.c.number)).mappings()
        for stored, given in zip(found, rows, strict=True):
            assert {name: stored[name] for name in given} == given
            assert (stored["attempts"], stored["is_repeat"]) == (0, False)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_driver_alone_says_the_same(database: Database, count: int) -> None:
    """Whether a value stands once for all rows or in each of them."""
    rows = [_notification(number) | {"is_development": True} for number in range(count)]
    with database.quick_write() as connection:
        ids = insert_notifications(connection, _columns(rows))
    with database.read() as connection:
        stored = connection.execute(select(notifications).order_by(notifications.c.id)).mappings()
        found = [dict(row) for row in stored]
    assert [row["id"] for row in found] == ids
    for row, given in zip(found, rows, strict=True):
        assert {name: row[name] for name in given} == given


def test_addressees_are_what_the_registry_says(database: Database, tmp_path: Path) -> None:
    """The same sessions in the same order as read one by one, of this app only."""
    vault = Vault.open(Settings.load(home=tmp_path))
    apps = AppStore(database, vault)
    ours, others = (apps.add("TEAM123456", f"com.sample.{name}") for name in ("one", "two"))
    registry = Registry(database)
    for number in range(6):
        mail = f"user{number % 3}@example.com"
        at = 1000 + number % 2
        registry.register(ours, mail, f"{number:08x}", locale="fr_CA", registered_at=at)
        registry.register(others, mail, f"{number:08x}", registered_at=at)
    registry.register(ours, "ünicode@exämple.com", "aabbccdd", status="pending")
    registry.close(registry.sessions_of(ours, "user1@example.com")[0], "gone")
    mails = ["user1@example.com", "ünicode@exämple.com", "nobody@example.com", "user0@example.com"]
    expected = registry.sessions_by_mail(ours, mails)
    found = registry.recipient_sessions(ours, [*mails, mails[0]])
    assert set(found) == set(expected)
    for mail, some in found.items():
        for one, session in zip(some, expected[mail], strict=True):
            assert one._asdict() == {name: getattr(session, name) for name in one._fields}
    nobodys = App(team_id="TEAM123456", bundle_id="com.sample.three")
    assert registry.recipient_sessions(nobodys, mails) == {}


def test_any_number_of_rows_is_written_in_their_order(database: Database) -> None:
    """In one statement or several: of a key that occurs again, the later row stays."""
    number = 1203
    hours = [one % 600 for one in range(number)]
    with database.write() as connection:
        upsert_rows(
            connection,
            tallies,
            {"app": ["one"] * number, "hour": hours, "sent": list(range(number))},
            key=("app", "hour", "service"),
            replaced=["sent"],
        )
        rows = connection.execute(select(tallies.c.hour, tallies.c.sent)).all()
    assert {row.hour: row.sent for row in rows} == dict(zip(hours, range(number), strict=True))


def test_what_was_there_already_is_left_out_of_many(database: Database) -> None:
    """Only the rows that are new come back."""
    known = [f"key-{one}" for one in range(0, 600, 3)]
    wanted = [f"key-{one}" for one in range(600)]
    with database.write() as connection:
        assert len(_claim(connection, known)) == len(known)
        assert _claim(connection, wanted) == sorted({*wanted}.difference(known))


def _claim(connection: Quick, keys: Sequence[str]) -> list[str]:
    columns: dict[str, Sequence[Any]] = {
        "app": ["one"] * len(keys),
        "key": list(keys),
        "fingerprint": [""] * len(keys),
        "notification_id": [""] * len(keys),
        "created_at": [1] * len(keys),
    }
    found = insert_new(connection, idempotency, columns, returned=("app", "key"))
    return sorted(key for _, key in found)
