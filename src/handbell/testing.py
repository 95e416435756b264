"""Pytest fixtures for test suites that send through Handbell, registered as a plugin.

::

    def test_an_order_rings(handbell_push, handbell_phone):
        place_order(push=handbell_push)
        assert handbell_phone.cards[0].title == "Order shipped"

    def test_a_device_that_is_gone_is_told(handbell_push, handbell_phone, handbell_twin):
        handbell_twin.add_fault("answer", reason="Unregistered")
        assert "Unregistered" in handbell_push.send({"title": "Hello"}, "test@4d.com").warnings[0]

``handbell_android`` and ``handbell_browser`` are other devices of the same person, for a test that
names them. Each test has a home, a twin and devices of its own, so no state leaks into the next.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handbell.push import PushNotification
    from handbell.twin.phone import Card, Phone
    from handbell.twin.threaded import RunningTwin


@dataclass(frozen=True, slots=True)
class VirtualPhone:
    """A phone on the twin, seen from a test. ``mail`` is its owner's."""

    twin: "RunningTwin"
    id: str
    mail: str
    token: str

    @property
    def state(self) -> "Phone":
        """Return the current state of the phone."""
        return self.twin.phone(self.id)

    @property
    def cards(self) -> "tuple[Card, ...]":
        """Return the cards on the lock screen, newest first."""
        return self.state.cards

    @property
    def badge(self) -> int | None:
        """Return the app's badge; None when there is none."""
        return self.state.badge

    def open(self, card: "Card") -> None:
        """Tap a card."""
        self.twin.open_card(self.id, card.id)

    def switch(self, *, is_on: bool) -> None:
        """Turn the phone on or off; when turned on, it gets its stored pushes."""
        self.twin.switch(self.id, is_on)


@pytest.fixture
def handbell_home(tmp_path: Path) -> Path:
    """Return the folder of a fresh Handbell home."""
    return tmp_path / "handbell"


@pytest.fixture
def handbell_twin(handbell_home: Path) -> "Iterator[RunningTwin]":
    """Run a twin with the sample app, which receives the sends from ``handbell_home``."""
    from handbell.system import System  # noqa: PLC0415

    from .demo_environment import DemoEnvironment, isolated_settings, without_twin  # noqa: PLC0415

    try:
        from handbell.twin.threaded import start_twin  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise without_twin(error) from None

    system = System(isolated_settings(handbell_home))
    with DemoEnvironment(system) as demo_environment:
        apps = demo_environment.prepare()
        with start_twin(system.twin_folder, hooks=demo_environment.hooks()) as twin:
            for app in apps:
                twin.add_app(app.id, app.name)
            yield twin
    system.database.close()


@pytest.fixture
def handbell_phone(handbell_twin: "RunningTwin") -> VirtualPhone:
    """Return a virtual phone of test@4d.com, registered."""
    phone = handbell_twin.add_phone("Test phone", mail="test@4d.com")
    return VirtualPhone(handbell_twin, phone.id, "test@4d.com", phone.token)


@pytest.fixture
def handbell_android(handbell_twin: "RunningTwin") -> VirtualPhone:
    """Return a virtual Android phone of test@4d.com, registered."""
    phone = handbell_twin.add_phone("Test Android", mail="test@4d.com", platform="android")
    return VirtualPhone(handbell_twin, phone.id, "test@4d.com", phone.token)


@pytest.fixture
def handbell_browser(handbell_twin: "RunningTwin") -> VirtualPhone:
    """Return a virtual browser of test@4d.com, subscribed and registered."""
    phone = handbell_twin.add_browser("Test browser", mail="test@4d.com")
    return VirtualPhone(handbell_twin, phone.id, "test@4d.com", phone.token)


@pytest.fixture
def handbell_push(
    handbell_home: Path,
    handbell_twin: "RunningTwin",  # noqa: ARG001 - it has to run
) -> "Iterator[PushNotification]":
    """Yield a PushNotification of the sample app that sends to the twin."""
    from handbell.push import PushNotification  # noqa: PLC0415 - heavy

    from .demo_environment import isolated_settings  # noqa: PLC0415

    push = PushNotification(settings=isolated_settings(handbell_home))
    yield push
    push.close()
