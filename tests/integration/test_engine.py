"""The engine's promises one by one: real SQLite, a real twin, a clock that the test moves."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from tests.scene import Scene, open_scene

from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.storage.tables import workers

pytestmark = pytest.mark.databases

MAIL = "user0@example.com"
QUARTER = 15 * 60


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key."""
    with open_scene(tmp_path, database_url, request_timeout=2) as scene:
        yield scene


# A crash


def test_what_was_accepted_before_a_kill_is_sent_by_the_next(scene: Scene) -> None:
    """A process killed right after it accepted leaves work that the next one finishes."""
    phones = scene.add_phones(3)
    orders = [{"content": {"title": "Hello"}, "to": [one.mail for one in phones]}]
    with scene.sender(orders=orders, works=False, dies=True) as process:
        assert process.wait(20) == -9
    assert scene.twin.accepted == 0

    async def finish() -> None:
        async with scene.running() as engine:
            await scene.until(engine, lambda: scene.twin.accepted == 3)

    asyncio.run(finish())
    assert [len(scene.accepted(phone)) for phone in phones] == [1, 1, 1]


def test_what_was_on_its_way_at_a_kill_goes_again_and_is_shown_once(scene: Scene) -> None:
    """A delivery of a killed sender is repeated under its apns-id, and the phone shows it once."""
    (phone,) = scene.add_phones(1)
    scene.twin.add_fault("silence", token=phone.token, delivers=True)
    orders = [{"content": {"title": "Hello"}, "to": MAIL}]
    with scene.sender(orders=orders, request_timeout=60.0) as process:
        asyncio.run(scene.until(None, lambda: scene.twin.accepted == 1))
        process.kill()
        process.wait()

        async def finish() -> None:
            async with scene.running() as engine:
                await scene.until(engine, lambda: scene.twin.accepted == 2)

        asyncio.run(finish())
    ((apns_id, times),) = scene.accepted(phone).items()
    repeat = scene.twin.requests[0]
    assert (times, len(scene.twin.phone(phone.id).cards)) == (2, 1)
    assert repeat.headers["apns-collapse-id"] == apns_id
    assert scene.states(apns_id[:8] + apns_id[9:13] + apns_id[15:18]) == {"sent": 1}


@pytest.mark.databases("sqlite")
def test_nothing_stays_with_a_sender_whose_heart_stopped(scene: Scene) -> None:
    """Work of a worker that has not beaten for the lease comes back, wherever it ran."""
    scene.add_phones(1)
    other = scene.another()

    async def scenario() -> None:
        lost = await asyncio.to_thread(other.known_workers.enlist)
        acceptance = await scene.accept(scene.system.engine, MAIL)
        other.queue.claim_due(lost, 5, 10)
        assert scene.states(acceptance) == {"sending": 1}
        scene.clock.move(LEASE_SECONDS + 1)
        async with scene.running() as engine:
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 1})

    asyncio.run(scenario())
    assert scene.twin.accepted == 1


