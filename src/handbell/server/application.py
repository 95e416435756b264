"""The ASGI application: every route with its guard, checked against the table."""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from handbell._version import __version__
from handbell.errors import ServeError

from . import health, problems, reference
from .access import RequireOperator, guarded, needs_of, unrouted
from .api import (
    api_keys,
    apps,
    credentials,
    many,
    notifications,
    receipts,
    sessions,
    status,
    templates,
    transfer,
    users,
    web_push,
    webhooks,
    why,
)
from .context import Context
from .cross_origin import CrossOrigin
from .fast_path import FastPath
from .links import prove, universal
from .middleware import SecurityMiddleware
from .routes import ROUTES

_MODULES: Final = (
    notifications,
    many,
    health,
    reference,
    status,
    apps,
    credentials,
    webhooks,
    api_keys,
    users,
    transfer,
    sessions,
    web_push,
    receipts,
    why,
    templates,
    prove,
    universal,
)
"""What offers a ``router``. The order matters where two paths fit one address."""


class _Application(FastAPI):
    """FastAPI with our own middleware instead of its defaults.

    Its telemetry, body limit and error page cost every request as much as routing does; the shield
    and the guards replace them.
    """

    def __init__(self, context: Context, *, takes_sends: bool, **named: Any) -> None:
        super().__init__(**named)
        self._takes_sends = takes_sends
        self.state.context = context
        self._context = context

    def build_middleware_stack(self) -> ASGIApp:
        """Return the middleware stack, the shield outermost."""
        # FastAPI's operations close their files in the innermost layer.
        routed = AsyncExitStackMiddleware(self.router)
        answered = ExceptionMiddleware(routed, handlers=self.exception_handlers)
        direct = FastPath(answered, self.router.routes) if self._takes_sends else answered
        crossed = CrossOrigin(direct, context=self._context)
        return SecurityMiddleware(crossed, context=self._context)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def create_application(context: Context) -> FastAPI:
    """Return the server as an ASGI application.

    Raises ServeError when a route is missing from the table, or a row has no route.
    """
    application = _empty(context, takes_sends=True)
    routes: list[BaseRoute] = [route for module in _MODULES for route in module.router.routes]
    require_operator: RequireOperator = _refuse_operators
    if context.has_console:
        from .console import console_routes, require_operator  # noqa: PLC0415 - not all show it

        routes += console_routes(context)
    _check_table(routes, has_console=context.has_console)
    application.router.routes.extend(_guarded(routes, context, require_operator))
    return application


def create_health_application(context: Context) -> FastAPI:
    """Return what a worker serves: whether it lives and is ready, and its metrics."""
    application = _empty(context, takes_sends=False)
    routes = list(health.router.routes)
    application.router.routes.extend(_guarded(routes, context, _refuse_operators))
    return application


def _empty(context: Context, *, takes_sends: bool) -> _Application:
    application = _Application(
        context,
        takes_sends=takes_sends,
        title="Handbell",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # Its redirect would send the key to the host that the request names.
        redirect_slashes=False,
    )
    problems.add_handlers(application)
    return application


async def _refuse_operators(_request: Request) -> ASGIApp | None:
    raise ServeError("Operators sign in where the console is")


def _check_table(routes: list[BaseRoute], *, has_console: bool) -> None:
    missing = [
        (method, path)
        for method, path in unrouted(routes)
        if has_console or ROUTES[method, path].kind not in ("operator", "sign-in")
    ]
    if missing:
        raise ServeError(
            f"The table of needs names {' '.join(missing[0])}, and there is no such route",
            fix="Remove it from handbell/server/routes.py",
        )


def _guarded(
    routes: Iterable[BaseRoute], context: Context, require_operator: RequireOperator
) -> Iterator[BaseRoute]:
    for route in routes:
        if isinstance(route, Mount):
            # Static files of the console; everything else is in the table.
            if not route.path.endswith("/static"):
                raise ServeError(f"The mount {route.path} escapes the table of needs")
            yield route
            continue
        if not isinstance(route, Route):
            raise ServeError(f"{type(route).__name__} escapes the table of needs")
        # A copy, so that another application of this process has its own guards.
        item = copy.copy(route)
        item.app = guarded(route, needs_of(route), context, require_operator=require_operator)
        yield item
