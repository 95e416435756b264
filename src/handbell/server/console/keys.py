"""Apple's keys of an app: uploaded, sealed, checked at once, never shown again.

Credentials of every push service are removed here.
"""

from functools import partial
from typing import Final

from starlette.responses import Response

from handbell._text import count, trimmed
from handbell.apps.checkup import caveats
from handbell.apps.credential_kinds import KINDS
from handbell.apps.credential_store import StoredCredential
from handbell.errors import CredentialError, NotFoundError
from handbell.services.apns.credential import AuthKey, Certificate, key_id_of_name, read_auth_key

from .check_up import check_up, forget_check_up
from .forms import Faults, Upload
from .layout import Page, PageRoutes
from .publishing import show_app

pages = PageRoutes()

_KEYS: Final = "/console/apps/{app}/keys"
_CERTIFICATE_FILES: Final = (".p12", ".pfx", ".pem")
_ENVIRONMENTS: Final = frozenset({"production", "development", "twin"})
_FOR_GOOD: Final = {
    "apns": "It cannot be had back from here; Apple lets a .p8 be downloaded only once.",
    "fcm": "It cannot be had back from here; the Firebase console makes another one.",
    "webpush": "It cannot be had back from here.",
}


@pages.post(_KEYS)
async def add(page: Page) -> Response:
    """Add the uploaded key, and check it."""
    upload = page.form.file("key_file")
    if upload is None:
        faults = Faults()
        faults.add(
            "key_file", "No file was chosen.", "Choose the AuthKey_XXXXXXXXXX.p8 of Apple's."
        )
        return await show_app(page, faults, page.form)
    environment = page.form.text("environment")
    try:
        credential = await read_upload(page, upload)
        stored = await page.run(
            page.system.apps.add_credential,
            page.the_app,
            credential,
            environment=environment if environment in _ENVIRONMENTS else None,
        )
    except CredentialError as error:
        return await show_app(page, _faults(error), page.form)
    await page.note("credential.add", stored.key_id, stored.environment or "both environments")
    return await added(page, stored, " ".join(caveats(credential, now=page.system.now())))


async def added(page: Page, stored: StoredCredential, message: str = "") -> Response:
    """Check a credential that was just added, and say what came of it."""
    checked = await check_up(page)
    verdicts = {finding.verdict for finding in checked.findings}
    if not message and verdicts & {"wrong", "doubtful"}:
        message = "The check-up has something to say."
    is_added = f"The {KINDS[stored.kind].title} {stored.key_id} is added"
    return page.redirect(
        page.app_url("#check-up"),
        message=f"{is_added}. {message}" if message else f"{is_added} and works.",
    )


@pages.get(f"{_KEYS}/{{key_id}}/remove")
async def ask_remove(page: Page) -> Response:
    """Confirm the removal of a credential; say what is lost with it."""
    stored = await _find(page)
    title = KINDS[stored.kind].title
    lost = await page.run(page.system.apps.subscriptions_by, page.the_app, stored.key_id)
    return page.confirm(
        f"Remove the {title} {stored.key_id}?",
        text=(
            f"{page.the_app.name} cannot be sent to with it any more. What needs it waits.",
            _FOR_GOOD[stored.service],
            *((_lost(lost),) if lost else ()),
        ),
        action=page.app_url(f"/keys/{stored.key_id}/remove"),
        back=page.app_url(),
        label=f"Remove the {title}",
    )


@pages.post(f"{_KEYS}/{{key_id}}/remove")
async def remove(page: Page) -> Response:
    """Remove a credential."""
    stored = await _find(page)
    work = partial(page.system.apps.remove_credential, is_forced=True)
    await page.run(work, page.the_app, stored.key_id)
    await page.note("credential.remove", stored.key_id)
    forget_check_up(page)
    message = f"The {KINDS[stored.kind].title} {stored.key_id} is removed."
    return page.redirect(page.app_url(), message=message)


def _lost(number: int) -> str:
    """Say what a web push key takes along."""
    return (
        f"{count(number, 'browser')} subscribed with it, and can be reached with no other key: "
        "until it is back, nothing goes to them."
    )


async def _find(page: Page) -> StoredCredential:
    """Return the credential in the path. Raises NotFoundError if the app has none with it."""
    key_id: str = page.request.path_params["key_id"]
    for one in await page.run(page.system.apps.credentials, page.the_app):
        if one.key_id == key_id:
            return one
    raise NotFoundError(
        f"{page.the_app.name} has no key {key_id[:100]!r}",
        fix="Look at the app's page for its keys",
    )


async def read_upload(page: Page, upload: Upload) -> AuthKey | Certificate:
    """Return the key or certificate in an upload. Raises CredentialError for an invalid one."""
    form = page.form
    if upload.name.lower().endswith(_CERTIFICATE_FILES):
        context = page.console.context
        return await context.read_certificate(upload.content, password=form.raw("password") or None)
    key_id = trimmed(form.text("key_id")).upper() or key_id_of_name(upload.name)
    return read_auth_key(upload.content, team_id=page.the_app.apple.team_id, key_id=key_id)


def _faults(error: CredentialError) -> Faults:
    message_text = error.what.replace("The given text", "This file")
    faults = Faults()
    if "key id" in message_text:
        faults.add("key_id", message_text, error.fix)
    else:
        faults.add("key_file", message_text, error.fix)
    return faults
