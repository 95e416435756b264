"""*Activity*: sends over time, the queue, and all notifications."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from starlette.responses import Response

from handbell.apps.app import App
from handbell.delivery.ledger.blockers import Blocker
from handbell.delivery.ledger.listing import NotificationSearch, NotificationStatus
from handbell.delivery.ledger.reports import Overview
from handbell.delivery.ledger.status import Status
from handbell.services.table import SERVICES
from handbell.system import System

from .chart import Chart, draw
from .layout import Page, PageRoutes
from .phones import unless_known
from .progress_cache import ProgressCache

PAGE: Final = 25
SPANS: Final = {"day": (1, 24), "month": (24, 30)}
"""The spans of the chart: hours per bar, and number of bars."""
STANDINGS: Final = (
    ("", "All"),
    ("open", "Not done yet"),
    ("failed", "With failures"),
    ("dead_letter", "With dead letters"),
    ("cancelled", "Cancelled"),
)
KINDS: Final = (("", "Tests, too"), ("real", "No tests"), ("tests", "Tests alone"))
_HURRY, _LEISURE = 2000, 10_000
"""The polling interval of an open page, in milliseconds."""
_MEMORY: Final = "activity"

pages = PageRoutes()


@dataclass(frozen=True, slots=True, kw_only=True)
class SendingState:
    """The current state of sending: of the installation, and what blocks this app's sends.

    ``stopped_elsewhere`` are the ids of other stopped apps.
    """

    status: Status
    held: Sequence[Blocker]
    stopped_elsewhere: tuple[str, ...]


class _Span(NamedTuple):
    """What the chart is of: a span by its name, and one push service, or none for all."""

    name: str
    service: str


@pages.get("/console/apps/{app}/activity")
async def overview(page: Page) -> Response:
    """Show the chart, the queue and the list of notifications, filtered and in pages."""
    span = page.query("span") if page.query("span") in SPANS else "day"
    text, before = page.query("text")[:200], page.number("before")
    standing = _standing(page.query("standing"))
    kind = page.query("kind") if page.query("kind") in ("tests", "real") else ""
    search = NotificationSearch(
        app=page.the_app.id,
        text=text or None,
        standing=standing,
        before=before,
        is_test={"tests": True, "real": False}.get(kind),
    )
    service = page.query("service") if page.query("service") in SERVICES else ""
    chart, situation, found = await page.run(_read, page, search, _Span(span, service))
    listed, following = found[:PAGE], found[PAGE - 1].row if len(found) > PAGE else None
    is_filtered = bool(text or standing or before or kind)
    values: dict[str, Any] = {
        "chart": chart,
        "span": span,
        "service": service,
        "situation": situation,
        "listed": listed,
        "following": following,
        "text": text,
        "standing": standing or "",
        "standings": STANDINGS,
        "standing_of": partial(standing_of, is_held=bool(situation.held)),
        "kind": kind,
        "is_empty": not (listed or is_filtered),
        "is_filtered": is_filtered,
        "kinds": KINDS,
    }
    is_busy = bool(situation.status.due) or any(item.is_running for item in listed)
    response = page.render("activity.html", every=_HURRY if is_busy else _LEISURE, **values)
    return unless_known(page, response) if page.is_fragment else response


def _standing(text: str) -> NotificationStatus | None:
    match text:
        case "open" | "failed" | "dead_letter" | "cancelled":
            return text
        case _:
            return None


def _read(
    page: Page, search: NotificationSearch, wanted: _Span
) -> tuple[Chart, SendingState, list[Overview]]:
    reports, app = page.system.reports, page.the_app
    hours, buckets = SPANS[wanted.name]
    services = reports.services_in_trend(app, hours=hours, buckets=buckets)
    trend = reports.trend(app, hours=hours, buckets=buckets, service=wanted.service or None)
    watched: ProgressCache[list[Overview]] = page.console.memory.setdefault(
        _MEMORY, ProgressCache()
    )
    found = watched.get(repr(search), lambda: reports.page(search, limit=PAGE + 1))
    return (
        draw(trend, services=services),
        sending_state_of(page.system, app),
        found,
    )


def sending_state_of(system: System, app: App) -> SendingState:
    """Return the current state of sending for an app."""
    return SendingState(
        status=system.status.read(),
        held=system.app_control.obstacles(app),
        stopped_elsewhere=tuple(
            item for item in system.rules_store.stopped_apps() if item != app.id
        ),
    )


def standing_of(notification: Overview, *, is_held: bool = False) -> tuple[str, str]:
    """Return the chip of a notification's state: its kind and its word.

    Green is for sent only. With ``is_held`` the app is blocked.
    """
    states = notification.states
    waits = notification.ahead + sum(states.get(name, 0) for name in ("queued", "sending", "held"))
    sent, lost = states.get("sent", 0), states.get("failed", 0) + states.get("expired", 0)
    taken_back = states.get("cancelled", 0)
    is_planned = notification.send_at is not None and not notification.is_running
    words = (
        (waits and is_planned, ("plan", "Planned")),
        (waits and is_held, ("stuck", "Held up")),
        (waits and notification.is_running, ("wait", "Going out")),
        (waits, ("wait", "Waits")),
        (states.get("dead_letter"), ("bad", "Dead letters")),
        (sent and lost > sent, ("bad", "Mostly failed")),
        (sent and taken_back, ("off", "Partly cancelled")),
        (sent, ("good", "Sent")),
        (lost, ("bad", "Failed")),
        (taken_back or notification.cancelled_at is not None, ("off", "Cancelled")),
    )
    return next((word for is_so, word in words if is_so), ("off", "Reached nobody"))
