"""Compose in a real browser: what is written is kept, and what holds up a send is said."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from tests.browser import IN_A_BROWSER
from tests.conftest import APP, Stage, open_stage
from tests.console import MAIL, PASSWORD, Desk, open_console, unhurried

COMPOSE = f"/console/apps/{APP}/compose"

pytestmark = list(IN_A_BROWSER)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give one system for the file."""
    with open_stage(tmp_path_factory.mktemp("console")) as opened:
        opened.system.operators.add(MAIL, PASSWORD)
        yield opened


@pytest.fixture(scope="module")
def desk(stage: Stage) -> Iterator[Desk]:
    """Give one console for the file, with a phone to send to."""
    stage.add_phone("test@4d.com")
    with open_console(stage.system, limiter=unhurried()) as running:
        yield running


@pytest.fixture
def page(browser: Browser, desk: Desk) -> Iterator[Page]:
    """Give a window of its own, signed in, with an empty form of Compose."""
    context = browser.new_context(base_url=desk.url, reduced_motion="reduce")
    page = context.new_page()
    page.goto(f"/console/sign-in?next={COMPOSE}")
    page.get_by_label("Mail address").fill(MAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("html.scripted")).to_be_visible()
    yield page
    context.close()


def test_a_draft_outlives_an_ended_sign_in(page: Page) -> None:
    """Who is signed out while writing signs in beside the page, and goes on where they were."""
    page.get_by_label("Title", exact=True).fill("Your order is ready")
    page.context.clear_cookies()
    page.get_by_role("button", name="Send", exact=True).click()
    beside = page.get_by_role("dialog", name="Sign in again")
    beside.get_by_label("Password").fill("not this one, surely")
    beside.get_by_role("button", name="Sign in").click()
    expect(beside.get_by_role("alert")).to_contain_text("is wrong")
    beside.get_by_label("Password").fill(PASSWORD)
    beside.get_by_role("button", name="Sign in").click()
    expect(page.locator("#recipients-fault")).to_be_visible()
    expect(page.get_by_label("Title", exact=True)).to_have_value("Your order is ready")


@pytest.mark.parametrize("way", ["reload", "leave", "back"])
def test_a_draft_outlives_its_page(page: Page, way: str) -> None:
    """Reload, another page and Back bring the form back as it was left, by name of its time."""
    page.get_by_label("Title", exact=True).fill(f"Kept over {way}")
    if way == "reload":
        page.reload()
    else:
        page.goto(f"/console/apps/{APP}/people")
        if way == "leave":
            page.goto(COMPOSE)
        else:
            page.go_back()
    expect(page.get_by_label("Title", exact=True)).to_have_value(f"Kept over {way}")


def test_two_tabs_keep_a_draft_each(page: Page) -> None:
    """They do not write over each other; a third goes on with the latest, or begins anew."""
    title = page.get_by_label("Title", exact=True)
    title.fill("In the first tab")
    page.wait_for_function(
        "() => Object.values(localStorage).some((one) => one.includes('In the first tab'))"
    )
    second = page.context.new_page()
    second.goto(COMPOSE)
    other = second.get_by_label("Title", exact=True)
    expect(other).to_have_value("In the first tab")
    expect(second.locator(".restored")).to_contain_text(re.compile(r"\b(UTC|GMT)"))
    _write(second, "In the second tab")
    _write(page, "In the first tab, changed")
    page.reload()
    second.reload()
    expect(title).to_have_value("In the first tab, changed")
    expect(other).to_have_value("In the second tab")
    second.get_by_role("button", name="Begin anew").click()
    expect(second.locator(".restored")).to_contain_text("Another draft of yours")
    expect(other).to_have_value("")
    second.get_by_role("button", name="Go on with it").click()
    expect(other).to_have_value("In the first tab, changed")


def _write(page: Page, text: str) -> None:
    """Write a title, and wait until the browser keeps it."""
    page.get_by_label("Title", exact=True).fill(text)
    page.wait_for_function(
        '(text) => Object.values(localStorage).some((draft) => draft.includes(`"${text}"`))',
        arg=text,
    )


