"""The outermost layer: what proxies say, security headers, and the last word on a mistake."""

import logging
import time
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handbell.errors import InternalError

from .context import Context
from .problems import problem_of
from .proxies import Proxies

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""What every answer carries, unless its handler has set the header to something else."""

_TRANSPORT_SECURITY: Final = "max-age=31536000"
_INTERNAL: Final = 500

_log = logging.getLogger(__name__)
_requests = logging.getLogger("handbell.server.requests")


class Shield:
    """ASGI middleware around the whole application. It logs no address, since some are secrets."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._requests = context.requests
        self._proxies = Proxies(context.settings.trusted_proxies)
        self._root_path = context.root_path
        headers = dict(SECURITY_HEADERS)
        if context.settings.public_url.startswith("https:"):
            headers["Strict-Transport-Security"] = _TRANSPORT_SECURITY
        self._headers = [
            (name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                given = {name for name, _ in headers}
                headers += [pair for pair in self._headers if pair[0] not in given]
                message["headers"] = headers
            await send(message)

        try:
            self._proxies.apply(scope, self._root_path)
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception:
            _log.exception("The server made a mistake in %s %s", scope["method"], _route(scope))
            if status:
                raise
            error = InternalError(
                "The server made a mistake", fix="Try again; its log says more to the operator"
            )
            await problem_of(error)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - begun
            self._requests.note(scope["method"], _route(scope), status, seconds)
            if _requests.isEnabledFor(logging.DEBUG):
                _requests.debug(
                    "%s %s %d %.1f ms", scope["method"], _route(scope), status, seconds * 1000
                )


def _route(scope: Scope) -> str:
    """Return the path's template: of bounded number, and without what a path may hide."""
    return getattr(scope.get("route"), "path", None) or "(none)"
