"""What a further push service takes: the files of tests/pigeon, and its row in the table.

docs/new-push-service.md says the same in words.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.pigeon import SERVICE
from tests.pigeon.client import PigeonGateway
from tests.pigeon.credential import Whistle
from tests.pigeon.twin import Loft

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import GatewayName
from handbell.delivery.engine import Engine
from handbell.delivery.policy.meanings import meaning
from handbell.delivery.response import Response
from handbell.errors import RegistryError
from handbell.gateways.gateway import Gateway
from handbell.services.table import SERVICES
from handbell.settings import Settings
from handbell.system import System

MAIL = "test@4d.com"
EVERYBODY = {"everybody": True}


class PigeonSystem(System):
    """A system that reaches a loft."""

    loft: Loft
    whistle = Whistle("tirili")

    def find_gateway(
        self,
        app: App,  # noqa: ARG002 - one loft serves all
        key: Any,  # noqa: ARG002
        name: GatewayName,
        environment: str,  # noqa: ARG002
        *,
        excluded: Collection[str] = (),  # noqa: ARG002
    ) -> Gateway:
        """Return the gateway to the loft."""
        assert name == SERVICE.name
        return PigeonGateway(credential=self.whistle, port=self.loft.port, now=self.now)


@pytest.fixture
def system(tmp_path: Path) -> Iterator[PigeonSystem]:
    """Give a system that knows the pigeon post, and an app with a person's pigeons."""
    SERVICES[SERVICE.name] = SERVICE
    system = PigeonSystem(Settings.load(home=tmp_path))
    try:
        system.apps.add(name="Dovecote")
        yield system
    finally:
        system.database.close()
        del SERVICES[SERVICE.name]


def _register(system: PigeonSystem, ring: str) -> int:
    app = system.apps.find("Dovecote")
    session = system.registry.register(app, MAIL, ring, service="pigeon", platform="web")
    return session.id


def _run(
    system: PigeonSystem, play: Callable[[Engine, Loft], Awaitable[None]], tune: str = "tirili"
) -> None:
    async def running() -> None:
        async with Loft(tune) as loft:
            system.loft = loft
            await system.engine.start()
            try:
                await play(system.engine, loft)
            finally:
                await system.close_gateways()

    asyncio.run(running())


async def _send(system: PigeonSystem, to: object, **content: Any) -> Response:
    app = system.apps.find("Dovecote")
    return await system.engine.send(app, Notification.read(content), Recipients.read(to))


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_a_push_goes_through_the_engine(system: PigeonSystem, to: object) -> None:
    """Accepting, sending, recording and explaining need nothing but the table's row."""
    _register(system, "de-1234-56-789")

    async def play(_: Engine, loft: Loft) -> None:
        response = await _send(system, to, title="Hello", body="from afar", ttl=60)
        assert response.success, response.errors
        assert loft.flown == [("DE-1234-56-789", "Hello: from afar")]
        assert [one.gateway for one in response.deliveries] == ["pigeon"]

    _run(system, play)
    assert "The loft accepted it" in str(system.why(system.apps.find("Dovecote"), MAIL))


def test_its_reasons_are_decided_by_its_table(system: PigeonSystem) -> None:
    """A pigeon that has moved closes its session; a moulting loft is tried later, by its delays."""
    _register(system, "DE-1234-56-1")

    async def play(_: Engine, loft: Loft) -> None:
        loft.is_moulting = True
        held = await _send(system, MAIL, title="Hello")
        (delivery,) = held.deliveries
        assert (delivery.state, delivery.reason) == ("held", "Moulting")
        assert (delivery.due_at or 0) / 1000 > system.now() + 3500
        loft.is_moulting, loft.moved = False, {"DE-1234-56-1"}
        gone = await _send(system, MAIL, title="Hello")
        assert [one.reason for one in gone.warnings] == ["NeverCameBack"]

    _run(system, play)
    (session,) = system.registry.sessions(system.apps.find("Dovecote"))
    assert session.status == "closed"
    assert meaning("Moulting", gateway="pigeon") == ("no pigeon flies", "wait for autumn")


def test_a_wrong_credential_stops_it(system: PigeonSystem) -> None:
    """The circuit is the service's own, and the session stays."""
    _register(system, "DE-1234-56-1")

    async def play(_: Engine, loft: Loft) -> None:
        response = await _send(system, MAIL, title="Hello")
        assert [one.reason for one in response.errors] == ["WrongTune"]
        assert loft.flown == []

    _run(system, play, tune="another")
    app = system.apps.find("Dovecote")
    (circuit,) = system.rules_store.rules_of(app.id).circuits
    assert (circuit.place.service, circuit.place.credential) == (
        "pigeon",
        PigeonSystem.whistle.fingerprint,
    )
    assert [one.status for one in system.registry.sessions(app)] == ["active"]


def test_its_addresses_are_checked_at_the_border(system: PigeonSystem) -> None:
    """What is no ring is no address."""
    with pytest.raises(RegistryError, match="no ring"):
        _register(system, "sparrow")
