"""Who lives and who is dead, by a clock that nobody sets."""

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
from bench.chaos import Clock
from sqlalchemy import insert, select

from handbell._thread_pool import ThreadPool
from handbell.clocks import MachineClock, boot_id, seconds_since_boot
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.heartbeat import Heartbeat
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.sql_work_queue import SqlWorkQueue
from handbell.delivery.queue.workers import LEASE_SECONDS, Workers
from handbell.errors import DatabaseLockedError
from handbell.storage.database import Database
from handbell.storage.tables import workers

pytestmark = pytest.mark.databases

HOUR = 3600.0


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a new database."""
    with closing(Database.open(database_url)) as database:
        yield database


@pytest.fixture
def clock() -> Clock:
    """Give clocks that a test moves and sets."""
    return Clock()


def listed(database: Database) -> list[int]:
    """Return the workers that are entered."""
    with database.read() as connection:
        return list(connection.scalars(select(workers.c.id)))


def enter(database: Database, *, boot: str, beat: float) -> int:
    """Enter a worker of another process, and return its id."""
    values = {"id": 7, "host": "elsewhere", "pid": 1, "boot": boot, "beat": int(beat * 1000)}
    with database.write() as connection:
        connection.execute(insert(workers).values(values))
    return 7


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("jump", [-24 * HOUR, -HOUR, -LEASE_SECONDS - 1, LEASE_SECONDS + 1, HOUR])
def test_a_clock_that_is_set_kills_nobody_and_keeps_nobody_alive(
    database: Database, clock: Clock, jump: float
) -> None:
    """However the wall's clock is set, a lease lasts as long as it lasts."""
    known_workers = Workers(database, now=clock, machine=clock.machine)
    enter(database, boot=clock.machine.boot, beat=clock.machine.seconds())
    clock.set(jump)
    assert known_workers.reclaim() == 0
    clock.move(LEASE_SECONDS - 1)
    assert known_workers.reclaim() == 0
    clock.move(2)
    assert known_workers.reclaim() == 1
    assert listed(database) == []


@pytest.mark.parametrize("beat", [0.0, -5.0, 5.0])
def test_a_lease_of_another_start_of_the_machine_is_over(
    database: Database, clock: Clock, beat: float
) -> None:
    """What lived before the machine was started anew does not live, whatever its clock said."""
    enter(database, boot="another", beat=clock.machine.seconds() + beat)
    assert Workers(database, machine=clock.machine).reclaim() == 1


def test_where_a_start_has_no_name_a_lease_that_lies_ahead_is_over(database: Database) -> None:
    """A machine that ran for a day and was started anew counts from nought."""
    clock = MachineClock("a host's name", lambda: 60.0)
    enter(database, boot=clock.boot, beat=24 * HOUR)
    assert Workers(database, machine=clock).reclaim() == 1


def test_the_clock_of_the_machine_goes_on_and_names_its_start() -> None:
    """It is the same for whoever asks, and never goes back."""
    first, second = MachineClock.here(), MachineClock.here()
    assert first.boot == second.boot
    assert first.boot
    assert not boot_id() or boot_id() == first.boot
    at = seconds_since_boot()
    assert at <= first.seconds() <= second.seconds()


def test_a_worker_whose_event_loop_is_closed_is_dead(database: Database) -> None:
    """Its process lives and runs the next loop: the former worker's row goes at once."""
    known_workers = Workers(database)
    ids: list[int] = []

    async def work() -> None:
        ids.append(known_workers.enlist(loop=asyncio.get_running_loop()))
        assert known_workers.reclaim() == min(1, len(ids) - 1)

    for _ in range(5):
        asyncio.run(work())
    assert listed(database) == ids[-1:]
    assert known_workers.live_workers() == 0


class Failing(Workers):
    """A roster whose database fails at the first look for the dead."""

    fails = True

    def reclaim(self) -> int:
        """Fail once."""
        if self.fails:
            self.fails = False
            raise DatabaseLockedError("The database is locked")
        return super().reclaim()


def make_heart(
    known_workers: Workers, database: Database, lost: list[bool] | None = None
) -> Heartbeat:
    """Return a heart that beats only when it is told to."""
    told = [] if lost is None else lost
    jumps = ClockJumps(database, known_workers.machine)
    threads = ThreadPool(4, "test")
    return Heartbeat(
        SqlWorkQueue(Queue(database), known_workers),
        known_workers,
        threads=threads,
        jumps=jumps,
        on_loss=lambda: told.append(True),
        on_jump=lambda _: None,
        seconds=HOUR,
    )


@pytest.mark.databases("sqlite")
def test_a_worker_that_was_struck_off_enlists_once(database: Database, clock: Clock) -> None:
    """However many find out at the same time, it has one name afterwards, and one row."""
    known_workers, lost = Workers(database, machine=clock.machine), list[bool]()

    async def story() -> None:
        heartbeat = make_heart(known_workers, database, lost)
        await heartbeat.begin()
        former = heartbeat.worker
        clock.move(LEASE_SECONDS + 1)
        assert not heartbeat.lease.holds()
        assert Workers(database, machine=clock.machine).reclaim() == 1
        await asyncio.gather(*(heartbeat.make_sure() for _ in range(8)))
        assert heartbeat.worker != former
        assert listed(database) == [heartbeat.worker]
        assert heartbeat.lease.holds()
        await heartbeat.end()

    asyncio.run(story())
    assert lost
    assert listed(database) == []


def test_a_start_that_failed_halfway_and_is_repeated_enlists_once(database: Database) -> None:
    """What was entered before the database failed is the same worker at the next try."""

    async def story() -> None:
        heartbeat = make_heart(Failing(database), database)
        with pytest.raises(DatabaseLockedError):
            await heartbeat.begin()
        await heartbeat.begin()
        assert listed(database) == [heartbeat.worker]

    asyncio.run(story())


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_the_right_to_send_lasts_as_long_as_the_lease(
    database: Database, clock: Clock, jump: float
) -> None:
    """It ends before others may take the worker for dead, and the next beat renews it."""

    async def story() -> None:
        heartbeat = make_heart(Workers(database, now=clock, machine=clock.machine), database)
        assert not heartbeat.lease.holds()
        await heartbeat.begin()
        clock.set(jump)
        assert heartbeat.lease.holds()
        clock.move(LEASE_SECONDS)
        assert not heartbeat.lease.holds()
        async with asyncio.timeout(5):
            await asyncio.gather(*(heartbeat.hold_lease() for _ in range(8)))
        assert heartbeat.lease.holds()

    asyncio.run(story())
