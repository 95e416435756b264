"""Work goes through a real broker: nothing is lost where that is away, forgets, or is full."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from bench.nats import NatsServer
from bench.postgresql import Unavailable
from sqlalchemy import func, select
from tests.scripted import EVERYBODY, ScriptedGateway, ScriptedSystem

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.settings import Settings
from handbell.storage.tables import deliveries
from handbell.system import System

PEOPLE = 60


@dataclass
class Ground:
    """A server that accepts and does not send, and what a worker of another process needs."""

    settings: Settings
    server: System
    app: App
    broker: NatsServer
    gateways: list[ScriptedGateway] = field(default_factory=list)

    @asynccontextmanager
    async def worker(self, answers: str = "accepted") -> AsyncIterator[System]:
        """Run a worker whose pushes all end alike."""
        system = ScriptedSystem(self.settings)
        gateway = system.gateway = ScriptedGateway(answers)
        self.gateways.append(gateway)
        await system.engine.start()
        try:
            yield system
        finally:
            await system.close()

    async def accept(self, to: object, **options: object) -> None:
        """Accept a send."""
        await self.server.engine.accept(
            self.app,
            Notification(title="Hello"),
            Recipients.read(to),
            Options.read(**options),  # type: ignore[arg-type]
        )

    @property
    def pushed(self) -> Counter[str]:
        """How often each push was handed to a gateway, by its id."""
        return sum((gateway.pushed for gateway in self.gateways), Counter[str]())

    def states(self) -> dict[str, int]:
        """Return how many deliveries are in each state."""
        with self.server.database.read() as connection:
            rows = connection.execute(
                select(deliveries.c.state, func.count()).group_by(deliveries.c.state)
            )
            return {row.state: row[1] for row in rows}

    async def until_sent(self, number: int, seconds: float = 60) -> None:
        """Return when so many deliveries are sent and no other is left."""
        await until(lambda: self.states() == {"sent": number}, seconds)


async def until(is_so: Callable[[], object], seconds: float = 60) -> None:
    """Return when something is so."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(is_so):
        assert time.monotonic() < deadline, "it did not come to pass"
        await asyncio.sleep(0.05)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a broker of the test's own, which it may stop."""
    folder = tmp_path / "nats"
    folder.mkdir()
    own = NatsServer(folder)
    try:
        own.start()
    except Unavailable as error:
        pytest.skip(str(error))
    yield own
    own.stop()


@pytest.fixture
def ground(broker: NatsServer, tmp_path: Path) -> Iterator[Ground]:
    """Give an app with people, and a server that leaves sending to workers."""
    settings = Settings.load(home=tmp_path / "home", engine=broker.url(f"t-{uuid4().hex[:8]}"))
    system = System(settings)
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    system.apps.add_credential(app, make_key(app.team_id or ""))
    for number in range(PEOPLE):
        token = f"{number:064x}"
        system.registry.register(app, f"user{number}@example.com", token, environment="production")
    yield Ground(settings, system, app, broker)
    system.database.close()


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


def test_a_message_of_another_version_is_left_alone(ground: Ground) -> None:
    """What a worker cannot read neither stops it nor is taken from those who can."""

    async def scenario() -> None:
        async with ground.worker() as system:
            await ground.accept("user1@example.com")
            await ground.until_sent(1)
            queue = system.work_queue
            stream = await queue._broker._open()  # type: ignore[attr-defined]  # noqa: SLF001
            await stream.publish(f"{queue._broker.prefix}.due.9.61", b'{"v":99}')  # type: ignore[attr-defined]  # noqa: SLF001
            await ground.accept("user2@example.com")
            await ground.until_sent(2)
            counts = await queue._broker.counts()  # type: ignore[attr-defined]  # noqa: SLF001
        await ground.server.close_gateways()
        assert counts["due", 9] in {(0, 1), (1, 0)}

    asyncio.run(scenario())
