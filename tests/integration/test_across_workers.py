"""What holds for all workers of a database together, whichever process or machine they are on."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Table, func, select
from tests.conftest import Stage

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import Engine, Options
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.server.limits import Limit, Limiter
from handbell.storage.tables import cap_claims
from handbell.system import System

pytestmark = pytest.mark.databases


@contextlib.asynccontextmanager
async def working(stage: Stage, number: int) -> AsyncIterator[list[Engine]]:
    """Run engines of so many systems of their own on the stage's database."""
    systems = [System(stage.system.settings) for _ in range(number)]
    try:
        for system in systems:
            await system.engine.start()
        yield [system.engine for system in systems]
    finally:
        for system in systems:
            await system.close()


async def accept(stage: Stage, engine: Engine, to: object) -> Acceptance:
    """Accept a send to people and return at once."""
    acceptance, _ = await engine.accept(stage.app, Notification(title="Hello"), Recipients.read(to))
    return acceptance


@contextlib.asynccontextmanager
async def watching(delays: list[float]) -> AsyncIterator[None]:
    """Note by how much the event loop is late while the block runs, in seconds."""

    async def watch() -> None:
        while True:
            due = time.monotonic() + 0.005
            await asyncio.sleep(0.005)
            delays.append(time.monotonic() - due)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


async def until(is_so: Callable[[], object], seconds: float = 30) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", ["lists", "singles", "everybody"])
def test_a_rate_is_that_of_all_workers_together(stage: Stage, kind: str) -> None:
    """In no second more goes out than the burst and 1.1 times the rate, and all of it does.

    The twin sees when a push arrives. One that a busy machine delayed arrives among later ones, so
    a second of arrivals is longer by the longest delay of the event loop that sends.
    """
    rate, burst, number = 100, 20, 300
    people = number // 2 if kind == "singles" else 100
    mails = [f"user{one}@example.com" for one in range(people)]
    for mail in mails:
        stage.add_phone(mail)
    stage.system.app_control.set_rules(stage.app, {"rate_limit": f"{rate}/s burst {burst}"})

    delays = [0.0]

    async def scenario() -> None:
        async with working(stage, 2) as engines, watching(delays):
            if kind == "everybody":
                for engine in (*engines, engines[0]):
                    await engine.accept(
                        stage.app, Notification(title="Hello"), Recipients.read({"everybody": True})
                    )
            elif kind == "lists":
                for engine in (*engines, engines[0]):
                    await accept(stage, engine, mails)
            else:
                await asyncio.gather(
                    *(accept(stage, engine, [mail]) for engine in engines for mail in mails)
                )
            await until(lambda: stage.twin.accepted >= number, 60)

    asyncio.run(scenario())
    times = sorted(one.at / 1000 for one in stage.twin.requests)
    assert len(times) == number
    for start in times:
        within = [at for at in times if start <= at < start + 1]
        assert len(within) <= burst + 1.1 * rate * (1 + max(delays)) + 1
    least = (number - burst) / rate
    assert least * 0.9 <= times[-1] - times[0]


@pytest.mark.parametrize("kind", ["lists", "everybody"])
def test_a_cap_counts_what_other_workers_have_on_their_way(stage: Stage, kind: str) -> None:
    """However many workers send to a person at one time, no more arrive than the cap says."""
    mails = [f"user{one}@example.com" for one in range(8)]
    tokens = [stage.add_phone(mail).token for mail in mails]
    stage.system.app_control.set_rules(stage.app, {"cap": "2/day"})
    stage.twin.add_fault("slow", seconds=0.3, count=1000)
    to = {"everybody": True} if kind == "everybody" else mails

    async def scenario() -> None:
        async with working(stage, 3) as engines:
            # Each worker knows of the others from its first batch on.
            sends = await asyncio.gather(
                *(accept(stage, engine, to) for engine in engines for _ in range(2))
            )
            ledger = stage.system.ledger
            await until(
                lambda: (
                    all(
                        one.state in {"sent", "cancelled"}
                        for send in sends
                        for one in ledger.deliveries_of(send.id)
                    )
                    and sum(len(ledger.deliveries_of(send.id)) for send in sends) == 6 * 8
                )
            )
            await until(lambda: not _rows(stage.system, cap_claims))

    asyncio.run(scenario())
    assert [len(stage.twin.accepted_of(token)) for token in tokens] == [2] * 8


def test_a_key_of_a_call_is_known_to_all_who_accept(stage: Stage) -> None:
    """Of calls with one idempotency key at several servers at once, one is stored."""
    stage.add_phone("user0@example.com")
    options = Options.read(idempotency_key="once")

    async def scenario() -> set[str]:
        async with working(stage, 2) as engines:
            told = await asyncio.gather(
                *(
                    engine.accept(
                        stage.app,
                        Notification(title="Hello"),
                        Recipients.read("user0@example.com"),
                        options,
                    )
                    for engine in [*engines] * 5
                )
            )
            await until(lambda: stage.twin.accepted)
            return {acceptance.id for acceptance, _ in told}

    assert len(asyncio.run(scenario())) == 1
    assert stage.twin.accepted == 1


def test_a_token_that_several_machines_register_at_once_has_one_owner(stage: Stage) -> None:
    """Each call is answered, the last one's person owns the token, and nobody else."""
    systems = [System(stage.system.settings) for _ in range(2)]
    token = "ab" * 32

    def register(turn: int) -> None:
        registry = systems[turn % 2].registry
        registry.register(stage.app, f"user{turn % 4}@example.com", token)

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(register, range(24)))
    finally:
        for system in systems:
            system.database.close()
    owners = [one for one in stage.system.registry.sessions(stage.app) if one.status == "active"]
    assert [one.token for one in owners] == [token]


def test_servers_count_the_calls_of_one_caller_together(stage: Stage) -> None:
    """An exact limit is exact, whichever server is asked."""
    servers = [Limiter(lambda: stage.system.buckets) for _ in range(2)]
    limit = Limit(number=5, seconds=1e6)
    waits = [servers[turn % 2].take("sign-in", "a", limit) for turn in range(9)]
    assert [wait == 0 for wait in waits] == [True] * 5 + [False] * 4


def test_a_circuit_is_probed_by_one_worker(stage: Stage) -> None:
    """Who has the permission keeps it until the probe is over, or the worker is struck off."""
    place = CircuitScope(stage.app.id, "production", "key")

    async def scenario() -> None:
        async with working(stage, 2) as engines:
            one, other = (engine.worker.id for engine in engines)
            rules = stage.system.rules_store
            assert rules.claim_probe([place], one) == (False, [])
            stop = _stop()
            rules.note(StoredCircuit(place, stop=stop))
            assert rules.claim_probe([place], one)[0]
            assert rules.claim_probe([place], one)[0]
            assert not rules.claim_probe([place], other)[0]
            rules.note(StoredCircuit(place, stop=stop))
            assert not rules.claim_probe([place], other)[0]
            rules.release_probe([place], other)
            assert not rules.claim_probe([place], other)[0]
            rules.release_probe([place], one)
            assert rules.claim_probe([place], other)[0]
            rules.note(StoredCircuit(place))
            assert rules.claim_probe([place], other)[0] is False
            rules.note(StoredCircuit(place, stop=stop))
            assert rules.claim_probe([place], one)[0]
            stage.system.known_workers.retire(one)
            assert rules.claim_probe([place], other)[0]

    asyncio.run(scenario())


def _stop() -> CircuitStop:
    now = time.time()
    return CircuitStop(reason="InvalidProviderToken", detail="", since=now, probe_at=now)


def _rows(system: System, table: Table) -> int:
    with system.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0
