"""What whoever writes outcomes promises: all of a batch or nothing, and no more than is true.

Written against the protocol ``OutcomeWriter``: another one is another ``make_writer``.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.accept.store import Acceptance, Order
from handbell.delivery.delivery import Delivery
from handbell.delivery.events import SessionClosed
from handbell.delivery.queue.work_queue import Wanted
from handbell.delivery.record.outcome_batch import Batch, Ending, OutcomeWriter, RestingShard
from handbell.delivery.urgency import NORMAL
from handbell.errors import ContradictionError
from handbell.registry.session import Session
from handbell.settings import Settings
from handbell.system import System

pytestmark = pytest.mark.databases

HOUR_MS: Final = 3_600_000
WORKER: Final = 77
SENT: Final = "apns", "production", NORMAL

MakeWriter = Callable[[System], OutcomeWriter]
WRITERS: Final[dict[str, MakeWriter]] = {"rows": lambda system: system.recorder}


@dataclass
class Ledger:
    """A writer, and the system in whose ledger it shows what was written."""

    system: System
    app: App
    writer: OutcomeWriter
    sessions: list[Session]

    def write(self, batch: Batch) -> set[int]:
        """Write a batch."""
        return self.writer.record(batch)

    def send(self) -> Acceptance:
        """Accept a send to all persons by name, and take it."""
        mails = Recipients(mails=[f"user{one}@example.com" for one in range(len(self.sessions))])
        sends, plan = self.system.sends, self.system.engine.plan(self.app, mails)
        order = Order(app=self.app, content=Notification(title="Hello"), recipients=mails.to_dict())
        accepted = sends.accept(order, plan.targets)
        asyncio.run(self.take())
        return accepted

    def broadcast(self) -> tuple[int, int]:
        """Accept a send to everybody, and take it; return its row and its shard."""
        order = Order(
            app=self.app, content=Notification(title="Hello"), recipients=EVERYBODY.to_dict()
        )
        accepted = self.system.sends.accept(order, None)
        (shard,) = self.system.queue.claim_shards(WORKER)
        return accepted.row, shard.id

    async def take(self) -> None:
        """Take what is due for a worker."""
        await self.system.work_queue.join(WORKER)
        await self.system.work_queue.take(WORKER, Wanted(limit=100))

    def deliveries(self, row: int) -> dict[int, Delivery]:
        """Return what the ledger says of each delivery."""
        public_id = self.system.ledger.row(row).public_id
        return {one.number: one for one in self.system.ledger.deliveries_of(public_id)}

    def states(self, row: int) -> Counter[str]:
        """Return how many deliveries are in which state."""
        return Counter(one.state for one in self.deliveries(row).values())

    def session(self, place: int) -> Session:
        """Return what is known of a session now."""
        return self.system.registry.session(self.sessions[place].id)

    def due(self) -> list[int]:
        """Return the numbers of the deliveries that are due, and take them."""
        return [one.number for one in self.system.queue.claim_due(WORKER, NORMAL, 100)]


@pytest.fixture(params=WRITERS)
def make_writer(request: pytest.FixtureRequest) -> MakeWriter:
    """Give each way to make a writer."""
    return WRITERS[request.param]


@pytest.fixture
def ledger(tmp_path: Path, database_url: str, make_writer: MakeWriter) -> Iterator[Ledger]:
    """Give a ledger with an app and four sessions."""
    system = System(Settings.load(home=tmp_path, database_url=database_url))
    with closing(system.database):
        app = system.apps.add("TEAM123456", "com.sample.myapp")
        sessions = [
            system.registry.register(
                app, f"user{one}@example.com", f"{one + 1:064x}", environment="production"
            )
            for one in range(4)
        ]
        yield Ledger(system, app, make_writer(system), sessions)


def _held(row: int, number: int, due_at: int, *, is_repeat: bool = False) -> Ending:
    return Ending(
        row,
        number,
        *SENT[:2],
        NORMAL,
        "held",
        1,
        reason="TimedOut",
        due_at=due_at,
        is_repeat=is_repeat,
    )


def _ended(row: int, number: int) -> Ending:
    return Ending(row, number, *SENT[:2], NORMAL, "failed", 1, reason="DeviceTokenNotForTopic")


def test_each_delivery_has_the_end_that_was_written(ledger: Ledger) -> None:
    """Sent, failed or waiting: it says so, and is let go of; what waits is due at its time."""
    row, now = ledger.send().row, int(ledger.system.now() * 1000)
    first, second, third, fourth = (one.id for one in ledger.sessions)
    batch = Batch(
        sent={(row, *SENT): [first]},
        endings=[
            _ended(row, second),
            _held(row, third, now - 1),
            _held(row, fourth, now + HOUR_MS),
        ],
    )
    assert batch.rows() == {row}
    assert ledger.write(batch) == set()
    told = ledger.deliveries(row)
    assert [told[one.id].state for one in ledger.sessions] == ["sent", "failed", "held", "held"]
    assert [told[one.id].attempts for one in ledger.sessions] == [1, 1, 1, 1]
    assert told[second].reason == "DeviceTokenNotForTopic"
    assert (told[first].status, told[first].sent_at is None) == (200, False)
    assert ledger.due() == [third]


def test_of_a_broadcast_a_row_is_made_by_its_end(ledger: Ledger) -> None:
    """Before it nothing is written of a session."""
    row, shard = ledger.broadcast()
    assert ledger.states(row) == {}
    first, second, *_ = (one.id for one in ledger.sessions)
    batch = Batch(
        sent={(row, *SENT): [first]}, endings=[_ended(row, second)], positions={shard: second}
    )
    ledger.write(batch)
    assert ledger.states(row) == {"sent": 1, "failed": 1}


def test_all_is_written_or_nothing(ledger: Ledger) -> None:
    """What can never be written takes the rest of its batch along, and says that it never can."""
    row = ledger.send().row
    first, second, *_ = (one.id for one in ledger.sessions)
    odd = _ended(row, second)._replace(state="odd")  # type: ignore[arg-type]
    batch = Batch(sent={(row, *SENT): [first]}, endings=[odd], moved={first: "development"})
    with pytest.raises(ContradictionError):
        ledger.write(batch)
    assert ledger.states(row) == {"sending": 4}
    assert ledger.session(0).environment == "production"
    # Part by part, only the odd one is left out.
    for part in batch.parts():
        if odd not in part.endings:
            ledger.write(part)
    assert ledger.states(row) == {"sent": 1, "sending": 3}
    assert ledger.session(0).environment == "development"


def test_what_is_written_twice_stays_as_it_is(ledger: Ledger) -> None:
    """An answer of the database that was lost may be asked for again."""
    row, shard = ledger.broadcast()
    first, second, third, fourth = (one.id for one in ledger.sessions)
    batch = Batch(
        sent={(row, *SENT): [first]},
        endings=[_ended(row, second), _held(row, third, 1, is_repeat=True)],
        moved={first: "development"},
        gone={fourth: (None, "Unregistered")},
        finished_shards=[shard],
    )
    assert ledger.write(batch) == set()
    before = ledger.deliveries(row)
    # Its session is closed already.
    assert ledger.write(batch) == {fourth}
    after = ledger.deliveries(row)
    assert [*map(_undated, after.values())] == [*map(_undated, before.values())]
    assert [ledger.session(place).status for place in range(4)] == [*["active"] * 3, "closed"]
    assert ledger.system.queue.claim_shards(WORKER) == []


def _undated(one: Delivery) -> Delivery:
    return replace(one, sent_at=None, finished_at=None, attempts=0)


def test_what_may_have_been_sent_stays_a_repeat(ledger: Ledger) -> None:
    """A later wait, which knows of no attempt, does not make it a first one."""
    row = ledger.send().row
    number = ledger.sessions[0].id
    ledger.write(Batch(endings=[_held(row, number, 1, is_repeat=True)]))
    ledger.write(Batch(endings=[_held(row, number, 2)]))
    (again,) = ledger.system.queue.claim_due(WORKER, NORMAL, 100)
    assert (again.number, again.is_repeat) == (number, True)


def test_a_session_is_closed_only_by_what_is_newer(ledger: Ledger) -> None:
    """One that registered since its device was gone stays, and so does one that is closed."""
    registered_at = [one.registered_at for one in ledger.sessions]
    first, second, third, fourth = (one.id for one in ledger.sessions)
    ledger.system.registry.close(third, "closed")
    batch = Batch(
        gone={
            first: (registered_at[0] + 1, "Unregistered"),
            second: (registered_at[1], "Unregistered"),
            third: (None, "Unregistered"),
        },
        refused={fourth: "BadDeviceToken"},
    )
    assert ledger.write(batch) == {second, third}
    told = [(ledger.session(place).status, ledger.session(place).reason) for place in range(4)]
    assert told[0] == ("closed", "Unregistered")
    assert told[1] == ("active", None)
    assert told[2][0] == "closed"
    assert told[2][1] != "Unregistered"
    assert told[3] == ("quarantined", "BadDeviceToken")


def test_a_shard_goes_on_where_its_position_is(ledger: Ledger) -> None:
    """One that rests has no worker, and is due at its time; one that is finished is gone."""
    row, shard = ledger.broadcast()
    second = ledger.sessions[1].id
    ledger.write(Batch(positions={shard: second}))
    ledger.write(Batch(resting_shards={shard: RestingShard(1, "NoCredential")}))
    (again,) = ledger.system.queue.claim_shards(WORKER)
    assert (again.id, again.position) == (shard, second)
    ledger.write(Batch(resting_shards={shard: RestingShard(2**50, "NoCredential")}))
    assert ledger.system.queue.claim_shards(WORKER) == []
    public_id = ledger.system.ledger.row(row).public_id
    assert [one.reason for one in ledger.system.ledger.waits(public_id)] == ["NoCredential"]
    ledger.write(Batch(finished_shards=[shard]))
    assert ledger.system.ledger.in_hand([row]) == set()


def test_a_cancelled_broadcast_counts_whom_it_did_not_reach(ledger: Ledger) -> None:
    """When the last of its shards is finished, each session is sent to or counted, once."""
    row, shard = ledger.broadcast()
    public_id = ledger.system.ledger.row(row).public_id
    ledger.system.ledger.begin_cancel(ledger.app, public_id)
    first = ledger.sessions[0].id
    ledger.write(Batch(sent={(row, *SENT): [first]}, finished_shards=[shard]))
    assert ledger.system.ledger.row(row).cancelled == 3
    assert ledger.states(row) == {"sent": 1}


def test_what_is_held_may_be_put_under_an_outage(ledger: Ledger) -> None:
    """Its reason becomes the outage, with the former one as the detail; what ended is left."""
    row = ledger.send().row
    first, second, *_ = (one.id for one in ledger.sessions)
    ledger.write(
        Batch(
            sent={(row, *SENT): [first]},
            endings=[_held(row, second, 1)],
            adopted=[(row, first), (row, second)],
        )
    )
    told = ledger.deliveries(row)
    assert (told[first].state, told[first].reason) == ("sent", None)
    assert told[second].reason == "ServiceDown"
    assert "TimedOut" in (told[second].detail or "")


def test_webhooks_are_called_for_what_is_true(ledger: Ledger) -> None:
    """A call is stored with its outcome; none says of a session what was not done."""
    ledger.system.webhooks.add(ledger.app, "https://hooks.example.com/")
    (webhook,) = ledger.system.webhooks.list()
    first, second, *_ = ledger.sessions
    events = [
        SessionClosed(app=ledger.app.id, at=0, session_id=one.id, mail=None, reason="Unregistered")
        for one in (first, second)
    ]
    gone = {
        first.id: (None, "Unregistered"),
        second.id: (second.registered_at - 1, "Unregistered"),
    }
    ledger.write(Batch(gone=gone, webhook_events=[*events]))
    standing = ledger.system.webhooks.standings()[webhook.id]
    assert standing.waiting == 1
    with ledger.system.database.read() as connection:
        bodies = connection.exec_driver_sql("SELECT body FROM webhook_calls").scalars().all()
    assert sum(body.count(f'"session_id":{first.id}') for body in bodies) == 1
    assert sum(body.count(f'"session_id":{second.id}') for body in bodies) == 0
