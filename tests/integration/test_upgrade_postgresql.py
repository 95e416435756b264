"""A filled PostgreSQL of the schema before this one comes up to date, and works on."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from bench.postgresql import PostgresServer
from sqlalchemy import Connection, MetaData, column, create_engine, func, select, text
from tests.version_01 import APP, SECRET_KEY, lay_out

import handbell.storage.migrations
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.creation.notification import Notification
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.accept.store import Order
from handbell.delivery.delivery import Target
from handbell.delivery.ids import apns_id
from handbell.delivery.ledger.store import Ledger
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD, VERSION_TABLE
from handbell.storage.tables import metadata

FORMER = "0005"

Filled = tuple[str, dict[str, list[tuple[Any, ...]]]]
"""The URL of a database, and what was in it before."""

_NAMES = (
    "SELECT notifications.public_id, deliveries.number, deliveries.state FROM deliveries "
    "JOIN notifications ON notifications.id = deliveries.notification_id ORDER BY 1, 2"
)


@pytest.fixture(scope="module")
def filled(
    postgresql: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    """Give a PostgreSQL that was filled at the former schema and came up to date, and its rows."""
    path = lay_out(tmp_path_factory.mktemp("former") / "home")
    with postgresql.database(template="template0") as url:
        source = create_engine(f"sqlite:///{path}")
        target = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with source.begin() as here, target.begin() as there:
            _bring_to(here, FORMER)
            _bring_to(there, FORMER)
            rows = _copy(here, there)
        source.dispose()
        target.dispose()
        with closing(Database.open(url, migrate=True)) as database:
            assert database.revision() == HEAD
        yield url, rows


def _bring_to(connection: Connection, revision: str) -> None:
    config = Config()
    folder = Path(handbell.storage.migrations.__file__).parent
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _copy(here: Connection, there: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Copy every row; return the names of the deliveries, and all users and sessions."""
    tables = MetaData()
    tables.reflect(there)
    for table in tables.sorted_tables:
        if table.name == VERSION_TABLE:
            continue
        columns = [one.name for one in table.columns]
        found = [
            dict(row)
            for row in here.execute(
                select(*map(column, columns)).select_from(text(table.name))
            ).mappings()
        ]
        for row in found:
            row.update({name: bool(row[name]) for name in row if name.startswith("is_")})
        if found:
            there.execute(table.insert(), found)
        if "id" in columns:
            last = func.coalesce(func.max(table.c.id), 0) + 1
            sequence = func.pg_get_serial_sequence(table.name, "id")
            there.execute(select(func.setval(sequence, last)).select_from(table))
    return {
        "names": [tuple(row) for row in there.execute(text(_NAMES))],
        "sessions": [
            tuple(row) for row in there.execute(text("SELECT id, token FROM sessions ORDER BY id"))
        ],
    }


def test_every_row_keeps_its_id(filled: Filled) -> None:
    """What phones, callers and Apple know by an id is found by it, and nothing is lost."""
    url, rows = filled
    with closing(Database.open(url)) as database, database.read() as connection:
        assert [tuple(row) for row in connection.execute(text(_NAMES))] == rows["names"]
        sessions = connection.execute(text("SELECT id, token FROM sessions ORDER BY id"))
        assert [tuple(row) for row in sessions] == rows["sessions"]
        assert len(rows["names"]) > 20
        tables = set(connection.scalars(text("SELECT tableoid::regclass::text FROM deliveries")))
        assert tables == {"deliveries_before"}


def test_an_upgraded_server_has_the_schema_of_the_tables(
    filled: Filled,
) -> None:
    """Each column and index; what SQLite alone has, and the partitions, are known to differ."""
    url, _ = filled
    with closing(Database.open(url)) as database, database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_server_default": True,
                "include_object": _is_ours,
            },
        )
        assert compare_metadata(context, metadata) == []


def _is_ours(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:  # noqa: FBT001 - Alembic's
    if kind == "table":
        return name in metadata.tables
    condition = getattr(item, "_ddl_if", None)
    return condition is None or condition.dialect != "sqlite"


def test_work_goes_on_beside_what_was_there(
    filled: Filled,
) -> None:
    """A new notification follows the old ones in each list, and both are told by their ids."""
    url, rows = filled
    with closing(Database.open(url)) as database:
        app = AppStore(database, Vault([SECRET_KEY])).find(APP)
        ledger, sends = Ledger(database), SendStore(database)
        target = Target(gateway="apns", address="ab" * 32, environment="production")
        order = Order(app=app, content=Notification(title="New"), recipients={})
        accepted = sends.accept(order, [target])
        with database.read() as connection:
            newest = connection.scalar(text("SELECT max(id) FROM notifications"))
        assert newest == accepted.row
        public_id, number, state = rows["names"][0]
        (old,) = [one for one in ledger.deliveries_of(public_id) if one.number == number]
        assert (old.id, old.state) == (apns_id(public_id, number), state)
        (new,) = ledger.deliveries_of(accepted.id)
        assert new.state == "queued"
