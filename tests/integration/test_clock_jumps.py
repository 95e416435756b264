"""The wall's clock is set while things wait: what is an interval lasts as long as it did."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from tests.scene import Scene

from handbell.delivery.policy.circuit import CircuitScope, CircuitStop
from handbell.delivery.queue.clock_jumps import JUMP_SECONDS, ClockJumps
from handbell.delivery.work.app_states import RULES_SECONDS
from handbell.delivery.work.routes import Routes
from handbell.settings import DATABASE_FILE

HOUR = 3600.0
JUMPS = [-24 * HOUR, -HOUR, -JUMP_SECONDS - 0.5, JUMP_SECONDS + 0.5, HOUR]
MAIL = "user0@example.com"


def watch(scene: Scene) -> ClockJumps:
    """Return what a worker's heart asks whether the clock was set; it has looked once."""
    jumps = ClockJumps(scene.system.database, scene.clock.machine, now=scene.clock)
    jumps.follow()
    return jumps


def run_sql(scene: Scene, script: str) -> list[tuple[object, ...]]:
    """Run SQL on the scene's database, whatever refers to what."""
    with closing(sqlite3.connect(scene.home / DATABASE_FILE)) as raw:
        rows = [row for one in script.split(";") for row in raw.execute(one).fetchall()]
        raw.commit()
    return rows


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_rules_are_read_again_after_their_time(scene: Scene, jump: float) -> None:
    """An app that is switched off stays so, although the clock was set meanwhile."""
    (phone,) = scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            assert (await scene.send(engine, MAIL)).success
            scene.clock.set(jump)
            scene.system.apps.set_enabled(scene.app, False)
            scene.clock.move(RULES_SECONDS + 1)
            assert scene.states(await scene.send(engine, MAIL)) == {"held": 1}

    asyncio.run(scenario())
    assert len(scene.accepted(phone)) == 1


@pytest.mark.parametrize("jump", [-24 * HOUR, -HOUR, HOUR])
def test_what_was_accepted_goes_out_although_the_clock_was_set(scene: Scene, jump: float) -> None:
    """A send that waits for a worker does not wait for the time of day at which it was accepted."""
    scene.add_phones(3)

    async def scenario() -> None:
        async with scene.running():
            """Whoever works notes how the clock stands."""
        mailed = await scene.accept(scene.system.engine, MAIL)
        broadcast = await scene.accept(scene.system.engine, {"everybody": True})
        scene.clock.set(jump)
        async with scene.running() as engine:
            await scene.until(engine, lambda: scene.states(mailed) == {"sent": 1})
            await scene.until(engine, lambda: scene.states(broadcast) == {"sent": 3})

    asyncio.run(scenario())


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_pause_before_another_attempt_lasts_as_long_as_it_did(scene: Scene, jump: float) -> None:
    """Set back by an hour, the clock does not make it an hour longer; set forward, no shorter."""
    scene.add_phones(1)
    scene.twin.add_fault("answer", reason="ServiceUnavailable", status=503)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, MAIL)
            (held,) = scene.deliveries(response)
            assert held.due_at is not None
            pause = held.due_at / 1000 - scene.clock()
            jumps = watch(scene)
            scene.clock.set(jump)
            jumps.follow()
            (moved,) = scene.deliveries(response)
            assert moved.due_at is not None
            assert moved.due_at / 1000 - scene.clock() == pytest.approx(pause, abs=5)
            scene.clock.move(pause + 5)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 1})

    asyncio.run(scenario())


