"""API keys: created, shown once, revoked."""

from typing import Final

from starlette.responses import Response

from handbell.access.api_keys import SCOPES
from handbell.errors import AccessError, UnknownAppError

from .forms import Faults
from .layout import Page, PageRoutes
from .settings import TABS

pages = PageRoutes()

_KEYS: Final = "/console/settings/api-keys"
_SCOPE_WORDS: Final = {
    "send": ("Send", "Notifications, and their outcomes."),
    "register": ("Register", "People and their devices."),
    "administer": ("Administer", "Everything, also apps, keys and webhooks."),
}


@pages.get(_KEYS)
async def keys(page: Page) -> Response:
    """List the API keys."""
    return await _show(page)


@pages.post(_KEYS)
async def make(page: Page) -> Response:
    """Create an API key, and show it once."""
    wanted = page.form.text("app")
    app = next((item for item in page.apps if item.id == wanted), None)
    if wanted and app is None:
        raise UnknownAppError(f"There is no app {wanted[:100]!r}", fix="Choose one of the list")
    try:
        key, secret = await page.run(
            page.system.api_keys.add, page.form.text("name"), page.form.all("scope"), app
        )
    except AccessError as error:
        field = "name" if "name" in error.what else "scopes"
        return await _show(page, Faults.of(error, field))
    scopes = ", ".join(scope for scope in SCOPES if scope in key.scopes)
    await page.note("api-key.add", key.prefix, f"{scopes}; {key.app or 'every app'}", app=app)
    example = app or page.current_app
    can_send = "" if example is None or "send" not in key.effective_scopes else example.id
    return await _show(page, made=secret, can_send=can_send)


@pages.get(f"{_KEYS}/{{prefix}}/revoke")
async def ask_revoke(page: Page) -> Response:
    """Confirm the revocation of a key."""
    key = await page.run(page.system.api_keys.find, page.request.path_params["prefix"])
    return page.confirm(
        f"Revoke the key {key.name}?",
        text=(
            f"Whoever uses {key.prefix} is refused from then on.",
            "This cannot be undone; another key can be made.",
        ),
        action=page.url(f"{_KEYS}/{key.prefix}/revoke"),
        back=page.url(_KEYS),
        label="Revoke the key",
    )


@pages.post(f"{_KEYS}/{{prefix}}/revoke")
async def revoke(page: Page) -> Response:
    """Revoke a key."""
    key = await page.run(page.system.api_keys.revoke, page.request.path_params["prefix"])
    await page.note("api-key.revoke", key.prefix)
    return page.redirect(_KEYS, message=f"The key {key.name} is revoked.")


async def _show(
    page: Page, faults: Faults | None = None, *, made: str = "", can_send: str = ""
) -> Response:
    return page.render(
        "api_keys.html",
        status=422 if faults else 200,
        faults=faults,
        tabs=TABS,
        keys=await page.run(page.system.api_keys.list),
        made=made,
        can_send=can_send,
        form=page.form if faults else None,
        scopes=[(scope, *_SCOPE_WORDS[scope]) for scope in SCOPES],
        names={app.id: app.name for app in page.apps},
    )
