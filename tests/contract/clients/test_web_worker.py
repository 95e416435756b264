"""clients/web's service worker in Chromium: what it shows, opens and reports."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, sync_playwright
from tests.browser import SWITCHES
from tests.contract.clients.test_firefox import serving
from tests.firefox import wait_for
from tests.serving import Server, start_server

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.demo_environment import isolated_settings
from handbell.services.webpush.credential import VapidKey
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

CHROMIUM = shutil.which("chromium")
"""The shell without a desktop's parts shows no notifications."""
pytestmark = [
    pytest.mark.judge("Chromium, with notifications"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="chromium is missing: install Debian's package 'chromium'"
    ),
    # Each step has its own limit: a test that is broken off from outside leaves its browser behind.
    pytest.mark.timeout(240),
]

CLIENT = Path(__file__).parents[3] / "clients" / "web"
MAIL = "test@4d.com"
SHOWN = """async () => {
  const registration = await navigator.serviceWorker.ready;
  const all = await registration.getNotifications();
  return all.map(({ title, body, tag, silent, data }) => ({ title, body, tag, silent, data }));
}"""


class Scene:
    """A page with the worker, whose session is that of a virtual browser's subscription."""

    def __init__(self, system: System, server: Server, twin: RunningTwin, address: str) -> None:
        self.system, self.server, self.twin, self.address = system, server, twin, address
        self.app = system.apps.add(name="Shop", web_origin=address)
        system.apps.add_credential(self.app, VapidKey.make(), environment="twin")
        twin.call(lambda running: running.add_app(self.app.id, "Shop"))
        self.browser = twin.add_browser()

    def register(self) -> dict[str, Any]:
        """Register the virtual browser by an API key, and return the answer."""
        subscription = {
            "endpoint": self.browser.token,
            "keys": json.loads(self.browser.details or ""),
        }
        body = {"mail": MAIL, "subscription": subscription, "environment": "twin"}
        with self.server.client(self.server.key("register")) as client:
            answer = client.post(f"/v1/apps/{self.app.id}/sessions", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def send(self, **content: Any) -> tuple[str, str]:
        """Send to the session, and return the notification's id and what was decrypted."""
        notification = Notification.read(content)
        engine = self.system.engine
        response = self.server.run(engine.send(self.app, notification, Recipients.read(MAIL)))
        (delivery,) = response.deliveries
        payload = self.twin.requests[0].payload
        assert payload is not None
        return delivery.notification_id, payload


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Give an app of web pages, with its server and its twin."""
    system = System(isolated_settings(tmp_path))
    with (
        start_twin(system.twin_folder) as twin,
        serving(CLIENT) as address,
        start_server(system, has_console=False) as server,
    ):
        yield Scene(system, server, twin, address)
    system.database.close()


@pytest.fixture
def page(scene: Scene) -> Iterator[Page]:
    """Load the page in Chromium, with notifications allowed and the worker at work."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*SWITCHES, "--headless=new"]
        )
        context = browser.new_context()
        context.grant_permissions(["notifications"], origin=scene.address)
        page = context.new_page()
        page.goto(scene.address)
        page.evaluate("() => import('/handbell.js')")
        page.evaluate(
            """async ([session, settings]) => {
              await navigator.serviceWorker.register("/handbell-worker.js");
              await navigator.serviceWorker.ready;
              await handbellShared.update(() => ({ session, settings }));
            }""",
            [scene.register(), {"server": scene.server.url, "app": scene.app.id}],
        )
        yield page
        browser.close()


_LONGEST_WAIT = 45.0


