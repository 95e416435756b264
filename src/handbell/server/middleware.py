"""The outermost middleware: forwarded headers, security headers, and unhandled errors."""

import logging
import time
from collections.abc import Mapping
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handbell.errors import InternalError

from .context import Context
from .hosts import host_name, is_address, is_local
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

TRANSPORT_SECURITY: Final = {"Strict-Transport-Security": "max-age=31536000"}
"""What answers carry over HTTPS: browsers use nothing else with this name for a year."""

_log = logging.getLogger(__name__)
_requests = logging.getLogger("handbell.server.requests")


class SecurityMiddleware:
    """ASGI middleware around the application. It logs no addresses, since some are secrets."""

    def __init__(self, app: ASGIApp, *, context: Context) -> None:
        self._app = app
        self._requests = context.requests
        self._proxies = Proxies(context.settings.trusted_proxies)
        self._root_path = context.root_path
        self._is_public_https = context.settings.public_url.startswith("https:")
        self._headers = _raw(SECURITY_HEADERS)
        self._https_headers = _raw({**SECURITY_HEADERS, **TRANSPORT_SECURITY})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, method = time.perf_counter(), 0, scope["method"]
        own = self._headers

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                given = {name for name, _ in headers}
                headers += [pair for pair in own if pair[0] not in given]
                message["headers"] = headers
            await send(message)

        try:
            if method == "HEAD":
                # Answers as GET does; the HTTP server omits the body.
                scope["method"] = "GET"
            self._proxies.apply(scope, self._root_path)
            if self._is_for_https(scope):
                own = self._https_headers
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            pass
        except Exception:
            _log.exception("Internal server error: %s %s", scope["method"], _route(scope))
            if status:
                raise
            error = InternalError(
                "The server made a mistake", fix="Try again; its log says more to the operator"
            )
            await problem_of(error)(scope, receive, send_with_headers)
        finally:
            seconds = time.perf_counter() - begun
            self._requests.note(method, _route(scope), status, seconds)
            if _requests.isEnabledFor(logging.DEBUG):
                _requests.debug("%s %s %d %.1f ms", method, _route(scope), status, seconds * 1000)

    def _is_for_https(self, scope: Scope) -> bool:
        """Return whether the host of a request gets an HSTS header.

        Only for public names: on local ones it would break other servers of the machine.
        """
        if not self._is_public_https and scope["scheme"] != "https":
            return False
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        name = host_name(host)
        return name is not None and not (is_local(name) or is_address(name))


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("ascii"), value.encode("ascii")) for name, value in headers.items()
    ]


def _route(scope: Scope) -> str:
    """Return the path's template: of bounded cardinality, and without secrets in the path."""
    return getattr(scope.get("route"), "path", None) or "(none)"
