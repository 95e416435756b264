"""Compose in a real browser: what is written is kept, and what holds up a send is said."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect
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
    expect(page.get_by_label("Title", exact=True)).to_be_editable()
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
    expect(beside.get_by_role("alert")).to_contain_text("not right")
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


def test_compose_says_that_nothing_goes_out(page: Page, stage: Stage, desk: Desk) -> None:
    """With the circuit open it stands above the button, and the answer is not green."""
    for stored in stage.system.apps.credentials(stage.app):
        stage.twin.remove_key(stage.app.team_id, stored.key_id)
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
