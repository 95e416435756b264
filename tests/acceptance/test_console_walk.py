"""The console in a real browser over a real ``handbell serve --twin``: from nothing to a card."""

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, expect
from tests.browser import IN_A_BROWSER, serious_findings
from tests.preloaded import COMMAND

PASSWORD = "a bell rings twice"
SAMPLE = "TEAM123456.com.sample.myapp"
BISTRO = "TEAM123456.com.sample.bistro"
MARKUP = """<img src=x onerror="document.title='owned'"><b>"""
_FIRST_HOUR = """() => new Intl.DateTimeFormat(undefined, { hour: "numeric" })
    .format(new Date(document.querySelector("#chart tbody tr:last-child time").dateTime))"""
_CUT_WORDS = """() => [...document.querySelectorAll(".nav a, .look span, .spans a, .button")]
    .filter((one) => one.offsetParent && one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.textContent.trim())"""
SCREENS = os.environ.get("HANDBELL_SCREENSHOTS")
"""Where pictures of the walk are kept, for whoever wants to look at them."""

pytestmark = list(IN_A_BROWSER)


@dataclass
class Walk:
    """A browser window that has signed in by the first link; ``complaints`` fail its test."""

    page: Page
    url: str
    seconds: float
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str, app: str = SAMPLE) -> None:
        """Open a page of an app."""
        self.page.goto(f"{self.url}/console/apps/{app}{path}")

    def press(self, name: str) -> None:
        """Press a button by its whole name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def picture(self, name: str) -> None:
        """Keep a picture of the page, where pictures are wanted."""
        if SCREENS:
            path = Path(SCREENS) / f"{name}.png"
            self.page.screenshot(path=path, full_page=True, animations="disabled")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run the server with a twin as a process; give its address and the first link."""
    home = tmp_path_factory.mktemp("home")
    environment = {"PATH": os.environ["PATH"], "HANDBELL_HOME": str(home), "LANG": "C.UTF-8"}
    command = [str(COMMAND), "serve", "--twin", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        said = ""
        while "/console/invitation/" not in said:
            line = process.stdout.readline()
            assert line, said
            said += line
        link = re.search(r"(http://\S+?)/console/invitation/\S+", said)
        assert link is not None
        yield link[1], link[0]
        process.terminate()
        rest, _ = process.communicate(timeout=20)
        assert "Traceback" not in rest
        assert process.returncode == 0


@pytest.fixture(scope="module")
def entered(served: tuple[str, str], browser: Browser) -> Walk:
    """Become the first operator by the first link."""
    url, link = served
    began = time.monotonic()
    context = browser.new_context(
        viewport={"width": 1360, "height": 900},
        color_scheme="light",
        reduced_motion="reduce",
        timezone_id="Europe/Paris",
    )
    page = context.new_page()
    page.set_default_timeout(8000)
    page.goto(link)
    page.get_by_label("Mail address").fill("operator@example.com")
    for box in page.locator("input[type=password]").all():
        box.fill(PASSWORD)
    page.locator("main form button").last.click()
    page.wait_for_url(re.compile(r"/console/apps"))
    walk = Walk(page, url, began)
    page.on("pageerror", lambda error: _note_error(walk, error))
    page.on("console", lambda said: _note_console(walk, said))
    return walk


@pytest.fixture(scope="module")
def sent(entered: Walk) -> None:
    """Send from the sample app, so that there is something to list."""
    # Another test may have left a draft, which its page stores as it goes.
    entered.open("/activity")
    entered.page.evaluate("localStorage.clear(); sessionStorage.clear()")
    entered.open("/compose")
    entered.page.get_by_label("Title", exact=True).fill("Something to list")
    entered.page.get_by_label("Mail addresses").fill("test@4d.com")
    entered.press("Send")
    expect(entered.page.get_by_role("heading", level=1)).to_have_text("Something to list")


def _note_error(walk: Walk, error: Error) -> None:
    walk.complaints.append(str(error))


def _note_console(walk: Walk, said: ConsoleMessage) -> None:
    # What a form refuses is 422, which the browser counts among errors.
    if said.type == "error" and "status of 422" not in said.text:
        walk.complaints.append(said.text)


@pytest.fixture
def walk(entered: Walk) -> Iterator[Walk]:
    """Give the signed-in window; an error or a breach of the security policy fails the test."""
    entered.page.goto(f"{entered.url}/console/settings")
    entered.page.evaluate("() => localStorage.clear()")
    entered.complaints.clear()
    entered.page.set_viewport_size({"width": 1360, "height": 900})
    entered.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    yield entered
    assert entered.complaints == []


def test_from_nothing_to_an_opened_card_of_an_own_app(walk: Walk) -> None:
    """First link, own app, virtual phone, test, broadcast, card, opened: within two minutes."""
    page = walk.page
    page.goto(f"{walk.url}/console/apps")
    page.get_by_label("Team id").fill("TEAM123456")
    page.get_by_label("Bundle id").fill("com.sample.bistro")
    page.get_by_label("Name", exact=True).fill("Bistro")
    walk.press("Add the app")
    page.get_by_role("link", name="Compose").first.click()
    walk.picture("compose-empty")
    page.get_by_label("Whose phone").fill("user1@example.com")
    walk.press("Make a virtual phone")
    expect(page.locator(".virtual-name")).to_contain_text("user1's phone")
    expect(page.get_by_label("Mail addresses")).to_have_value("user1@example.com")
    page.get_by_label("Title", exact=True).fill("Table 7 is ready")
    page.get_by_label("Text", exact=True).fill("Come in and sit down.")
    expect(page.locator("#draft-card .push-title")).to_have_text("Table 7 is ready")
    expect(page.locator("#reaches")).to_have_text("Reaches 1 person on 1 device.")
    expect(page.locator("#size-told")).to_contain_text("of 4,096 bytes")
    following = _follow_activity(walk)
    walk.press("Send a test")
    expect(page.locator(".notice")).to_contain_text("on its way to user1@example.com")
    expect(page.locator(".virtual .push-title")).to_have_text("Table 7 is ready")
    walk.picture("compose-tested")
    _expect_the_first(following)
    page.get_by_label("Everybody").check()
    walk.press("Send")
    expect(page.get_by_role("heading", level=1)).to_have_text("Send to everybody?")
    expect(page.locator(".confirm-count")).to_contain_text("1 device of 1 person")
    walk.picture("confirm")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Compose")
    expect(page.get_by_label("Title", exact=True)).to_have_value("Table 7 is ready")
    expect(page.get_by_label("Everybody")).to_be_checked()
    walk.press("Send")
    page.get_by_label("Yes, everybody: 1 device").check()
    walk.press("Send to 1 device")
    expect(page.get_by_role("heading", level=1)).to_have_text("Table 7 is ready")
    cards = page.locator(".virtual .push")
    expect(cards).to_have_count(2)
    cards.first.get_by_role("button", name="Open").click()
    expect(cards.first).to_contain_text("Opened")
    opened = page.locator(".funnel li").nth(3)
    expect(opened).to_contain_text("100 %")
    assert time.monotonic() - walk.seconds < 120
    walk.picture("notification")
    page.get_by_role("link", name="Activity").first.click()
    expect(page.locator(".legend")).to_contain_text("2 sent")
    expect(page.locator(".legend")).to_contain_text("1 opened")
    expect(page.locator(".sent-list li").first).to_contain_text("1 of 1 sent · 1 opened")
    walk.picture("activity")


def _follow_activity(walk: Walk) -> Page:
    """Open Activity in another tab, where nothing was sent yet."""
    other = walk.page.context.new_page()
    other.goto(f"{walk.url}/console/apps/{BISTRO}/activity")
    expect(other.locator("#beginning")).to_contain_text("Nothing was sent yet")
    return other


def _expect_the_first(other: Page) -> None:
    """List, chart and filters have come without a reload, and nothing says the contrary."""
    expect(other.locator(".sent-title .chip")).to_have_text("Test", timeout=15_000)
    expect(other.locator(".legend")).to_contain_text("1 sent")
    expect(other.locator("#beginning")).to_be_hidden()
    expect(other.get_by_label("Test sends")).to_be_visible()
    other.close()


def test_the_sample_app_is_sent_to_by_keyboard_alone(walk: Walk) -> None:
    """From the skip link to the opened card without a mouse; the focus can be followed."""
    page, keys = walk.page, walk.page.keyboard
    walk.open("/compose")
    expect(page.locator(".virtual-name")).to_contain_text("test's phone")

    def tab_to(name: str) -> None:
        for _ in range(60):
            keys.press("Tab")
            said = page.evaluate(
                "() => (document.activeElement.labels?.[0] ?? document.activeElement)"
                ".textContent.replace(/\\s+/g, ' ').trim()"
            )
            if said == name:
                return
        raise AssertionError(name)

    keys.press("Tab")
    keys.press("Enter")
    tab_to("Title")
    keys.type("By keyboard")
    tab_to("Text")
    keys.type("No mouse was used.")
    tab_to("Mail addresses")
    keys.type("test@4d.com")
    tab_to("Send")
    keys.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("By keyboard")
    card = page.locator(".virtual .push").first
    expect(card).to_contain_text("No mouse was used.")
    tab_to("Open By keyboard")
    keys.press("Enter")
    expect(card).to_contain_text("Opened")


def test_markup_in_a_title_stays_text(walk: Walk) -> None:
    """What looks like a tag is shown as it was written, on every page that shows it."""
    page = walk.page
    walk.open("/compose")
    page.get_by_label("Title", exact=True).fill(MARKUP)
    page.get_by_label("Mail addresses").fill(f"test@4d.com\n{MARKUP}")
    expect(page.locator("#draft-card .push-title")).to_have_text(MARKUP)
    expect(page.locator("#recipients-fault")).to_contain_text("<img src=x")
    walk.press("Send")
    expect(page.locator("#recipients-fault")).to_contain_text("<img src=x")
    page.get_by_label("Mail addresses").fill("test@4d.com")
    expect(page.locator("#recipients-fault")).to_have_count(0)
    walk.press("Send")
    expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
    expect(page.locator(".virtual .push-title").first).to_have_text(MARKUP)
    page.get_by_role("link", name="Activity").first.click()
    expect(page.locator(".sent-title").first).to_contain_text("<img src=x")
    assert "owned" not in page.title()
    assert page.locator("img[src=x]").count() == 0


def test_what_is_wrong_is_shown_while_typing_and_goes_again(walk: Walk) -> None:
    """A fault appears at its field without pressing anything, and leaves when it is mended."""
    page = walk.page
    walk.open("/compose")
    page.get_by_label("Title", exact=True).fill("Hello")
    page.get_by_text("Badge, sound and more").click()
    badge = page.get_by_label("Badge", exact=True)
    badge.fill("many")
    expect(page.locator("#badge-fault")).to_contain_text("is not a number")
    expect(badge).to_have_attribute("aria-invalid", "true")
    badge.fill("7")
    expect(page.locator("#badge-fault")).to_have_count(0)
    expect(page.locator("#draft-badge")).to_have_text("7")
    expect(badge).not_to_have_attribute("aria-invalid", "true")
    page.get_by_label("Mail addresses").fill("nobody@example.com")
    expect(page.locator("#left-out")).to_contain_text("nobody@example.com has no device")
    page.get_by_label("At one moment").check()
    expect(page.get_by_label("Time zone")).to_have_value("Europe/Paris")


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_has_a_serious_finding(walk: Walk, scheme: str) -> None:
    """Axe finds nothing serious on Compose, its question, Activity and a notification's page."""
    page = walk.page
    page.emulate_media(color_scheme="light" if scheme == "light" else "dark")
    only = () if scheme == "light" else ("color-contrast",)  # in the dark only colours differ
    walk.open("/compose")
    for fold in page.locator("details.fold > summary").all():
        fold.click()
    walk.press("Add a language")
    page.get_by_label("Title", exact=True).first.fill("Hello")
    assert serious_findings(page, *only) == []
    walk.press("Send")
    page.wait_for_selector("#recipients-fault")
    assert serious_findings(page, *only) == []
    walk.picture(f"compose-{scheme}")
    page.get_by_label("Everybody").check()
    walk.press("Send")
    page.wait_for_selector("#sure")
    assert serious_findings(page, *only) == []
    walk.picture(f"confirm-{scheme}")
    walk.open("/activity")
    page.get_by_text("As a table").click()
    hours = page.locator("#chart .table-box tbody time").all_inner_texts()
    axis = page.locator(".axis time").all_inner_texts()
    assert (hours[0], hours[-1]) == (axis[-1], page.evaluate(_FIRST_HOUR))
    assert "UTC" not in page.locator("#chart .table-box thead").inner_text()
    assert serious_findings(page, *only) == []
    walk.picture(f"activity-{scheme}")
    page.locator(".sent-list a").first.click()
    page.wait_for_selector(".funnel")
    page.get_by_text("What was written").click()
    assert serious_findings(page, *only) == []
    walk.picture(f"notification-{scheme}")


@pytest.mark.usefixtures("sent")
def test_a_phone_s_width_holds_every_page(walk: Walk) -> None:
    """At 320 pixels nothing has to be scrolled sideways."""
    page = walk.page
    page.set_viewport_size({"width": 320, "height": 700})
    paths = ["/compose", "/activity", "/activity?span=month"]
    walk.open("/activity")
    first = page.locator(".sent-list a").first.get_attribute("href")
    assert first is not None
    paths.append("/activity/" + first.rpartition("/")[2])
    for path in paths:
        walk.open(path)
        width = page.evaluate("() => document.documentElement.scrollWidth")
        assert width <= 320, path
        cut = page.evaluate(_CUT_WORDS)
        assert cut == [], path
        walk.picture("narrow" + re.sub(r"\W+", "-", path)[:16])
