"""A stock Chromium judges what Handbell encrypts, subscribed by clients/web, over its own way."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from playwright.sync_api import Page, sync_playwright
from tests.browser import SWITCHES
from tests.chromium_push import GooglePush, google_push
from tests.contract.clients.test_firefox import serving
from tests.contract.clients.test_web_client import MAIL, PAGE, SECRET
from tests.contract.clients.test_web_worker import CLIENT, SHOWN, Pushes, pytestmark
from tests.serving import start_server

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.demo_environment import isolated_settings
from handbell.gateways.webpush.compose import compose
from handbell.gateways.webpush.encrypt import encrypt
from handbell.registry.session import Session
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.protocol import MAX_PLAINTEXT_BYTES
from handbell.system import System
from handbell.twin.certificates import SERVER_FILE, Authority
from handbell.twin.webpush.encryption import decode

__all__ = ["pytestmark"]


class Shop:
    """An app of web pages, a page of it in Chromium, and Google's service as far as needed."""

    def __init__(self, system: System, app: App, page: Page, google: GooglePush) -> None:
        self.system, self.app, self.page, self.google = system, app, page, google

    def enable(self) -> None:
        """Click on the button, as a user does who is signed in."""
        now = int(time.time())
        claims = {"aud": self.app.id, "sub": MAIL, "iat": now, "exp": now + 300, "jti": "one"}
        self.page.evaluate(
            "(token) => { window.token = token; }", jwt.encode(claims, SECRET, "HS256")
        )
        self.page.click("button")
        outcome = self.page.evaluate("() => window.outcome")
        assert outcome.get("status") == "active", outcome

    @property
    def session(self) -> Session:
        """Return the only active session."""
        (found,) = [
            item for item in self.system.registry.sessions(self.app) if item.status == "active"
        ]
        return found

    def push(self, plaintext: bytes) -> None:
        """Send what Handbell encrypts for the session."""
        session = self.session
        keys = {name: decode(text) for name, text in json.loads(session.details or "").items()}
        body = encrypt(plaintext, keys["p256dh"], keys["auth"])
        self.google.push(session.token.rpartition("/")[2], body)


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    """Give a shop whose page was loaded; its server sends nothing."""
    site = tmp_path / "site"
    shutil.copytree(CLIENT, site)
    system = System(isolated_settings(tmp_path / "home"))
    Authority.open(tmp_path / "authority").server_context()
    with (
        serving(site) as address,
        start_server(system, has_console=False, with_worker=False) as server,
        google_push(tmp_path / "authority" / SERVER_FILE) as google,
        sync_playwright() as playwright,
    ):
        app = system.apps.add(name="Shop", web_origin=address)
        system.apps.add_credential(app, VapidKey.make(), environment="production")
        system.identities.set(app, proof="token", identity_key=SECRET)
        page_text = PAGE.replace("SERVER", server.url).replace("APP", app.id)
        (site / "index.html").write_text(page_text, encoding="utf-8")
        # A profile of its own, since a private window has no push; and its own push, which drivers
        # switch off.
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=shutil.which("chromium"),
            args=[
                *(one for one in SWITCHES if one != "--disable-background-networking"),
                "--headless=new",
                *google.switches,
            ],
            ignore_default_args=["--disable-background-networking"],
        )
        context.grant_permissions(["notifications"], origin=address)
        page = context.new_page()
        page.goto(address)
        page.wait_for_function("() => window.handbell")
        yield Shop(system, app, page, google)
        context.close()
    system.database.close()


def test_chromium_shows_what_handbell_encrypts(shop: Shop) -> None:
    """It subscribes through clients/web, decrypts, and shows it; up to the largest message."""
    shop.enable()
    assert shop.session.environment == "production"
    said = Notification.read({"title": "Grüße 👋", "body": "It is on its way", "url": "/orders/42"})
    composed = compose(said, app=shop.app, now=time.time(), notification_id="7c5e8f0a1b2cd3e")
    pushes = Pushes(shop.page)
    shop.push(composed.payload)
    pushes.wait_for_one()
    (shown,) = shop.page.evaluate(SHOWN)
    assert (shown["title"], shown["body"]) == ("Grüße 👋", "It is on its way")
    assert shown["data"]["handbell"]["navigate"].endswith("/orders/42")
    shop.push(b'{"notification": {"title": "Largest"}}'.ljust(MAX_PLAINTEXT_BYTES))
    pushes.wait_for_one()
    assert "Largest" in [one["title"] for one in shop.page.evaluate(SHOWN)]


def test_after_a_sign_out_chromium_has_no_subscription(shop: Shop) -> None:
    """The session is closed, and what still comes is not shown."""
    shop.enable()
    assert shop.page.evaluate("() => window.handbell.signOut()") == "closed"
    assert [one.status for one in shop.system.registry.sessions(shop.app)] == ["closed"]
    assert shop.page.evaluate("() => window.handbell.refresh()") is None
