"""The check-up of an app: run on demand or after adding a key, and kept until the next."""

from dataclasses import dataclass

from handbell.apps.checkup import Finding

from .layout import Page

_MEMORY = "check_ups"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckUp:
    """A check-up's findings, and its time in UNIX milliseconds."""

    at: int
    findings: list[Finding]


async def check_up(page: Page) -> CheckUp:
    """Run a check-up of the page's app, and keep its findings."""
    findings = await page.system.doctor.check_up(page.the_app)
    found = CheckUp(at=int(page.system.now() * 1000), findings=findings)
    page.console.memory.setdefault(_MEMORY, {})[page.the_app.id] = found
    return found


def last_check_up(page: Page) -> CheckUp | None:
    """Return the last check-up of the page's app since the server started, or None."""
    found: CheckUp | None = page.console.memory.get(_MEMORY, {}).get(page.the_app.id)
    return found


def forget_check_up(page: Page) -> None:
    """Drop the last check-up: it is outdated."""
    page.console.memory.get(_MEMORY, {}).pop(page.the_app.id, None)
