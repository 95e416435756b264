"""The pages of links in a real browser: the button works, and axe finds nothing serious."""

from collections.abc import Iterator
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize
from tests.browser import IN_A_BROWSER, serious_findings
from tests.serving import Server, start_server

from handbell.registry.registration import Registration
from handbell.settings import Settings
from handbell.system import System

SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")

pytestmark = list(IN_A_BROWSER)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server of one app, whose links nobody mails."""
    system = System(Settings.load(home=tmp_path_factory.mktemp("home")))
    app = system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
    system.identities.set(app, store_url="https://apps.apple.com/app/id1")
    with start_server(system, has_console=False) as server:
        yield server
    system.database.close()


@pytest.fixture(scope="module")
def page(server: Server, browser: Browser) -> Page:
    """Open a page of a phone's width."""
    viewport: ViewportSize = {"width": 320, "height": 640}
    context = browser.new_context(base_url=server.url, viewport=viewport)
    page = context.new_page()
    page.set_default_timeout(10_000)
    return page


def new_link(server: Server) -> str:
    """Return the path of a link as it is mailed."""
    system = server.system
    registration = Registration.read("user1@example.com", "ab" * 32, status="pending", at=1)
    system.proofs.ask(system.apps.find(), registration)
    (link,) = system.proofs.take_due()
    return f"/prove/{link.secret}"


def grave(page: Page) -> list[Any]:
    """Return what axe finds serious or critical, in light and in dark."""
    found: list[Any] = []
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found += [(scheme, *one) for one in serious_findings(page)]
    return found


def test_a_link_is_confirmed_by_one_button(server: Server, page: Page) -> None:
    """By the keyboard alone; afterwards the page says that it is done."""
    path = new_link(server)
    page.goto(path)
    assert grave(page) == []
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Done").wait_for()
    assert grave(page) == []
    assert [one.status for one in server.system.registry.sessions(server.system.apps.find())] == [
        "active"
    ]
    page.goto(path)
    page.get_by_role("heading", name="This link was used already").wait_for()
    assert grave(page) == []


def test_the_page_for_phones_without_the_app_is_for_everybody(page: Page) -> None:
    """Its one link is named after the app, and its style passes the policy."""
    page.goto("/mobileapp/$/show?dataClass=Product")
    assert grave(page) == []
    store = page.get_by_role("link", name="Get My App")
    assert store.get_attribute("href") == "https://apps.apple.com/app/id1"
    box = store.bounding_box()
    assert box is not None
    assert box["height"] >= 44, "a finger finds it: the style was taken"
    assert box["x"] + box["width"] <= 320
