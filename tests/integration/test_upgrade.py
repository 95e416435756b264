import asyncio
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select
from tests.version_01 import APP, SECOND, THIRD, lay_out, open_upgraded

from handbell.database import Database
from handbell.migrations import HEAD, VERSION_TABLE
from handbell.tables import deliveries, metadata, notifications, shards

MIDDLE = "To everybody"


def test_an_upgraded_schema_is_that_of_the_tables(tmp_path: Path) -> None:
    """Each column, index and constraint, and every foreign key holds."""
    path = lay_out(tmp_path / "home")
    with closing(Database.open(f"sqlite:///{path}")) as database:
        assert database.revision() == HEAD
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"version_table": VERSION_TABLE, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
        assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()


def test_no_row_is_lost_on_the_way(tmp_path: Path) -> None:
    """What 0.1 sent, and whom it knew, is there as before."""
    path = lay_out(tmp_path / "home")
    tables = ("apps", "credentials", "notifications", "deliveries", "shards", "templates", "audit")
    count = "SELECT count(*) FROM {}"
    with closing(sqlite3.connect(path)) as connection:
        before = {one: connection.execute(count.format(one)).fetchone()[0] for one in tables}
    Database.open(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path)) as connection:
        after = {one: connection.execute(count.format(one)).fetchone()[0] for one in tables}
    assert after == before
    assert before["deliveries"] > 20


def test_work_goes_on_after_the_upgrade(tmp_path: Path) -> None:
    """What was due is sent, what waits for its time waits, and the broadcast comes to its end."""
    with open_upgraded(tmp_path) as (system, twin):
        (middle,) = _titled(system.database, MIDDLE)
        with system.database.read() as connection:
            (position,) = connection.scalars(
                select(shards.c.position).where(shards.c.notification_id == middle)
            )

        async def work() -> None:
            await system.engine.start()
            try:
                while not await asyncio.to_thread(_is_done, system.database, middle):
                    system.engine.worker.wake()
                    await asyncio.sleep(0.05)
            finally:
                await system.close_gateways()

        before = twin.accepted
        asyncio.run(asyncio.wait_for(work(), 45))
        listening = system.registry.sessions(system.apps.find(APP), status="active")
        behind = {
            one.id for one in listening if one.id > position and one.environment == "production"
        }
        assert len(behind) > 30
        assert behind <= set(_sent(system.database, middle))
        assert _states(system.database, THIRD) == {"sent": 1}
        assert _states(system.database, SECOND) == {}
        (scheduled,) = _titled(system.database, "Tomorrow")
        assert set(_held(system.database, scheduled)) == {"Scheduled"}
        assert twin.accepted > before


def _is_done(database: Database, broadcast: int) -> bool:
    """Return whether nothing that 0.1 left is still to be taken, and the broadcast has ended."""
    open_states = deliveries.c.state.in_(["queued", "sending"])
    with database.read() as connection:
        left = connection.scalars(select(shards.c.notification_id)).all()
        busy = connection.scalars(select(deliveries.c.number).where(open_states)).all()
    return broadcast not in left and not busy


def _states(database: Database, app: str) -> dict[str, int]:
    """Return how many deliveries of an app are in which state."""
    statement = select(deliveries.c.state).join_from(deliveries, notifications)
    with database.read() as connection:
        return Counter(connection.scalars(statement.where(notifications.c.app == app)))


def _sent(database: Database, notification: int) -> list[int]:
    wanted = (deliveries.c.notification_id == notification, deliveries.c.state == "sent")
    with database.read() as connection:
        return list(connection.scalars(select(deliveries.c.number).where(*wanted)))


def _held(database: Database, notification: int) -> list[str | None]:
    wanted = (deliveries.c.notification_id == notification, deliveries.c.state == "held")
    with database.read() as connection:
        return list(connection.scalars(select(deliveries.c.reason).where(*wanted)))


def _titled(database: Database, title: str) -> list[int]:
    wanted = notifications.c.content.contains(f'"{title}"')
    with database.read() as connection:
        return list(connection.scalars(select(notifications.c.id).where(wanted)))
