"""What fails in our own code again and again ends as a dead letter: told, kept, and sent again."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from tests.scripted import EVERYBODY, Play, ScriptedGateway, open_play

from handbell.delivery.accept.store import Acceptance
from handbell.delivery.events import DeliveryFailed, Event
from handbell.delivery.policy.failures import MOST_FAILURES
from handbell.gateways.gateway import Push, Report
from handbell.storage.tables import deliveries, shards

pytestmark = pytest.mark.databases

PEOPLE = 3
TOKEN = f"{1:064x}"
TABLES = (deliveries, shards)


@dataclass(eq=False)
class Poisoned(ScriptedGateway):
    """Accepts everything, and fails as a whole while the push to one device is among it."""

    answers: str | None = "accepted"
    is_mended: bool = False
    taken: list[Push] = field(default_factory=list)

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Take pushes, unless the bad one is among them."""
        bad = [push for push in batch if push.address == TOKEN]
        self.taken += bad
        if bad and not self.is_mended:
            raise ValueError(f"of no use: {TOKEN}")
        await super().send(batch, report)


@pytest.fixture
def play(tmp_path: Path, database_url: str) -> Iterator[Play]:
    """Give a play on each database."""
    with open_play(tmp_path, people=PEOPLE, database_url=database_url) as play:
        yield play


async def until_dead(play: Play, acceptance: Acceptance, number: int = 1) -> None:
    """Let time pass, from one that is due to the next, until so many are dead letters."""
    for _ in range(3 * MOST_FAILURES * number):
        async with asyncio.timeout(10):
            await play.engine.worker.idle()
        waiting, _ = play.system.queue.depth()
        if play.states(acceptance)["dead_letter"] == number and not waiting:
            return
        move_on(play)
        play.engine.worker.wake()
    pytest.fail(f"no dead letters: {play.states(acceptance)}")


def move_on(play: Play) -> None:
    """Let time pass until the next delivery or part of a broadcast is due."""
    with play.system.database.read() as connection:
        at = [connection.scalar(select(func.min(table.c.due_at))) for table in TABLES]
    due_at = min((one / 1000 for one in at if one is not None), default=0.0)
    play.clock.move(max(0.0, due_at - play.clock() + 0.01))


def run_sql(play: Play, statement: str) -> None:
    """Run SQL on the database, as somebody from outside."""
    with play.system.database.write() as connection:
        connection.execute(text(statement))


@pytest.mark.parametrize(
    "to", [EVERYBODY, {"mails": [f"user{one}@example.com" for one in range(PEOPLE)]}]
)
def test_one_bad_push_is_a_dead_letter_and_the_others_are_sent(play: Play, to: object) -> None:
    """It is tried a few times, then told everywhere, and goes out once it is sent again."""
    gateway = play.system.gateway = Poisoned()
    told: list[Event] = []

    async def scenario() -> None:
        play.system.hooks.add(told.append)
        await play.start()
        acceptance = await play.accept(to)
        await until_dead(play, acceptance)
        assert play.states(acceptance) == {"sent": PEOPLE - 1, "dead_letter": 1}
        assert len(gateway.taken) == MOST_FAILURES
        (failed,) = [one for one in told if isinstance(one, DeliveryFailed)]
        assert (failed.state, failed.reason) == ("dead_letter", "InternalError")
        (dead,) = [one for one in play.deliveries(acceptance) if one.is_final and not one.sent_at]
        assert "ValueError" in (dead.detail or "")
        assert TOKEN not in (dead.detail or "")
        (error,) = play.engine.response(acceptance.id).errors
        assert f"handbell notification resend {acceptance.id}" in error
        story = play.system.why(play.app, play.mails[0])
        assert "dead letter" in str(story)
        assert story.to_do[0].endswith(f"resend {acceptance.id}.")
        assert play.system.status.read().dead_letters == 1

        gateway.is_mended = True
        assert await play.engine.resend(play.app, acceptance.id) == 1
        await play.until(lambda: play.states(acceptance) == {"sent": PEOPLE})
        assert gateway.taken[-1].collapse_id is not None
        assert await play.engine.resend(play.app) == 0
        assert play.system.status.read().dead_letters == 0
        await play.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("to", "broken", "mended"),
    [
        (
            EVERYBODY,
            "UPDATE apps SET quiet_hours = 'at night'",
            "UPDATE apps SET quiet_hours = NULL",
        ),
        (
            {"mails": ["user0@example.com"]},
            "UPDATE notifications SET content = '{' || content",
            "UPDATE notifications SET content = substr(content, 2)",
        ),
    ],
    ids=["rules", "content"],
)
def test_what_cannot_be_begun_is_a_dead_letter(
    play: Play, to: object, broken: str, mended: str
) -> None:
    """A broadcast that fails page for page is broken up, and each of its deliveries told."""
    play.gateway.answers = "accepted"
    number = PEOPLE if to == EVERYBODY else 1

    async def scenario() -> None:
        acceptance = await play.accept(to)
        run_sql(play, broken)
        await play.start()
        await until_dead(play, acceptance, number)
        assert not play.gateway.pushed
        run_sql(play, mended)
        play.engine.worker.app_states.forget_rules()
        assert await play.engine.resend(play.app) == number
        await play.until(lambda: play.states(acceptance) == {"sent": number})
        await play.stop()

    asyncio.run(scenario())
    assert set(play.gateway.pushed.values()) == {1}


@pytest.mark.parametrize("to", [EVERYBODY, {"mails": ["user0@example.com"]}])
def test_what_ends_its_workers_is_a_dead_letter(tmp_path: Path, to: object) -> None:
    """Each worker that takes it dies; the last one lets it be, and sends it when it is told to."""
    with open_play(tmp_path, people=1) as play:
        acceptance = asyncio.run(play.accept(to))

        def is_taken() -> object:
            move_on(play)
            return play.gateway.calls or play.states(acceptance)["dead_letter"]

        async def one_worker() -> bool:
            await play.start()
            await play.until(is_taken)
            return bool(play.gateway.calls)

        deaths = 0
        while asyncio.run(one_worker()):
            deaths += 1
            assert deaths < 3 * MOST_FAILURES
            play.gateway.calls.clear()
            play.again()
        assert deaths >= MOST_FAILURES
        (dead,) = play.deliveries(acceptance)
        assert (dead.state, dead.reason) == ("dead_letter", "WorkerLost")
        assert play.system.ledger.resend(play.app).number == 1
        play.gateway.answers = "accepted"
        play.again()

        async def the_last() -> None:
            await play.start()
            await play.until(lambda: play.states(acceptance) == {"sent": 1})
            await play.stop()

        asyncio.run(the_last())
