"""A Handbell and a twin whose clock a test can move, and what it asks of them."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos import Clock, fill
from bench.sender import Task

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.delivery import Delivery
from handbell.delivery.engine import Engine, Options
from handbell.delivery.response import Response
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

APP = "TEAM123456.com.sample.myapp"
ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Scene:
    """A system on both sides of a twin; all of them go by ``clock``."""

    system: System
    twin: RunningTwin
    app: App
    clock: Clock
    task: Task
    home: Path
    opened: list[System] = field(default_factory=list)

    def another(self) -> System:
        """Return a system of its own on the same database, as another process has one."""
        system = clocked(self.task.settings(), self.clock)
        self.opened.append(system)
        return system

    def second_app(self) -> "Scene":
        """Return this scene for another app of another team, with a key and one phone."""
        app = self.system.apps.add("TEAM654321", "com.sample.second", name="Second")
        key = make_key(app.apple.team_id)
        self.system.apps.add_credential(app, key)
        self.twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        self.twin.add_app(app.id, app.name)
        phone = self.twin.add_phone(mail="second@example.com", app=app.id)
        self.system.registry.register(app, "second@example.com", phone.token)
        return Scene(self.system, self.twin, app, self.clock, self.task, self.home)

    def add_phones(
        self, number: int, *, zone: str | None = None, first: int = 0, side: str = "production"
    ) -> list[Phone]:
        """Make phones of user0@example.com and so on, each registered."""
        names = [f"user{one}@example.com" for one in range(first, first + number)]
        phones = self.twin.call(
            lambda twin: [twin.add_phone(mail=mail, app=self.app.id, side=side) for mail in names]
        )
        for phone in phones:
            self.register(phone.mail or "", phone.token, side=side, zone=zone)
        return phones

    def add_phones_at_once(self, number: int) -> list[Phone]:
        """Make phones like :meth:`add_phones`, past the registry: for thousands."""
        phones = self.twin.call(
            lambda twin: [
                twin.add_phone(mail=f"user{one}@example.com", app=self.app.id)
                for one in range(number)
            ]
        )
        fill(self.system.database, self.app.row or 0, phones)
        return phones

    def register(
        self, mail: str, token: str, *, side: str = "production", zone: str | None = None
    ) -> int:
        """Register a device token and return its session's id."""
        session = self.system.registry.register(
            self.app, mail, token, environment=side, time_zone=zone
        )
        return session.id

    def set_rules(self, **rules: str | None) -> None:
        """Write rules of the app as an operator would."""
        self.system.apps.set_rules(self.app, rules)

    def deliveries(self, notification: str | Response | Acceptance) -> list[Delivery]:
        """Return what the ledger says of a notification."""
        return self.system.ledger.deliveries_of(_id(notification))

    def states(self, notification: str | Response | Acceptance) -> Counter[str]:
        """Return how many deliveries of a notification are in which state."""
        return Counter(one.state for one in self.deliveries(notification))

    def statuses(self) -> Counter[str]:
        """Return how many sessions have which status."""
        return Counter(one.status for one in self.system.registry.sessions(self.app))

    def accepted(self, phone: Phone) -> dict[str, int]:
        """Return how often the twin accepted each apns-id for a phone."""
        return self.twin.accepted_of(phone.token)

    @contextlib.asynccontextmanager
    async def running(self, system: System | None = None) -> AsyncIterator[Engine]:
        """Run a system's engine while the block runs."""
        system = system or self.system
        await system.engine.start()
        try:
            yield system.engine
        finally:
            await system.close_gateways()

    async def accept(
        self, engine: Engine, to: object, how: Mapping[str, Any] | None = None, **content: Any
    ) -> Acceptance:
        """Accept a send and return at once."""
        acceptance, _ = await engine.accept(
            self.app,
            Notification.read({"title": "Hello", **content}),
            Recipients.read(to),
            Options.read(**(how or {})),
        )
        return acceptance

    async def send(
        self, engine: Engine, to: object, how: Mapping[str, Any] | None = None, **content: Any
    ) -> Response:
        """Send, and return when every delivery has ended or waits."""
        notification = Notification.read({"title": "Hello", **content})
        options = Options.read(**(how or {}))
        return await engine.send(self.app, notification, Recipients.read(to), options)

    async def until(
        self, engine: Engine | None, is_so: Callable[[], object], seconds: float = 15
    ) -> None:
        """Return when something is so; the engine is woken for it, where one is given."""
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(is_so):
            assert time.monotonic() < deadline, "it did not come to pass"
            if engine is not None:
                engine.worker.wake()
            await asyncio.sleep(0.02)

    @contextlib.contextmanager
    def sender(self, **task: Any) -> Iterator["subprocess.Popen[str]"]:
        """Run a process of its own that sends, and kill it at the end if it still lives."""
        process = start_sender(self.make_task(**task))
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def make_task(self, **task: Any) -> Task:
        """Return what a process of its own is to do, by the scene's clock."""
        return Task(**{**self._task_fields(), **task})

    def _task_fields(self) -> dict[str, Any]:
        named = {name: getattr(self.task, name) for name in Task.__dataclass_fields__}
        return {**named, "ahead": self.clock.ahead, "wrong": self.clock.wrong}


def clocked(settings: Settings, clock: Clock) -> System:
    """Return a system that goes by a test's clock."""
    return System(settings, now=clock, clock=clock.steady, machine=clock.machine)


def start_sender(task: Task) -> "subprocess.Popen[str]":
    """Start a process that sends; standard input, output and errors are pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.sender", task.text()],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def open_scene(
    folder: Path, database_url: str = "", *, request_timeout: float = 5
) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key.

    Its database is an SQLite file in the folder, or that of a URL.
    """
    clock = Clock()
    with start_twin(folder / "twin", now=clock) as twin:
        task = Task(
            home=str(folder / "home"),
            production_url=twin.production_url,
            development_url=twin.development_url,
            ca_file=str(twin.ca_file),
            app=APP,
            request_timeout=request_timeout,
            database_url=database_url,
        )
        system = clocked(task.settings(), clock)
        named = App.read_id(APP)
        app = system.apps.add(named.team_id, named.bundle_id, name="My App")
        key = make_key(app.apple.team_id)
        system.apps.add_credential(app, key)
        twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        twin.add_app(app.id, app.name)
        scene = Scene(system, twin, app, clock, task, Path(task.home))
        yield scene
        for each in (system, *scene.opened):
            each.database.close()


def _id(notification: str | Response | Acceptance) -> str:
    if isinstance(notification, str):
        return notification
    if isinstance(notification, Acceptance):
        return notification.id
    return notification.notification_id or ""
