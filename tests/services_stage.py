"""A Handbell with an app of every push service, each answered by a gateway that a test scripts."""

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos import Clock
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handbell.apps.app import App
from handbell.apps.credential_kinds import KINDS, Credential, kind_of
from handbell.apps.sample_keys import make_credentials
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.delivery import Delivery, GatewayName
from handbell.delivery.engine import Engine, Options
from handbell.delivery.response import Response
from handbell.gateways.gateway import Gateway, Push, Report
from handbell.gateways.outcomes import Accepted, Outcome
from handbell.registry.session import Session
from handbell.settings import Settings
from handbell.system import System

FIRST_ORIGIN, SECOND_ORIGIN = "https://one.push.example", "https://two.push.example"
Answer = Callable[[Push], Outcome | None]


@dataclass(eq=False)
class AnsweringGateway:
    """Answers each push at once as ``answer`` says; None stands for a push that was accepted."""

    fingerprint: str
    topic: str = ""
    answer: Answer = lambda _: None
    pushes: list[Push] = field(default_factory=list)

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Answer all of it."""
        for push in batch:
            self.pushes.append(push)
            report(push, self.answer(push) or Accepted(push.id))

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Ask nobody."""

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Give nothing back: all was answered."""

    async def close(self) -> None:
        """Have nothing to close."""


class ServicesSystem(System):
    """A system that sends to each push service by a scripted gateway."""

    scripted: Mapping[str, AnsweringGateway]

    def find_gateway(
        self,
        app: App,  # noqa: ARG002 - one gateway serves all
        key: Credential | None,  # noqa: ARG002
        name: GatewayName,
        environment: str,  # noqa: ARG002
        *,
        excluded: Collection[str] = (),  # noqa: ARG002
    ) -> Gateway:
        """Return the gateway of a service."""
        return self.scripted[name]


@dataclass(frozen=True)
class ServicesStage:
    """A system, its app and its gateways by the name of their service; all go by ``clock``."""

    system: ServicesSystem
    app: App
    clock: Clock
    gateways: Mapping[str, AnsweringGateway]

    def register(
        self,
        mail: str,
        service: str,
        number: int,
        *,
        device_id: str | None = None,
        origin: str = FIRST_ORIGIN,
        platform: str = "android",
    ) -> Session:
        """Register a device of a person by one service, and return its session."""
        how: Any = {"device_id": device_id} if device_id else {}
        match service:
            case "apns":
                return self.system.registry.register(self.app, mail, f"{number:064x}", **how)
            case "fcm":
                token = f"android-{number:04}:" + "x" * 140
                how["service"] = "fcm"
                return self.system.registry.register(
                    self.app, mail, token, platform=platform, **how
                )
            case _:
                return self.system.registry.register(
                    self.app, mail, subscription(f"{origin}/{number}"), platform="web", **how
                )

    def pushed(self) -> dict[str, int]:
        """Return how many pushes each service was handed."""
        return {name: len(one.pushes) for name, one in self.gateways.items() if one.pushes}

    def deliveries(self, notification: str) -> list[Delivery]:
        """Return what the ledger says of a notification."""
        return self.system.ledger.deliveries_of(notification)

    def states(self, notification: str) -> Counter[tuple[str, str]]:
        """Return how many deliveries of a notification are in which state, by service."""
        return Counter((one.gateway, one.state) for one in self.deliveries(notification))

    def statuses(self) -> Counter[tuple[str, str]]:
        """Return how many sessions have which status, by service."""
        sessions = self.system.registry.sessions(self.app)
        return Counter((one.service, one.status) for one in sessions)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Run the engine while the block runs."""
        await self.system.engine.start()
        try:
            yield self.system.engine
        finally:
            await self.system.close_gateways()

    def send(self, to: object, how: Mapping[str, Any] | None = None, **content: Any) -> Response:
        """Send in an engine of its own, and return when every delivery has ended or waits."""

        async def sending() -> Response:
            async with self.running() as engine:
                return await engine.send(
                    self.app,
                    Notification.read(content or {"title": "Hello"}),
                    Recipients.read(to),
                    Options.read(**(how or {})),
                )

        return asyncio.run(sending())

    async def accept(
        self, engine: Engine, to: object, how: Mapping[str, Any] | None = None, **content: Any
    ) -> Acceptance:
        """Accept a send and return at once."""
        acceptance, _ = await engine.accept(
            self.app,
            Notification.read(content or {"title": "Hello"}),
            Recipients.read(to),
            Options.read(**(how or {})),
        )
        return acceptance

    async def until(self, engine: Engine, is_so: Callable[[], bool]) -> None:
        """Return when something is so; the worker is woken for it."""
        deadline = asyncio.get_running_loop().time() + 10
        while not is_so():
            assert asyncio.get_running_loop().time() < deadline, "it did not come to pass"
            engine.worker.wake()
            await asyncio.sleep(0.005)


def subscription(endpoint: str) -> dict[str, object]:
    """Return a browser's new subscription."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    keys = {"p256dh": _base64(encoded), "auth": _base64(bytes(16))}
    return {"endpoint": endpoint, "expirationTime": None, "keys": keys}


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@contextlib.contextmanager
def open_services(home: Path, database_url: str) -> Iterator[ServicesStage]:
    """Open a system with an app that Apple, Google and browsers know, and a credential of each."""
    clock = Clock()
    settings = Settings.load(home=home, database_url=database_url, web_push_hosts="*.push.example")
    system = ServicesSystem(settings, now=clock, clock=clock.steady, machine=clock.machine)
    try:
        app = system.apps.add(
            "TEAM123456",
            "com.sample.shop",
            android_package="com.sample.shop",
            web_origin="https://shop.example",
        )
        gateways: dict[str, AnsweringGateway] = {}
        for credential in make_credentials(app):
            system.apps.add_credential(app, credential)
            service = KINDS[kind_of(credential)].service
            gateways[service] = AnsweringGateway(
                credential.fingerprint, getattr(credential, "project_id", "")
            )
        system.scripted = gateways
        yield ServicesStage(system, app, clock, gateways)
    finally:
        system.database.close()
