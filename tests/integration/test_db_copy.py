"""A filled SQLite database is copied into PostgreSQL: whole, once, and only where it may be."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bench.postgresql import PostgresServer
from sqlalchemy import func, select
from tests.version_01 import APP, SECRET_KEY, lay_out

from handbell.apps.installation_key import opens
from handbell.apps.vault import Vault
from handbell.errors import DatabaseLockedError, HandbellError, SettingsError, StorageError
from handbell.registry.store import Registry
from handbell.settings import Settings
from handbell.storage.copy.check import SAMPLE
from handbell.storage.copy.copied import TABLES
from handbell.storage.copy.copier import Copier, Report
from handbell.storage.copy.source import open_source
from handbell.storage.copy.target import Target
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, installation, sessions
from handbell.system import System

PAGE = 7
VAULT = Vault([SECRET_KEY])


class CutError(Exception):
    """The copy is cut here."""


@dataclass(frozen=True)
class Move:
    """A source, filled by an older version and then upgraded, and an empty database."""

    source: str
    path: Path
    target: str
    server: PostgresServer

    def copy(self, *, cut_after: int | None = None, anew: bool = False) -> Report:
        """Copy, or raise CutError after so many pages."""
        told = 0

        def tell(_table: str, _rows: int, _total: int) -> None:
            nonlocal told
            told += 1
            if cut_after is not None and told > cut_after:
                raise CutError

        with open_source(self.source) as source, closing(Target.open(self.target)) as target:
            copier = Copier(
                source, target, opens=lambda sealed: opens(VAULT, sealed), tell=tell, page=PAGE
            )
            return copier.run(anew=anew)

    def change(self, statement: str) -> None:
        """Change the source."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement)

    def change_target(self, statement: str) -> None:
        """Change the target, behind the copy's back."""
        self.server.execute(statement, database=self.target.split("@/")[1].split("?")[0])


@pytest.fixture
def move(tmp_path: Path, postgresql: PostgresServer) -> Iterator[Move]:
    """Give a filled source and an empty target."""
    path = lay_out(tmp_path / "home")
    source = f"sqlite:///{path}"
    Database.open(source).close()
    with postgresql.database(template="template1") as target:
        yield Move(source, path, target, postgresql)


def _rows(url: str) -> dict[str, list[Any]]:
    """Return all rows of all tables that are copied, in one order."""
    with closing(Database.open(url, even_closed=True)) as database, database.read() as connection:
        return {
            table.name: [
                tuple(row)
                for row in connection.execute(select(table).order_by(*table.primary_key.columns))
            ]
            for table in TABLES
        }


def test_every_row_is_copied_and_checked(move: Move) -> None:
    """Each field of each row is the same; the report says how many, and which secrets open."""
    report = move.copy()
    assert _rows(move.target) == _rows(move.source)
    counted = {item.table: item.rows for item in report.tables}
    assert counted == {name: len(rows) for name, rows in _rows(move.target).items()}
    assert report.checked.faults == ()
    assert report.checked.counted == report.checked.compared == sum(counted.values()) < SAMPLE
    assert (report.checked.opened, report.checked.unopened) == (5, 0)
    assert (report.is_resumed, report.was_complete, report.replaced) == (False, False, 0)
    assert move.copy().was_complete


def test_a_copy_that_is_cut_anywhere_goes_on(move: Move) -> None:
    """Cut again and again, each run goes on where the last one was; no row is lost or twice."""
    pages, cuts = 3, 0
    while True:
        try:
            report = move.copy(cut_after=pages + len(TABLES))
        except CutError:
            pages += 1
            cuts += 1
            # Nobody begins to work with half of it, nor with what is left behind.
            for url, said in ((move.target, "is not complete"), (move.source, "is closed")):
                with pytest.raises(StorageError, match=said):
                    Database.open(url)
        else:
            break
    assert cuts > 3
    assert report.is_resumed
    assert report.checked.faults == ()
    assert _rows(move.target) == _rows(move.source)
    with closing(Database.open(move.target)) as database, database.read() as connection:
        left = connection.scalars(select(installation.c.name)).all()
    assert [name for name in left if name.startswith("copy.")] == []


def test_ids_are_never_reused(move: Move) -> None:
    """What is new in the target comes behind all ids that the source ever gave."""
    move.change("DELETE FROM sessions WHERE id = (SELECT max(id) FROM sessions)")
    with closing(sqlite3.connect(move.path)) as connection:
        (last,) = connection.execute(
            "SELECT seq FROM sqlite_sequence WHERE name = 'sessions'"
        ).fetchone()
    move.copy()
    with closing(Database.open(move.target)) as database:
        with database.read() as connection:
            assert (connection.scalar(select(func.max(sessions.c.id))) or 0) < last
        settings = Settings(home=move.path.parent, database_url=move.target)
        app = System(settings).apps.find(APP)
        made = Registry(database).register(app, "new@example.com", "ef" * 32)
    assert made.id == last + 1


