"""The console in a real browser: a dropped key, people, the keyboard alone, and what axe finds."""

import base64
import re
from collections.abc import Iterator
from typing import Final

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Page,
    ViewportSize,
    expect,
)
from tests.browser import IN_A_BROWSER, serious_findings
from tests.conftest import APP, Stage, open_stage
from tests.console import MAIL, PASSWORD, Desk, open_console, unhurried

from handbell.apps.sample_keys import make_key
from handbell.services.apns.credential import AuthKey

BASE: Final = f"/console/apps/{APP}"
EMPTY: Final = "/console/apps/TEAM654321.com.sample.empty"
NARROW: Final[ViewportSize] = {"width": 320, "height": 640}
WIDE: Final[ViewportSize] = {"width": 1280, "height": 860}
PAGES: Final = (
    "/console/apps",
    BASE,
    f"{BASE}/switch",
    f"{BASE}/people",
    f"{BASE}/people?q=zzz",
    f"{BASE}/person?mail=test@4d.com",
    EMPTY,
    f"{EMPTY}/people",
    "/console/settings",
    "/console/settings/api-keys",
    "/console/settings/webhooks",
    "/console/settings/audit",
    "/console/settings/account",
    "/console/nowhere",
    "/docs",
)

pytestmark = list(IN_A_BROWSER)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give one system for the file, both environments of which are a twin."""
    with open_stage(tmp_path_factory.mktemp("console")) as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(stage: Stage) -> Iterator[Desk]:
    """Give one console for the file, with something on every page."""
    system, app = stage.system, stage.app
    with open_console(system, limiter=unhurried()) as running:
        for mail in (MAIL, "second@example.com"):
            system.operators.add(mail, PASSWORD)
        system.operators.invite("third@example.com")
        system.apps.add("TEAM654321", "com.sample.empty", name="Empty")
        stage.add_phone("test@4d.com")
        bad = system.registry.register(app, "test@4d.com", "ab" * 32, device="Old phone")
        system.registry.quarantine(bad, reason="BadDeviceToken")
        system.registry.register(app, "test@4d.com", "cd" * 32, status="pending")
        running.send(app, "test@4d.com", title="Your order is ready")
        system.api_keys.add("The shop", ["send"], app)
        system.webhooks.add(app, "https://shop.example.com/handbell")
        yield running


@pytest.fixture(scope="module")
def window(browser: Browser, desk: Desk) -> Page:
    """Return one window for all tests, signed in."""
    context = browser.new_context(
        base_url=desk.url, viewport=WIDE, color_scheme="light", reduced_motion="reduce"
    )
    page = context.new_page()
    sign_in(page)
    return page


@pytest.fixture
def page(window: Page) -> Iterator[Page]:
    """Give the window; an error or a breach of the security policy fails the test."""
    complaints: list[str] = []

    def note_error(error: Error) -> None:
        complaints.append(str(error))

    def note_console(said: ConsoleMessage) -> None:
        if said.type == "error" and "status of 4" not in said.text:
            complaints.append(said.text)

    window.on("pageerror", note_error)
    window.on("console", note_console)
    yield window
    window.remove_listener("pageerror", note_error)
    window.remove_listener("console", note_console)
    assert complaints == []


def sign_in(page: Page) -> None:
    """Fill in the form as a person does."""
    page.goto("/console/sign-in?next=/console/apps")
    page.get_by_label("Mail address").fill(MAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Apps")


def drop(page: Page, name: str, content: bytes) -> None:
    """Drop a file where keys are dropped."""
    page.locator("#keys [data-drop]").evaluate(
        """(zone, [name, content]) => {
            const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], name));
            for (const type of ["dragenter", "dragover", "drop"]) {
                zone.dispatchEvent(new DragEvent(type, {
                    bubbles: true, cancelable: true, dataTransfer: carried,
                }));
            }
        }""",
        [name, base64.b64encode(content).decode()],
    )


def known_key(stage: Stage, team_id: str) -> AuthKey:
    """Return a new key that the twin knows."""
    key = make_key(team_id)
    stage.twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    return key


def test_an_app_is_published_by_dropping_its_key(stage: Stage, page: Page) -> None:
    """Add the app, drop the .p8, and read that both sides of Apple's take it.

    What is written in other forms meanwhile stays, and the address stays one that can be reloaded.
    """
    page.goto("/console/apps")
    page.get_by_label("Team id").fill("TEAM777777")
    page.get_by_label("Bundle id").fill("com.sample.walk")
    page.get_by_label("Name").fill("Walk")
    page.get_by_role("button", name="Add the app").click()
    expect(page.get_by_role("status").first).to_contain_text("Walk is added")
    key = known_key(stage, "TEAM777777")
    address = page.url
    page.get_by_label("Cap per person").fill("7/day")
    page.locator("#identity summary").click()
    page.locator("#identity_key").fill("a shared secret of 32 bytes or more")
    drop(page, f"AuthKey_{key.key_id}.p8", b"no key at all")
    expect(page.locator("#key_file-fault")).to_contain_text("not a PEM text")
    expect(page.locator(".notice.bad")).to_be_focused()
    assert page.url == address
    drop(page, f"AuthKey_{key.key_id}.p8", key.private_key_pem())
    expect(page.get_by_role("status").first).to_contain_text(f"{key.key_id} is added and works")
    _expect_what_was_written(page)
    page.get_by_role("link", name="Switch off push for Walk").click()
    page.get_by_role("button", name="Switch push off").click()
    expect(page.locator("#switch")).to_contain_text("Push is off")
    expect(page.locator(".switcher summary")).to_contain_text("switched off")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.get_by_role("button", name="Switch on").first.click()
    expect(page.locator("#switch")).to_contain_text("Push is on")
    _expect_what_was_written(page)
    assert page.url.partition("#")[0] == address
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Walk")
    section = page.locator("#check-up")
    expect(section).to_contain_text("as production host accepts the key")
    expect(section).to_contain_text("as development host accepts the key")
    page.get_by_role("button", name="Check again").click()
    expect(page.locator("#announcer")).to_have_text("The check-up is done: everything is right.")
    page.get_by_role("button", name="App:").or_(page.locator(".switcher summary")).first.click()
    page.get_by_role("link", name="My App").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("My App")


def _expect_what_was_written(page: Page) -> None:
    expect(page.get_by_label("Cap per person")).to_have_value("7/day")
    expect(page.locator("#identity_key")).to_have_value("a shared secret of 32 bytes or more")


def test_a_renamed_key_asks_for_its_key_id(stage: Stage, page: Page) -> None:
    """The field for it opens and has the focus; with it, the key is taken."""
    key = known_key(stage, "TEAM654321")
    page.goto(EMPTY)
    drop(page, "push.p8", key.private_key_pem())
    expect(page.get_by_text("does not say its key id")).to_be_visible()
    expect(page.get_by_label("Key id")).to_be_focused()
    page.keyboard.type(key.key_id)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"The key {key.key_id} is added")).to_be_visible()
    page.get_by_role("link", name=f"Remove the key {key.key_id}").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Remove the key {key.key_id}?")
    dialog.get_by_role("button", name="Remove the key").click()
    expect(page.get_by_text("Drop the .p8 here, or browse for it")).to_be_visible()


def test_a_session_is_released_from_a_search(stage: Stage, page: Page) -> None:
    """Search, read why, and end the quarantine in a dialog; the story has changed then."""
    page.goto(f"{BASE}/people")
    page.get_by_role("searchbox").fill("TEST@")
    page.keyboard.press("Enter")
    page.get_by_role("link", name="test@4d.com").click()
    answer = page.get_by_role("region", name="Why they saw it, or not")
    expect(answer).to_contain_text("'Your order is ready'")
    page.get_by_role("link", name="Try it again Old phone").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Back")).to_be_focused()
    dialog.get_by_role("button", name="End the quarantine").click()
    expect(page.get_by_text("Old phone is sent to again.")).to_be_visible()
    statuses = {one.device: one.status for one in stage.system.registry.sessions(stage.app)}
    assert statuses["Old phone"] == "active"
    session = next(
        one for one in stage.system.registry.sessions(stage.app) if one.device == "Old phone"
    )
    stage.system.registry.quarantine(session, reason="BadDeviceToken")


def test_all_of_it_goes_by_the_keyboard_alone(browser: Browser, desk: Desk) -> None:
    """Sign in, skip to the page, switch the app, answer a dialog and leave, without a mouse."""
    context = browser.new_context(base_url=desk.url, viewport=WIDE, reduced_motion="reduce")
    page = context.new_page()
    page.goto("/console/sign-in?next=" + BASE)
    press = page.keyboard.press
    press("Tab")
    page.keyboard.type(MAIL)
    press("Tab")
    page.keyboard.type(PASSWORD)
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("My App")
    press("Tab")
    skip = page.get_by_role("link", name="Skip to the page")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    press("Enter")
    expect(page.locator("#main")).to_be_focused()
    press("Tab")
    off = page.get_by_role("link", name="Switch off push for My App")
    expect(off).to_be_focused()
    press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Switch push off for My App?")
    expect(page.get_by_role("link", name="Keep it as it is")).to_be_focused()
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(off).to_be_focused()
    page.locator(".switcher summary").focus()
    press("Enter")
    expect(page.get_by_role("link", name="Empty")).to_be_visible()
    press("Escape")
    expect(page.get_by_role("link", name="Empty")).to_be_hidden()
    expect(page.locator(".switcher summary")).to_be_focused()
    page.locator(".account summary").focus()
    press("Enter")
    page.get_by_role("button", name="Sign out").focus()
    press("Enter")
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    context.close()


def test_it_works_without_a_script(browser: Browser, desk: Desk, stage: Stage) -> None:
    """A question is a page, an answer a form; nothing waits for a script."""
    session = stage.register("plain@example.com", "ef" * 32)
    context = browser.new_context(base_url=desk.url, java_script_enabled=False)
    page = context.new_page()
    sign_in(page)
    page.goto(f"{BASE}/person?mail=plain@example.com")
    page.get_by_role("link", name="Close the session of iOS").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Close the session of")
    page.get_by_role("button", name="Close the session").click()
    expect(page.get_by_role("status").first).to_contain_text("is closed.")
    assert stage.system.registry.session(session.id).status == "closed"
    page.goto(BASE)
    page.get_by_role("button", name=re.compile("^Check (now|again)$")).click()
    expect(page.locator("#check-up")).to_contain_text("accepts the key")
    context.close()


def test_a_made_key_is_copied(page: Page, stage: Stage) -> None:
    """It is shown once, with a button that copies it and says so."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/console/settings/api-keys")
    page.get_by_label("Name").fill("The clipboard")
    page.get_by_label("Send").check()
    page.get_by_role("button", name="Make the key").click()
    page.get_by_role("button", name="Copy").first.click()
    expect(page.locator("#announcer")).to_have_text("Copied.")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert stage.system.api_keys.check(copied) is not None


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_a_serious_finding(page: Page, path: str) -> None:
    """Axe finds nothing serious in light and in dark, and nothing sticks out at 320 pixels."""
    page.goto(path)
    assert serious_findings(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(NARROW)
    assert serious_findings(page, "color-contrast", "target-size") == []
    assert sticking_out(page) == []
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(WIDE)


def test_the_menus_fit_a_phone(page: Page) -> None:
    """Opened at 320 pixels, the apps and the account are within the window."""
    page.set_viewport_size(NARROW)
    page.goto(BASE)
    for menu in (".switcher", ".account"):
        page.locator(f"{menu} summary").click()
        box = page.locator(f"{menu} .menu-list").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= NARROW["width"]
    page.set_viewport_size(WIDE)


def test_signing_in_has_no_serious_finding(browser: Browser, desk: Desk) -> None:
    """Nor have the pages that are seen before it."""
    context = browser.new_context(base_url=desk.url, viewport=NARROW)
    page = context.new_page()
    invitation = desk.system.operators.invite()
    for path in ("/console/sign-in", f"/console/invitation/{invitation}"):
        page.emulate_media(color_scheme="light")
        page.goto(path)
        assert serious_findings(page) == []
        page.emulate_media(color_scheme="dark")
        assert serious_findings(page, "color-contrast") == []
        assert sticking_out(page) == []
    context.close()


def sticking_out(page: Page) -> list[str]:
    """Return what makes a page wider than its window."""
    found: list[str] = page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
            [...document.querySelectorAll("main *")]
                .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
                .map((one) => one.outerHTML.slice(0, 120))"""
    )
    return found


def test_a_page_is_there_at_once(page: Page) -> None:
    """A page asks for nothing from elsewhere, and is small."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(BASE)
    assert {url.partition("/console")[0] for url in asked} == {page.url.partition("/console")[0]}
    assert len(asked) < 9