def test_what_is_for_a_time_of_day_stays_there(scene: Scene) -> None:
    """A scheduled send goes out when the clock on the wall says so, whoever has set it."""
    scene.add_phones(1)
    jumps = watch(scene)
    at = scene.clock() + HOUR

    async def scenario() -> None:
        later = await scene.accept(scene.system.engine, MAIL, {"send_at": at})
        everybody = await scene.accept(scene.system.engine, {"everybody": True}, {"send_at": at})
        before = run_sql(scene, "SELECT due_at FROM deliveries UNION SELECT due_at FROM shards")
        scene.clock.set(-2 * HOUR)
        assert jumps.follow() == pytest.approx(-2 * HOUR, abs=1)
        assert before == run_sql(
            scene, "SELECT due_at FROM deliveries UNION SELECT due_at FROM shards"
        )
        async with scene.running() as engine:
            scene.clock.set(3 * HOUR + 1)
            await scene.until(engine, lambda: scene.states(later) == {"sent": 1})
            await scene.until(engine, lambda: scene.states(everybody) == {"sent": 1})

    asyncio.run(scenario())


_ROWS = """
    INSERT INTO webhook_calls (webhook_id, message_id, body, state, attempts, created_at, due_at)
        VALUES (1, 'a', '', 'sending', 1, 0, 1000000);
    INSERT INTO proofs (session_id, digest, created_at, expires_at, mail_due_at)
        VALUES (1, 'a', 0, 5, 1000000);
    INSERT INTO circuits (app, environment, credential, topic, reason, stopped_at, probe_at)
        VALUES ('a', 'production', 'key', 'topic', 'BadTopic', 5, 1000000)
"""
_DUE = """
    SELECT due_at FROM webhook_calls; SELECT mail_due_at FROM proofs; SELECT probe_at FROM circuits
"""


@pytest.mark.parametrize("jump", JUMPS)
def test_every_lease_and_pause_of_the_database_moves_along(scene: Scene, jump: float) -> None:
    """Calls of webhooks, mails and probes of circuits wait as long as they would have; once."""
    jumps = watch(scene)
    others = watch(scene)
    run_sql(scene, _ROWS)
    scene.clock.set(jump)
    scene.clock.move(7 * HOUR)
    assert jumps.follow() == pytest.approx(jump, abs=0.1)
    # Another process finds the same, and moves nothing once more.
    assert others.follow() == pytest.approx(jump, abs=0.1)
    assert (jumps.follow(), others.follow()) == (0, 0)
    for (due_at,) in run_sql(scene, _DUE):
        assert due_at == pytest.approx(1_000_000 + jump * 1000, abs=100)


@pytest.mark.parametrize("step", [-1.0, 0.5, 1.5])
def test_a_clock_that_is_kept_right_moves_nothing(scene: Scene, step: float) -> None:
    """What a time server corrects bit by bit never adds up to a jump."""
    jumps = watch(scene)
    run_sql(scene, _ROWS)
    for _ in range(10):
        scene.clock.set(step)
        assert jumps.follow() == 0
    assert {due for (due,) in run_sql(scene, _DUE)} == {1_000_000}


def test_another_start_of_the_machine_begins_anew(scene: Scene) -> None:
    """How the wall's clock stood to that of an earlier start says nothing."""
    watch(scene)
    run_sql(scene, _ROWS)
    run_sql(scene, "UPDATE wall_clock SET boot = 'another', ahead = 5")
    jumps = watch(scene)
    assert {due for (due,) in run_sql(scene, _DUE)} == {1_000_000}
    assert len(run_sql(scene, "SELECT boot FROM wall_clock")) == 1
    scene.clock.set(HOUR)
    assert jumps.follow() == pytest.approx(HOUR, abs=1)


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_circuit_that_only_a_worker_knows_is_probed_in_time(scene: Scene, jump: float) -> None:
    """The circuit of an app that is not registered is in no database, and moves along as well."""
    routes = Routes(scene.clock)
    route = routes.of(CircuitScope("TEAM000000.com.sample.stranger", "production", "key", "topic"))
    route.configuration.stop = CircuitStop(
        reason="BadTopic", detail="", since=scene.clock(), probe_at=scene.clock() + 60
    )
    jumps = watch(scene)
    scene.clock.set(jump)
    routes.move(jumps.follow())
    assert route.acquire(scene.clock()) is None
    scene.clock.move(61)
    assert route.acquire(scene.clock()) is not None
