"""What each push service knows an app by, and the credentials of Google's and of browsers."""

from functools import partial
from typing import Final

from starlette.responses import Response

from handbell.apps.identifiers import read_fingerprints
from handbell.apps.sample_keys import make_service_account
from handbell.errors import AppError, CredentialError, CredentialInUseError
from handbell.services.fcm.credential import DOWNLOAD, ServiceAccount
from handbell.services.webpush.credential import SOURCES, VapidKey

from .forms import Faults
from .keys import added
from .layout import Page, PageRoutes
from .publishing import show_app

pages = PageRoutes()

_APP: Final = "/console/apps/{app}"


@pages.post(f"{_APP}/apple")
async def set_apple(page: Page) -> Response:
    """Set Apple's ids of an app that has none."""
    given = {
        "team_id": page.form.text("team_id").upper(),
        "bundle_id": page.form.text("bundle_id"),
    }
    try:
        await page.run(page.system.apps.set_ids, page.the_app, given)
    except AppError as error:
        name = "team_id" if "team id" in error.what else "bundle_id"
        return await show_app(page, Faults.of(error, name), page.form)
    await page.note("app.set", page.the_app.id, "Apple's ids")
    return page.redirect(page.app_url("#keys"), message="Apple's ids are set. Its key comes next.")


@pages.post(f"{_APP}/android")
async def set_android(page: Page) -> Response:
    """Set an app's Android package, and the certificates that it is signed with."""
    faults, prints = Faults(), tuple[str, ...]()
    try:
        prints = read_fingerprints(page.form.text("android_fingerprints"))
    except AppError as error:
        faults.add("android_fingerprints", error.what, error.fix)
    given = {
        "android_package": page.form.text("android_package") or None,
        "android_fingerprints": prints,
    }
    if not faults:
        try:
            await page.run(page.system.apps.set_ids, page.the_app, given)
        except AppError as error:
            faults.add("android_package", error.what, error.fix)
    if faults:
        return await show_app(page, faults, page.form)
    await page.note("app.set", page.the_app.id, "the Android app")
    return page.redirect(page.app_url("#google"), message="The Android app is set.")


@pages.post(f"{_APP}/web")
async def set_web(page: Page) -> Response:
    """Set the origin of an app's pages."""
    given = {"web_origin": page.form.text("web_origin") or None}
    try:
        await page.run(page.system.apps.set_ids, page.the_app, given)
    except AppError as error:
        return await show_app(page, Faults.of(error, "web_origin"), page.form)
    await page.note("app.set", page.the_app.id, "the web origin")
    return page.redirect(page.app_url("#web-push"), message="The pages' origin is set.")


@pages.post(f"{_APP}/service-accounts")
async def add_service_account(page: Page) -> Response:
    """Add the uploaded service account, and check it; or make one for the twin."""
    if page.form.text("do") == "twin":
        account = await page.run(make_service_account, page.the_app)
        return await _add_service_account(page, account, environment="twin")
    upload = page.form.file("account_file")
    if upload is None:
        faults = Faults()
        faults.add("account_file", "No file was chosen.", f"{DOWNLOAD}.")
        return await show_app(page, faults, page.form)
    try:
        account = await page.run(partial(ServiceAccount.read, where="This file"), upload.content)
        return await _add_service_account(page, account)
    except CredentialError as error:
        return await show_app(page, Faults.of(error, "account_file"), page.form)


async def _add_service_account(
    page: Page, account: ServiceAccount, *, environment: str | None = None
) -> Response:
    work = partial(page.system.apps.add_credential, environment=environment)
    stored = await page.run(work, page.the_app, account)
    await page.note("credential.add", stored.key_id, f"project {account.project_id}")
    return await added(page, stored)


@pages.post(f"{_APP}/web-push-keys")
async def add_web_push_keys(page: Page) -> Response:
    """Make web push keys, or take over some that another program has made."""
    is_import = page.form.text("do") == "import"
    try:
        key = _imported(page) if is_import else VapidKey.make()
        work = partial(page.system.apps.add_credential, is_forced=page.form.flag("is_replaced"))
        stored = await page.run(work, page.the_app, key)
    except CredentialInUseError as error:
        faults = Faults()
        faults.add("is_replaced", f"{error.what}.", "Tick the box to lose them.")
        return await show_app(page, faults, page.form)
    except CredentialError as error:
        return await show_app(page, Faults.of(error, "vapid_key"), page.form)
    way = "imported" if is_import else "made here"
    await page.note("credential.add", stored.key_id, way)
    return await added(page, stored)


def _imported(page: Page) -> VapidKey:
    upload = page.form.file("vapid_file")
    text = page.form.raw("vapid_key").strip()
    if upload is None and not text:
        raise CredentialError("No key was given", fix=SOURCES)
    content = text if upload is None else upload.content
    return VapidKey.read(content, where="This key" if upload is None else "This file")
