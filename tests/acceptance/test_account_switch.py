"""One phone, two people, one after the other, while notifications stream to the first one."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future  # noqa: TC003 - an attribute's type
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import pytest
from tests.postbox import Mailbox, start_mailbox
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.ids import read_apns_id
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

FORMER, NEXT = "user1@example.com", "user2@example.com"
OTHERS = 20
SENDERS = 4


@dataclass
class Stand:
    """A server under load, a phone of ``FORMER`` among others, and what the phone was sent."""

    server: Server
    twin: RunningTwin
    mailbox: Mailbox
    app: App
    phone: Phone
    device: httpx.Client
    office: httpx.Client
    streams: list["Future[None]"] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Where the app's sessions are."""
        return f"/v1/apps/{self.app.id}/sessions"

    def got(self, session: int) -> int:
        """Return how many pushes for a session Apple's side has handed to the phone."""
        names = [read_apns_id(name) for name in self.twin.shown(self.phone.token)]
        return sum(named is not None and named[1] == session for named in names)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so, while the stream goes on."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert not any(stream.done() for stream in self.streams), "the stream broke off"
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.01)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Send without a pause to the former user and to everybody while the block runs."""
        stop = asyncio.Event()
        engine = self.server.system.engine
        said = Notification.read({"title": "For you alone"})

        async def send(to: object) -> None:
            recipients = Recipients.read(to)
            while not stop.is_set():
                options = Options.read(urgency="normal")
                await engine.accept(self.app, said, recipients, options)
                await asyncio.sleep(0.01)

        async def stream() -> None:
            to: list[object] = [FORMER] * (SENDERS - 1) + [{"everybody": True}]
            await asyncio.gather(*(send(one) for one in to))

        async def end() -> None:
            stop.set()

        running = asyncio.run_coroutine_threadsafe(stream(), self.server._loop)  # noqa: SLF001
        self.streams.append(running)
        try:
            yield
        finally:
            self.streams.remove(running)
            self.server.run(end())
            running.result(20)

    def register(self, mail: str) -> dict[str, Any]:
        """Register the phone by the back end's key."""
        body = {"mail": mail, "device_token": self.phone.token}
        answer = self.office.post(self.path, json=body)
        assert answer.status_code == 201
        registered: dict[str, Any] = answer.json()
        return registered


@pytest.fixture(scope="module")
def ground(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, RunningTwin, Mailbox]]:
    """Run one server, twin and mail server for all tests: each has an app of its own."""
    folder = tmp_path_factory.mktemp("ground")
    with start_mailbox() as mailbox, start_twin(folder / "twin") as twin:
        settings = Settings.load(
            home=folder / "home",
            apns_production_url=twin.production_url,
            apns_ca_file=twin.ca_file,
            smtp_url=f"smtp://127.0.0.1:{mailbox.port}",
            mail_from="push@example.com",
        )
        system = System(settings)
        with start_server(system, has_console=False) as server:
            yield server, twin, mailbox
        system.database.close()


_NUMBERS = count()


@pytest.fixture
def stand(ground: tuple[Server, RunningTwin, Mailbox]) -> Iterator[Stand]:
    """Give a new app whose phone answers after a moment, so that pushes are on their way."""
    server, twin, mailbox = ground
    system = server.system
    number = next(_NUMBERS)
    app = system.apps.add("TEAM123456", f"com.sample.app{number}", name=f"App {number}")
    key = make_key(app.apple.team_id)
    system.apps.add_credential(app, key)
    system.identities.set(app, proof="link")
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    for number in range(OTHERS):
        other = twin.add_phone(mail=f"other{number}@example.com", app=app.id)
        system.registry.register(app, other.mail or "", other.token)
    phone = twin.add_phone(mail=FORMER, app=app.id)
    twin.add_fault("slow", seconds=0.1, token=phone.token, count=100_000)
    mailbox.mails.clear()
    with server.client() as device, server.client(server.key("register")) as office:
        yield Stand(server, twin, mailbox, app, phone, device, office)


def switch_by_link(stand: Stand, _: dict[str, Any]) -> None:
    """Let the next user ask for a link and confirm it."""
    asked = stand.device.post(stand.path, json={"mail": NEXT, "device_token": stand.phone.token})
    assert asked.status_code == 202
    link = stand.mailbox.secret()
    assert stand.device.get(f"/prove/{link}").status_code == 200
    assert stand.device.post(f"/prove/{link}").status_code == 200


def switch_by_key(stand: Stand, _: dict[str, Any]) -> None:
    """Let the back end register the phone for the next user."""
    stand.register(NEXT)


def log_out(stand: Stand, former: dict[str, Any]) -> None:
    """Let the former user log out on the phone."""
    headers = {"Authorization": f"Bearer {former['secret']}"}
    assert stand.device.delete(f"{stand.path}/current", headers=headers).status_code == 204


def remove(stand: Stand, _: dict[str, Any]) -> None:
    """Remove the former user for good."""
    answer = stand.office.delete(f"/v1/apps/{stand.app.id}/users/{FORMER}")
    assert answer.status_code == 204


@pytest.mark.parametrize("change", [switch_by_link, switch_by_key, log_out, remove])
def test_nothing_of_the_former_user_is_shown_once_the_switch_is_confirmed(
    stand: Stand, change: Callable[[Stand, dict[str, Any]], None]
) -> None:
    """Under a stream of pushes: what comes after the answer is the next user's, or nothing."""
    former = stand.register(FORMER)
    with stand.streaming():
        stand.until(lambda: stand.got(former["id"]) > 10)
        change(stand, former)
        confirmed = stand.got(former["id"])
        time.sleep(0.5)
        after = stand.got(former["id"])
    assert after == confirmed
    if change in (switch_by_link, switch_by_key):
        session = stand.server.system.registry.sessions_of(stand.app, NEXT)[0]
        assert stand.got(session.id) > 0, "the next user is served"
    else:
        shown = stand.twin.shown(stand.phone.token)
        assert len(shown) == confirmed, "nobody is served"


def test_a_claim_alone_changes_nothing(stand: Stand) -> None:
    """Until the next user has confirmed the link the former one is served as before."""
    former = stand.register(FORMER)
    with stand.streaming():
        stand.until(lambda: stand.got(former["id"]) > 3)
        stand.device.post(stand.path, json={"mail": NEXT, "device_token": stand.phone.token})
        stand.mailbox.wait()
        before = stand.got(former["id"])
        stand.until(lambda: stand.got(former["id"]) > before + 5)
    (claim,) = stand.server.system.registry.sessions_of(stand.app, NEXT)
    assert (claim.status, stand.got(claim.id)) == ("pending", 0)
