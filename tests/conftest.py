"""What many tests share: a Handbell wired to a twin on both sides."""

import gc
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import Delivery
from handbell.delivery.response import Response
from handbell.registry.session import Session
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

pytest_plugins = [
    "pytester",
    "tests.jetstream_ground",
    "tests.judges",
    "tests.made_once",
    "tests.nats_server",
    "tests.postgresql",
]

APP = "TEAM123456.com.sample.myapp"


def pytest_configure() -> None:
    """Let processes under test hear Ctrl-C, also in a run that a shell script put behind it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector what is collected: ten thousand tests live to the end."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@dataclass(frozen=True)
class Stage:
    """A system whose environments production and development are the two sides of a twin."""

    system: System
    twin: RunningTwin
    app: App

    def add_phone(self, mail: str, *, side: str = "production", registered: str = "") -> Phone:
        """Make a phone and register it, as living in ``registered`` if that is not the truth."""
        phone = self.twin.add_phone(mail=mail, app=self.app.id, side=side)
        self.register(mail, phone.token, registered or side)
        return phone

    def register(self, mail: str, token: str, environment: str = "production") -> Session:
        """Register a device token."""
        return self.system.registry.register(self.app, mail, token, environment=environment)

    def session(self, mail: str) -> Session:
        """Return the newest session of a person."""
        return self.system.registry.sessions_of(self.app, mail)[0]

    async def send(self, recipients: object, **content: object) -> Response:
        """Send through the direct path, with connections of this call's own."""
        notification = Notification.read({"title": "Hello", **content})
        try:
            return await self.system.engine.send(
                self.app, notification, Recipients.read(recipients)
            )
        finally:
            await self.system.close_gateways()

    def delivery(self, response: Response) -> Delivery:
        """Return the one delivery of a response."""
        (delivery,) = response.deliveries
        return delivery


@contextmanager
def open_system(folder: Path, database_url: str = "") -> Iterator[tuple[System, RunningTwin]]:
    """Give a system in a folder, and the twin that both of its environments are.

    Its database is an SQLite file in the folder, or that of a URL.
    """
    with start_twin(folder / "twin") as twin:
        settings = Settings.load(
            home=folder / "home",
            database_url=database_url,
            apns_production_url=twin.production_url,
            apns_development_url=twin.development_url,
            apns_ca_file=twin.ca_file,
            request_timeout=5,
        )
        system = System(settings)
        with closing(system.database):
            yield system, twin


@contextmanager
def open_stage(folder: Path, database_url: str = "") -> Iterator[Stage]:
    """Give a system with an app, its key, and a twin that knows the key."""
    with open_system(folder, database_url) as (system, twin):
        named = App.read_id(APP)
        app = system.apps.add(named.team_id, named.bundle_id, name="My App")
        key = make_key(app.apple.team_id)
        system.apps.add_credential(app, key)
        twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        twin.add_app(app.id, app.name)
        yield Stage(system, twin, app)


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """Give a stage of the test's own; see tests/postgresql.py for its database."""
    with open_stage(tmp_path, database_url) as opened:
        yield opened
