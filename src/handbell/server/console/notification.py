"""A notification's page: live progress, funnel, reasons and deliveries."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from handbell._text import count
from handbell.creation.notification import Notification
from handbell.delivery.delivery import STATES, Delivery
from handbell.delivery.ledger.listing import DeliveryPage, DeliverySearch
from handbell.delivery.ledger.reports import Funnel
from handbell.delivery.policy.schedule import read_send_at

from .activity import standing_of
from .layout import Page, PageRoutes
from .phones import PhonePanel, phone_panel, unless_known
from .progress_cache import ProgressCache
from .twin_phones import TwinPhones, VirtualPhone

PAGE: Final = 25
MOST_NAMED: Final = 500
"""The number of recipients that a page lists."""
WATCHED_SECONDS: Final = 600
"""How long an open page polls for receipts after the notification was accepted."""
_HURRY, _LEISURE = 1000, 1500
_MEMORY: Final = "funnels"
_PATH: Final = "/console/apps/{app}/activity/{notification}"

pages = PageRoutes()


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """A step of the funnel; ``share`` is the fraction of accepted ones."""

    name: str
    number: int
    share: float
    explained: str


@pages.get(_PATH)
async def show(page: Page) -> Response:
    """Show a notification."""
    found = await page.run(_read, page)
    return page.render("notification.html", **found)


@pages.get(f"{_PATH}/live")
async def live(page: Page) -> Response:
    """Return the changing parts, for the script that polls each second."""
    number = page.request.path_params["notification"]
    if not page.is_fragment:
        return page.redirect(page.app_url(f"/activity/{number}"))
    found = await page.run(_read, page)
    return unless_known(page, page.render("notification_live.html", **found))


@pages.get(f"{_PATH}/cancel")
async def ask(page: Page) -> Response:
    """Confirm the cancellation."""
    funnel = await page.run(_funnel, page)
    address = page.app_url(f"/activity/{funnel.overview.id}")
    text = [f"Nothing was sent yet of {funnel.accepted:,}, and nothing ever will be."]
    if funnel.sent:
        sent = f"{funnel.sent:,} of {funnel.accepted:,} were sent already"
        text = [f"{sent}; they stay on the phones.", "The others will never be sent."]
    return page.confirm(
        "Cancel what is not sent yet?",
        text=text,
        action=f"{address}/cancel",
        back=address,
        label="Cancel it",
    )


@pages.post(f"{_PATH}/cancel")
async def cancel(page: Page) -> Response:
    """Cancel what is not sent yet."""
    number = page.request.path_params["notification"]
    caught = await page.system.engine.cancel(page.the_app, number)
    _funnels(page).forget(number)
    caught_text = count(caught, "delivery", "deliveries")
    await page.note("notification.cancel", number, f"{caught_text} cancelled")
    message = f"{caught_text} cancelled." if caught else "There was nothing left to cancel."
    return page.redirect(page.app_url(f"/activity/{number}"), message=message)


@pages.post(f"{_PATH}/resend")
async def resend(page: Page) -> Response:
    """Send its dead letters again."""
    number = page.request.path_params["notification"]
    again = await page.system.engine.resend(page.the_app, number)
    _funnels(page).forget(number)
    told = count(again, "dead letter")
    await page.note("notification.resend", number, f"{told} sent again")
    message = f"{told} sent again." if again else "There was no dead letter left."
    return page.redirect(page.app_url(f"/activity/{number}"), message=message)


def _funnels(page: Page) -> ProgressCache[Funnel]:
    watched: ProgressCache[Funnel] = page.console.memory.setdefault(_MEMORY, ProgressCache())
    return watched


def _funnel(page: Page) -> Funnel:
    """Return the funnel of the path's notification; 404 for another app's."""
    number = page.request.path_params["notification"]
    # Raises for a notification of another app.
    page.system.ledger.find(page.the_app, number)
    return _funnels(page).get(number, lambda: page.system.reports.funnel(number))


def _read(page: Page) -> dict[str, Any]:
    funnel = _funnel(page)
    overview = funnel.overview
    search = DeliverySearch(
        state=page.query("state") if page.query("state") in STATES else None,
        reason=page.query("reason")[:100] or None,
        mail=page.query("mail").casefold()[:320] or None,
        after=page.number("after"),
    )
    found = page.system.reports.deliveries(overview.id, search, limit=PAGE)
    held = page.system.app_control.obstacles(page.the_app)
    return {
        "held": held,
        "named": [str(text) for kind in funnel.named.values() if _is_list(kind) for text in kind],
        "most_named": MOST_NAMED,
        "funnel": funnel,
        "overview": overview,
        "standing": standing_of(overview, is_held=bool(held)),
        "steps": steps_of(funnel),
        "services": funnel.services if len(funnel.services) > 1 else (),
        "deliveries": found,
        "search": search,
        "is_filtered": any((search.state, search.reason, search.mail, search.after)),
        "pages_on": _following(page, search, found),
        "planned": None if funnel.send_at is None else read_send_at(funnel.send_at),
        "live": _live_address(page, overview.id),
        "every": _every(page, funnel),
        "is_open": bool(overview.ahead or {"queued", "held"} & set(overview.states)),
        "is_replaceable": funnel.content.get("collapse_id") is not None and funnel.sent > 0,
        "content": json.dumps(dict(funnel.content), ensure_ascii=False, indent=2),
        "shown": Notification.read(funnel.content),
        "panel": _panel_of(page, funnel, found),
    }


def steps_of(funnel: Funnel) -> list[FunnelStep]:
    """Return the funnel's steps, with their explanations."""
    steps = (
        ("Accepted", funnel.accepted, "stored here, so that nothing is lost"),
        ("Sent", funnel.sent, "taken over by the push service"),
        ("Displayed", funnel.displayed, "reported by the phone"),
        ("Opened", funnel.opened, "reported by the phone"),
    )
    whole = funnel.accepted or 1
    return [
        FunnelStep(name=name, number=number, share=min(1.0, number / whole), explained=explained)
        for name, number, explained in steps
    ]


