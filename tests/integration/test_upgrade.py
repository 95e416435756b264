import asyncio
import sqlite3
import stat
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, select
from tests.version_01 import (
    APP,
    LEFT_AT,
    SECOND,
    SECRET_KEY,
    THIRD,
    lay_out,
    open_upgraded,
    session_secret,
)

from handbell.access.operators import OperatorStore
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import StorageError
from handbell.registry.secret import digest_of
from handbell.registry.store import Registry
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD, VERSION_TABLE
from handbell.storage.tables import deliveries, metadata, notifications, shards

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
        with system.database.read() as connection:
            waits = connection.execute(select(shards.c.reason, shards.c.due_at)).all()
        # What waits in shards says why, as if it had been accepted by this version.
        assert [one.reason for one in waits] == ["Scheduled"]
        assert all(one.due_at > system.now() * 1000 for one in waits)
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


def test_addresses_are_read_anew(tmp_path: Path) -> None:
    """Whom 0.1 mailed elsewhere proves again; two spellings of a mailbox become one person."""
    path = lay_out(tmp_path / "home")
    with closing(Database.open(f"sqlite:///{path}")) as database:
        registry = Registry(database, now=lambda: LEFT_AT)
        app = AppStore(database, Vault([SECRET_KEY])).find(APP)
        people = {user.mail for user in registry.users(app)}
        found = {
            mail: sorted(one.status for one in registry.sessions_of(app, mail)) for mail in STATUSES
        }
        secrets = {
            name: registry.session_by_secret(app, digest_of(session_secret(name)))
            for name in ("kim", "leo", "m0x", "m8x")
        }
    assert found == STATUSES
    assert "ｄｏｒａ@example.com" not in people  # noqa: RUF001 - full width
    assert {"dora@straße.de", "dora@strasse.de", "dora@example.com"} <= people
    # A token of leo's is mia's now; kim's is nobody's, and opens again.
    assert {name: secret is not None for name, secret in secrets.items()} == {
        "kim": True,
        "leo": False,
        "m0x": True,
        "m8x": True,
    }


STATUSES = {
    # Proven by whoever reads the mail of strasse.de, φυλλοσ.gr, fass.example or victim.example.
    "dora@straße.de": ["pending", "pending"],
    "sofia@φύλλος.gr": ["pending"],
    "nur@faß.example": ["pending"],
    "=?utf-8?q?dora?=@victim.example": ["pending"],
    # Mailed to where they were compared.
    "dora@strasse.de": ["active"],
    "sofia@φύλλοσ.gr": ["active"],
    "post@bücher.example": ["active"],
    "renée@example.com": ["active"],
    "dora@victim.example": ["active"],
    # The second one was proven in full-width letters.
    "dora@example.com": ["active", "pending"],
    "bob@example.com": ["quarantined"],
}


def test_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    """The oldest app of a name keeps it; no name is another app's id or bundle id."""
    path = lay_out(tmp_path / "home")
    with closing(Database.open(f"sqlite:///{path}")) as database:
        apps = AppStore(database, Vault([SECRET_KEY]))
        assert {app.id: app.name for app in apps.list()} == {
            APP: "My App",
            SECOND: "com.sample.myapp 2",
            THIRD: "My App 2",
            "TEAM654321.com.sample.fourth": "TEAM123456.com.sample.myapp 2",
            "TEAM654321.com.sample.fifth": "my app 3",
        }
        assert apps.find("My App").id == APP


def test_links_for_operators_serve_what_they_were_made_for(tmp_path: Path) -> None:
    """The one of the log and the one that is older than its operator are void."""
    path = lay_out(tmp_path / "home")
    with closing(Database.open(f"sqlite:///{path}")) as database:
        store = OperatorStore(database, now=lambda: LEFT_AT)
        assert {(one.mail, one.purpose) for one in store.invitations()} == {
            ("new@example.com", "join"),
            ("operator@example.com", "reset"),
        }


def test_a_row_id_is_never_given_out_again(tmp_path: Path) -> None:
    """An app, a key or a webhook that comes after the last one was removed has an id of its own."""
    path = lay_out(tmp_path / "home")
    with closing(Database.open(f"sqlite:///{path}")) as database:
        apps = AppStore(database, Vault([SECRET_KEY]))
        for _ in range(2):
            last = max(app.row or 0 for app in apps.list())
            added = apps.add("TEAM999999", "com.sample.new")
            assert (added.row or 0) > last
            apps.remove(added)
            again = apps.add("TEAM999999", "com.sample.new")
            assert (again.row or 0) > (added.row or 0)
            apps.remove(again)


def test_a_filled_database_is_copied_before_it_is_migrated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The copy is whole and private, and the log says where it is; a new database needs none."""
    path = lay_out(tmp_path / "home")
    with closing(sqlite3.connect(path)) as connection:
        before = list(connection.iterdump())
    with closing(Database.open(f"sqlite:///{path}")) as database:
        copy = database.backup_path("0001")
    assert copy is not None
    assert str(copy) in caplog.text
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert list(connection.iterdump()) == before
    Database.open(f"sqlite:///{tmp_path}/fresh/handbell.db").close()
    assert not list((tmp_path / "fresh").glob("*backup*"))
    names = sorted(file.name for file in path.parent.iterdir() if "-" not in file.name[1:])
    assert names == ["handbell.db", "handbell.db.0001.backup"]


def test_an_older_handbell_that_meets_a_newer_schema_says_so(tmp_path: Path) -> None:
    """It names both revisions, changes nothing."""
    path = lay_out(tmp_path / "home")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE handbell_version SET version_num = '9000'")
        connection.commit()
        before = list(connection.iterdump())
    with pytest.raises(StorageError, match=f"newer Handbell: its schema is 9000.*knows {HEAD}"):
        Database.open(f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as connection:
        assert list(connection.iterdump()) == before
