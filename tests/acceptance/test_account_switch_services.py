"""A browser or an Android phone changes hands while notifications stream to the former user."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.demo_environment import DemoEnvironment
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

FORMER, NEXT = "user1@example.com", "user2@example.com"


@dataclass
class Stand:
    """A server under load, and a device of ``FORMER`` at the twin."""

    server: Server
    twin: RunningTwin
    app: App
    phone: Phone
    office: httpx.Client

    @property
    def path(self) -> str:
        """Where the app's sessions are."""
        return f"/v1/apps/{self.app.id}/sessions"

    @property
    def body(self) -> dict[str, Any]:
        """What the device says of itself."""
        where: dict[str, Any] = {"device_token": self.phone.token}
        if self.phone.details is not None:
            keys = json.loads(self.phone.details)
            where = {"subscription": {"endpoint": self.phone.token, "keys": keys}}
        return {**where, "platform": self.phone.platform, "environment": "twin"}

    def register(self, mail: str) -> dict[str, Any]:
        """Register the device by the back end's key."""
        answer = self.office.post(self.path, json={"mail": mail, **self.body})
        assert answer.status_code == 201, answer.text
        registered: dict[str, Any] = answer.json()
        return registered

    def titles(self) -> list[str]:
        """Return what the device was handed so far, by title."""
        phones = self.twin.phones
        return [card.title or "" for card in phones[self.phone.id].cards]

    def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + 20
        while not is_so():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.01)

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Send without a pause to both users while the block runs."""
        stop = asyncio.Event()
        engine = self.server.system.engine

        async def send(mail: str) -> None:
            said = Notification.read({"title": f"For {mail}"})
            while not stop.is_set():
                await engine.accept(
                    self.app, said, Recipients.read(mail), Options.read(urgency="normal")
                )
                await asyncio.sleep(0.01)

        async def stream() -> None:
            await asyncio.gather(send(FORMER), send(FORMER), send(NEXT))

        async def end() -> None:
            stop.set()

        running = asyncio.run_coroutine_threadsafe(stream(), self.server._loop)  # noqa: SLF001
        try:
            yield
        finally:
            self.server.run(end())
            running.result(20)


@pytest.fixture(params=["android", "web"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    """Give an app whose device answers after a moment, so that pushes are on their way."""
    system = System(Settings.load(home=tmp_path / "home"))
    app = system.apps.add(
        "TEAM123456",
        "com.sample.shop",
        android_package="com.sample.shop",
        web_origin="https://shop.example",
    )
    with DemoEnvironment(system) as environment:
        environment.prepare()
        hooks = environment.hooks()
        with (
            start_twin(system.twin_folder, hooks=hooks) as twin,
            start_server(system, has_console=False) as server,
            server.client(server.key("register")) as office,
        ):
            twin.add_app(app.id, app.name)
            phone = twin.add_phone(mail=FORMER, app=app.id, platform=request.param)
            twin.add_fault("slow", seconds=0.1, side=phone.service, count=100_000)
            yield Stand(server, twin, app, phone, office)
    system.database.close()


def switch(stand: Stand, _: str) -> None:
    """Let the back end register the device for the next user."""
    stand.register(NEXT)


def log_out(stand: Stand, secret: str) -> None:
    """Let the former user log out on the device."""
    headers = {"Authorization": f"Bearer {secret}"}
    with stand.server.client() as device:
        answer = device.delete(f"{stand.path}/current", headers=headers)
    assert answer.status_code == 204


@pytest.mark.parametrize("change", [switch, log_out])
def test_nothing_of_the_former_user_is_shown_once_the_switch_is_confirmed(
    stand: Stand, change: Callable[[Stand, str], None]
) -> None:
    """Under a stream of pushes: what comes after the answer is the next user's, or nothing."""
    secret = stand.register(FORMER)["secret"]
    former, following = f"For {FORMER}", f"For {NEXT}"
    with stand.streaming():
        stand.until(lambda: stand.titles().count(former) > 5)
        change(stand, secret)
        confirmed = stand.titles().count(former)
        if change is switch:
            stand.until(lambda: stand.titles().count(following) > 5)
        else:
            time.sleep(0.5)
        after = stand.titles().count(former)
    assert after == confirmed
    assert (following in stand.titles()) == (change is switch)
