"""The virtual phone next to a page: show it, create one, open a card."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlencode

from starlette.responses import RedirectResponse, Response

from handbell.apps.app import App
from handbell.apps.credential_kinds import Credential
from handbell.apps.sample_keys import make_key, make_service_account
from handbell.creation.recipients import Recipients
from handbell.demo_environment import SAMPLE_MAIL
from handbell.errors import MissingCredentialError, RecipientsError, TwinError
from handbell.services.table import SERVICES
from handbell.services.webpush.credential import VapidKey
from handbell.system import System

from .fix_buttons import in_console
from .layout import Page, PageRoutes
from .security import HOME, protect
from .twin_phones import TwinPhones, VirtualPhone

pages = PageRoutes()


@dataclass(frozen=True, slots=True, kw_only=True)
class PhonePanel:
    """An app's virtual phones, and the one that is shown.

    ``is_running`` says whether a twin runs here; ``problem`` is why it is unreachable.
    """

    is_running: bool
    phones: tuple[VirtualPhone, ...] = ()
    shown: VirtualPhone | None = None
    problem: str = ""

    @property
    def mail(self) -> str:
        """Return the shown phone's owner; empty without one."""
        return "" if self.shown is None else self.shown.mail or ""


def phone_panel(
    system: System, app: App, *, wanted: str = "", mail: str = "", service: str = ""
) -> PhonePanel:
    """Return an app's virtual phones: the ``wanted`` one is shown, else that of ``mail``.

    With ``service`` they are those that this push service reaches.
    """
    twin = TwinPhones(system.twin_folder)
    if not twin.is_running:
        return PhonePanel(is_running=False)
    try:
        found = twin.phones(app.id)
    except TwinError as error:
        return PhonePanel(is_running=True, problem=str(error))
    phones = tuple(phone for phone in found if service in ("", phone.service))
    by_id = {phone.id: phone for phone in phones}
    of_mail = next((phone for phone in phones if mail and phone.mail == mail.casefold()), None)
    shown = by_id.get(wanted) or of_mail or next(iter(phones), None)
    return PhonePanel(is_running=True, phones=phones, shown=shown)


@pages.get("/console/phones")
async def go_there(page: Page) -> Response:
    """Redirect to the twin's own page, for a browser on its machine."""
    if page.phones_url is not None:
        return protect(RedirectResponse(page.phones_url, 303))
    message = "The virtual phones are shown on the server's own machine, while a twin runs there."
    return page.redirect(HOME, message=message, kind="plain")


@pages.get("/console/apps/{app}/phones")
async def live(page: Page) -> Response:
    """Return the phone's current state, for the script that polls each second."""
    if not page.is_fragment:
        return page.redirect(page.app_url("/compose"))
    service, mail = page.query("service"), page.query("mail")
    return await _fragment(page, page.query("phone"), service=service, mail=mail)


@pages.post("/console/apps/{app}/phones")
async def make(page: Page) -> Response:
    """Create a virtual phone, and a credential for the twin if the app has none."""
    address = page.form.text("phone_mail") or SAMPLE_MAIL
    service = page.form.text("service")
    try:
        (mail,) = Recipients(mails=(address,)).mails
        work = partial(_make, service=service if service in SERVICES else "apns")
        phone = await page.run(work, page.system, page.the_app, mail)
    except (RecipientsError, TwinError) as error:
        return page.redirect(
            _back(page), message=f"{error.what} {in_console(error.fix)}", kind="bad"
        )
    if phone.is_keyed:
        await page.note("credential.add", "a key for the twin alone")
    back = f"{_back(page)}?{urlencode({'mail': phone.mail, 'keep': 1})}"
    return page.redirect(
        back, message=f"{phone.mail} has {_DEVICES[phone.service]}. Send something to it."
    )


@pages.post("/console/apps/{app}/phones/open")
async def open_card(page: Page) -> Response:
    """Open a card, as the phone's user would."""
    phone, card = page.form.text("phone"), page.form.text("card")
    twin = TwinPhones(page.system.twin_folder)
    try:
        await page.run(twin.open_card, phone, card)
    except TwinError as error:
        if not page.is_fragment:
            return page.redirect(_back(page), message=str(error), kind="bad")
    if page.is_fragment:
        return await _fragment(page, phone)
    return page.redirect(_back(page), message="Opened.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    mail: str
    service: str
    is_keyed: bool


def _make(system: System, app: App, mail: str, *, service: str) -> _Made:
    is_keyed = False
    try:
        system.apps.credential_for(app, "twin", service=service)
    except MissingCredentialError:
        system.apps.add_credential(app, _CREDENTIALS[service](app), environment="twin")
        is_keyed = True
    made = TwinPhones(system.twin_folder).make(app.id, mail, _PLATFORMS[service])
    return _Made(mail=made.mail or mail, service=service, is_keyed=is_keyed)


_PLATFORMS: Final = {"apns": "ios", "fcm": "android", "webpush": "web"}
_DEVICES: Final = {
    "apns": "a virtual phone",
    "fcm": "a virtual Android phone",
    "webpush": "a virtual browser",
}
_CREDENTIALS: Final[Mapping[str, Callable[[App], Credential]]] = {
    "apns": lambda app: make_key(app.apple.team_id),
    "fcm": make_service_account,
    "webpush": lambda _: VapidKey.make(),
}


async def _fragment(page: Page, wanted: str, *, service: str = "", mail: str = "") -> Response:
    look = partial(phone_panel, wanted=wanted, service=service, mail=mail)
    found = await page.run(look, page.system, page.the_app)
    return unless_known(page, page.render("virtual_phone.html", panel=found))


def unless_known(page: Page, response: Response) -> Response:
    """Return the response, or 304 if the page's script has it already."""
    tag = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:24]}"'
    response.headers["etag"] = tag
    if page.request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag, "cache-control": "no-store"})
    return response


def _back(page: Page) -> str:
    """Return the form's page, if that shows a phone."""
    number = page.form.text("notification")
    if number.isalnum():
        return page.app_url(f"/activity/{number}")
    return page.app_url("/compose")
