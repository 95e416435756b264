"""The audit trail: who changed what, filtered and page by page."""

from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from .layout import Page, PageRoutes
from .settings import TABS

pages = PageRoutes()

AT_ONCE: Final = 50
"""The number of entries per page."""

_AUDIT: Final = "/console/settings/audit"
_KINDS: Final = (
    ("", "Everything"),
    ("app.", "Apps"),
    ("credential.", "Credentials of apps"),
    ("session.", "Sessions"),
    ("user.", "People"),
    ("notification.", "Notifications"),
    ("template.", "Templates"),
    ("operator.", "Operators"),
    ("api-key.", "API keys"),
    ("webhook.", "Webhooks"),
)


@pages.get(_AUDIT)
async def audit(page: Page) -> Response:
    """List the audit trail, the newest first."""
    kind = page.query("kind")
    wanted = {"kind": kind, "app": page.query("app"), "actor": page.query("actor")}
    before = page.number("before")
    found = await page.run(
        page.system.audit.list,
        limit=AT_ONCE + 1,
        before=before,
        app=wanted["app"] or None,
        actor=wanted["actor"] or None,
        action=kind if kind in dict(_KINDS) and kind else None,
    )
    shown = found[:AT_ONCE]
    return page.render(
        "audit.html",
        tabs=TABS,
        kinds=_KINDS,
        wanted=wanted,
        is_filtered=any(wanted.values()),
        entries=shown,
        names={app.id: app.name for app in page.apps},
        first=_address(page, wanted) if before is not None else "",
        next=_address(page, wanted, shown[-1].id) if len(found) > AT_ONCE else "",
    )


def _address(page: Page, wanted: dict[str, str], before: int | None = None) -> str:
    given = {**wanted, "before": "" if before is None else str(before)}
    query = urlencode({name: text for name, text in given.items() if text})
    return page.url(_AUDIT + (f"?{query}" if query else ""))
