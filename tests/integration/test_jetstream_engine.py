"""Work goes through a real broker: nothing is lost where that is away, forgets, or is full."""

import asyncio
import contextlib
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest
from bench.nats import NatsServer
from bench.postgresql import Unavailable
from sqlalchemy import func, select, update
from tests.console import open_console
from tests.scripted import EVERYBODY, ScriptedGateway, ScriptedSystem

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.queue.broker_state import BrokerState
from handbell.server.asgi_server import make_context
from handbell.server.health import check
from handbell.settings import Settings
from handbell.storage.tables import deliveries, workers
from handbell.system import System
from handbell.twin.certificates import Authority

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


@pytest.mark.parametrize("others", ["", "nats://127.0.0.1:1,"])
def test_no_password_is_told_without_encryption(tmp_path: Path, others: str) -> None:
    """A server that offers no TLS hears nothing of an address with tls, and is refused by name."""
    heard: list[bytes] = []

    def answer(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(2)
                    connection.sendall(b'INFO {"version":"2.10.0","auth_required":true}\r\n')
                    heard.append(connection.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer, args=[listening], daemon=True)
        answering.start()
        url = f"{others}tls://user:secret@127.0.0.1:{listening.getsockname()[1]}"
        state = System(Settings.load(home=tmp_path, engine=url)).status.read().broker
        listening.shutdown(socket.SHUT_RDWR)
        answering.join(10)
    assert state is not None
    assert "offers no TLS" in state.problem
    assert heard
    assert set(heard) == {b""}


def test_a_broker_is_reached_by_tls_with_a_password(tmp_path: Path) -> None:
    """Its certificate is checked by the authority that the settings name, and by no other."""
    authority = Authority.open(tmp_path / "authority")
    authority.server_context()
    pem = authority.ca_file.parent / "server.pem"
    (tmp_path / "nats").mkdir()
    options = ("--tls", "--tlscert", str(pem), "--tlskey", str(pem), "--user", "u", "--pass", "p")
    with running(NatsServer(tmp_path / "nats", *options)) as own:
        url = own.url().replace("nats://", "tls://u:p@")
        for number, ca_file in enumerate((authority.ca_file, None)):
            home = tmp_path / f"home{number}"
            system = System(Settings.load(home=home, engine=url, nats_ca_file=ca_file))
            state = system.status.read().broker
            assert state is not None
            assert state.is_reachable == (ca_file is not None), state.problem
            assert ("certificate" in state.problem.lower()) == (ca_file is None)


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
        assert counts["due", 9][:2] in {(0, 1), (1, 0)}

    asyncio.run(scenario())
