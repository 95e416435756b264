"""A fleet is upgraded without a gap: what an older and a newer Handbell do on one database."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import delete, insert
from tests.ledger_book import Book
from tests.newer import CONTRACTED, EXPANDED, Newer

import handbell.storage.migrations
from handbell.errors import StorageError
from handbell.storage.database import Database
from handbell.storage.migrations import HEAD, NEEDED, OLDEST
from handbell.storage.tables import nodes
from handbell.storage.upgrade import LIVING_SECONDS

pytestmark = pytest.mark.databases


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Newer:
    """Give a newer Handbell."""
    return Newer(tmp_path_factory.mktemp("newer"))


@pytest.fixture
def book(database_url: str) -> Iterator[Book]:
    """Give a ledger of this version."""
    with closing(Database.open(database_url)) as database:
        yield Book(database)


def test_servers_of_two_versions_work_until_the_last_is_upgraded(
    book: Book, database_url: str, newer: Newer
) -> None:
    """Steps that add are taken while older servers run, and those that remove after them."""
    # Code so old cannot even work on what the newer one needs at least.
    _let_run(book, "0.1.0", "0005")
    refused = newer.run("db", "upgrade", url=database_url)
    _, error = refused.communicate(timeout=100)
    assert refused.returncode != 0
    assert f"step {EXPANDED} waits until these are upgraded: web-1 (0.1.0)" in error
    assert book.database.revision() == HEAD

    # From several machines at once: one migrates, and all say the same.
    _let_run(book, "0.2.0", HEAD)
    told = newer.upgrade(database_url, times=2)
    assert f"is at {EXPANDED}; step {CONTRACTED} waits" in told
    assert "web-1 (0.2.0)" in told
    # The older server goes on, and another one of its version begins.
    assert len(book.ledger.deliveries_of(book.accept(2).id)) == 2
    with closing(Database.open(database_url)) as another:
        assert another.usable_revision() == EXPANDED
        assert another.migrate() is False

    # Of those that are left one knows the step, and the other was stopped for good.
    _let_run(book, "0.3.0", CONTRACTED)
    _let_run(book, "0.2.0", HEAD, row=2, seconds_ago=LIVING_SECONDS + 1)
    assert f"up to date, at {CONTRACTED}" in newer.upgrade(database_url)
    with pytest.raises(StorageError, match=f"newer Handbell: its schema is {CONTRACTED}"):
        Database.open(database_url)
    with pytest.raises(StorageError, match="newer Handbell"):
        book.database.usable_revision()


def test_what_is_known_without_the_steps_is_what_they_say() -> None:
    """The newest revision, and the oldest one whose code works on it, are those of the files."""
    config = Config()
    config.set_main_option(
        "script_location", str(Path(handbell.storage.migrations.__file__).parent)
    )
    config.set_main_option("path_separator", "os")
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    assert scripts[0].revision == HEAD
    assert max(getattr(one.module, "oldest", one.revision) for one in scripts) == OLDEST
    assert OLDEST <= HEAD
    assert NEEDED in {one.revision for one in scripts}


def _let_run(
    book: Book, version: str, revision: str, *, row: int = 1, seconds_ago: float = 0
) -> None:
    """Let a server of a version have said so long ago that it runs."""
    at = int((time.time() - seconds_ago) * 1000)
    values = {"name": f"web-{row}", "kind": "server", "version": version, "revision": revision}
    with book.database.write() as connection:
        connection.execute(delete(nodes).where(nodes.c.id == row))
        connection.execute(insert(nodes).values(id=row, **values, started_at=at, seen_at=at))
