"""The application: every route with its guard, built once and checked against the table."""

import copy
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Mount, Route

from handbell._version import __version__
from handbell.errors import ServeError

from . import problems
from .access import guarded, needs_of
from .context import Context
from .shield import Shield

_MODULES: Final = (
    # First what is called thousands of times a second: routes are tried one after the other.
    "api.notifications",
    "health",
    "reference",
    "api.apps",
    "api.credentials",
    "api.webhooks",
    "api.api_keys",
    "api.users",
    "api.transfer",
    "api.sessions",
    "api.receipts",
    "api.why",
    "api.templates",
    "links.prove",
    "links.universal",
)
"""What offers a ``router``. The order matters where two paths fit one address."""


def create_application(context: Context) -> FastAPI:
    """Return the server as an ASGI application.

    Raises ServeError when a route is missing from the table of needs.
    """
    application = FastAPI(
        title="Handbell",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    application.state.context = context
    problems.add_handlers(application)
    routes = [route for module in _modules() for route in _routes_of(module.router)]
    if context.has_console:
        routes += _console_routes(context)
    application.router.routes.extend(_guarded(routes))
    application.add_middleware(Shield, context=context)
    return application


def _modules() -> Iterator[ModuleType]:
    for name in _MODULES:
        full = f"{__package__}.{name}"
        try:
            yield import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise


def _console_routes(context: Context) -> list[BaseRoute]:
    console = import_module(f"{__package__}.console")
    return list(console.console_routes(context))


def _routes_of(router: APIRouter) -> Iterable[BaseRoute]:
    return router.routes


def _guarded(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    for route in routes:
        if isinstance(route, Mount):
            # Static files of the console; everything else stands in the table.
            if not route.path.endswith("/static"):
                raise ServeError(f"The mount {route.path} escapes the table of needs")
            yield route
            continue
        if not isinstance(route, Route):
            raise ServeError(f"{type(route).__name__} escapes the table of needs")
        # A copy, so that another application of this process guards its own.
        one = copy.copy(route)
        one.app = guarded(route, needs_of(route))
        yield one
