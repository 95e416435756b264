"""The check-up of an app: run when a key was added or somebody asks, and shown until the next."""

from dataclasses import dataclass

from starlette.responses import Response

from handbell.apps.checkup import Finding

from .frame import Page, Pages

pages = Pages()

_MEMORY = "check_ups"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckUp:
    """What a check-up found, and when, in UNIX milliseconds."""

    at: int
    findings: list[Finding]


async def check_up(page: Page) -> CheckUp:
    """Ask the push services about the page's app, and remember what they said."""
    findings = await page.system.check_up(page.the_app)
    found = CheckUp(at=int(page.system.now() * 1000), findings=findings)
    page.console.memory.setdefault(_MEMORY, {})[page.the_app.id] = found
    return found


def last_check_up(page: Page) -> CheckUp | None:
    """Return the last check-up of the page's app since the server started, or None."""
    found: CheckUp | None = page.console.memory.get(_MEMORY, {}).get(page.the_app.id)
    return found


def forget_check_up(page: Page) -> None:
    """Forget what the last check-up found: it is not true any more."""
    page.console.memory.get(_MEMORY, {}).pop(page.the_app.id, None)


@pages.post("/console/apps/{app}/check-up")
async def check(page: Page) -> Response:
    """Run a check-up, and show the app's page with what it found."""
    from .publishing import show_app  # noqa: PLC0415 - it imports this module

    await check_up(page)
    if page.is_fragment:
        return await show_app(page)
    return page.redirect(page.app_url("#check-up"))