def test_a_refused_draft_keeps_every_language(page: Page) -> None:
    """What is written in other languages outlives a refusal, a reload, and can be previewed."""
    page.get_by_label("Title", exact=True).fill("Lunch is served")
    page.get_by_text("Other languages").click()
    page.get_by_role("button", name="Add a language").click()
    page.locator("#language-tag-0").fill("fr")
    page.locator("#language-title-0").fill("\u00c0 table")
    with page.expect_response("**/preview"):
        page.get_by_role("button", name="Send", exact=True).click()
        expect(page.locator("#recipients-fault")).to_be_visible()
    expect(page.locator("#sizes")).to_contain_text("fr")
    expect(page.locator("#recipients-fault")).to_be_visible()
    page.reload()
    expect(page.locator("#language-title-0")).to_have_value("\u00c0 table")
    page.locator("#preview-language").select_option("fr")
    expect(page.locator("#draft-card .push-title")).to_have_text("\u00c0 table")


def test_what_is_written_as_an_answer_arrives_is_heard(page: Page) -> None:
    """Who has gone on to a field stays in it, and its fault, above the form too, leaves."""
    page.get_by_label("Title", exact=True).fill("Hello")
    mails = page.get_by_label("Mail addresses")
    mails.fill("nonsense")
    expect(page.locator("#recipients-fault")).to_be_visible()
    held: list[Route] = []
    page.route("**/compose", lambda route: held.append(route))  # noqa: PLW0108 - it has to be a function
    page.get_by_role("button", name="Send", exact=True).click()
    mails.focus()
    page.keyboard.press("Control+A")
    page.wait_for_function("() => document.querySelector('#compose').dataset.busy")
    (route,) = _waited_for(page, held)
    with page.expect_response("**/compose"):
        route.continue_()
    expect(page.locator(".notice.bad[role=alert]")).to_be_visible()
    expect(mails).to_be_focused()
    page.keyboard.type("test@4d.com")
    expect(page.locator("#recipients-fault")).to_have_count(0)
    expect(page.locator(".notice.bad[role=alert]")).to_have_count(0)
    expect(mails).to_have_value("test@4d.com")
    page.unroute("**/compose")
    page.route("**/compose", _say_that_it_is_busy)
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".told-within")).to_have_text("The database is busy.")
    expect(page.get_by_label("Title", exact=True)).to_have_value("Hello")
    page.unroute("**/compose")
    page.route("**/preview", lambda route: route.abort())
    page.get_by_label("Title", exact=True).fill("Written while the server was away")
    expect(page.locator("#away")).to_contain_text("does not answer")
    expect(page.locator("#away")).to_contain_text(re.compile(r"\b(UTC|GMT)"))
    page.unroute("**/preview")
    page.get_by_label("Title", exact=True).press("End")
    page.keyboard.type("!")
    expect(page.locator("#away")).to_be_hidden()


def _say_that_it_is_busy(route: Route) -> None:
    route.fulfill(status=503, body="The database is busy.\n", content_type="text/plain")


def _waited_for(page: Page, held: list[Route]) -> list[Route]:
    """Return what was caught on its way to the server, once there is something."""
    for _ in range(100):
        if held:
            break
        page.wait_for_timeout(20)
    return held


def test_compose_says_that_nothing_goes_out(page: Page, stage: Stage, desk: Desk) -> None:
    """With the circuit open it stands above the button, and the answer is not green."""
    for stored in stage.system.apps.credentials(stage.app):
        stage.twin.remove_key(stage.app.apple.team_id, stored.key_id)
    desk.send(stage.app, "test@4d.com", title="It opens the circuit")
    page.reload()
    expect(page.locator("#held")).to_contain_text("has been stopped")
    expect(page.locator("#held").get_by_role("button", name="Try again now")).to_be_visible()
    page.get_by_label("Title", exact=True).fill("It waits")
    page.get_by_label("Mail addresses").fill("test@4d.com")
    expect(page.locator("#reaches")).to_contain_text("Reaches")
    expect(page.locator("#held time").first).to_have_attribute("data-local", "")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("It waits")
    expect(page.locator("#live .chip").first).to_have_text("Held up")
    expect(page.locator(".notice.good")).to_have_count(0)
