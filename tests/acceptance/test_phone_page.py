"""The twin's page in a real browser, with pushes from a real HTTP/2 client."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Error,
    Locator,
    Page,
    expect,
)
from tests.browser import IN_A_BROWSER

from handbell.twin.faults import KINDS
from handbell.twin.hooks import TwinHooks
from handbell.twin.phone import Card, Phone
from handbell.twin.threaded import RunningTwin, start_twin

TEAM, KEY_ID, APP = "TEAM123456", "KEY1234567", "TEAM123456.com.sample.orders"

pytestmark = list(IN_A_BROWSER)


LINKS = """() => {
    const links = document.getElementById("links");
    links.hidden = false;
    links.innerHTML = '<a href="/">Console</a><a href="/">The API</a>';
}"""
"""Shows the way to a server's other pages, as beside ``handbell serve``."""


@dataclass
class Stand:
    """A running twin, a key it knows, and what its phones reported."""

    twin: RunningTwin
    provider_token: str
    opened: list[tuple[str, str]] = field(default_factory=list)

    def phone(self, name: str = "First phone", **details: Any) -> Phone:
        """Make a phone, or one as told."""
        return self.twin.add_phone(name, **{"mail": "first@example.com", "app": APP, **details})

    def push(self, phone: Phone, payload: dict[str, Any], **headers: str) -> int:
        """Push over HTTP/2 to the phone and return the status."""
        twin = self.twin
        host = twin.production_url if phone.side == "production" else twin.development_url
        sent = {
            "authorization": f"bearer {self.provider_token}",
            "apns-topic": phone.bundle_id,
            "apns-push-type": "alert",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        tls = ssl.create_default_context(cafile=str(twin.ca_file))
        with httpx.Client(http2=True, verify=tls, trust_env=False) as client:
            pushed = client.post(f"{host}/3/device/{phone.token}", headers=sent, json=payload)
        return pushed.status_code

    def say(self, phone: Phone, title: str, body: str = "", **more: Any) -> None:
        """Push an alert; ``more`` goes into ``aps``, except for a collapse id."""
        headers = {
            name: more.pop(name) for name in ("apns_collapse_id", "apns_priority") if name in more
        }
        alert = {"title": title, "body": body}
        aps = {name.replace("_", "-"): value for name, value in more.items()}
        assert self.push(phone, {"aps": {"alert": alert, **aps}}, **headers) == 200


@pytest.fixture(scope="module")
def key_pem() -> str:
    """Return a P-256 key made for this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


@pytest.fixture
def stand(tmp_path: Path, key_pem: str) -> Iterator[Stand]:
    """Run a twin that knows one app and one key."""
    opened: list[tuple[str, str]] = []

    def note(phone: Phone, card: Card) -> None:
        opened.append((phone.id, card.id))

    claims = {"iss": TEAM, "iat": int(time.time())}
    token = jwt.encode(claims, key_pem, algorithm="ES256", headers={"kid": KEY_ID})
    with start_twin(tmp_path, hooks=TwinHooks(on_opened=note)) as twin:
        twin.add_app(APP, "Orders")
        twin.add_key(TEAM, KEY_ID, key_pem)
        yield Stand(twin, token, opened)


@pytest.fixture(scope="module")
def window(browser: Browser) -> Page:
    """Return one window for all tests; each has a twin, and so an origin, of its own."""
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    return context.new_page()


@pytest.fixture
def page(window: Page, stand: Stand) -> Iterator[Page]:
    """Open the page, live; an error or a breach of the security policy fails the test."""
    complaints: list[str] = []

    def note_error(error: Error) -> None:
        complaints.append(str(error))

    def note_console(said: ConsoleMessage) -> None:
        if said.type == "error":
            complaints.append(said.text)

    window.on("pageerror", note_error)
    window.on("console", note_console)
    with window.expect_response("**/api/state"):
        window.goto(stand.twin.page_url, wait_until="commit")
    yield window
    window.remove_listener("pageerror", note_error)
    window.remove_listener("console", note_console)
    window.set_viewport_size({"width": 1400, "height": 900})
    window.emulate_media(color_scheme="light", reduced_motion="reduce")
    window.goto("about:blank")
    assert complaints == []


def phone_of(page: Page, phone: Phone) -> Locator:
    """Return the drawing of the phone."""
    return page.locator(f'[data-phone="{phone.id}"]')


def cards_of(page: Page, phone: Phone) -> Locator:
    """Return the cards that the phone shows."""
    return phone_of(page, phone).locator(".card")


def test_a_card_appears_without_a_reload(page: Page, stand: Stand) -> None:
    """A phone and then a card appear on the open page, with all that was written."""
    phone = stand.phone()
    expect(phone_of(page, phone)).to_be_visible()
    alert = {"title": "Order shipped", "subtitle": "Express", "body": "It arrives tomorrow."}
    stand.push(phone, {"aps": {"alert": alert, "sound": "default"}})
    expect(phone_of(page, phone).locator(".device")).to_have_attribute("data-ringing", "")
    card = cards_of(page, phone)
    expect(card.locator(".card-title")).to_have_text("Order shipped")
    expect(card.locator(".card-subtitle")).to_have_text("Express")
    expect(card.locator(".card-body")).to_have_text("It arrives tomorrow.")
    expect(card.locator(".card-app")).to_have_text("Orders")
    expect(card.locator("time")).to_have_text("now")
    expect(card.locator(".card-bell")).to_be_visible()


def test_a_new_card_is_announced(page: Page, stand: Stand) -> None:
    """A screen reader hears whose phone it is and what arrived."""
    stand.say(stand.phone(), "Order shipped", "It arrives tomorrow.")
    expect(page.locator("[aria-live=polite]")).to_have_text(
        "First phone, Orders: Order shipped. It arrives tomorrow."
    )


def test_a_collapse_id_replaces_the_card(page: Page, stand: Stand) -> None:
    """Two pushes of one collapse id are one card, with the newer text."""
    phone = stand.phone()
    stand.say(phone, "Score 1:0", apns_collapse_id="match/7")
    titles = cards_of(page, phone).locator(".card-title")
    expect(titles).to_have_text(["Score 1:0"])
    stand.say(phone, "Score 2:0", apns_collapse_id="match/7")
    expect(titles).to_have_text(["Score 2:0"])


def test_a_thread_is_a_stack_that_expands(page: Page, stand: Stand) -> None:
    """Cards of one thread lie on each other until a click, and do so again on request."""
    phone = stand.phone()
    for number in (1, 2, 3):
        stand.say(phone, f"Message {number}", thread_id="lunch")
    titles = cards_of(page, phone).locator(".card-title")
    expect(titles).to_have_text(["Message 3"])
    expect(cards_of(page, phone)).to_contain_text("2 more")
    cards_of(page, phone).locator(".card-main").click()
    expect(titles).to_have_text(["Message 3", "Message 2", "Message 1"])
    page.get_by_role("button", name="Show less").click()
    expect(titles).to_have_text(["Message 3"])
    assert stand.opened == []


def test_the_badge_counts_and_opening_the_app_clears_it(page: Page, stand: Stand) -> None:
    """The app's icon carries the number; a tap on the icon takes it away."""
    phone = stand.phone()
    badge = phone_of(page, phone).locator(".badge")
    expect(badge).to_be_hidden()
    stand.say(phone, "Three new orders", badge=3)
    expect(badge).to_have_text("3")
    phone_of(page, phone).get_by_role("button", name="Orders, badge 3").click()
    expect(badge).to_be_hidden()
    assert stand.twin.phone(phone.id).badge is None


def test_a_silent_push_is_seen_in_the_inspector_alone(page: Page, stand: Stand) -> None:
    """A background push puts nothing on the screen, and a row beside it."""
    phone = stand.phone()
    payload = {"aps": {"content-available": 1}}
    stand.push(phone, payload, apns_push_type="background", apns_priority="5")
    expect(page.locator(".request")).to_have_attribute("data-what", "silent")
    expect(cards_of(page, phone)).to_have_count(0)
    expect(phone_of(page, phone)).to_contain_text("No notifications")


def test_a_refused_request_shows_its_reason(page: Page, stand: Stand) -> None:
    """A refusal is a row with status, reason and sentence; the filter keeps it alone."""
    phone = stand.phone()
    stand.say(phone, "Fine")
    assert stand.push(phone, {"aps": {"alert": "x"}}, apns_topic="com.other") == 400
    expect(page.locator(".request")).to_have_count(2)
    newest = page.locator(".request").first
    expect(newest.locator(".pill")).to_have_text("400")
    expect(newest.locator(".row-what")).to_have_text("DeviceTokenNotForTopic")
    expect(newest.locator(".row-verdict")).to_contain_text("com.other")
    page.get_by_label("Refused only").check()
    expect(page.locator(".request")).to_have_count(1)


def test_a_request_unfolds_to_what_was_sent(page: Page, stand: Stand) -> None:
    """A selected request shows headers, payload, size and apns-id, and no signature."""
    phone = stand.phone()
    apns_id = "7f3d9a52-1f6e-4c0b-9d6b-0b6d5a1f2c3e"
    payload = {"aps": {"alert": {"title": "Hello"}}, "order": 12345678901234567890}
    stand.push(phone, payload, apns_id=apns_id)
    page.locator(".request .row").click()
    details = page.locator(".details")
    expect(details.get_by_role("table", name="Headers")).to_contain_text("com.sample.orders")
    expect(details.get_by_role("table", name="Answer")).to_contain_text(apns_id)
    expect(details.locator("pre")).to_contain_text('"order": 12345678901234567890')
    expect(details.get_by_label("Payload size")).to_have_attribute("max", "4096")
    assert stand.provider_token.rpartition(".")[2] not in page.content()


def test_requests_are_filtered_by_phone(page: Page, stand: Stand) -> None:
    """The list can be narrowed to one phone."""
    one, two = stand.phone(), stand.phone("Second phone", mail="second@example.com")
    stand.say(one, "To the first")
    stand.say(two, "To Second")
    expect(page.locator(".request")).to_have_count(2)
    page.locator("#filter-phone").select_option(label="Second phone")
    expect(page.locator(".request")).to_have_count(1)
    expect(page.locator(".request")).to_contain_text("To Second")


def test_a_tap_opens_the_url_and_reports_opened(page: Page, stand: Stand) -> None:
    """A tap opens the address in a tab that doesn't know this page, and the twin hears of it."""
    phone = stand.phone()
    address = f"{stand.twin.page_url}/static/bell.svg"
    stand.push(phone, {"aps": {"alert": {"title": "Look"}}, "url": address})
    with page.context.expect_page() as opening:
        cards_of(page, phone).get_by_role("button", name="Look").first.click()
    assert opening.value.url == address
    assert opening.value.evaluate("window.opener") is None
    opening.value.close()
    expect(cards_of(page, phone)).to_contain_text("Opened")
    assert [name for name, _ in stand.opened] == [phone.id]


def test_a_dangerous_url_is_not_opened(page: Page, stand: Stand) -> None:
    """An address that could run or read something here stays closed; the tap still counts."""
    addresses = (
        "javascript:document.title='owned'",
        " JaVaScRiPt:document.title='owned'",
        "data:text/html,owned",
        "file:///etc/passwd",
        "not an address",
    )
    phone = stand.phone()
    for address in addresses:
        stand.push(phone, {"aps": {"alert": {"title": "Look"}}, "url": address})
    cards = cards_of(page, phone)
    expect(cards.get_by_text("Link not opened here")).to_have_count(len(addresses))
    for card in cards.all():
        card.locator(".card-main").press("Enter")
    expect(cards.locator(".card-mark")).to_have_count(len(addresses))
    assert len(page.context.pages) == 1
    assert page.title() == "Handbell twin"


def test_a_card_is_opened_by_keyboard(page: Page, stand: Stand) -> None:
    """A card is a button: Enter opens it."""
    phone = stand.phone()
    stand.say(phone, "Look")
    cards_of(page, phone).locator(".card-main").press("Enter")
    expect(cards_of(page, phone)).to_contain_text("Opened")


def test_focus_moves_on_when_a_card_is_dismissed(page: Page, stand: Stand) -> None:
    """Whoever dismisses cards by keyboard stays among the cards."""
    phone = stand.phone()
    for title in ("First", "Second", "Third"):
        stand.say(phone, title)
    page.get_by_role("button", name="Dismiss Second").press("Enter")
    expect(cards_of(page, phone)).to_have_count(2)
    expect(page.get_by_role("button", name="Dismiss First")).to_be_focused()


def test_the_cards_are_one_stop_for_the_keyboard(page: Page, stand: Stand) -> None:
    """The skip link comes first; Tab passes the cards in one stop, arrows walk among them."""
    phone = stand.phone()
    for title in ("First", "Second", "Third"):
        stand.say(phone, title)
    expect(cards_of(page, phone)).to_have_count(3)
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip the phones")
    expect(skip).to_be_focused()
    expect(skip).to_be_in_viewport()
    newest = cards_of(page, phone).first.locator(".card-main")
    newest.focus()
    page.keyboard.press("ArrowDown")
    second = cards_of(page, phone).nth(1)
    expect(second.locator(".card-main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(second.locator(".card-close")).to_be_focused()
    page.keyboard.press("Tab")
    expect(phone_of(page, phone).locator(".dock-app")).to_be_focused()
    skip.press("Enter")
    expect(page.locator("#inspector")).to_be_focused()


def test_what_arrives_above_the_part_that_is_seen_is_told(page: Page, stand: Stand) -> None:
    """A shelf that is scrolled says how many are new, aloud and in sight; a press shows them."""
    phone = stand.phone()
    for number in range(9):
        stand.say(phone, f"Number {number}", "A body that takes some room on the shelf.")
    expect(cards_of(page, phone)).to_have_count(9)
    shelf = phone_of(page, phone).locator(".shelf")
    shelf.evaluate("(one) => { one.scrollTop = one.scrollHeight; }")
    stand.say(phone, "Number 9")
    told = phone_of(page, phone).locator(".arrived")
    expect(told).to_have_text("1 new notification")
    expect(told).to_be_in_viewport()
    expect(page.locator("[aria-live=polite]")).to_have_text("First phone, Orders: Number 9")
    stand.say(phone, "Number 10")
    expect(told).to_have_text("2 new notifications")
    told.click()
    expect(cards_of(page, phone).first.locator(".card-main")).to_be_focused()
    expect(cards_of(page, phone).first).to_be_in_viewport()
    expect(told).to_be_hidden()


def test_a_card_is_dismissed(page: Page, stand: Stand) -> None:
    """The cross takes one card away, a swipe the other."""
    phone = stand.phone()
    stand.say(phone, "First")
    stand.say(phone, "Second")
    expect(cards_of(page, phone)).to_have_count(2)
    page.get_by_role("button", name="Dismiss First").click()
    expect(cards_of(page, phone).locator(".card-title")).to_have_text(["Second"])
    box = cards_of(page, phone).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 200, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 40, box["y"] + 20, steps=4)
    page.mouse.up()
    expect(cards_of(page, phone)).to_have_count(0)
    assert stand.twin.phone(phone.id).cards == ()
    assert stand.opened == []


def test_a_phone_that_is_off_gets_the_newest_when_it_comes_back(page: Page, stand: Stand) -> None:
    """Off, the screen is black and one push waits; on again, it is the newest that shows."""
    phone = stand.phone()
    drawing = phone_of(page, phone)
    drawing.get_by_role("switch").click()
    expect(drawing.locator(".device")).to_have_attribute("data-power", "off")
    stand.say(phone, "Older")
    stand.say(phone, "Newer")
    expect(drawing.get_by_text("1 waiting")).to_be_visible()
    drawing.get_by_role("switch").click()
    expect(cards_of(page, phone).locator(".card-title")).to_have_text(["Newer"])
    expect(drawing.get_by_text("1 waiting")).to_be_hidden()


def test_phones_stand_side_by_side(page: Page, stand: Stand) -> None:
    """Two phones share a row, and each shows its own cards only."""
    one, two = stand.phone(), stand.phone("Second phone", side="development")
    stand.say(two, "For Second")
    expect(cards_of(page, two)).to_have_count(1)
    expect(cards_of(page, one)).to_have_count(0)
    first, second = phone_of(page, one).bounding_box(), phone_of(page, two).bounding_box()
    assert first is not None
    assert second is not None
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] <= second["x"]


def test_markup_is_shown_as_text(page: Page, stand: Stand) -> None:
    """What a sender wrote is never read as HTML, on the card or in the inspector."""
    phone = stand.phone("<u>First</u>")
    attack = "<img src=x onerror=\"document.title='owned'\"><b>bold</b>"
    stand.push(phone, {"aps": {"alert": {"title": attack, "body": attack}, "thread-id": attack}})
    expect(cards_of(page, phone).locator(".card-title")).to_have_text(attack)
    page.locator(".request .row").click()
    expect(page.locator(".details pre")).to_contain_text("onerror")
    assert page.locator("b, u, img[src=x]").count() == 0
    assert page.title() == "Handbell twin"


@pytest.mark.parametrize(
    ("level", "word"), [("time-sensitive", "Time sensitive"), ("critical", "Critical")]
)
def test_an_urgent_level_is_visible(page: Page, stand: Stand, level: str, word: str) -> None:
    """A card that breaks through says so."""
    phone = stand.phone()
    stand.say(phone, "Hurry", interruption_level=level)
    expect(cards_of(page, phone).locator(".card-level")).to_have_text(word)


def test_an_image_is_a_thumbnail(page: Page, stand: Stand) -> None:
    """The image of a notification is loaded by the browser and shown on its card."""
    phone = stand.phone()
    address = f"{stand.twin.page_url}/static/bell.svg"
    stand.push(phone, {"aps": {"alert": {"title": "Look"}}, "data": {"media-url": address}})
    image = cards_of(page, phone).locator("img")
    expect(image).to_be_visible()
    expect(image).to_have_js_property("complete", True)
    assert image.evaluate("image => image.naturalWidth") > 0


BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LIGHT, DARK = "rgb(243, 240, 234)", "rgb(16, 15, 20)"


@pytest.mark.parametrize(
    ("scheme", "first", "second"), [("light", LIGHT, DARK), ("dark", DARK, LIGHT)]
)
def test_the_appearance_follows_the_system_and_the_switch(
    page: Page, scheme: Any, first: str, second: str
) -> None:
    """The page starts as the system is; the switch changes it, and a reload keeps the choice."""
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate(BACKGROUND) == first
    page.get_by_role("button", name="Dark appearance").click()
    assert page.evaluate(BACKGROUND) == second
    page.reload()
    assert page.evaluate(BACKGROUND) == second


CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3) return colour;
    }
  };
  const ratio = (node) => {
    const [one, two] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
    return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  };
  const seen = document.querySelectorAll(
    ".panel :is(h2, h3, p, span, label, th, td, button), .topbar :is(h1, span, p, button),"
      + ".phone-label :is(h2, p), .phone-facts :is(p, span, code)",
  );
  return [...seen].filter((node) => node.textContent.trim() && node.checkVisibility())
    .map((node) => [node.className || node.tagName, Math.round(ratio(node) * 100) / 100]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_text_has_contrast(page: Page, stand: Stand, scheme: Any) -> None:
    """Around the phones every text stands out at least 4.5 to 1 (WCAG AA)."""
    phone = stand.phone()
    stand.say(phone, "Fine")
    stand.push(phone, {"aps": {"alert": "x"}}, apns_topic="com.other")
    page.emulate_media(color_scheme=scheme)
    expect(page.locator(".request")).to_have_count(2)
    page.locator(".request .row").first.click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 20
    assert [pair for pair in found if pair[1] < 4.5] == []


def test_the_tabs_follow_the_arrow_keys(page: Page) -> None:
    """The inspector's pages are reached by keyboard as a tab list promises."""
    page.get_by_role("tab", name="Requests").press("ArrowRight")
    expect(page.get_by_role("tab", name="Faults")).to_be_focused()
    expect(page.get_by_role("tabpanel", name="Faults")).to_be_visible()
    page.get_by_role("tab", name="Faults").press("End")
    expect(page.get_by_role("tabpanel", name="Connect")).to_be_visible()


def test_the_page_is_silent_until_asked(page: Page) -> None:
    """The chime is off at first; a click switches it on, another one off."""
    sound = page.get_by_role("button", name="Sound")
    expect(sound).to_have_attribute("aria-pressed", "false")
    sound.click()
    expect(sound).to_have_attribute("aria-pressed", "true")
    sound.click()
    expect(sound).to_have_attribute("aria-pressed", "false")


def test_a_phone_is_added_by_form(page: Page, stand: Stand) -> None:
    """The form makes a phone of that name, mail, app and side, which appears at once."""
    stand.twin.add_app("TEAM123456.com.sample.tasks", "Tasks")
    page.reload()
    expect(page.locator("#link-state")).to_have_text("Live")
    page.locator("#add-phone").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Cleo's phone")
    dialog.get_by_label("Mail address").fill("cleo@example.com")
    dialog.get_by_label("App").select_option("TEAM123456.com.sample.tasks")
    expect(
        dialog.get_by_role("group", name="Device token lives in")
    ).to_have_accessible_description(
        "Handbell sends to the production side; the development side is for other clients."
    )
    dialog.get_by_label("Development").check()
    dialog.get_by_role("button", name="Add phone").click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_role("heading", name="Cleo's phone")).to_be_visible()
    (phone,) = stand.twin.phones.values()
    assert (phone.mail, phone.app_name, phone.side) == ("cleo@example.com", "Tasks", "development")