def test_the_secrets_open_in_the_target(move: Move) -> None:
    """With the installation's key the apps' credentials are usable there."""
    move.copy()
    settings = Settings(
        home=move.path.parent,
        database_url=move.target,
        secret_key=SECRET_KEY,  # type: ignore[arg-type]
    )
    system = System(settings)
    with closing(system.database):
        system.installation_key.check()
        app = system.apps.find(APP)
        assert system.apps.credentials(app)
        assert not system.apps.unusable(app)


def test_a_text_with_a_zero_is_replaced_and_told(move: Move) -> None:
    """PostgreSQL keeps no U+0000: the row comes with U+FFFD in its place, and is counted."""
    move.change("UPDATE audit SET detail = 'a' || char(0) || 'b'")
    report = move.copy()
    assert report.replaced == 1
    assert report.checked.faults == ()
    assert [row[-1] for row in _rows(move.target)["audit"]] == ["a\ufffdb"]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE deliveries SET state = 'failed' WHERE state = 'sent'", "differs in state"),
        ("DELETE FROM webhooks", "has 1 rows and 0 in the copy"),
        ("UPDATE credentials SET sealed = 'other'", "was changed"),
    ],
)
def test_a_copy_that_differs_is_told_and_stays_closed(
    move: Move, statement: str, said: str
) -> None:
    """What does not match the source is named, and nobody can work with it."""
    with pytest.raises(CutError):
        move.copy(cut_after=_pages_before_the_end(move))
    move.change_target(statement)
    report = move.copy()
    assert any(said in fault for fault in report.checked.faults), report.checked.faults
    with pytest.raises(StorageError, match="is not complete"):
        Database.open(move.target)


def _pages_before_the_end(move: Move) -> int:
    """Return after how many calls all pages are written but the last table's."""
    rows = _rows(move.source)
    last = TABLES[-1].name
    return sum(1 + -(-len(found) // PAGE) for name, found in rows.items() if name != last)


def test_nobody_may_use_the_source_meanwhile(move: Move) -> None:
    """One connection to it is enough, even an idle one; who has noted to be there is named."""
    with closing(Database.open(move.source)) as database:
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO nodes (id, name, kind, version, revision, started_at, seen_at) "
                "VALUES (1, 'push-1:4711', 'server', '0.2.0', '0006', 1, 1)"
            )
        with pytest.raises(DatabaseLockedError, match="in use by the server push-1:4711"):
            move.copy()
    with open_source(move.source), pytest.raises(DatabaseLockedError):
        Database.open(move.source, wait=0.1)


def test_a_target_with_another_installation_is_left_alone(move: Move) -> None:
    """One row is enough; the source stays open then."""
    with closing(Database.open(move.target, migrate=True)):
        move.change_target(
            "INSERT INTO invitations (digest, created_at, expires_at) VALUES ('x', 1, 1)"
        )
    with pytest.raises(StorageError, match="another installation: its table invitations has 1 row"):
        move.copy()
    Database.open(move.source).close()


def test_a_source_that_was_reopened_needs_a_new_copy(move: Move) -> None:
    """What was changed since a copy began would be lost; `anew` removes the part that is there."""
    with pytest.raises(CutError):
        move.copy(cut_after=9)
    with open_source(move.source) as source:
        source.reopen()
    Database.open(move.source).close()
    move.change("UPDATE users SET mail = 'changed@example.com' WHERE id = 1")
    with pytest.raises(StorageError, match="a part of another copy"):
        move.copy()
    report = move.copy(anew=True)
    assert not report.is_resumed
    assert _rows(move.target) == _rows(move.source)
    # Somebody works with the target now: it is never emptied.
    with open_source(move.source) as source:
        source.reopen()
    with pytest.raises(StorageError, match="another installation"):
        move.copy(anew=True)


def test_only_a_file_is_copied_and_only_to_postgresql(move: Move, tmp_path: Path) -> None:
    """The wrong kinds are named, and a missing file is not made."""
    missing = tmp_path / "missing.db"
    for source, target, kind in (
        (move.target, move.target, SettingsError),
        (move.source, f"sqlite:///{tmp_path / 'other.db'}", SettingsError),
        (f"sqlite:///{missing}", move.target, StorageError),
    ):
        wrong: type[HandbellError] = kind
        with pytest.raises(wrong):
            Move(source, move.path, target, move.server).copy()
    assert not missing.exists()


def test_what_is_due_is_due_in_the_target(move: Move) -> None:
    """What a dead worker held comes back there, as it would have in the source."""
    move.change(
        "UPDATE deliveries SET state = 'sending', due_at = NULL, worker_id = 77 "
        "WHERE state = 'queued'"
    )
    move.copy()
    settings = Settings(home=move.path.parent, database_url=move.target)
    system = System(settings)
    with closing(system.database):
        before = system.status.read().due
        assert system.known_workers.reclaim() == 2  # one is of the older version
        assert system.status.read().due > before
        with system.database.read() as connection:
            held = select(func.count()).where(deliveries.c.worker_id.is_not(None))
            assert connection.scalar(held) == 0
