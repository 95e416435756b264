"""A server and workers on a real broker of a test's own, which it may stop, freeze or empty."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import nats
import pytest
from bench.chaos import Clock
from bench.nats import NatsServer
from bench.postgresql import Unavailable
from sqlalchemy import func, select
from tests.scripted import ScriptedGateway, ScriptedSystem

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.settings import Settings
from handbell.storage.tables import deliveries
from handbell.system import System

if TYPE_CHECKING:
    from nats.aio.client import Client

PEOPLE = 60


@dataclass
class Ground:
    """A server that accepts and does not send, and what a worker of another process needs."""

    settings: Settings
    server: System
    app: App
    broker: NatsServer
    gateways: list[ScriptedGateway] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    @asynccontextmanager
    async def worker(
        self, answers: str = "accepted", gateway: ScriptedGateway | None = None
    ) -> AsyncIterator[System]:
        """Run a worker whose pushes all end alike, or as a gateway has it."""
        clock = self.clock
        system = ScriptedSystem(
            self.settings, now=clock, clock=clock.steady, machine=clock.machine, has_own_time=True
        )
        gateway = system.gateway = gateway or ScriptedGateway(answers)
        self.gateways.append(gateway)
        await system.engine.start()
        try:
            yield system
        finally:
            await system.close()

    async def client(self) -> "Client":
        """Return a connection of somebody else's to the broker."""
        return await nats.connect(f"nats://127.0.0.1:{self.broker.port}")

    @property
    def stream(self) -> str:
        """The name of the stream, and the beginning of its subjects."""
        assert self.settings.engine is not None
        return self.settings.engine.get_secret_value().rpartition("/")[2]

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


@contextmanager
def running(server: NatsServer) -> Iterator[NatsServer]:
    """Run a broker; where there can be none, the test is skipped."""
    try:
        server.start()
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a broker of the test's own, which it may stop."""
    folder = tmp_path / "nats"
    folder.mkdir()
    with running(NatsServer(folder)) as own:
        yield own


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
