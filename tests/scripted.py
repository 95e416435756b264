"""A Handbell whose gateway answers when a test says so: the lowest seam, and all else is real."""

import asyncio
import contextlib
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.chaos import Clock
from sqlalchemy import event
from sqlalchemy.pool import Pool

from handbell.apps.app import App
from handbell.apps.credential_kinds import Credential
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.delivery import Delivery, GatewayName
from handbell.delivery.engine import Engine, Options
from handbell.delivery.work.app_state import AppState
from handbell.errors import MissingCredentialError
from handbell.gateways.gateway import Gateway, Push, Report
from handbell.gateways.outcomes import Accepted, DeviceGone, Outcome, Refused, RetryLater, Unknown
from handbell.services.reactions import Reaction
from handbell.settings import Settings
from handbell.system import System

EVERYBODY = {"everybody": True}
BAD_KEY = Refused("InvalidProviderToken", Reaction.FIX_CONFIGURATION, 403)
BAD_TOKEN = Refused("BadDeviceToken", Reaction.TRY_OTHER_ENVIRONMENT, 400)
WRONG_APP = Refused("DeviceTokenNotForTopic", Reaction.WRONG_APP, 400)
OUTCOMES: dict[str, Outcome | None] = {
    "accepted": None,
    "refused": Refused("PayloadEmpty", Reaction.FIX_NOTIFICATION, 400),
    "bad key": BAD_KEY,
    "bad token": BAD_TOKEN,
    "wrong app": WRONG_APP,
    "gone": DeviceGone("Unregistered", None),
    "later": RetryLater("ServiceUnavailable", Reaction.BACK_OFF, status=503),
    "unknown": Unknown("ConnectionLost"),
}
"""What a gateway may say of a push, by a name; None stands for a push that was accepted."""


@dataclass(eq=False)
class Call:
    """Pushes that were handed to the gateway together, and not all answered yet."""

    pushes: list[Push]
    report: Report
    done: "asyncio.Future[None]"
    all: tuple[Push, ...] = ()

    def answer(self, number: int, outcome: Outcome | None) -> None:
        """Answer so many pushes; the call returns after the last."""
        for _ in range(min(number, len(self.pushes))):
            push = self.pushes.pop(0)
            self.report(push, outcome or Accepted(push.id))
        if not self.pushes:
            self.end()

    def end(self, error: Exception | None = None) -> None:
        """Return to the caller, or raise, whatever is left without an answer."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def repeat(self, outcome: Outcome | None) -> None:
        """Answer all of it, once more or too late."""
        for push in self.all:
            self.report(push, outcome or Accepted(push.id))


@dataclass(eq=False)
class ScriptedGateway:
    """Takes pushes and answers none by itself; with ``answers`` each at once with that outcome.

    ``pushed`` counts by apns-id what it was handed.
    """

    answers: str | None = None
    calls: list[Call] = field(default_factory=list)
    pushed: Counter[str] = field(default_factory=Counter)

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Take pushes, and return when the test lets it."""
        if not batch:
            return
        self.pushed.update(push.id for push in batch)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        call = Call(list(batch), report, done, tuple(batch))
        if self.answers is not None:
            call.answer(len(batch), OUTCOMES[self.answers])
            return
        self.calls.append(call)
        try:
            await done
        finally:
            self.calls.remove(call)

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Ask nobody: what is taken is on the wire at once."""

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Give nothing back, for the same reason."""

    async def close(self) -> None:
        """Have nothing to close."""


class ScriptedSystem(System):
    """A system that sends by ``gateway``, unless its credential ``is_missing``.

    ``on_find`` is called before, in the thread that looks for the gateway.
    """

    gateway: Gateway
    is_missing = False
    on_find: Callable[[], object] = staticmethod(lambda: None)

    def find_gateway(
        self,
        app: App,  # noqa: ARG002 - one gateway serves all
        key: Credential | None,  # noqa: ARG002
        name: GatewayName,  # noqa: ARG002
        environment: str,  # noqa: ARG002
        *,
        excluded: Collection[str] = (),  # noqa: ARG002
    ) -> Gateway:
        """Return the scripted gateway, or raise that there is no credential."""
        self.on_find()
        if self.is_missing:
            raise MissingCredentialError("There is no key", fix="Add one")
        return self.gateway