def test_a_phone_is_removed(page: Page, stand: Stand) -> None:
    """After a question the phone is gone, and its token answers 410."""
    phone = stand.phone()
    page.get_by_role("button", name="Remove First phone").click()
    page.get_by_role("button", name="Remove phone").click()
    expect(phone_of(page, phone)).to_have_count(0)
    expect(page.get_by_role("heading", name="No phone yet")).to_be_visible()
    assert stand.push(phone, {"aps": {"alert": "x"}}) == 410


def test_a_fault_is_set_from_the_panel(page: Page, stand: Stand) -> None:
    """A fault for one phone strikes it as often as asked; what is left counts down."""
    one, two = stand.phone(), stand.phone("Second phone")
    page.get_by_role("tab", name="Faults").click()
    form = page.get_by_role("form", name="New fault")
    form.get_by_role("combobox", name="Reason", exact=True).select_option("ServiceUnavailable")
    form.get_by_role("combobox", name="For", exact=True).select_option(label="First phone")
    form.get_by_label("How many requests").fill("2")
    form.get_by_role("button", name="Set the fault").click()
    fault = page.locator(".fault-row")
    expect(fault).to_contain_text("503 ServiceUnavailable")
    expect(fault).to_contain_text("2 left")
    assert stand.push(one, {"aps": {"alert": "x"}}) == 503
    assert stand.push(two, {"aps": {"alert": "x"}}) == 200
    expect(fault).to_contain_text("1 left")
    page.get_by_role("button", name="Remove the fault answer").click()
    expect(fault).to_have_count(0)
    assert stand.push(one, {"aps": {"alert": "x"}}) == 200


