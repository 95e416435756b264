"""Work goes through a real broker: nothing is lost where that is away, forgets, or is full."""

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import update
from tests.console import open_console
from tests.jetstream_ground import PEOPLE, Ground, until
from tests.scripted import EVERYBODY, ScriptedGateway

from handbell.delivery.queue.broker_state import BrokerState
from handbell.gateways.gateway import Push, Report
from handbell.server.asgi_server import make_context
from handbell.server.health import check
from handbell.storage.tables import workers
from handbell.system import System


def test_workers_share_what_a_server_accepts(ground: Ground) -> None:
    """Single sends and a broadcast reach everybody once, whichever worker has them."""

    async def scenario() -> None:
        async with ground.worker(), ground.worker():
            for number in range(20):
                await ground.accept(f"user{number}@example.com", urgency="urgent")
            await ground.accept(EVERYBODY)
            await ground.until_sent(20 + PEOPLE)
            await until(lambda: all(gateway.pushed for gateway in ground.gateways[:1]))
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


@pytest.mark.parametrize("forgets", [False, True], ids=["keeps its stream", "loses its stream"])
def test_what_is_accepted_while_the_broker_is_away_goes_out_later(
    ground: Ground, *, forgets: bool
) -> None:
    """A send is accepted as long as the database takes it; nothing of it is lost or sent twice."""

    async def scenario() -> None:
        await ground.accept([f"user{number}@example.com" for number in range(10)])
        ground.broker.stop()
        await ground.accept([f"user{number}@example.com" for number in range(10, 20)])
        await ground.accept(EVERYBODY)
        await ground.server.close_gateways()
        if forgets:
            shutil.rmtree(ground.broker.folder / "jetstream")
        ground.broker.start()
        async with ground.worker():
            await ground.until_sent(20 + PEOPLE)

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


def test_a_worker_goes_on_when_the_broker_returns(ground: Ground) -> None:
    """Crashed and started again while work is accepted, the broker costs time and nothing else."""

    async def scenario() -> None:
        async with ground.worker():
            for number in range(30):
                if number == 10:
                    await asyncio.to_thread(ground.broker.stop)
                if number == 20:
                    await asyncio.to_thread(ground.broker.start)
                await ground.accept(f"user{number}@example.com")
            await ground.until_sent(30)
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


def test_what_waits_comes_at_its_time(ground: Ground) -> None:
    """Tried in vain, it is held in its row and with the broker, and sent when it is due again."""

    async def scenario() -> None:
        await ground.accept([f"user{number}@example.com" for number in range(5)])
        await ground.server.close_gateways()
        async with ground.worker("unknown"):
            await until(lambda: ground.states() == {"held": 5})
        async with ground.worker():
            await ground.until_sent(5)

    asyncio.run(scenario())


def test_the_status_tells_what_the_broker_holds_and_since_when_it_is_away(ground: Ground) -> None:
    """What waits by urgency, what has lost its message, and who misses the broker; no password."""
    server = ground.server
    assert ground.settings.engine is not None

    def read(seconds_later: float = 0) -> BrokerState:
        later = System(ground.settings, now=lambda: time.time() + seconds_later)
        broker = later.status.read().broker
        assert broker is not None
        return broker

    async def scenario() -> tuple[BrokerState, BrokerState]:
        for number, urgency in enumerate(("urgent", "bulk", "bulk")):
            await ground.accept(f"user{number}@example.com", urgency=urgency)
        stored = await asyncio.to_thread(read, 10)
        await asyncio.to_thread(ground.broker.stop)
        await ground.accept("user5@example.com")
        await asyncio.to_thread(server.presence.beat)
        away = await asyncio.to_thread(read)
        await server.close_gateways()
        return stored, away

    empty = read()
    assert (empty.is_reachable, empty.by_urgency, empty.messages) == (True, (), 0)
    stored, away = asyncio.run(scenario())
    assert {one.urgency: (one.waiting, one.held) for one in stored.by_urgency} == {
        "urgent": (1, 0),
        "normal": (0, 0),
        "bulk": (2, 0),
    }
    assert (stored.messages, stored.unpublished, stored.bytes > 0) == (3, 0, True)
    assert (away.is_reachable, away.unpublished) == (False, None)
    assert f"127.0.0.1:{ground.broker.port} does not answer: Connect call failed" in away.problem
    assert away.away_since is not None
    assert abs(away.away_since / 1000 - time.time()) < 60
    shutil.rmtree(ground.broker.folder / "jetstream")
    ground.broker.start()
    forgot = read(seconds_later=10)
    assert (forgot.unpublished, forgot.away_since) == (4, None)
    assert forgot.oldest_unpublished_at is not None
    assert abs(forgot.oldest_unpublished_at / 1000 - time.time()) < 60