class Failing:
    """A database that takes no writes while ``is_failing``, for every connection of the process."""

    def __init__(self) -> None:
        self.is_failing = False

    def _apply(self, connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA query_only = {int(self.is_failing)}").close()

    def __enter__(self) -> Self:
        event.listen(Pool, "checkout", self._apply)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(Pool, "checkout", self._apply)


@dataclass
class Play:
    """A system on a home of its own, its app with some people, and its gateway."""

    home: Path
    clock: Clock
    system: ScriptedSystem
    gateway: ScriptedGateway
    app: App
    mails: list[str]
    database_url: str = ""

    @property
    def engine(self) -> Engine:
        """The engine that runs now."""
        return self.system.engine

    @property
    def app_state(self) -> AppState:
        """What the worker knows of the app."""
        return self.engine.worker.app_states.of(self.app)

    def faults(self, *, is_at_rest: bool = False) -> list[str]:
        """Return where the tickets' invariant does not hold."""
        worker = self.engine.worker
        return worker.in_flight.faults(worker.app_states.all(), is_at_rest=is_at_rest)

    async def start(self) -> None:
        """Begin to take work, without patience."""
        storage_retry = self.engine.worker.storage_retry
        storage_retry.pause, storage_retry.seconds = 0.01, 0.2
        await self.engine.start()

    async def stop(self, *, within: float | None = None) -> None:
        """Stop, and have the next start of it be another process's."""
        await self.engine.worker.stop(within=within)
        assert not self.faults(is_at_rest=True)
        assert len(self.engine.worker.in_flight) == 0
        assert len(self.engine.worker.release_log) == 0
        await self.system.close_gateways()

    def again(self) -> None:
        """Have another process's system from here on."""
        self.system.database.close()
        self.system = clocked_system(self)

    async def accept(
        self, to: object, how: dict[str, Any] | None = None, app: App | None = None
    ) -> Acceptance:
        """Accept a send and return at once."""
        notification = Notification.read({"title": "Hello"})
        options = Options.read(**(how or {}))
        acceptance, _ = await self.engine.accept(
            app or self.app, notification, Recipients.read(to), options
        )
        return acceptance

    def deliveries(self, acceptance: Acceptance) -> list[Delivery]:
        """Return what the ledger says of a notification."""
        return self.system.ledger.deliveries_of(acceptance.id)

    def states(self, acceptance: Acceptance) -> Counter[str]:
        """Return how many deliveries of a notification are in which state."""
        return Counter(one.state for one in self.deliveries(acceptance))

    async def until(self, is_so: Any, seconds: float = 10) -> None:
        """Return when something is so; the worker is woken for it, and keeps its invariant."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not is_so():
            assert loop.time() < deadline, "it did not come to pass"
            assert not self.faults()
            self.engine.worker.wake()
            await asyncio.sleep(0.005)


def make_home(folder: Path, people: int = 8, database_url: str = "") -> list[str]:
    """Fill a home with an app, its key and people with a session each; return their mails."""
    system = System(Settings.load(home=folder, database_url=database_url))
    app = system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
    system.apps.add_credential(app, make_key(app.apple.team_id))
    mails = [f"user{one}@example.com" for one in range(people)]
    for one, mail in enumerate(mails):
        system.registry.register(app, mail, f"{one + 1:064x}")
    system.database.close()
    return mails


def _system(
    home: Path, clock: Clock, gateway: ScriptedGateway, database_url: str
) -> ScriptedSystem:
    settings = Settings.load(home=home, database_url=database_url)
    system = ScriptedSystem(
        settings, now=clock, clock=clock.steady, machine=clock.machine, has_own_time=True
    )
    system.gateway = gateway
    return system


def clocked_system(play: Play) -> ScriptedSystem:
    """Return a system of its own on a play's home, as another process has one."""
    return _system(play.home, play.clock, play.gateway, play.database_url)


@contextlib.contextmanager
def open_play(
    folder: Path, *, people: int = 8, template: Path | None = None, database_url: str = ""
) -> Iterator[Play]:
    """Give a play; its home is a copy of ``template``, which :func:`make_home` made, or new.

    Its database is an SQLite file in its home, or that of a server's URL, which is filled anew.
    """
    home = folder / "home"
    if template is None or database_url.startswith("postgresql"):
        make_home(home, people, database_url)
    else:
        shutil.copytree(template, home)
    clock, gateway = Clock(), ScriptedGateway()
    system = _system(home, clock, gateway, database_url)
    mails = [f"user{one}@example.com" for one in range(people)]
    play = Play(home, clock, system, gateway, system.apps.list()[0], mails, database_url)
    try:
        yield play
    finally:
        play.system.database.close()
