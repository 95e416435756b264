"""The console of an app on three push services, in a real browser: set up, preview, send, tell."""

import json
import re
from collections.abc import Iterator
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, ViewportSize, expect
from tests.browser import IN_A_BROWSER, serious_findings
from tests.console import (
    MAIL,
    PASSWORD,
    Desk,
    open_console,
    open_rehearsal,
    quick_operators,
    unhurried,
)

from handbell.apps.sample_keys import make_service_account

APP: Final = "TEAM123456.com.sample.shop"
BASE: Final = f"/console/apps/{APP}"
NARROW: Final[ViewportSize] = {"width": 320, "height": 640}
WIDE: Final[ViewportSize] = {"width": 1280, "height": 860}

pytestmark = list(IN_A_BROWSER)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a console beside a twin, with an app that Apple knows, and nothing else."""
    with (
        open_rehearsal(tmp_path_factory.mktemp("devices")) as (system, twin, _),
        open_console(system, limiter=unhurried()) as running,
    ):
        app = system.apps.add("TEAM123456", "com.sample.shop", name="Shop")
        twin.add_app(app.id, app.name)
        quick_operators(system).add(MAIL, PASSWORD)
        yield running


@pytest.fixture(scope="module")
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    """Give one window for all tests, signed in; an error in it fails the last one."""
    context = browser.new_context(
        base_url=desk.url, viewport=WIDE, color_scheme="light", reduced_motion="reduce"
    )
    page, complaints = context.new_page(), list[str]()

    def note_error(error: Error) -> None:
        complaints.append(str(error))

    def note_console(said: ConsoleMessage) -> None:
        if said.type == "error" and "status of 4" not in said.text:
            complaints.append(said.text)

    page.on("pageerror", note_error)
    page.on("console", note_console)
    page.goto("/console/sign-in?next=/console/apps")
    page.get_by_label("Mail address").fill(MAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Apps")
    yield page
    assert complaints == []
    context.close()


def key_file() -> bytes:
    """Return a service account as Google's console lets it be downloaded."""
    from handbell.apps.app import App  # noqa: PLC0415 - needed once

    account = make_service_account(App(android_package="com.sample.shop"))
    key = account.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return json.dumps(
        {
            "type": "service_account",
            "project_id": "shop-project",
            "private_key_id": account.private_key_id,
            "private_key": key.decode(),
            "client_email": "push@shop-project.iam.gserviceaccount.com",
        }
    ).encode()


def test_an_app_goes_to_android_and_to_browsers(page: Page) -> None:
    """What is not set up is opened, set, and then stands there with what tells it apart."""
    page.goto(BASE)
    google = page.locator("#google")
    google.locator("summary").first.click()
    google.get_by_label("Package").fill("com.sample.shop")
    google.get_by_role("button", name="Set the Android app").click()
    expect(page.get_by_role("status").first).to_contain_text("The Android app is set")
    google.get_by_role("button", name="Make one for the virtual phone").click()
    expect(google).to_contain_text("for the virtual phone only")
    expect(google).to_contain_text("iam.gserviceaccount.com")
    browsers = page.locator("#web-push")
    browsers.locator("summary").first.click()
    browsers.get_by_label("Origin of the pages").fill("https://shop.example.com")
    browsers.get_by_role("button", name="Set the origin").click()
    expect(page.get_by_role("status").first).to_contain_text("origin is set")
    page.get_by_role("button", name="Make web push keys").click()
    expect(browsers.locator(".copyable code")).to_have_text(re.compile(r"^B[\w-]{86}$"))
    expect(page.locator("#check-up")).to_contain_text("The twin's FCM accepts")


