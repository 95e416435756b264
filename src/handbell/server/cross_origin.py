"""Cross-origin requests (CORS) of an app's web pages: what registers and reports, and no more.

The pages of an app are on its own origin, the server mostly on another. Answers carry
``Access-Control-Allow-Origin`` for the app's ``web_origin`` alone, and never allow cookies: who
asks is known by a proof or a session's secret.
"""

import re
from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handbell.errors import HandbellError

from .context import Context

_PATH: Final = re.compile(r"/v1/apps/([^/]+)/(?:web-push|sessions(?:/[^/]+(?:/receipts.*)?)?)")
_PREFLIGHT: Final = {
    "access-control-allow-methods": "GET, POST, PATCH, DELETE",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-max-age": "7200",
}


class CrossOrigin:
    """ASGI middleware; ``app`` gets every request but preflights."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        found = None if origin is None else _PATH.fullmatch(path)
        if origin is None or found is None:
            await self._app(scope, receive, send)
            return
        is_allowed = await self._is_allowed(found[1], origin)
        is_preflight = scope["method"] == "OPTIONS" and "access-control-request-method" in headers

        async def send_allowed(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered = MutableHeaders(scope=message)
                answered.add_vary_header("Origin")
                if is_allowed:
                    answered["access-control-allow-origin"] = origin
                    answered["access-control-expose-headers"] = "Retry-After"
                    answered["cross-origin-resource-policy"] = "cross-origin"
            await send(message)

        if is_preflight:
            answer = Response(status_code=204, headers=_PREFLIGHT if is_allowed else None)
            await answer(scope, receive, send_allowed)
        else:
            await self._app(scope, receive, send_allowed)

    async def _is_allowed(self, name: str, origin: str) -> bool:
        with suppress(HandbellError):
            app = await self._context.run(self._context.system.apps.find, name)
            return app.web_origin is not None and app.web_origin == origin
        return False
