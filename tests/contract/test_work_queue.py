"""What any work queue promises: one worker at a time, and nothing lost.

Rows on each database, and JetStream beside each. Written against the protocols ``WorkQueue`` and
``OutcomeWriter`` alone: another engine is another way to make an :class:`Installation`.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.queue.work_queue import Taken, Wanted, WorkQueue
from handbell.delivery.queue.workers import new_worker
from handbell.delivery.record.outcome_batch import Batch, Ending, OutcomeWriter
from handbell.delivery.urgency import LEVELS
from handbell.settings import Settings
from handbell.system import System

pytestmark = pytest.mark.databases

EVERYTHING = Wanted(limit=1000)
HOUR_MS = 3_600_000


@dataclass
class Machine:
    """One machine's end of a queue."""

    queue: WorkQueue
    writer: OutcomeWriter
    worker: int
    system: System
    runner: asyncio.Runner
    is_closed: bool = False

    def take(self, wanted: Wanted = EVERYTHING) -> Taken:
        """Take what is due now."""
        return self.runner.run(self.queue.take(self.worker, wanted))

    def receive(self, wanted: Wanted = EVERYTHING) -> Taken:
        """Take what is due; it may be handed out a moment late."""

        async def receive() -> Taken:
            async with asyncio.timeout(10):
                while True:
                    if any(taken := await self.queue.take(self.worker, wanted)):
                        return taken
                    await asyncio.sleep(0.02)

        return self.runner.run(receive())

    def close(self) -> None:
        """End it, as a process that was killed is gone: its connections, and its event loop."""
        if not self.is_closed:
            self.runner.run(self.queue.close())
            self.runner.close()
        self.is_closed = True

    def finish(self, taken: Taken, *, due_at: int | None = None) -> None:
        """Write that deliveries were sent, or are due again at an instant, and let go of them."""
        batch = Batch()
        for one in taken.due:
            if due_at is None:
                place = (one.notification, one.gateway, one.environment, LEVELS[1])
                batch.sent.setdefault(place, []).append(one.number)
            else:
                state = Ending(
                    one.notification,
                    one.number,
                    one.gateway,
                    one.environment,
                    LEVELS[1],
                    "held",
                    1,
                    due_at=due_at,
                )
                batch.endings.append(state)
        self.writer.record(batch)
        self.runner.run(self.queue.done(self.worker, batch.settled()))


@dataclass
class Installation:
    """Machines on one database, and what is sent there."""

    settings: Settings
    system: System
    app: App
    machines: list[Machine]

    def add(self) -> Machine:
        """Add a machine with a worker that has joined."""
        system = System(self.settings)
        queue = system.work_queue
        machine = Machine(queue, system.recorder, new_worker(), system, asyncio.Runner())
        machine.runner.run(queue.join(machine.worker))
        self.machines.append(machine)
        return machine

    def send(self, *numbers: int, urgency: str = "normal") -> int:
        """Accept a send to persons, without a worker, and put it; return its row."""
        mails = [f"user{number}@example.com" for number in numbers]
        return self._accept({"mails": mails} if numbers else {"everybody": True}, urgency)

    def _accept(self, to: object, urgency: str) -> int:
        async def accept() -> int:
            engine = self.system.engine
            accepted, _ = await engine.accept(
                self.app,
                Notification(title="Hello"),
                Recipients.read(to),
                Options.read(urgency=urgency),
            )
            await self.system.close_gateways()
            return accepted.row

        return asyncio.run(accept())


@pytest.fixture(params=["rows", "jetstream"])
def engine(request: pytest.FixtureRequest) -> str | None:
    """Give the setting of each engine."""
    return None if request.param == "rows" else request.getfixturevalue("broker_url")


@pytest.fixture
def installation(tmp_path: Path, database_url: str, engine: str | None) -> Iterator[Installation]:
    """Give an installation with an app and forty sessions."""
    settings = Settings.load(home=tmp_path, database_url=database_url, engine=engine)
    system = System(settings)
    with closing(system.database):
        app = system.apps.add("TEAM123456", "com.sample.myapp")
        system.apps.add_credential(app, make_key(app.apple.team_id))
        for number in range(40):
            token = f"{number:064x}"
            system.registry.register(
                app, f"user{number}@example.com", token, environment="production"
            )
        made = Installation(settings, system, app, [])
        yield made
        for machine in made.machines:
            machine.close()
            machine.system.database.close()


def _numbers(taken: Taken) -> list[int]:
    return [one.number for one in taken.due]


def test_what_was_put_is_taken_once(installation: Installation) -> None:
    """The second worker finds nothing of it, and what is done is not given out again."""
    first, second = installation.add(), installation.add()
    row = installation.send(1, 2, 3)
    taken = first.take()
    assert {one.notification for one in taken.due} == {row}
    assert len(taken.due) == 3
    assert not any(one.is_repeat for one in taken.due)
    assert second.take() == Taken([], [])
    first.finish(taken)
    first.runner.run(first.queue.put_back(first.worker))
    assert second.take() == Taken([], [])