def test_every_kind_of_fault_can_be_set(page: Page, stand: Stand) -> None:
    """What the form offers for each kind is what the twin accepts."""
    page.get_by_role("tab", name="Faults").click()
    form = page.get_by_role("form", name="New fault")
    for count, kind in enumerate(KINDS, 1):
        form.get_by_role("combobox", name="The twin shall").select_option(kind)
        form.get_by_role("button", name="Set the fault").click()
        expect(page.locator(".fault-row")).to_have_count(count)
    assert [fault.kind for fault in stand.twin.faults] == list(KINDS)
    page.get_by_role("button", name="Remove all").click()
    expect(page.locator(".fault-row")).to_have_count(0)


def test_an_empty_page_tells_how_to_begin(page: Page) -> None:
    """Without a request the page shows the command and the Python that send the first one."""
    steps = page.locator("#first-steps")
    expect(steps).to_contain_text(
        'handbell send test@4d.com --title "This is title"'
        ' --body "Here is the content of this notification"'
    )
    expect(steps).to_contain_text("from handbell import PushNotification")
    expect(page.get_by_role("button", name="Add a phone")).to_be_visible()


def test_nothing_comes_from_elsewhere(page: Page, stand: Stand) -> None:
    """Every file of the page comes from the twin itself."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.reload()
    expect(page.locator("#link-state")).to_have_text("Live")
    assert len(addresses) > 10
    assert {address.startswith(stand.twin.page_url) for address in addresses} == {True}


def test_a_narrow_screen_needs_no_sideways_scrolling(page: Page, stand: Stand) -> None:
    """On the width of a phone the page itself stays within the screen."""
    stand.say(stand.phone(), "A rather long title that has to wrap somewhere on the card")
    stand.phone("Second phone")
    expect(page.locator(".card")).to_be_visible()
    page.evaluate(LINKS)
    for width in (390, 360, 320):
        page.set_viewport_size({"width": width, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        bar = page.locator(".topbar").evaluate("(one) => [one.scrollWidth, one.clientWidth]")
        assert bar[0] <= bar[1], width


def test_the_page_finds_back_to_a_restarted_twin(browser: Browser, tmp_path: Path) -> None:
    """A twin that stops leaves a visible sign; when it is back, the page shows its new state."""
    page = browser.new_page()
    with start_twin(tmp_path) as twin:
        port = int(twin.page_url.rpartition(":")[2])
        twin.add_phone("Former")
        page.goto(twin.page_url)
        expect(page.get_by_role("heading", name="Former")).to_be_visible()
    expect(page.locator("#link-state")).to_contain_text("Disconnected")
    with start_twin(tmp_path, page_port=port) as twin:
        twin.add_phone("Later")
        expect(page.locator("#link-state")).to_have_text("Live")
        expect(page.get_by_role("heading", name="Later")).to_be_visible()
        expect(page.get_by_role("heading", name="Former")).to_have_count(0)
        page.close()


def test_opening_an_app_that_is_gone_registers_it_anew(stand: Stand, page: Page) -> None:
    """After a 410 the phone shows that its app is gone; opened, it has a new token, which works."""
    phone = stand.phone()
    former = phone.token
    stand.twin.add_fault("answer", reason="Unregistered", count=1)
    assert stand.push(phone, {"aps": {"alert": "x"}}) == 410
    handset = page.locator(f'[data-phone="{phone.id}"]').or_(page.locator(".phone")).first
    expect(handset).to_contain_text("is gone")
    expect(page.locator("[aria-live=polite]")).to_contain_text("Orders is gone")
    handset.get_by_role("button", name="Open the app").first.click()
    expect(handset.locator(".gone")).to_be_hidden()
    (renewed,) = [one for one in stand.twin.phones.values() if one.id == phone.id]
    assert renewed.token != former
    stand.say(renewed, "Here again")
    expect(handset).to_contain_text("Here again")
