"""The guard of every route: authentication, authorization and limits."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Annotated, Final, cast

from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as Connection

from handbell.access.api_keys import ApiKey, Scope
from handbell.apps.app import App
from handbell.errors import (
    AmbiguousAppError,
    AppForbiddenError,
    ForbiddenError,
    MediaTypeError,
    ServeError,
    UnauthorizedError,
    UnknownAppError,
)
from handbell.fixes import Action, Fix
from handbell.http_server.networks import network_of
from handbell.http_server.request_cycle import STREAM

from .context import Context
from .hosts import Hosts
from .limits import Limit
from .requests import BYTES_TYPE, STREAM_TYPES, header, headers_by_name, media_type
from .routes import DEVICE, OPERATOR, PUBLIC, ROUTES, SESSION, SIGN_IN, RouteRequirement

__all__ = [
    "DEVICE",
    "OPERATOR",
    "PUBLIC",
    "ROUTES",
    "SESSION",
    "SIGN_IN",
    "AppDep",
    "Caller",
    "CallerDep",
    "RouteRequirement",
    "Scope",
    "bearer",
    "caller_of",
    "client_network",
    "client_of",
    "guarded",
    "needs_of",
    "session_secret",
    "unrouted",
]

WRONG_KEYS: Final = Limit(number=100, seconds=60, step=10)
"""How many requests with a wrong key one address may make."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_SESSION_MARK: Final = "hbs_"
_ASK: Final = "Send the header Authorization: Bearer hbk_... with a valid API key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of a request.

    ``actor`` is for the audit trail: ``key hbk_1a2b3c4d``, or ``device``. ``scopes`` has
    everything that the caller may do, none for a device. ``app`` is the row of the only app it
    serves, or None.
    """

    actor: str
    scopes: frozenset[Scope]
    app: int | None

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has the scope."""
        return scope in self.scopes


ANYBODY: Final = Caller(actor="anybody", scopes=frozenset(), app=None)
A_DEVICE: Final = Caller(actor="device", scopes=frozenset(), app=None)


