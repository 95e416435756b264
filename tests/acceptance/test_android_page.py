"""The virtual Android phone in a real browser, with messages from a plain client of FCM."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.browser import IN_A_BROWSER, serious_findings
from tests.fcm import FcmClient

from handbell.twin.hooks import TwinHooks
from handbell.twin.phone import Card, Phone
from handbell.twin.threaded import start_twin

pytestmark = list(IN_A_BROWSER)

APP = "TEAM123456.com.sample.orders"
PICTURE = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' width='320' height='160'%3E"
    "%3Crect width='320' height='160' fill='teal'/%3E%3C/svg%3E"
)


class Stand(FcmClient):
    """A twin with an Android phone, and what was reported as opened."""

    opened: list[str]
    phone: Phone

    def say(self, title: str, data: dict[str, str] | None = None, **shown: Any) -> None:
        """Send a notification to the phone."""
        message = {
            "token": self.phone.token,
            "notification": {"title": title, "body": "It arrives tomorrow."},
            "android": {"notification": shown},
            "data": data or {},
        }
        assert self.post(message).status_code == 200


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Run a twin with one app."""
    opened: list[str] = []

    def note(_phone: Phone, card: Card) -> None:
        opened.append(card.push_id)

    folder = tmp_path_factory.mktemp("twin")
    with (
        start_twin(folder, hooks=TwinHooks(on_opened=note)) as twin,
        Stand.of(twin, "shop-4711") as stand,
    ):
        twin.add_app(APP, "Orders")
        stand.opened = opened
        yield stand


@pytest.fixture
def page(browser: Browser, stand: Stand) -> Iterator[Page]:
    """Open the page with one phone; an error on it fails the test."""
    stand.phone = stand.twin.add_phone("Blue phone", mail="test@4d.com", platform="android")
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce"
    )
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(stand.twin.page_link)
    expect(page.locator(".phone")).to_have_count(1)
    yield page
    context.close()
    stand.twin.remove_phone(stand.phone)
    assert complaints == []


def notes_of(page: Page) -> Locator:
    """Return the notifications that are shown."""
    return page.locator(".note")


def test_a_notification_has_its_channel_and_its_big_picture(page: Page, stand: Stand) -> None:
    """It appears with channel, texts, colour and picture, folds to a thumbnail, and rings."""
    stand.say("Order shipped", channel_id="orders", image=PICTURE, color="#8b3f6a", sound="default")
    note = notes_of(page)
    expect(note.locator(".note-title")).to_have_text("Order shipped")
    expect(note.locator(".note-body")).to_have_text("It arrives tomorrow.")
    expect(note.locator(".note-source")).to_have_text("Orders · orders")
    expect(note.locator(".note-icon")).to_have_css("background-color", "rgb(139, 63, 106)")
    expect(note.locator(".note-picture")).to_be_visible()
    expect(page.locator(".device")).to_have_attribute("data-ringing", "")
    page.get_by_role("button", name="Fold Order shipped").click()
    expect(note.locator(".note-picture")).to_be_hidden()
    expect(note.locator(".note-thumb")).to_be_visible()


def test_a_tag_replaces_and_the_badge_counts(page: Page, stand: Stand) -> None:
    """Two messages of one tag are one notification; the badge adds the counts up."""
    stand.say("Score 1:0", tag="match-7")
    stand.say("Two mails", notification_count=2)
    expect(page.locator(".badge")).to_have_text("3")
    stand.say("Score 2:0", tag="match-7")
    expect(notes_of(page).locator(".note-title")).to_have_text(["Score 2:0", "Two mails"])
    expect(page.locator(".badge")).to_have_text("3")


def test_a_tap_reports_opened_and_takes_it_away(page: Page, stand: Stand) -> None:
    """The report names the delivery of the data; a sticky notification stays, as opened."""
    stand.say("Plain", {"handbell": "delivery-1"})
    stand.say("Sticky", {"handbell": "delivery-2"}, sticky=True)
    for title in ("Plain", "Sticky"):
        notes_of(page).filter(has_text=title).locator(".card-main").click()
    expect(notes_of(page)).to_have_count(1)
    expect(notes_of(page)).to_contain_text("Opened")
    assert stand.opened == ["delivery-1", "delivery-2"]


def test_a_channel_is_blocked_on_the_phone(page: Page, stand: Stand) -> None:
    """What is sent to a channel that its user switched off is accepted, and does not appear."""
    stand.say("First", channel_id="offers")
    expect(notes_of(page)).to_have_count(1)
    page.get_by_role("button", name="Channels").click()
    switch = page.get_by_role("switch", name="Channel offers")
    switch.click()
    expect(switch).to_have_attribute("aria-checked", "false")
    page.get_by_role("button", name="Done").click()
    stand.say("Second", channel_id="offers")
    expect(page.locator(".request").first).to_contain_text("switched the channel offers off")
    expect(notes_of(page)).to_have_count(1)


def test_data_alone_is_in_the_inspector_alone(page: Page, stand: Stand) -> None:
    """A message of data goes to the app's code: the inspector shows it, the phone nothing."""
    requests = page.locator(".request")
    before = requests.count()
    stand.post({"token": stand.phone.token, "data": {"sync": "orders"}})
    expect(requests).to_have_count(before + 1)
    row = requests.first
    expect(row).to_have_attribute("data-what", "silent")
    row.locator(".row").click()
    expect(page.locator(".details pre")).to_contain_text('"sync": "orders"')
    expect(notes_of(page)).to_have_count(0)


def test_what_is_silent_lies_below(page: Page, stand: Stand) -> None:
    """A notification of low priority has its place under a heading of its own."""
    stand.say("Digest", notification_priority="PRIORITY_LOW")
    expect(page.locator(".shade-title")).to_have_text("Silent")


def test_an_app_that_is_gone_registers_anew(page: Page, stand: Stand) -> None:
    """After UNREGISTERED the phone says so; opened, the app has a new registration token."""
    stand.twin.add_fault("answer", reason="UNREGISTERED", token=stand.phone.token)
    assert stand.post({"token": stand.phone.token}).status_code == 404
    page.get_by_role("button", name="Open the app", exact=True).click()
    expect(page.locator(".gone")).to_be_hidden()
    assert stand.twin.phone(stand.phone.id).token != stand.phone.token


def test_an_android_phone_is_added_by_form(page: Page, stand: Stand) -> None:
    """The form asks for the project instead of the side, and the phone stands beside."""
    page.get_by_role("button", name="Add phone").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Android phone").check()
    expect(dialog.get_by_text("Device token lives in")).to_be_hidden()
    dialog.get_by_label("Google project").fill("other-project")
    dialog.get_by_role("button", name="Add phone").click()
    expect(page.locator(".phone")).to_have_count(2)
    made = next(one for one in stand.twin.phones.values() if one.id != stand.phone.id)
    assert (made.service, made.project) == ("fcm", "other-project")
    stand.twin.remove_phone(made)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(page: Page, stand: Stand, scheme: Any) -> None:
    """No serious finding of axe, in both appearances, and nothing wider than a narrow screen."""
    page.emulate_media(color_scheme=scheme)
    stand.say("Order shipped", channel_id="orders", click_action="SHOW_ORDER")
    expect(notes_of(page)).to_have_count(1)
    assert serious_findings(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert page.evaluate(wide) is False
