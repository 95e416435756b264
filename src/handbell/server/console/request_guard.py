"""The guard of pages: authentication, form tokens, and error pages."""

import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from handbell.apps.app import App
from handbell.errors import HandbellError, RateLimitedError, StorageError, UnknownAppError
from handbell.server.context import Context, context_of
from handbell.server.routes import ROUTES, RouteRequirement

from .forms import Form
from .layout import FRAGMENT_HEADER, Console, Page, PageRoute
from .security import HOME, cookie_name, is_form_token, is_https, is_own_form, protect

if TYPE_CHECKING:
    from handbell.access.operators import SignIn

_log = logging.getLogger(__name__)
_STATE: Final = "console_sign_in"


async def require_operator(request: Request) -> Response | None:
    """Return None when an operator is signed in, else the redirect to sign-in.

    The sign-in is stored in the request's state.
    """
    context = context_of(request)
    secret = _cookie(request, context)
    try:
        sign_in = await _signed_in(context, secret)
    except StorageError as error:
        return protect(Response(f"{error}\n", error.status, media_type="text/plain"))
    if sign_in is not None:
        setattr(request.state, _STATE, sign_in)
        return None
    if FRAGMENT_HEADER in request.headers:
        return protect(Response("Sign in again.\n", 401, media_type="text/plain"))
    root = request.scope.get("root_path", "")
    target = f"{root}{HOME}/sign-in"
    if request.method in ("GET", "HEAD"):
        wanted = str(request.scope["path"]).removeprefix(root)
        if request.url.query:
            wanted += f"?{request.url.query}"
        if wanted != HOME:
            target += f"?next={quote(wanted, safe='')}"
    return protect(RedirectResponse(target, 303))


def endpoint(console: Console, listed: PageRoute) -> Callable[[Request], Awaitable[Response]]:
    """Return the ASGI handler of a route."""

    async def answer(request: Request) -> Response:
        page = Page(request=request, console=console)
        try:
            return await _answer(page, listed)
        except RateLimitedError as error:
            response = page.problem(error.status, error.what, error.fix)
            response.headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
            return response
        except HandbellError as error:
            return page.problem(error.status, error.what, error.fix)
        except HTTPException as error:
            return page.problem(error.status_code, "The form cannot be read", str(error.detail))
        except ClientDisconnect:
            # The browser has navigated away: nobody is there to read this.
            return protect(Response(status_code=400))
        except Exception:  # noqa: BLE001 - a person reads the answer, the log the traceback
            _log.exception("Console page failed: %s %s", listed.method, listed.path)
            return page.problem(
                500, "This page failed: internal server error", "The server's log has the details"
            )

    return answer


async def _answer(page: Page, listed: PageRoute) -> Response:
    if listed.is_bare:
        return await listed.handler(page)
    await _fill(page)
    if listed.method == "POST":
        refusal = await _read_form(page, ROUTES["POST", listed.path])
        if refusal is not None:
            return refusal
    if "app" in page.request.path_params:
        page.app = _named_app(page)
    return await listed.handler(page)


async def _fill(page: Page) -> None:
    context = page.console.context
    secret = _cookie(page.request, context)
    sign_in = getattr(page.request.state, _STATE, None) or await _signed_in(context, secret)
    if sign_in is not None:
        page.sign_in, page.secret = sign_in, secret
        page.apps = await page.run(page.system.apps.list)


async def _read_form(page: Page, need: RouteRequirement) -> Response | None:
    if not is_own_form(page.request, page.console.context.public_url):
        return page.problem(
            403,
            "This form was not sent from a page of this console",
            "Open the page again and repeat it there; behind a proxy, HANDBELL_PUBLIC_URL has to "
            "be the address in the browser",
        )
    page.form = await Form.read(page.request)
    if need.kind == "operator" and not is_form_token(page.form.raw("token"), page.secret):
        return page.problem(
            403,
            "This form belongs to an earlier sign-in",
            "Open the page again and repeat it there",
        )
    return None


def _named_app(page: Page) -> App:
    wanted = page.request.path_params["app"]
    found = next((app for app in page.apps if app.id == wanted), None)
    if found is None:
        raise UnknownAppError(f"There is no app {wanted!r}", fix="Choose one of the list")
    return found


def _cookie(request: Request, context: Context) -> str:
    https = is_https(request, context.public_url)
    return request.cookies.get(cookie_name(https=https), "")


async def _signed_in(context: Context, secret: str) -> "SignIn | None":
    if not secret:
        return None
    return await context.run(context.system.operators.signed_in, secret)
