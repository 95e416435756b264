"""What goes on for ever survives a turn that fails, and what is a mistake is not repeated."""

import asyncio
import logging
import threading
from pathlib import Path

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import InvalidRequestError

from handbell._background import forever
from handbell._thread_pool import ThreadPool
from handbell.delivery.ledger.retention import Pruner
from handbell.errors import ContradictionError, HandbellError, StatementError, StorageError
from handbell.storage.database import Database
from handbell.storage.storage_retry import StorageRetry
from handbell.storage.tables import users

POOL = ThreadPool(1, "test")


@pytest.mark.parametrize(
    "error",
    [StorageError("away"), HandbellError("no"), RuntimeError("a mistake"), KeyError(3)],
    ids=lambda error: type(error).__name__,
)
def test_a_turn_that_fails_is_told_and_followed_by_another(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it raises, the next turn comes, and the log names the work."""
    turns = 0

    async def turn() -> float:
        nonlocal turns
        turns += 1
        if turns == 2:
            raise error
        if turns == 4:
            raise asyncio.CancelledError
        return 0.0

    with caplog.at_level(logging.WARNING), pytest.raises(asyncio.CancelledError):
        asyncio.run(forever(turn, name="Counting", pause=0))
    assert turns == 4
    assert len([one for one in caplog.messages if "Counting failed" in one]) == 1


def test_pruning_goes_on_after_a_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step that fails as no database does costs that turn."""
    steps: list[int] = []
    enough = threading.Event()

    class Stumbling(Pruner):
        first_after = every = 0.001

        def step(self, limit: int = 1) -> int:
            steps.append(limit)
            if len(steps) == 1:
                raise RuntimeError("a mistake")
            if len(steps) == 3:
                enough.set()
            return super().step(limit)

    async def scenario() -> None:
        database = Database.open(f"sqlite:///{tmp_path}/handbell.db")
        running = asyncio.create_task(Stumbling(database, keep_days=1).run())
        assert await asyncio.to_thread(enough.wait, 10)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        database.close()

    asyncio.run(scenario())
    assert "Pruning failed" in caplog.text


def _read(database: Database, statement: str) -> object:
    with database.read() as connection:
        return connection.execute(text(statement)).all()


def _raise(database: Database) -> object:
    with database.read() as connection:
        connection.execute(select(users))
        raise InvalidRequestError("a mistake")


MISTAKES = {
    "no such table": lambda database: _read(database, "SELECT * FROM nowhere"),
    "no such column": lambda database: _read(database, "SELECT nothing FROM users"),
    "no SQL": lambda database: _read(database, "SELEKT 1"),
    "no value": lambda database: _read(database, "SELECT :missing"),
    "no such function": lambda database: _read(database, "SELECT nothing(1)"),
    "SQLAlchemy's own": _raise,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_the_database_does_not_understand_is_not_repeated(
    tmp_path: Path, mistake: str
) -> None:
    """Patience is for a database that is locked, full or away; a mistake is raised at once."""
    database = Database.open(f"sqlite:///{tmp_path}/handbell.db")
    calls = 0

    def ask() -> object:
        nonlocal calls
        calls += 1
        return MISTAKES[mistake](database)

    with pytest.raises(StatementError):
        asyncio.run(StorageRetry(POOL, pause=0).call(ask))
    assert calls == 1
    database.close()


@pytest.mark.parametrize(("error", "calls"), [(StorageError, 3), (ContradictionError, 1)])
def test_what_may_pass_is_repeated(error: type[StorageError], calls: int) -> None:
    """A database that is away is asked again; what contradicts it is not."""
    asked = 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise error("no")
        return asked

    try:
        assert asyncio.run(StorageRetry(POOL, pause=0).call(ask)) == 3
    except ContradictionError:
        assert error is ContradictionError
    assert asked == calls