def bearer(connection: HTTPConnection) -> str | None:
    """Return the bearer token of the Authorization header, or None."""
    scheme, _, token = (header(connection.scope, b"authorization") or "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else None


def session_secret(connection: HTTPConnection) -> str | None:
    """Return the session secret ``hbs_...`` of a device, or None."""
    token = bearer(connection)
    return token if token is not None and token.startswith(_SESSION_MARK) else None


def client_of(connection: HTTPConnection) -> str:
    """Return the client's address; behind a trusted proxy the one it forwards."""
    return "unknown" if connection.client is None else connection.client.host


def client_network(connection: HTTPConnection) -> str:
    """Return the client's network, to which limits apply."""
    return network_of(client_of(connection))


def caller_of(request: Request) -> Caller:
    """Return the caller that the guard has authenticated."""
    return cast("Caller", request.state.caller)


def app_of(request: Request) -> App:
    """Return the app in the request's path, which the caller may use."""
    return cast("App", request.state.app)


async def _caller_dependency(request: Request) -> Caller:
    # Not caller_of itself: FastAPI runs synchronous dependencies in a thread.
    return caller_of(request)


async def _app_dependency(request: Request) -> App:
    return app_of(request)


RequireOperator = Callable[[Request], Awaitable[ASGIApp | None]]
"""Asks who is signed in at the console; the answer is for those who are not."""

CallerDep = Annotated[Caller, Depends(_caller_dependency)]
AppDep = Annotated[App, Depends(_app_dependency)]


def guarded(
    route: Route,
    needs: dict[str, RouteRequirement],
    context: Context,
    *,
    require_operator: RequireOperator,
) -> ASGIApp:
    """Return the route's application behind a guard; ``needs`` are its methods' requirements.

    ``require_operator`` records who is signed in, or returns the response for others.
    """
    inner = route.app
    names_app = "app" in route.param_convertors
    limit = context.settings.max_body_bytes
    hosts = Hosts(context.settings, context.public_url)

    async def guard(scope: Connection, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        need = needs["GET" if scope["method"] == "HEAD" else scope["method"]]
        headers = headers_by_name(scope)
        if not need.any_host:
            hosts.check(headers.get(b"host"))
        if need.kind == "operator":
            answer = await require_operator(request)
            if answer is not None:
                await answer(scope, receive, send)
                return
        # Read by handlers as request.state.
        found = scope.setdefault("state", {})
        found["caller"] = caller = await _caller(request, context, need)
        if names_app and (need.names_app or need.kind in ("key", "device")):
            found["app"] = await _app(scope["path_params"]["app"], caller, context)
        if _is_stream(need, media_type(headers)):
            _check_coding(headers)
            if STREAM in scope.get("extensions", ()):
                await send({"type": STREAM})
            await inner(scope, receive, send)
        else:
            await inner(scope, bounded(headers, receive, limit), send)

    return guard


def _is_stream(need: RouteRequirement, named: str) -> bool:
    if need.takes_lines_alone and named == BYTES_TYPE:
        return True
    return need.takes_streams and named in STREAM_TYPES


def bounded(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> Receive:
    """Return a receive function that limits the body to ``limit`` bytes and skips a BOM.

    Raises HTTPException 413, at once when Content-Length is too large, and MediaTypeError for a
    compressed body.
    """
    length = int(headers.get(b"content-length", 0))
    if length > limit:
        raise HTTPException(413)
    if not length and b"transfer-encoding" not in headers:
        return receive
    _check_coding(headers)
    size = 0
    kind = media_type(headers)
    is_begin = not kind or kind.endswith("json")

    async def receive_bounded() -> Message:
        nonlocal size, is_begin
        message = await receive()
        if is_begin:
            is_begin = False
            message = await _without_mark(message, receive)
        size += len(message.get("body", b""))
        if size > limit:
            raise HTTPException(413)
        return message

    return receive_bounded


async def _without_mark(message: Message, receive: Receive) -> Message:
    body = message.get("body", b"")
    while len(body) < len(_BYTE_ORDER_MARK) and message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
    return {**message, "body": body.removeprefix(_BYTE_ORDER_MARK)}


def _check_coding(headers: Mapping[bytes, bytes]) -> None:
    coding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
    if coding not in ("", "identity"):
        raise MediaTypeError(
            f"The body is encoded as {coding[:40]!r}, and is read as it is here",
            fix="Send it without Content-Encoding, uncompressed",
        )


async def _caller(request: Request, context: Context, need: RouteRequirement) -> Caller:
    if need.kind in ("public", "operator", "sign-in"):
        return ANYBODY
    if need.kind == "metrics" and _may_measure(request, context):
        return ANYBODY
    token = bearer(request)
    if need.kind == "device" and (token is None or token.startswith(_SESSION_MARK)):
        if token is None and need.scope is None:
            raise UnauthorizedError(
                "The request carries no session secret",
                fix="Send the header Authorization: Bearer hbs_... with the session's secret",
            )
        return A_DEVICE
    key = await _key(request, context, token)
    if need.scope is None:
        raise ForbiddenError(
            "Only the device itself may do this", fix="Send the session's secret, not an API key"
        )
    if need.scope not in key.effective_scopes:
        raise ForbiddenError(
            f"The API key {key.prefix} has no scope {need.scope}",
            fix=Fix(Action.MAKE_API_KEY, f"Use one with the scope {need.scope}", about=need.scope),
        )
    if need.any_app and key.app_row is not None:
        raise AppForbiddenError(
            f"The API key {key.prefix} serves {key.app} only",
            fix="Use a key that serves every app",
        )
    return Caller(actor=f"key {key.prefix}", scopes=key.effective_scopes, app=key.app_row)


async def _key(request: Request, context: Context, token: str | None) -> ApiKey:
    if token is None:
        raise UnauthorizedError("The request carries no API key", fix=_ASK)
    keys = context.system.api_keys
    key = keys.known(token) or await context.run(keys.check, token)
    if key is None:
        # Slows guessing down; a valid key from the same address is not limited.
        await context.require("unauthorized", client_network(request), WRONG_KEYS)
        raise UnauthorizedError("The API key is not known, or was revoked", fix=_ASK)
    return key


async def _app(reference: str, caller: Caller, context: Context) -> App:
    # A key of one app names that app or none: other references mean nothing here.
    app = context.known_app(reference, caller.app)
    if app is not None:
        return app
    try:
        return await context.run(context.find_app, reference, caller.app)
    except (UnknownAppError, AmbiguousAppError):
        if caller.app is not None:
            raise _foreign(reference) from None
        if not caller.scopes:
            # Do not reveal which apps exist.
            raise UnknownAppError(
                f"There is no app {reference[:100]!r} here", fix="Name the app by its id"
            ) from None
        raise


def _foreign(reference: str) -> AppForbiddenError:
    return AppForbiddenError(
        f"The API key does not serve {reference!r}", fix="Use a key of that app"
    )


def _may_measure(request: Request, context: Context) -> bool:
    settings = context.settings
    if settings.metrics_public or settings.metrics_key is None:
        return settings.metrics_public
    key = settings.metrics_key.get_secret_value()
    return compare_digest((bearer(request) or "").encode(), key.encode())


def needs_of(route: Route) -> dict[str, RouteRequirement]:
    """Return a route's requirements by method. Raises ServeError for one missing in the table."""
    methods = sorted((route.methods or {"GET"}) - {"HEAD"})
    missing = [method for method in methods if (method, route.path) not in ROUTES]
    if missing:
        raise ServeError(
            f"The route {missing[0]} {route.path} has no row in the table of needs",
            fix="Add it to handbell/server/routes.py",
        )
    return {method: ROUTES[method, route.path] for method in methods}


def unrouted(routes: Iterable[BaseRoute]) -> list[tuple[str, str]]:
    """Return the rows of the table without a route."""
    there = {
        (method, route.path)
        for route in routes
        if isinstance(route, Route)
        for method in (route.methods or {"GET"})
    }
    return sorted(set(ROUTES) - there)
