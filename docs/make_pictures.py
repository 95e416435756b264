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
from tests.console import MAIL, PASSWORD, Desk, open_console, open_rehearsal, unhurried

from handbell.apps.app import App
from handbell.twin.threaded import RunningTwin

FOLDER: Final = Path(__file__).parent / "pictures"
MOST_BYTES: Final = 150_000
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDE: Final[ViewportSize] = {"width": 1200, "height": 780}
PEOPLE: Final = 120
NAMES: Final = ("ada", "grace", "alan", "edsger", "barbara", "donald")
MODELS: Final = {"ios": "iPhone", "android": "Android phone", "web": "browser"}

Furnished = tuple[App, RunningTwin, Desk]


def main() -> int:
    """Make all pictures; return the exit code."""
    if CHROMIUM is None:
        print("No pictures were made: install Debian's package 'chromium-headless-shell'.")
        return 0
    FOLDER.mkdir(exist_ok=True)
    with sync_playwright() as playwright, _furnished() as furnished:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        for scheme in SCHEMES:
            _take_all(browser, furnished, scheme)
        browser.close()
    return 0


@contextlib.contextmanager
def _furnished() -> Iterator[Furnished]:
    with (
        tempfile.TemporaryDirectory() as folder,
        open_rehearsal(Path(folder)) as (system, twin, sample),
        open_console(system, limiter=unhurried()) as desk,
    ):
        ids = {"android_package": sample.bundle_id, "web_origin": "https://shop.example.com"}
        app = system.apps.set_ids(sample, ids)
        system.app_control.set_rules(app, {"rate_limit": "1/second"})
        system.operators.add(MAIL, PASSWORD)
        for platform, model in MODELS.items():
            twin.add_phone(f"Test's {model}", mail="test@4d.com", app=app.id, platform=platform)
        for number in range(PEOPLE):
            name = f"{NAMES[number % len(NAMES)]}{number}"
            twin.add_phone(f"{name}'s phone", mail=f"{name}@4d.com", app=app.id)
        texts = ("Your order has shipped", "It is on its way and arrives tomorrow.")
        desk.send(app, "test@4d.com", title=texts[0], body=texts[1])
        desk.send(app, "test@4d.com", title="Table for four", body="Confirmed for 19:30.")
        _begin_broadcast(app, desk)
        yield app, twin, desk


def _begin_broadcast(app: App, desk: Desk) -> None:
    from handbell.creation.notification import Notification  # noqa: PLC0415
    from handbell.creation.recipients import EVERYBODY  # noqa: PLC0415
    from handbell.delivery.engine import Options  # noqa: PLC0415

    content = Notification(title="The summer sale begins", body="20 % off until Sunday.")

    async def accept() -> None:
        await desk.system.engine.accept(app, content, EVERYBODY, Options.read())
        await asyncio.sleep(12)

    desk.server.run(accept())


def _take_all(browser: Browser, furnished: Furnished, scheme: Literal["light", "dark"]) -> None:
    app, twin, desk = furnished
    context = browser.new_context(
        base_url=desk.url, viewport=WIDE, color_scheme=scheme, reduced_motion="reduce"
    )
    page = context.new_page()
    page.set_default_timeout(8000)
    base = f"/console/apps/{app.id}"
    page.goto("/console/sign-in?next=/console/apps")
    page.get_by_label("Mail address").fill(MAIL)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", level=1).wait_for()
    page.goto(f"{base}/compose")
    page.locator("#title").fill("Your table is ready")
    page.locator("#body").fill("We hold it for fifteen minutes.")
    page.locator("#test_to").fill("test@4d.com")
    # Each picture shows another device; a tab that is chosen anew asks for this person's.
    for device in ("Browser", "Android" if scheme == "dark" else "iPhone"):
        page.locator(".devices").get_by_text(device).click()
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    page.wait_for_timeout(1500)
    _take(page, "compose", scheme)
    page.goto(f"{base}/activity")
    page.locator("main a", has_text="The summer sale begins").first.click()
    page.wait_for_timeout(800)
    _take(page, "broadcast", scheme)
    page.goto(f"{base}/person?mail=test@4d.com")
    page.wait_for_timeout(500)
    _take(page, "why", scheme)
    page.goto(twin.page_link)
    page.wait_for_timeout(1500)
    _take(page, "phone", scheme)
    context.close()


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
