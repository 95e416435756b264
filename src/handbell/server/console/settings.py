"""*Settings*: operators, invitations, and the operator's own account."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from starlette.responses import Response

from handbell._text import count
from handbell.access.invitations import INVITATION_HOURS
from handbell.errors import OperatorError

from .forms import Faults
from .layout import Page, PageRoutes
from .security import HOME, set_sign_in
from .sign_in_limits import PER_PAIR

pages = PageRoutes()

TABS: Final[Sequence[tuple[str, str, str]]] = (
    ("operators", "Operators", "/console/settings"),
    ("api-keys", "API keys", "/console/settings/api-keys"),
    ("webhooks", "Webhooks", "/console/settings/webhooks"),
    ("audit", "Audit trail", "/console/settings/audit"),
    ("account", "Your account", "/console/settings/account"),
)
"""The tabs of the settings: name, label and path; the template gets them as ``tabs``."""

_OPERATORS: Final = "/console/settings"
_ACCOUNT_PATH: Final = "/console/settings/account"
_CHANGE: Final = "password-change"


@pages.get(_OPERATORS)
async def operators(page: Page) -> Response:
    """List operators and open invitations."""
    return await _show(page)


@pages.post(f"{_OPERATORS}/operators")
async def invite(page: Page) -> Response:
    """Create an invitation, and show its link once."""
    mail = page.form.text("mail")
    try:
        secret = await page.run(page.system.operators.invite, mail or None)
    except OperatorError as error:
        return await _show(page, Faults.of(error, "mail"))
    await page.note("operator.invite", mail or "whoever opens the link")
    return await _show(page, link=_link(page, secret), invited=mail)


@pages.post(f"{_OPERATORS}/operators/reset")
async def reset(page: Page) -> Response:
    """Create a password link for an operator, and show it once."""
    operator = await page.run(page.system.operators.find, page.form.text("mail"))
    secret = await page.run(page.system.operators.reset, operator)
    await page.note("operator.reset", operator.mail)
    return await _show(page, link=_link(page, secret), invited=operator.mail)


@pages.post(f"{_OPERATORS}/invitations/{{invitation}}/withdraw")
async def withdraw(page: Page) -> Response:
    """Withdraw an invitation."""
    is_done = await page.run(page.system.operators.withdraw, page.request.path_params["invitation"])
    if is_done:
        await page.note("operator.withdraw", "an invitation")
    message = "The invitation is withdrawn." if is_done else "The invitation was not open any more."
    return page.redirect(_OPERATORS, message=message)


@pages.get(f"{_OPERATORS}/operators/remove")
async def ask_remove(page: Page) -> Response:
    """Confirm the removal of an operator."""
    mail = (await page.run(page.system.operators.find, page.query("mail"))).mail
    return page.confirm(
        f"Remove {mail}?",
        text=("They are signed out everywhere, and cannot sign in again.",),
        action=page.url(f"{_OPERATORS}/operators/remove"),
        back=page.url(_OPERATORS),
        label="Remove the operator",
        hidden={"mail": mail},
    )


@pages.post(f"{_OPERATORS}/operators/remove")
async def remove(page: Page) -> Response:
    """Remove another operator."""
    operator = await page.run(page.system.operators.find, page.form.text("mail"))
    if operator.id == page.operator.id:
        return page.redirect(
            _OPERATORS,
            message="You cannot remove yourself; let another operator do it.",
            kind="bad",
        )
    await page.run(page.system.operators.remove, operator.mail)
    await page.note("operator.remove", operator.mail)
    return page.redirect(_OPERATORS, message=f"{operator.mail} is removed.")


@pages.get(_ACCOUNT_PATH)
async def account(page: Page) -> Response:
    """Show the operator's own account."""
    return await _show_account(page)


@pages.post(f"{_ACCOUNT_PATH}/password")
async def change_password(page: Page) -> Response:
    """Change the password; every other sign-in ends."""
    operator, faults = page.operator, Faults()
    await page.console.context.require(_CHANGE, operator.mail, PER_PAIR)
    store, password = page.system.operators, page.form.raw("password")
    if await page.run_slowly(store.check, operator.mail, page.form.raw("current")) is None:
        faults.add("current", "This is not your password.")
    elif password != page.form.raw("again"):
        faults.add("again", "The two passwords differ.", "Type the same one twice.")
    else:
        try:
            await page.run_slowly(store.set_password, operator, password)
        except OperatorError as error:
            faults = Faults.of(error, "password")
    if faults:
        return await _show_account(page, faults)
    await page.run(page.console.context.limiter.forget, _CHANGE, operator.mail)
    await page.note("operator.set", operator.mail, "password")
    hours = page.console.context.settings.sign_in_hours
    page.secret = await page.run(store.sign_in, operator, hours=hours)
    response = page.redirect(
        _ACCOUNT_PATH, message="Your password is changed. Everywhere else you are signed out."
    )
    set_sign_in(response, page.secret, hours=hours, https=page.https)
    return response


@pages.post(f"{_ACCOUNT_PATH}/sign-out-everywhere")
async def sign_out_everywhere(page: Page) -> Response:
    """End every sign-in of this operator but this one."""
    ended = await page.run(
        page.system.operators.sign_out_everywhere, page.operator, but=page.secret
    )
    await page.note("operator.sign-out", page.operator.mail, "everywhere else")
    message = f"{count(ended, 'sign-in')} ended." if ended else "You are signed in nowhere else."
    return page.redirect(_ACCOUNT_PATH, message=message)


def _link(page: Page, secret: str) -> str:
    return f"{page.console.context.public_url}{HOME}/invitation/{quote(secret)}"


async def _show(
    page: Page, faults: Faults | None = None, *, link: str = "", invited: str = ""
) -> Response:
    store = page.system.operators
    return page.render(
        "operators.html",
        status=422 if faults else 200,
        faults=faults,
        tabs=TABS,
        operators=await page.run(store.list),
        signed_in=await page.run(store.count_sign_ins),
        invitations=await page.run(store.invitations),
        link=link,
        invited=invited,
        hours=INVITATION_HOURS,
        mail=page.form.text("mail") if faults else "",
    )


async def _show_account(page: Page, faults: Faults | None = None) -> Response:
    signed_in = await page.run(page.system.operators.count_sign_ins)
    return page.render(
        "account.html",
        status=422 if faults else 200,
        faults=faults,
        tabs=TABS,
        others=signed_in.get(page.operator.id, 1) - 1,
    )
