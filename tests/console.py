"""A server with its console on a free port, and clients that sign in to it."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
from argon2 import PasswordHasher
from tests.serving import Server

from handbell.access.operators import OperatorStore
from handbell.access.passwords import Passwords
from handbell.apps.app import App
from handbell.clocks import MachineClock
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.response import Response
from handbell.demo_environment import DemoEnvironment
from handbell.server.context import Context
from handbell.server.limits import Limiter
from handbell.settings import Settings
from handbell.storage.shared_buckets import Ask, Given, SharedBuckets
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

MAIL: Final = "operator@example.com"
PASSWORD: Final = "a bell rings twice"
_TOKEN: Final = re.compile(r'name="token" value="([0-9a-f]+)"')


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A running console. ``url`` has no slash at its end."""

    url: str
    context: Context
    system: System
    server: Server

    def send(self, app: App, recipients: object, **content: object) -> Response:
        """Send through the server's own engine, and return when all has ended or waits."""
        notification = Notification.read({"title": "Hello", **content})
        return self.server.run(
            self.system.engine.send(app, notification, Recipients.read(recipients))
        )

    def client(self) -> httpx.Client:
        """Return a client that has not signed in and sends forms as a browser does."""
        headers = {"origin": self.url, "sec-fetch-site": "same-origin"}
        return self.server.client(headers=headers)

    @contextmanager
    def signed_in(self, mail: str = MAIL) -> Iterator["Visitor"]:
        """Give a visitor who has signed in; the operator is made where there is none."""
        if all(one.mail != mail for one in self.system.operators.list()):
            self.system.operators.add(mail, PASSWORD)
        with self.client() as client:
            answer = client.post("/console/sign-in", data={"mail": mail, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
            yield Visitor(client)


@dataclass(frozen=True)
class Visitor:
    """A signed-in client that fills in forms."""

    client: httpx.Client

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Return a page; redirections are followed."""
        return self.client.get(path, follow_redirects=True, **more)

    def post(
        self, path: str, data: dict[str, Any] | None = None, *, follow: bool = True, **more: Any
    ) -> httpx.Response:
        """Post a form with the token of this sign-in."""
        sent = {"token": self.token, **(data or {})}
        return self.client.post(path, data=sent, follow_redirects=follow, **more)

    @property
    def token(self) -> str:
        """The token that every form of this sign-in carries."""
        found = _TOKEN.search(self.get("/console/apps").text)
        assert found is not None
        return found[1]


def quick_operators(system: System) -> OperatorStore:
    """Return the operators with a cheap hash; the real one is tested by itself."""
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return OperatorStore(system.database, passwords=passwords, now=system.now)


def unhurried() -> Limiter:
    """Return limits of buckets that are never empty: nobody waits."""
    return Limiter(Fountains)


class Fountains:
    """Buckets that are never empty."""

    def take(self, asks: Sequence[Ask]) -> list[Given]:
        """Give whatever is asked for."""
        return [Given(ask.wanted, 0.0) for ask in asks]

    def forget(self, names: Iterable[str]) -> None:
        """Fill what is full."""


def limited_by(system: System, clock: Callable[[], float]) -> Limiter:
    """Return the limits of a system by a clock of the test's."""
    machine = MachineClock("test", clock)
    return Limiter(lambda: SharedBuckets(system.database, machine), clock=clock)


@contextmanager
def open_console(system: System, **options: Any) -> Iterator[Desk]:
    """Run a server with the console; ``options`` are those of its context."""
    system.__dict__["operators"] = quick_operators(system)
    with Server(system, **options) as server:
        yield Desk(url=server.url, context=server.context, system=system, server=server)


@contextmanager
def open_rehearsal(folder: Path) -> Iterator[tuple[System, RunningTwin, App]]:
    """Give a system whose twin runs where the console looks for it."""
    system = System(Settings.load(home=folder / "home", request_timeout=5))
    system.settings.home.mkdir(parents=True)
    with (
        DemoEnvironment(system) as demo_environment,
        start_twin(system.twin_folder, hooks=demo_environment.hooks()) as twin,
    ):
        (app,) = demo_environment.prepare()
        twin.add_app(app.id, app.name)
        yield system, twin, app
    system.database.close()
