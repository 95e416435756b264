"""Makes docs/pictures anew, with ``make pictures``: what the pages look like, light and dark."""

import asyncio
import base64
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright
from tests.browser import CHROMIUM, SWITCHES
from tests.conftest import Stage, open_stage
from tests.console import MAIL, PASSWORD, Desk, open_console, unhurried

FOLDER: Final = Path(__file__).parent / "pictures"
MOST_BYTES: Final = 150_000
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDE: Final[ViewportSize] = {"width": 1200, "height": 780}
PEOPLE: Final = 120
TEXTS: Final = (
    ("Your order has shipped", "It is on its way and arrives tomorrow."),
    ("Table for four", "Confirmed for 19:30."),
    ("The summer sale begins", "20 % off until Sunday."),
)
NAMES: Final = ("ada", "grace", "alan", "edsger", "barbara", "donald")


def main() -> int:
    """Make all pictures; return the exit code."""
    if CHROMIUM is None:
        print("No pictures were made: install Debian's package 'chromium-headless-shell'.")
        return 0
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, _furnished() as (stage, desk):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        for scheme in SCHEMES:
            _take_all(browser, stage, desk, scheme)
            _take_phones(browser, scheme)
        browser.close()
    return 0


@contextlib.contextmanager
def _furnished() -> Iterator[tuple[Stage, Desk]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_stage(Path(folder)) as stage,
        open_console(stage.system, limiter=unhurried()) as desk,
    ):
        stage.system.set_rules(stage.app, {"rate_limit": "1/second"})
        desk.system.operators.add(MAIL, PASSWORD)
        stage.add_phone("test@4d.com")
        for number in range(PEOPLE):
            stage.add_phone(f"{NAMES[number % len(NAMES)]}{number}@4d.com")
        texts = ("Your order has shipped", "It is on its way and arrives tomorrow.")
        desk.send(stage.app, "test@4d.com", title=texts[0], body=texts[1])
        desk.send(stage.app, "test@4d.com", title="Table for four", body="Confirmed for 19:30.")
        _begin_broadcast(stage, desk)
        yield stage, desk


def _begin_broadcast(stage: Stage, desk: Desk) -> None:
    from handbell.creation.notification import Notification  # noqa: PLC0415
    from handbell.creation.recipients import EVERYBODY  # noqa: PLC0415
    from handbell.delivery.engine import Options  # noqa: PLC0415

    content = Notification(title="The summer sale begins", body="20 % off until Sunday.")

    async def accept() -> None:
        await desk.system.engine.accept(stage.app, content, EVERYBODY, Options.read())
        await asyncio.sleep(12)

    desk.server.run(accept())


def _take_all(browser: Browser, stage: Stage, desk: Desk, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(
        base_url=desk.url, viewport=WIDE, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(8000)
    base = f"/console/apps/{stage.app.id}"
    page.goto("/console/sign-in?next=/console/apps")
    page.get_by_label("Mail address").fill(MAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", level=1).wait_for()
    page.goto(f"{base}/compose")
    page.locator("#title").fill("Your table is ready")
    page.locator("#body").fill("We hold it for fifteen minutes.")
    page.wait_for_timeout(1500)
    _take(page, "compose", scheme)
    page.goto(f"{base}/activity")
    page.locator("main a", has_text="The summer sale begins").first.click()
    page.wait_for_timeout(800)
    _take(page, "broadcast", scheme)
    page.goto(f"{base}/person?mail=test@4d.com")
    page.wait_for_timeout(500)
    _take(page, "why", scheme)
    context.close()


def _take_phones(browser: Browser, scheme: Literal["light", "dark"]) -> None:
    """Take an iPhone and an Android phone of one person, who was sent three notifications."""
    from handbell.demo_environment import DemoEnvironment, isolated_settings  # noqa: PLC0415
    from handbell.push import PushNotification  # noqa: PLC0415
    from handbell.system import System  # noqa: PLC0415
    from handbell.twin.threaded import start_twin  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = isolated_settings(Path(folder))
        system = System(settings)
        demo = stack.enter_context(DemoEnvironment(system))
        apps = demo.prepare()
        twin = stack.enter_context(start_twin(system.twin_folder, hooks=demo.hooks()))
        for name, platform in (("iPhone", "ios"), ("Android phone", "android")):
            twin.add_phone(name, mail="test@4d.com", app=apps[0].id, platform=platform)
        push = PushNotification(settings=settings)
        stack.callback(push.close)
        for title, body in TEXTS:
            push.send({"title": title, "body": body}, "test@4d.com")
        context = browser.new_context(viewport=WIDE, color_scheme=scheme, reduced_motion="reduce")
        page = context.new_page()
        page.goto(twin.page_link)
        page.wait_for_timeout(1500)
        _take(page, "phone", scheme)
        context.close()
        system.database.close()


def _take(page: Page, name: str, scheme: str) -> None:
    """Take what the window shows, as WebP: as small as it can be read."""
    session = page.context.new_cdp_session(page)
    taken = session.send("Page.captureScreenshot", {"format": "webp", "quality": 82})
    content = base64.b64decode(taken["data"])
    if len(content) > MOST_BYTES:
        raise ValueError(f"The picture {name} is too large: {len(content):,} bytes")
    path = FOLDER / f"{name}-{scheme}.webp"
    path.write_bytes(content)
    print(f"{path.name}: {len(content):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