def test_the_console_shows_the_broker(ground: Ground) -> None:
    """*Activity* has its address, what it holds, and that it is away; the API's answer as well."""
    system = ground.server
    assert ground.settings.engine is not None
    home = f"/console/apps/{ground.app.id}/activity"
    with (
        open_console(system, with_worker=False) as desk,
        desk.signed_in() as visitor,
        desk.server.client(desk.server.key()) as client,
    ):
        desk.server.run(ground.accept("user1@example.com"))
        page = visitor.get(home).text
        assert f"127.0.0.1:{ground.broker.port}" in page
        assert "holds 1 message" in page
        told = client.get("/v1/status").json()["broker"]
        assert (told["is_reachable"], told["messages"]) == (True, 1)
        metrics = client.get("/metrics").text
        assert 'handbell_broker_messages{state="waiting",urgency="normal"} 1.0' in metrics
        ground.broker.stop()
        page = visitor.get(home).text
        assert "What was accepted goes out when it is back" in page
        assert "handbell_broker_up 0.0" in client.get("/metrics").text


def test_a_worker_without_its_broker_is_there_and_does_not_count(ground: Ground) -> None:
    """It says since when it misses the broker, and sends again when that is back."""

    async def scenario() -> None:
        async with ground.worker() as system:
            await until(lambda: system.status.read().workers == 1)
            await asyncio.to_thread(ground.broker.stop)
            await until(lambda: system.status.read().workers == 0)
            (node,) = (await asyncio.to_thread(system.status.read)).nodes
            assert (node.is_gone, node.is_sending) == (False, True)
            assert node.broker_away_since is not None
            with system.database.write() as connection:
                connection.execute(update(workers).values(beat=0))
            # It accepts sends meanwhile, although its lease is over.
            context = make_context(system, public_url="http://handbell.test")
            assert (await asyncio.to_thread(check, context)).status == "ready"
            await asyncio.to_thread(ground.broker.start)
            await until(lambda: system.status.read().workers == 1)

    asyncio.run(scenario())


@dataclass(eq=False)
class Broken(ScriptedGateway):
    """Fails as a whole until it ``is_mended``."""

    is_mended: bool = False

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Take pushes, once somebody has mended it."""
        if batch and not self.is_mended:
            raise ValueError("not yet")
        await super().send(batch, report)


def test_what_fails_again_and_again_is_a_dead_letter(ground: Ground) -> None:
    """A mistake of ours ends it after a few times; sent again, it goes out by the broker."""
    gateway = Broken("accepted")

    async def scenario() -> None:
        await ground.accept("user1@example.com")
        await ground.accept(EVERYBODY)
        async with ground.worker(gateway=gateway) as system:
            while ground.states() != {"dead_letter": 1 + PEOPLE}:
                await until(lambda: not system.engine.worker.app_states.in_flight)
                ground.clock.move(60)
                await asyncio.sleep(0.1)
            gateway.is_mended = True
            assert await ground.server.engine.resend(ground.app) == 1 + PEOPLE
            await ground.until_sent(1 + PEOPLE)
        await ground.server.close_gateways()

    asyncio.run(asyncio.wait_for(scenario(), 60))
    assert set(ground.pushed.values()) == {1}


def test_a_message_of_another_version_is_left_alone(ground: Ground) -> None:
    """What a worker cannot read neither stops it nor is taken from those who can."""

    async def scenario() -> None:
        async with ground.worker(), await ground.client() as client:
            await ground.accept("user1@example.com")
            await ground.until_sent(1)
            await client.jetstream().publish(f"{ground.stream}.due.9.61", b'{"v":99}')
            await ground.accept("user2@example.com")
            await ground.until_sent(2)
            stream = await client.jetstream().stream_info(ground.stream)
        await ground.server.close_gateways()
        assert stream.state.messages == 1

    asyncio.run(scenario())
