"""Webhooks: their addresses, and the state of their calls."""

from typing import Final

from starlette.responses import Response

from handbell.apps.app import App
from handbell.delivery.webhooks.store import NAMES, Webhook
from handbell.errors import WebhookError

from .forms import Faults
from .layout import Page, PageRoutes
from .settings import TABS

pages = PageRoutes()

_WEBHOOKS: Final = "/console/settings/webhooks"
_EVENT_WORDS: Final = {
    "delivery.failed": "A delivery failed for good",
    "session.closed": "A device is gone",
    "session.quarantined": "A device is in quarantine",
    "circuit.opened": "Sending for the app was stopped",
    "circuit.closed": "Sending for the app resumed",
    "service.down": "The push service is unavailable",
    "service.up": "The push service is available again",
}


@pages.get(_WEBHOOKS)
async def webhooks(page: Page) -> Response:
    """List the webhooks of every app."""
    return await _show(page)


@pages.post(_WEBHOOKS)
async def add(page: Page) -> Response:
    """Add a webhook, and show its secret once."""
    faults = Faults()
    wanted = page.form.text("app")
    app = next((item for item in page.apps if item.id == wanted), None)
    events = page.form.all("event")
    if app is None:
        faults.add("app", "No app is chosen.", "A webhook belongs to one.")
    if not events:
        faults.add("events", "No event is chosen.", "Choose those to be called for.")
    if app is None or not events:
        return await _show(page, faults)
    try:
        webhook, secret = await page.run(
            page.system.webhooks.add, app, page.form.text("url"), events=events
        )
    except WebhookError as error:
        return await _show(page, Faults.of(error, "url"))
    # The URL may contain a secret of the receiver.
    await page.note("webhook.add", str(webhook.id), app=app)
    return await _show(page, made=secret)


@pages.post(f"{_WEBHOOKS}/{{webhook}}/switch")
async def switch(page: Page) -> Response:
    """Switch a webhook on or off."""
    webhook = await _find(page)
    is_on = page.form.text("to") == "on"
    await page.run(page.system.webhooks.set_enabled, webhook.id, is_on)
    word = "on" if is_on else "off"
    await page.note("webhook.set", str(webhook.id), word, app=_app_of(page, webhook))
    return page.redirect(_WEBHOOKS, message=f"The webhook is {word}.")


@pages.get(f"{_WEBHOOKS}/{{webhook}}/remove")
async def ask_remove(page: Page) -> Response:
    """Confirm the removal of a webhook."""
    webhook = await _find(page)
    return page.confirm(
        "Remove this webhook?",
        text=(webhook.url, "Calls that wait for it are dropped."),
        action=page.url(f"{_WEBHOOKS}/{webhook.id}/remove"),
        back=page.url(_WEBHOOKS),
        label="Remove the webhook",
    )


@pages.post(f"{_WEBHOOKS}/{{webhook}}/remove")
async def remove(page: Page) -> Response:
    """Remove a webhook."""
    webhook = await _find(page)
    await page.run(page.system.webhooks.remove, webhook.id)
    await page.note("webhook.remove", str(webhook.id), app=_app_of(page, webhook))
    return page.redirect(_WEBHOOKS, message="The webhook is removed.")


async def _find(page: Page) -> Webhook:
    text = page.request.path_params["webhook"]
    number = int(text) if text.isascii() and text.isdigit() and len(text) < len(str(1 << 62)) else 0
    return await page.run(page.system.webhooks.find, number)


def _app_of(page: Page, webhook: Webhook) -> App | None:
    return next((app for app in page.apps if app.id == webhook.app), None)


async def _show(page: Page, faults: Faults | None = None, *, made: str = "") -> Response:
    store = page.system.webhooks
    names = NAMES.values()
    return page.render(
        "webhooks.html",
        status=422 if faults else 200,
        faults=faults,
        tabs=TABS,
        webhooks=await page.run(store.list),
        standings=await page.run(store.standings),
        made=made,
        form=page.form if faults else None,
        events=[(name, _EVENT_WORDS.get(name, name)) for name in names],
        names={app.id: app.name for app in page.apps},
    )