def _every(page: Page, funnel: Funnel) -> int:
    """Return the polling interval in milliseconds; 0 when nothing can change any more."""
    overview = funnel.overview
    if overview.is_running or overview.states.get("sending"):
        return _HURRY
    age = page.system.now() - overview.created_at / 1000
    is_awaited = overview.ahead or overview.states.get("held") or funnel.opened < funnel.sent
    return _LEISURE if is_awaited and age < WATCHED_SECONDS else 0


def _asked(search: DeliverySearch) -> dict[str, str]:
    named = {"state": search.state, "reason": search.reason, "mail": search.mail}
    return {name: value for name, value in named.items() if value}


def _live_address(page: Page, number: str) -> str:
    path = page.app_url(f"/activity/{number}/live")
    return f"{path}?{page.request.url.query}" if page.request.url.query else path


def _following(page: Page, search: DeliverySearch, found: DeliveryPage) -> str | None:
    if found.following is None:
        return None
    path = page.app_url(f"/activity/{page.request.path_params['notification']}")
    asked = urlencode({**_asked(search), "after": str(found.following)})
    return f"{path}?{asked}#deliveries"


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _panel_of(page: Page, funnel: Funnel, found: DeliveryPage) -> PhonePanel:
    """Return the virtual phone that shows this notification, if any.

    There is none if it failed, waits or was dismissed.
    """
    nowhere = PhonePanel(is_running=False)
    if not funnel.sent or TwinPhones(page.system.twin_folder).page_url is None:
        return nowhere
    phones = phone_panel(page.system, page.the_app)
    mine = _showing(phones.phones, found.deliveries)
    if mine is None and phones.shown is not None:
        search = DeliverySearch(mail=phones.mail)
        theirs = page.system.reports.deliveries(funnel.overview.id, search, limit=PAGE)
        mine = _showing((phones.shown,), theirs.deliveries)
    return (
        nowhere if mine is None else PhonePanel(is_running=True, phones=phones.phones, shown=mine)
    )


def _showing(phones: Iterable[VirtualPhone], deliveries: Iterable[Delivery]) -> VirtualPhone | None:
    """Return the first phone that shows one of the deliveries."""
    brought = {delivery.apns_id for delivery in deliveries}
    return next(
        (phone for phone in phones if any(card.push_id in brought for card in phone.cards)), None
    )
