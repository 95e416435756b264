"""The keys of an app: uploaded, sealed, checked at once, never shown again."""

from typing import Final

from starlette.responses import Response

from handbell._text import trimmed
from handbell.apps.checkup import caveats
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
    checked = await check_up(page)
    verdicts = {finding.verdict for finding in checked.findings}
    message = " ".join(caveats(credential, now=page.system.now()))
    if not message and verdicts & {"wrong", "doubtful"}:
        message = "The check-up has something to say."
    added = f"The {stored.kind} {stored.key_id} is added"
    return page.redirect(
        page.app_url("#check-up"),
        message=f"{added}. {message}" if message else f"{added} and works.",
    )


@pages.get(f"{_KEYS}/{{key_id}}/remove")
async def ask_remove(page: Page) -> Response:
    """Confirm the removal of a key."""
    key_id = await _find(page)
    return page.confirm(
        f"Remove the key {key_id}?",
        text=(
            f"{page.the_app.name} cannot be sent to with it any more. What needs it waits.",
            "It cannot be had back from here; Apple lets a .p8 be downloaded only once.",
        ),
        action=page.app_url(f"/keys/{key_id}/remove"),
        back=page.app_url(),
        label="Remove the key",
    )


@pages.post(f"{_KEYS}/{{key_id}}/remove")
async def remove(page: Page) -> Response:
    """Remove a key."""
    key_id = await _find(page)
    await page.run(page.system.apps.remove_credential, page.the_app, key_id)
    await page.note("credential.remove", key_id)
    forget_check_up(page)
    return page.redirect(page.app_url(), message=f"The key {key_id} is removed.")


async def _find(page: Page) -> str:
    """Return the id of the key in the path. Raises NotFoundError if the app has none with it."""
    key_id: str = page.request.path_params["key_id"]
    stored = await page.run(page.system.apps.credentials, page.the_app)
    if all(one.key_id != key_id for one in stored):
        raise NotFoundError(
            f"{page.the_app.name} has no key {key_id[:100]!r}",
            fix="Look at the app's page for its keys",
        )
    return key_id


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
