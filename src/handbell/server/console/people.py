"""*People*: an app's users, found by the beginning of their mail address."""

import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from handbell.twin.discovery import read_address

from .layout import Page, PageRoutes

pages = PageRoutes()

AT_ONCE: Final = 50
"""The number of people per page."""
_COUNT_SECONDS: Final = 10.0
_MEMORY: Final = "people_counts"


@pages.get("/console/apps/{app}/people")
async def people(page: Page) -> Response:
    """List people by address; with ``q``, those whose address begins with it."""
    wanted, after = page.query("q"), page.query("after")
    found = await page.run(
        page.system.directory.users,
        page.the_app,
        beginning=wanted,
        after=after or None,
        limit=AT_ONCE + 1,
    )
    shown = found[:AT_ONCE]
    twin = None
    if not found and not wanted:
        twin = await page.run(read_address, page.system.twin_folder)
    return page.render(
        "people.html",
        wanted=wanted,
        found=shown,
        counts=await _counts(page),
        twin=twin,
        first=_address(page, wanted) if after else "",
        next=_address(page, wanted, shown[-1].user.mail) if len(found) > AT_ONCE else "",
    )


def _address(page: Page, wanted: str, after: str | None = None) -> str:
    given = {"q": wanted, "after": after or ""}
    query = urlencode({name: text for name, text in given.items() if text})
    return page.app_url("/people" + (f"?{query}" if query else ""))


async def _counts(page: Page) -> Mapping[str, int]:
    """Return the number of sessions by status, cached for some seconds.

    Counting a million of them takes some time.
    """
    kept = page.console.memory.setdefault(_MEMORY, {})
    at, counts = kept.get(page.the_app.row, (-math.inf, {}))
    now = page.system.clock()
    if now >= at + _COUNT_SECONDS or sum(counts.values()) < AT_ONCE:
        counts = await page.run(page.system.directory.statuses, page.the_app)
        kept[page.the_app.row] = (now, counts)
    found: Mapping[str, int] = counts
    return found
