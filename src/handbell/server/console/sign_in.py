"""Sign-in and sign-out, and the page of an invitation."""

import math
from typing import Final
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from handbell._mail import fold_mail
from handbell._text import count
from handbell.access.operators import LONGEST_MAIL, Operator
from handbell.errors import InvitationError, OperatorError
from handbell.server.access import client_network, client_of

from .forms import Faults
from .layout import Page, PageRoutes
from .security import (
    HOME,
    forget_sign_in,
    form_token,
    known_cookie,
    protect,
    safe_next,
    set_known,
    set_sign_in,
)
from .sign_in_limits import PASS_DAYS, PER_NETWORK

_INVITATION: Final = "invitation"
_MINUTE: Final = 60

pages = PageRoutes()


@pages.get("/console/sign-in")
async def sign_in(page: Page) -> Response:
    """Show the form, or redirect a signed-in operator; a script gets the operator."""
    if page.is_fragment:
        return _who(page)
    if page.sign_in is not None:
        return page.redirect(safe_next(page.query("next")))
    is_first = not await page.run(page.system.operators.list)
    return page.render(
        "sign_in.html",
        mail="",
        next=safe_next(page.query("next")),
        message="You are signed out." if page.query("said") == "out" else "",
        is_first=is_first,
    )


@pages.post("/console/sign-in")
async def check(page: Page) -> Response:
    """Sign in, within the limits of :mod:`~handbell.server.console.sign_in_limits`."""
    mail = page.form.text("mail")
    pace = page.console.sign_in_limits
    network = client_network(page.request)
    browser_pass = page.request.cookies.get(known_cookie(https=page.https), "")
    # Normalised as for the look-up, so that another spelling counts as the same attempt.
    account = fold_mail(mail[:LONGEST_MAIL])
    attempt = await page.run(pace.begin, account, network, browser_pass)
    if attempt.wait:
        return _too_many(page, mail, attempt.wait)
    operators = page.system.operators
    operator = await page.run_slowly(operators.check, mail, page.form.raw("password"))
    if operator is None:
        # Not a valid address: it may be a password in the wrong field, so it is not recorded.
        named = mail[:LONGEST_MAIL] if "@" in mail else "(no mail address)"
        await page.run(
            page.system.audit.note,
            "console",
            "operator.sign-in-refused",
            named,
            detail=client_of(page.request),
        )
        faults = Faults()
        faults.add("", "The mail address or the password is wrong.")
        return _form_again(page, mail, faults, 422)
    browser_pass = await page.run(pace.succeed, attempt)
    response = await _begin(page, operator, safe_next(page.form.text("next")))
    set_known(response, browser_pass, days=PASS_DAYS, https=page.https)
    return response


@pages.post("/console/sign-out")
async def sign_out(page: Page) -> Response:
    """End this sign-in."""
    await page.run(page.system.operators.sign_out, page.secret)
    response = page.redirect(f"{HOME}/sign-in?said=out")
    forget_sign_in(response, https=page.https)
    return response


@pages.get("/console/invitation/{secret}")
async def invitation(page: Page) -> Response:
    """Show the invitation's form, if its link is still valid."""
    return await _show_invitation(page, page.request.path_params["secret"])


@pages.post("/console/invitation/{secret}")
async def accept(page: Page) -> Response:
    """Create the invited operator, and sign them in."""
    secret = page.request.path_params["secret"]
    await page.console.context.require(_INVITATION, client_network(page.request), PER_NETWORK)
    password = page.form.raw("password")
    mail = page.form.text("mail")
    if password != page.form.raw("again"):
        faults = Faults()
        faults.add("again", "The two passwords differ.", "Type the same one twice.")
        return await _show_invitation(page, secret, mail, faults)
    operators = page.system.operators
    try:
        invited = await page.run(operators.invitation, secret)
        operator = await page.run_slowly(operators.accept, secret, mail, password)
    except InvitationError as error:
        return page.problem(error.status, error.what, error.fix)
    except OperatorError as error:
        field = "mail" if "password" not in error.what else "password"
        return await _show_invitation(page, secret, mail, Faults.of(error, field))
    action = "operator.set" if invited.is_reset else "operator.add"
    await page.run(page.system.audit.note, operator.mail, action, operator.mail, detail="by a link")
    return await _begin(page, operator, HOME)


def _who(page: Page) -> Response:
    """Return the operator, for the page that keeps drafts across sign-ins."""
    mail = None if page.sign_in is None else page.operator.mail
    return protect(JSONResponse({"operator": mail, "token": page.form_token}))


async def _begin(page: Page, operator: Operator, target: str) -> Response:
    """Return the redirect with a new sign-in; a former one ends."""
    operators = page.system.operators
    hours = page.console.context.settings.sign_in_hours
    if page.secret:
        await page.run(operators.sign_out, page.secret)
    secret = await page.run(operators.sign_in, operator, hours=hours)
    await page.run(
        page.system.audit.note,
        operator.mail,
        "operator.sign-in",
        operator.mail,
        detail=client_of(page.request),
    )
    response = page.redirect(target)
    if page.is_fragment:
        response = protect(JSONResponse({"operator": operator.mail, "token": form_token(secret)}))
    set_sign_in(response, secret, hours=hours, https=page.https)
    return response


async def _show_invitation(
    page: Page, secret: str, mail: str = "", faults: Faults | None = None
) -> Response:
    invited = await page.run(page.system.operators.invitation, secret)
    return page.render(
        "invitation.html",
        status=422 if faults else 200,
        faults=faults,
        action=page.url(f"{HOME}/invitation/{quote(secret)}"),
        invited=invited,
        mail=mail,
    )


def _too_many(page: Page, mail: str, wait: float) -> Response:
    minutes = max(1, math.ceil(wait / _MINUTE))
    faults = Faults()
    faults.add(
        "", "There were too many attempts to sign in.", f"Try again in {count(minutes, 'minute')}."
    )
    response = _form_again(page, mail, faults, 429)
    response.headers["retry-after"] = str(math.ceil(wait))
    return response


def _form_again(page: Page, mail: str, faults: Faults, status: int) -> Response:
    return page.render(
        "sign_in.html",
        status=status,
        faults=faults,
        mail=mail,
        next=safe_next(page.form.text("next")),
        message="",
        is_first=False,
    )