class Pushes:
    """The push events of a page's worker.

    While Chromium shows a notification it must not be asked for those that are shown: it forgets
    the new one. So a test waits for the end of the event.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._names: list[str] = []
        self._waited = 0
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._session.on(
            "BackgroundService.backgroundServiceEventReceived",
            lambda said: self._names.append(said["backgroundServiceEvent"]["eventName"]),
        )
        service = {"service": "pushMessaging"}
        self._session.send("BackgroundService.startObserving", service)
        self._session.send("BackgroundService.setRecording", {"shouldRecord": True, **service})

    def wait_for_one(self) -> None:
        """Return when one more event has ended."""
        self._waited += 1
        until = time.monotonic() + _LONGEST_WAIT
        while sum("ompleted" in name for name in self._names) < self._waited:
            assert time.monotonic() < until, f"no further push event has ended: {self._names}"
            self._page.wait_for_timeout(20)

    def deliver(self, address: str, payload: str) -> None:
        """Hand a decrypted message to the worker, as the browser does, and wait for its end."""
        known: list[Any] = []
        self._session.on(
            "ServiceWorker.workerRegistrationUpdated",
            lambda event: known.extend(event["registrations"]),
        )
        self._session.send("ServiceWorker.enable")
        while not known:
            self._page.wait_for_timeout(20)
        self._session.send(
            "ServiceWorker.deliverPushMessage",
            {"origin": address, "registrationId": known[0]["registrationId"], "data": payload},
        )
        self._session.send("ServiceWorker.disable")
        self.wait_for_one()


@pytest.fixture
def pushes(page: Page) -> Pushes:
    """Follow the push events of the page's worker."""
    return Pushes(page)


def test_what_is_sent_is_shown_and_reported(scene: Scene, page: Page, pushes: Pushes) -> None:
    """The worker shows the very text that was encrypted, and the ledger knows that it did."""
    name, payload = scene.send(
        title="Order sent off", body="It is on its way", url="/orders/42", user_info={"order": 42}
    )
    pushes.deliver(scene.address, payload)
    (shown,) = page.evaluate(SHOWN)
    assert (shown["title"], shown["body"], shown["tag"]) == (
        "Order sent off",
        "It is on its way",
        name,
    )
    assert shown["data"]["order"] == 42
    assert shown["data"]["handbell"] == {
        "id": name,
        "navigate": f"{scene.address}/orders/42",
        "actions": {},
    }
    # The virtual browser does not report here: what the ledger has is the worker's.
    (found,) = wait_for(
        lambda: [one for one in scene.system.ledger.deliveries_of(name) if one.displayed_at]
    )
    assert found.opened_at is None


def test_a_collapse_id_replaces_what_is_shown(scene: Scene, page: Page, pushes: Pushes) -> None:
    """Two notifications of one collapse id are one on the screen."""
    for title in ("First", "Second"):
        pushes.deliver(scene.address, scene.send(title=title, collapse_id="news")[1])
        (shown,) = page.evaluate(SHOWN)
        assert (shown["title"], shown["tag"]) == (title, "news")


@pytest.mark.parametrize("payload", ["", "hello", "[]", '{"notification": {}}', "null"])
def test_another_senders_push_is_left_alone(
    scene: Scene, page: Page, pushes: Pushes, payload: str
) -> None:
    """A worker that takes Handbell's in may have pushes of its own."""
    pushes.deliver(scene.address, payload)
    pushes.deliver(scene.address, scene.send(title="Ours")[1])
    assert [one["title"] for one in page.evaluate(SHOWN)] == ["Ours"]


def test_receipts_wait_for_a_network(scene: Scene, page: Page, pushes: Pushes) -> None:
    """What could not be reported is kept, and reported by the next one."""
    first, payload = scene.send(title="First")
    page.evaluate(
        "() => handbellShared.update(({ settings }) => "
        "({ settings: { ...settings, kept: settings.server, server: 'http://127.0.0.1:1' } }))"
    )
    pushes.deliver(scene.address, payload)
    wait_for(lambda: page.evaluate("async () => (await handbellShared.read()).receipts.length"))
    page.evaluate(
        "() => handbellShared.update(({ settings }) => "
        "({ settings: { ...settings, server: settings.kept } }))"
    )
    second, payload = scene.send(title="Second")
    pushes.deliver(scene.address, payload)
    for name in (first, second):
        wait_for(
            lambda name=name: [
                one for one in scene.system.ledger.deliveries_of(name) if one.displayed_at
            ]
        )
    wait_for(
        lambda: page.evaluate("async () => (await handbellShared.read()).receipts.length") == 0
    )