def test_a_service_account_is_dropped(page: Page) -> None:
    """Another file is refused in its place; the right one is told by its project."""
    page.goto(BASE)
    google = page.locator("#google")
    google.get_by_text("Another service account").click()
    drop(page, "google-services.json", b'{"project_info": {}, "client": []}')
    expect(page.locator("#account_file-fault")).to_contain_text("google-services.json")
    drop(page, "shop-project-1234.json", key_file())
    expect(google).to_contain_text("shop-project")
    expect(google).to_contain_text("push@shop-project.iam.gserviceaccount.com")
    page.get_by_role("link", name=re.compile("Remove the service account")).first.click()
    page.get_by_role("button", name="Remove the service account").click()
    expect(page.get_by_role("status").first).to_contain_text("is removed")


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file where service accounts are dropped."""
    page.locator("#google [data-drop]").evaluate(
        """(zone, [name, content]) => {
            const carried = new DataTransfer();
            carried.items.add(new File([content], name));
            zone.dispatchEvent(new DragEvent("drop", {
                bubbles: true, cancelable: true, dataTransfer: carried,
            }));
        }""",
        [name, content.decode()],
    )


def begin(page: Page) -> None:
    """Open an empty form, whatever draft the browser keeps."""
    page.goto(BASE)
    page.evaluate("localStorage.clear()")
    page.goto(f"{BASE}/compose")


@pytest.mark.parametrize(
    ("device", "service", "made"),
    [
        ("iPhone", "apns", "Make a virtual phone"),
        ("Android", "fcm", "Make a virtual Android phone"),
        ("Browser", "webpush", "Make a virtual browser"),
    ],
    ids=["iPhone", "Android", "Browser"],
)
def test_it_arrives_on_each_device(page: Page, device: str, service: str, made: str) -> None:
    """The tab shows the device, what it leaves out, and the virtual one where a test arrives.

    It stays chosen when the test was sent.
    """
    begin(page)
    page.get_by_label("Title", exact=True).fill(f"To the {device}")
    page.get_by_label("Subtitle", exact=True).fill("Aside")
    page.locator(".devices").get_by_text(device, exact=True).click()
    note = page.locator(".bytes:visible [data-part=notes]")
    expect(note).to_have_text("" if device == "iPhone" else re.compile('"Subtitle" is not shown'))
    expect(page.locator(".bytes:visible [data-part=told]")).to_contain_text("bytes")
    expect(page.locator("#draft-card .push-title")).to_have_text(f"To the {device}")
    page.get_by_role("button", name=made, exact=True).click()
    expect(page.locator(".flash")).to_contain_text("test@4d.com has a virtual")
    expect(page.locator(".restored")).to_be_visible()
    page.locator(".devices").get_by_text(device, exact=True).click()
    expect(page.locator("#virtual-phone")).to_contain_text("Nothing has arrived yet")
    page.get_by_label("Address of the test").fill("test@4d.com")
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator(".devices").get_by_label(device, exact=True)).to_be_checked()
    shown = page.locator(f"#virtual-phone[data-live*='service={service}']")
    expect(shown).to_contain_text(f"To the {device}")
    page.locator("#virtual-phone").get_by_role("button", name=re.compile("Open")).first.click()
    # Android takes a notification away when it is tapped.
    left = "Nothing has arrived yet" if device == "Android" else "Opened"
    expect(page.locator("#virtual-phone")).to_contain_text(left)


@pytest.mark.parametrize("tab", ["Android", "Browser"])
def test_each_preview_can_be_read_by_everybody(page: Page, tab: str) -> None:
    """Axe finds nothing serious in light and in dark, and nothing sticks out at 320 pixels."""
    begin(page)
    page.get_by_label("Title", exact=True).fill("Hello")
    page.get_by_label("Subtitle", exact=True).fill("Aside")
    page.locator(".devices").get_by_text(tab, exact=True).click()
    check(page)


@pytest.mark.parametrize("path", ["", "/activity"])
def test_each_page_can_be_read_by_everybody(page: Page, path: str) -> None:
    """So do the pages that tell of three services."""
    page.goto(f"{BASE}{path}")
    if path == "/activity":
        page.locator("#sent a").first.click()
        expect(page.get_by_role("heading", name="By push service")).to_be_visible()
    check(page)


def check(page: Page) -> None:
    """Look for what hinders people."""
    assert serious_findings(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(NARROW)
    assert serious_findings(page, "color-contrast", "target-size") == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(WIDE)
