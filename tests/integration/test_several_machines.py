"""Machines on one PostgreSQL: one that is cut off from it, and one whose clock is wrong."""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bench.fleet.link import Link
from bench.postgresql import PostgresServer
from tests.conftest import Stage, open_stage

from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.gateways.apns.token import ProviderTokens
from handbell.system import System

MAIL = "user0@example.com"


@pytest.fixture
def stage(tmp_path: Path, postgresql: PostgresServer) -> Iterator[Stage]:
    """Give a stage on PostgreSQL."""
    with postgresql.database() as url, open_stage(tmp_path, url) as opened:
        yield opened


def machine(stage: Stage, *, wrong: float = 0.0, **settings: object) -> System:
    """Return the system of another machine, whose wall clock is wrong by so many seconds."""
    return System(
        stage.system.settings.model_copy(update=settings), now=lambda: time.time() + wrong
    )


async def until(is_so: Callable[[], object], seconds: float = 60) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.02)


def test_a_worker_that_is_cut_off_sends_nothing_once_its_lease_is_over(
    stage: Stage, postgresql: PostgresServer
) -> None:
    """A logout waits for that and is answered; when the link is back the worker works on."""
    phone = stage.add_phone(MAIL)
    stage.add_phone("user1@example.com")
    stage.twin.add_fault("slow", seconds=0.2, count=100_000)
    session = stage.session(MAIL).id
    database = stage.system.settings.database_url.split("?")[0].rpartition("/")[2]

    async def scenario() -> None:
        with Link(postgresql.port) as link:
            far = machine(
                stage,
                database_url=postgresql.url(database, port=link.port),
                connections=1,
                in_flight=1,
            )
            try:
                await far.engine.start()
                for _ in range(200):
                    await far.engine.accept(
                        stage.app, Notification(title="Hello"), Recipients.read(MAIL)
                    )
                await until(lambda: stage.twin.accepted > 3)
                link.cut(silently=True)
                stage.system.registry.close(session, "logout")
                began = time.monotonic()
                await stage.system.engine.release([session])
                waited = time.monotonic() - began
                there = len(stage.twin.accepted_of(phone.token))
                await asyncio.sleep(2)
                # What was on the wire in that moment is not called back.
                assert len(stage.twin.accepted_of(phone.token)) <= there + 1 < 200
                assert LEASE_SECONDS / 2 < waited < LEASE_SECONDS + 10
                link.restore()
                again = await far.engine.send(
                    stage.app, Notification(title="Hello"), Recipients.read("user1@example.com")
                )
                assert again.success
                assert len(stage.twin.accepted_of(phone.token)) <= there + 1
            finally:
                link.restore()
                await far.close(within=5)

    asyncio.run(scenario())


def test_a_clock_that_is_wrong_changes_nothing(stage: Stage) -> None:
    """Each machine goes by the server's clock: in what is due, and in the tokens for Apple."""
    stage.add_phone(MAIL)
    key = make_key("TEAM123456")

    async def scenario() -> None:
        fast, slow = machine(stage, wrong=60), machine(stage, wrong=-3600)
        try:
            for system in (fast, slow):
                assert abs(system.now() - time.time()) < 1
            tokens = {
                ProviderTokens(key, system.now, system.machine.seconds).current()
                for system in (fast, slow, stage.system)
            }
            assert len(tokens) == 1
            due = int(time.time()) + 4
            options = Options.read(send_at=datetime.fromtimestamp(due, UTC).isoformat())
            await slow.engine.start()
            await fast.engine.accept(
                stage.app, Notification(title="Hello"), Recipients.read(MAIL), options
            )
            await until(lambda: stage.twin.accepted)
            assert due - 0.05 <= time.time() < due + 30
        finally:
            await fast.close()
            await slow.close()

    asyncio.run(scenario())
