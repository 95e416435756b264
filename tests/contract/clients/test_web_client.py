"""clients/web in a stock Firefox, with a server and a twin: from the click to the receipts."""

import itertools
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from tests.contract.clients.test_firefox import serving
from tests.firefox import IN_FIREFOX, Firefox, firefox, wait_for
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import Delivery
from handbell.demo_environment import isolated_settings
from handbell.registry.session import Session
from handbell.services.webpush.credential import VapidKey
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

pytestmark = [*IN_FIREFOX]

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "web"
SECRET = "a secret of the back end, with 40 bytes."
MAIL, OTHER = "user1@example.com", "test@4d.com"
SHOWN = """
return navigator.serviceWorker.ready
  .then((registration) => registration.getNotifications())
  .then((all) => all.map(({ title, body, tag }) => ({ title, body, tag })));
"""
SUBSCRIBED = """
return navigator.serviceWorker.ready
  .then((registration) => registration.pushManager.getSubscription())
  .then((subscription) => subscription && subscription.endpoint);
"""
PAGE = """<!doctype html><title>Shop</title><button>Notify me</button>
<script type="module">
import { Handbell } from "/handbell.js";
const handbell = window.handbell = new Handbell({ server: "SERVER", app: "APP" });
document.querySelector("button").onclick = () => {
  const { token } = window;
  window.outcome = handbell.enable(() => ({ identityToken: token })).then(
    (session) => session, (problem) => ({ code: problem.code, message: problem.message }));
};
</script>
"""


@dataclass
class Shop:
    """An app of web pages alone: its site, its server, the twin, and one Firefox."""

    system: System
    server: Server
    twin: RunningTwin
    app: App
    address: str
    browser: Firefox
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def token(self, mail: str) -> str:
        """Return what the app's back end signs for a user."""
        now = int(time.time())
        claims = {
            "aud": self.app.id,
            "sub": mail,
            "iat": now,
            "exp": now + 300,
            "jti": str(next(self._numbers)),
        }
        return jwt.encode(claims, SECRET, "HS256")

    def visit(self) -> None:
        """Load the page."""
        self.browser.go_to(self.address)
        wait_for(lambda: self.browser.run("return Boolean(window.handbell)"))

    def enable(self, mail: str) -> Any:
        """Click on the button, as a user does who is signed in."""
        self.browser.run(
            "window.outcome = undefined; window.token = arguments[0]", self.token(mail)
        )
        self.browser.click("button")
        return self.browser.run("return window.outcome")

    def call(self, expression: str, *arguments: Any) -> Any:
        """Return what a call of the client in the page becomes."""
        return self.browser.run(f"return window.handbell.{expression}", *arguments)

    def sessions(self, status: str = "active") -> list[Session]:
        """Return the app's sessions of a status, the oldest first."""
        found = self.system.registry.sessions(self.app)
        return sorted((item for item in found if item.status == status), key=lambda item: item.id)

    def send(self, title: str, **content: Any) -> Delivery:
        """Send to MAIL through the server's engine."""
        notification = Notification.read({"title": title, **content})
        engine = self.system.engine
        sent = self.server.run(engine.send(self.app, notification, Recipients.read(MAIL)))
        (delivery,) = sent.deliveries
        return delivery

    def delivery(self, delivery: Delivery) -> Delivery:
        """Return a delivery as the ledger has it now."""
        (found,) = self.system.ledger.deliveries_of(delivery.notification_id)
        return found


@contextmanager
def opened(tmp_path: Path) -> Iterator[Shop]:
    """Give a shop whose page was loaded."""
    site = tmp_path / "site"
    shutil.copytree(CLIENT, site)
    system = System(isolated_settings(tmp_path / "home"))
    with (
        start_twin(system.twin_folder) as twin,
        serving(site) as address,
        start_server(system, has_console=False) as server,
        firefox(tmp_path / "profile", twin.webpush_socket_url) as browser,
    ):
        app = system.apps.add(name="Shop", web_origin=address)
        system.apps.add_credential(app, VapidKey.make(), environment="twin")
        system.identities.set(app, proof="token", identity_key=SECRET)
        page = PAGE.replace("SERVER", server.url).replace("APP", app.id)
        (site / "index.html").write_text(page, encoding="utf-8")
        shop = Shop(system, server, twin, app, address, browser)
        shop.visit()
        yield shop
    system.database.close()


