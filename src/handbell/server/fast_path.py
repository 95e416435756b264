"""A fast path for single sends: the same guard and handler, without the router.

Other requests are routed by Starlette, which tries its routes in order and wraps each in layers
that a route with thousands of requests a second does not need.
"""

from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from .problems import answer_to

METHOD: Final = "POST"
PATH: Final = "/v1/apps/{app}/notifications"


class FastPath:
    """ASGI middleware that serves one route of ``routes`` directly and passes on the rest.

    ``app`` gets all other requests.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        self._route = next(
            route
            for route in routes
            if isinstance(route, Route) and route.path == PATH and METHOD in (route.methods or ())
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = None
        if scope["type"] == "http" and scope["method"] == METHOD:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            found = self._route.path_regex.match(path)
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        scope["path_params"] = found.groupdict()
        try:
            await self._route.app(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - what is none of ours is raised again
            answer = await answer_to(Request(scope), error)
            await answer(scope, receive, send)