def test_workers_that_take_at_once_share_without_a_duplicate(installation: Installation) -> None:
    """Several at the same time neither wait for each other for ever nor take the same."""
    machines = [installation.add() for _ in range(3)]
    rows = [installation.send(*range(40)) for _ in range(5)]
    taken: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    lock = threading.Lock()

    def work(machine: Machine) -> None:
        try:
            while True:
                part = machine.take(Wanted(limit=7))
                if not part.due:
                    return
                with lock:
                    taken.extend((one.notification, one.number) for one in part.due)
                machine.finish(part)
        except BaseException as error:  # noqa: BLE001 - told by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    # One that found all the rest locked may have left; nobody took one twice.
    while part := machines[0].take().due:
        taken.extend((one.notification, one.number) for one in part)
    assert max(Counter(taken).values()) == 1
    assert Counter(row for row, _ in taken) == dict.fromkeys(rows, 40)


def test_the_urgent_first_and_nothing_below_what_is_wanted(installation: Installation) -> None:
    """One urgency at a time; a worker with a shard in hand takes what is as urgent or more."""
    machine = installation.add()
    bulk, urgent = installation.send(1, urgency="bulk"), installation.send(2, urgency="urgent")
    assert [one.notification for one in machine.take().due] == [urgent]
    assert machine.take(Wanted(limit=10, least=LEVELS[0])) == Taken([], [])
    assert machine.take(Wanted(limit=10, full=[installation.app.id])) == Taken([], [])
    assert [one.notification for one in machine.receive().due] == [bulk]


def test_no_more_than_there_is_room_for(installation: Installation) -> None:
    """A worker gets as many as it asks for, and the rest stays."""
    machine = installation.add()
    installation.send(*range(10))
    assert len(machine.take(Wanted(limit=4)).due) == 4
    assert len(machine.take(Wanted(limit=4)).due) == 4
    assert len(machine.take(Wanted(limit=4)).due) == 2


def test_what_waits_is_given_out_at_its_time(installation: Installation) -> None:
    """Put back until an instant, it is due then and not before; its attempts are kept."""
    machine = installation.add()
    installation.send(1, 2)
    now = int(installation.system.now() * 1000)
    machine.finish(machine.take(), due_at=now + HOUR_MS)
    assert machine.take() == Taken([], [])
    installation.send(3)
    machine.finish(machine.receive(), due_at=now - 1)
    (again,) = machine.receive().due
    assert again.attempts == 1


def test_a_worker_that_leaves_puts_back_what_it_has(installation: Installation) -> None:
    """Others get it at once, as repeats: it may have been sent."""
    first, second = installation.add(), installation.add()
    installation.send(1, 2, 3)
    installation.send()
    former = first.take()
    assert former.shards
    first.runner.run(first.queue.put_back(first.worker))
    taken = second.take()
    assert _numbers(taken) == _numbers(former)
    assert all(one.is_repeat for one in taken.due)
    assert [one.id for one in taken.shards] == [one.id for one in former.shards]
    assert taken.shards[0].is_resumed


def test_a_worker_that_died_loses_all_it_has_and_hears_of_it(installation: Installation) -> None:
    """Who does not extend its lease is passed over; coming back it may not go on."""
    machine = installation.add()
    dead = installation.add()
    installation.send(1, 2, 3)
    taken = dead.take()
    assert dead.runner.run(dead.queue.extend(dead.worker))
    machine.runner.run(machine.queue.sweep())
    assert machine.take() == Taken([], [])
    dead.close()
    machine.runner.run(machine.queue.sweep())
    again = machine.take()
    assert _numbers(again) == _numbers(taken)
    assert [one.failures for one in again.due] == [1, 1, 1]
    assert not machine.runner.run(dead.queue.extend(dead.worker))
    machine.runner.run(dead.queue.close())


def test_what_loses_a_worker_again_comes_later(installation: Installation) -> None:
    """The second time it is held, and so is a shard; what others say of it starts anew."""
    last = installation.add()
    installation.send(1, 2)
    installation.send()
    for losses in range(2):
        machine = installation.add()
        taken = machine.receive()
        while not taken.shards:
            taken = Taken(taken.due, machine.receive().shards)
        assert {one.failures for one in taken.due} == {losses}
        assert [one.failures for one in taken.shards] == [losses]
        machine.close()
        last.runner.run(last.queue.sweep())
    assert last.take() == Taken([], [])
    states = installation.system.reports.newest()
    assert [one.states for one in states] == [{}, {"held": 2}]
    assert not any(one.is_running for one in states)


def test_a_shard_is_with_one_worker_and_each_takes_another_notification(
    installation: Installation,
) -> None:
    """Two broadcasts are spread over two workers; one that rests is passed over."""
    first, second = installation.add(), installation.add()
    rows = {installation.send(), installation.send()}
    resting = Wanted(limit=10, apart_from=[min(rows)])
    (one,) = first.take(resting).shards
    assert one.notification == max(rows)
    (other,) = second.take().shards
    assert {one.notification, other.notification} == rows
    assert first.take().shards == second.take().shards == []