def test_a_click_leads_to_notifications_and_receipts(tmp_path: Path) -> None:
    """Enabled by a click, shown by Firefox, opened by a click: the ledger has all of it."""
    with opened(tmp_path) as shop:
        assert shop.call("permission") == "granted"
        assert shop.enable(MAIL)["status"] == "active"
        (session,) = shop.sessions()
        assert (session.mail, session.service, session.platform) == (MAIL, "webpush", "web")
        assert session.environment == "twin"
        delivery = shop.send("Order sent off", body="It is on its way", url="/orders/42")
        assert delivery.state == "sent"
        wait_for(lambda: shop.browser.notifications == ["Order sent off"])
        (shown,) = shop.browser.run(SHOWN)
        assert (shown["body"], shown["tag"]) == ("It is on its way", delivery.notification_id)
        assert wait_for(lambda: shop.delivery(delivery).displayed_at)
        assert shop.delivery(delivery).opened_at is None
        shop.browser.click_notification("Order sent off")
        assert wait_for(lambda: shop.delivery(delivery).opened_at)
        wait_for(lambda: f"{shop.address}/orders/42" in shop.browser.addresses)
        # A later visit repeats the registration, and asks nobody.
        shop.visit()
        assert shop.call("refresh()") == {"id": session.id, "status": "active"}
        assert [item.id for item in shop.sessions()] == [session.id]


def test_the_next_user_of_a_browser_gets_what_is_theirs(tmp_path: Path) -> None:
    """Another sign-in closes the session before; after a sign-out nothing arrives."""
    with opened(tmp_path) as shop:
        first = shop.enable(MAIL)
        second = shop.call("signIn({ identityToken: arguments[0] })", shop.token(OTHER))
        assert second["id"] != first["id"]
        (session,) = shop.sessions()
        assert (session.id, session.mail) == (second["id"], OTHER)
        assert shop.call("signOut()") == "closed"
        assert shop.sessions() == []
        assert shop.browser.run(SUBSCRIBED) is None
        assert shop.call("refresh()") is None
        again = shop.enable(MAIL)
        assert [item.id for item in shop.sessions()] == [again["id"]]
        assert shop.send("Back").state == "sent"
        wait_for(lambda: shop.browser.notifications == ["Back"])


def test_a_subscription_that_is_lost_is_renewed(tmp_path: Path) -> None:
    """The service worker registers the new one, under the same session."""
    with opened(tmp_path) as shop:
        session = shop.enable(MAIL)
        (former,) = shop.sessions()
        shop.twin.call(lambda twin: twin.forget_browsers())
        wait_for(lambda: [item.token for item in shop.sessions()] not in ([], [former.token]))
        (renewed,) = shop.sessions()
        assert renewed.id == session["id"]
        assert shop.send("To the new one").state == "sent"
        wait_for(lambda: shop.browser.notifications == ["To the new one"])


def test_another_key_is_subscribed_with_at_the_next_visit(tmp_path: Path) -> None:
    """The subscription for the former key is given up; the session goes on."""
    with opened(tmp_path) as shop:
        shop.enable(MAIL)
        (former,) = shop.sessions()
        made = VapidKey.make()
        shop.system.apps.add_credential(shop.app, made, environment="twin", is_forced=True)
        shop.visit()
        assert shop.call("refresh()") == {"id": former.id, "status": "active"}
        (renewed,) = shop.sessions()
        assert renewed.token != former.token
        assert shop.send("By the new key").state == "sent"
        wait_for(lambda: shop.browser.notifications == ["By the new key"])


def test_without_a_network_nothing_is_lost(tmp_path: Path) -> None:
    """A sign-out that the server cannot be told is told by the next refresh."""
    with opened(tmp_path) as shop:
        shop.enable(MAIL)
        shop.browser.run(
            "window.fetched = window.fetch; window.fetch = () => Promise.reject(new TypeError())"
        )
        assert shop.call("signOut()") == "deferred"
        assert len(shop.sessions()) == 1
        shop.browser.run("window.fetch = window.fetched")
        assert shop.call("refresh()") is None
        assert shop.sessions() == []


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    """A wrong proof is the server's error; enabling without a click is the client's."""
    with opened(tmp_path) as shop:
        shop.browser.run("window.token = 'a.b.c'")
        shop.browser.click("button")
        assert shop.browser.run("return window.outcome")["code"] == "identity-refused"
        asked = """
        Object.defineProperty(Notification, "permission", { get: () => "default" });
        return window.handbell.enable({ mail: "a@example.com" }).catch((problem) => problem.code);
        """
        time_left = "return navigator.userActivation.isActive"
        wait_for(lambda: shop.browser.run(time_left) is False)
        assert shop.browser.run(asked) == "gesture"
        assert shop.call("session()") is None