@pytest.mark.databases("sqlite")
@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="there are no such containers")
def test_a_container_of_the_same_name_is_not_taken_for_dead(scene: Scene) -> None:
    """The number of its process says nothing here; its heart counts, as another machine's does."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    machine = scene.clock.machine
    there = {"host": socket.gethostname(), "pid": ended.pid, "boot": machine.boot}
    beat = int(machine.seconds() * 1000)
    with scene.system.database.write() as connection:
        connection.execute(insert(workers).values(id=1, beat=beat, **there))
    assert scene.system.known_workers.reclaim() == 0
    scene.clock.move(LEASE_SECONDS + 1)
    assert scene.system.known_workers.reclaim() == 1


def test_a_caller_that_gives_up_waiting_strands_nothing(scene: Scene) -> None:
    """A send that is cancelled by its caller is still finished once it was accepted."""
    phones = scene.add_phones(40)

    async def scenario() -> None:
        async with scene.running() as engine:
            for number, phone in enumerate(phones):
                task = asyncio.create_task(scene.send(engine, phone.mail))
                await asyncio.sleep(0.0004 * number)
                task.cancel()
            await scene.until(engine, lambda: not _unfinished(scene))

    asyncio.run(scenario())


def test_a_clock_that_jumps_ahead_repeats_nothing(scene: Scene) -> None:
    """A machine that slept for an hour does not take its own worker for dead."""
    phones = scene.add_phones(30)
    scene.twin.add_fault("slow", seconds=1.5, count=30)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, {"everybody": True})
            await asyncio.sleep(0.3)
            scene.clock.move(3600)
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 30})

    asyncio.run(scenario())
    assert [sum(scene.accepted(phone).values()) for phone in phones] == [1] * 30


def test_a_worker_taken_for_dead_hands_out_no_more_of_its_broadcast(scene: Scene) -> None:
    """A worker whose work was given to another notices before it sends the rest a second time."""
    number = 3000
    phones = scene.add_phones_at_once(number)
    scene.set_rules(rate_limit="500/s burst 100")
    other = scene.another()

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, {"everybody": True})
            await scene.until(None, lambda: scene.twin.accepted > 60)
            scene.clock.move(LEASE_SECONDS + 1)
            other.known_workers.reclaim()
            async with scene.running(other) as second:
                await scene.until(second, lambda: scene.states(acceptance)["sent"] == number, 60)

    asyncio.run(scenario())
    assert all(len(scene.accepted(phone)) == 1 for phone in phones)
    assert scene.twin.accepted - number < 1000


# Trying again


@pytest.mark.parametrize(
    ("fault", "earliest", "latest"),
    [
        ({"kind": "answer", "reason": "ServiceUnavailable"}, QUARTER, 1.25 * QUARTER),
        ({"kind": "answer", "reason": "InternalServerError"}, QUARTER, 1.25 * QUARTER),
        ({"kind": "answer", "reason": "TooManyRequests"}, 30, 37.5),
        ({"kind": "answer", "reason": "ServiceUnavailable", "retry_after": 7200}, 7200, 7425),
        ({"kind": "answer", "reason": "Shutdown", "count": 2}, 15, 18.75),
        ({"kind": "cut"}, 5, 6.25),
        ({"kind": "reset"}, 5, 6.25),
        ({"kind": "silence"}, 5, 6.25),
        ({"kind": "cut", "delivers": True}, 5, 6.25),
    ],
)
def test_what_may_be_sent_again_waits_its_time(
    scene: Scene, fault: dict[str, Any], earliest: float, latest: float
) -> None:
    """Each end that may be repeated is held as long as its row says, then sent and shown once."""
    (phone,) = scene.add_phones(1)
    scene.twin.add_fault(**fault)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, MAIL)
            (delivery,) = response.deliveries
            waits = (delivery.due_at or 0) / 1000 - scene.clock()
            assert (delivery.state, delivery.attempts) == ("held", 1)
            assert earliest - 2.5 < waits <= latest
            assert (response.success, response.errors) == (False, ())
            scene.clock.move(waits - 1)
            await asyncio.sleep(0.05)
            assert scene.states(response) == {"held": 1}
            scene.clock.move(1.5)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(scenario())
    assert len(scene.twin.phone(phone.id).cards) == 1
    assert len(scene.accepted(phone)) == 1


@pytest.mark.parametrize(
    ("content", "state"), [({"ttl": 600}, "expired"), ({"ttl": 0}, "expired"), ({}, "held")]
)
def test_a_repeat_never_comes_after_the_expiry(
    scene: Scene, content: dict[str, Any], state: str
) -> None:
    """What would expire before it may be sent again ends as expired at once."""
    scene.add_phones(1)
    scene.twin.add_fault("answer", reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, MAIL, **content)
            assert scene.states(response) == {state: 1}

    asyncio.run(scenario())


def test_what_expired_while_it_waited_is_not_sent(scene: Scene) -> None:
    """A held delivery whose time is over when it falls due ends as expired."""
    scene.add_phones(1)
    scene.twin.add_fault("answer", reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, MAIL, ttl=3600)
            assert scene.states(response) == {"held": 1}
            scene.clock.move(2 * 3600)
            await scene.until(engine, lambda: scene.states(response) == {"expired": 1})

    asyncio.run(scenario())
    assert scene.twin.accepted == 0


def test_a_service_that_never_recovers_is_given_up_after_a_day(scene: Scene) -> None:
    """Retries end after a day, in a final state that keeps the last reason."""
    scene.add_phones(1)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", count=100)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, MAIL)
            for _ in range(12):
                scene.clock.move(5 * 3600)
                before = scene.deliveries(response)[0].attempts
                await scene.until(engine, partial(_moved_on, scene, response, before))
                if scene.states(response) == {"failed": 1}:
                    break
            (delivery,) = scene.deliveries(response)
            assert (delivery.state, delivery.reason) == ("failed", "ServiceUnavailable")
            assert "24 hours" in (delivery.detail or "")

    asyncio.run(scenario())


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Scene]:
    """Give a scene that waits for an answer for longer than what is tested takes meanwhile."""
    with open_scene(tmp_path, request_timeout=8) as scene:
        yield scene


def test_a_silent_token_among_many_delays_nobody(patient: Scene) -> None:
    """While one push waits for its answer, all the others are sent and written down."""
    scene = patient
    phones = scene.add_phones_at_once(500)
    scene.twin.add_fault("silence", token=phones[0].token, count=3)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, {"everybody": True})
            await scene.until(engine, lambda: scene.states(acceptance)["sent"] == 499)
            assert len(scene.deliveries(acceptance)) == 499
            await scene.until(engine, lambda: scene.states(acceptance)["held"] == 1, 30)
            scene.twin.clear_faults()
            scene.clock.move(60)
            await scene.until(engine, lambda: scene.states(acceptance) == {"sent": 500})

    asyncio.run(scenario())
    assert len(scene.twin.phone(phones[0].id).cards) == 1


def test_a_silent_app_delays_no_other_app(patient: Scene) -> None:
    """While the service answers nothing for one app, another app's send goes out at once."""
    scene = patient
    others = scene.second_app()
    silent = scene.add_phones(60)
    for phone in silent:
        scene.twin.add_fault("silence", token=phone.token)

    async def scenario() -> None:
        async with scene.running() as engine:
            stuck = await scene.accept(engine, {"everybody": True})
            await scene.until(None, lambda: any(one.fault for one in scene.twin.requests))
            elsewhere = scene.another().engine
            sent = await others.accept(elsewhere, "second@example.com")
            await scene.until(engine, lambda: others.states(sent) == {"sent": 1})
            assert scene.states(stuck).total() == 0

    asyncio.run(scenario())


def _moved_on(scene: Scene, response: Any, attempts: int) -> bool:
    (delivery,) = scene.deliveries(response)
    return delivery.state == "failed" or delivery.attempts > attempts


def _unfinished(scene: Scene) -> int:
    with scene.system.database.read() as connection:
        text = "SELECT count(*) FROM deliveries WHERE state IN ('queued', 'sending')"
        return int(connection.exec_driver_sql(text).scalar() or 0)
