"""The page server: virtual phones in the browser, over plain HTTP on loopback.

A JSON API, one stream of server-sent events, and the static page. It refuses foreign host names
(DNS rebinding) and cross-origin changes.
"""

import asyncio
import importlib.resources
import json
import re
import socket
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from handbell.errors import HandbellError
from handbell.http_server.server import HttpServer
from handbell.services.apns.reasons import REASONS

from .browser_page import browser_routes
from .fcm.codes import CODES, OAUTH_ERRORS
from .phone import Card, Phone
from .phones import DEFAULT_PROJECT
from .posted import read_flag, read_object, read_text, read_texts, read_whole
from .state import TwinState

SHOWN_REQUESTS: Final = 200
"""The number of recent requests that the page loads at first."""

_HEARTBEAT_SECONDS: Final = 15.0
_GRACE_SECONDS: Final = 1.0
_CHANGES: Final = frozenset({"POST", "PATCH", "PUT", "DELETE"})
_PHONE_FIELDS: Final = (
    "name",
    "mail",
    "app",
    "platform",
    "side",
    "is_on",
    "appearance",
    "project",
    "package",
    "channels",
)
_PROJECT: Final = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]")
_UNSHOWN: Final = ("pid", "page_token")
_ASKS_FOR_LINK: Final = (
    "An app asks for proof, so this page wants the token of its link: open the link that the twin "
    "printed, or send it as Authorization: Bearer."
)
_PAGE_HEADERS: Final = {
    "content-security-policy": "default-src 'self'; img-src * data:",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


def page_application(twin: TwinState, *, port: int) -> Starlette:
    """Return the ASGI application of the page for this twin, to be served on this port."""
    page = importlib.resources.files("handbell.twin") / "page"
    api = _Api(twin)

    async def index(_request: Request) -> Response:
        return FileResponse(str(page / "index.html"))

    return Starlette(
        routes=[
            Route("/", index),
            Mount("/static", StaticFiles(directory=str(page), check_dir=False)),
            Route("/api/state", api.state),
            Route("/api/events", api.events),
            Route("/api/phones", api.list_phones, methods=["GET"]),
            Route("/api/phones", api.make_phone, methods=["POST"]),
            Route("/api/phones/{phone}", api.change_phone, methods=["PATCH"]),
            Route("/api/phones/{phone}", api.remove_phone, methods=["DELETE"]),
            Route("/api/phones/{phone}/open", api.open_app, methods=["POST"]),
            Route(
                "/api/phones/{phone}/channels/{channel:path}", api.set_channel, methods=["PATCH"]
            ),
            Route("/api/phones/{phone}/cards/{card:path}/open", api.open_card, methods=["POST"]),
            Route("/api/phones/{phone}/cards/{card:path}", api.dismiss_card, methods=["DELETE"]),
            *browser_routes(twin),
            Route("/api/faults", api.make_fault, methods=["POST"]),
            Route("/api/faults", api.clear_faults, methods=["DELETE"]),
            Route("/api/faults/{fault}", api.remove_fault, methods=["DELETE"]),
            Route("/api/keys", api.add_key, methods=["POST"]),
            Route("/api/service-accounts", api.make_service_account, methods=["POST"]),
        ],
        middleware=[Middleware(_Guard, twin=twin, port=port)],
        exception_handlers={HTTPException: _refuse, HandbellError: _refuse},
    )


class PageServer:
    """Serves the page on a bound socket, inside the running loop."""

    def __init__(self, twin: TwinState, bound: socket.socket) -> None:
        self._application = page_application(twin, port=bound.getsockname()[1])
        self._bound = bound
        self._server: HttpServer | None = None

    async def start(self) -> None:
        """Start serving; return when the page answers."""
        self._server = HttpServer(self._application)
        self._server.start(self._bound)

    async def stop(self) -> None:
        """Close the port and end every stream of events."""
        if self._server is not None:
            await self._server.stop(_GRACE_SECONDS)


class _Guard:
    """Admits only this host's own pages, and adds security headers to every answer.

    When the twin requires a token, it admits only browsers that opened its link, since other users
    of this machine reach the port too.
    """

    def __init__(self, app: ASGIApp, *, twin: TwinState, port: int) -> None:
        self._app = app
        self._twin = twin
        # Cookies belong to a host whatever the port, and several twins may run.
        self._cookie = f"handbell_twin_{port}"
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_PAGE_HEADERS)
            await send(message)

        await (refused or self._app)(scope, receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if headers.get("host", "").lower() not in self._hosts:
            return _error(403, "This page answers only under its own loopback address.")
        origin = headers.get("origin")
        is_foreign = origin is not None and urlsplit(origin).netloc.lower() not in self._hosts
        if scope["method"] in _CHANGES and is_foreign:
            return _error(403, "Another site's page may not change anything here.")
        return self._asked(scope)

    def _asked(self, scope: Scope) -> Response | None:
        request = Request(scope)
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        if first.startswith("~"):
            token = first[1:]
            # A client that follows the link with a path, such as a script, needs no cookie.
            scope["path"] = slash + rest or "/"
        else:
            scheme, _, brought = request.headers.get("authorization", "").partition(" ")
            bearer = brought.strip() if scheme.lower() == "bearer" else ""
            token = bearer or request.cookies.get(self._cookie, "")
        if not self._twin.allows_token(token):
            return _error(403, _ASKS_FOR_LINK)
        if not first.startswith("~") or scope["path"] != "/" or scope["method"] != "GET":
            return None
        # Removed from the address bar, so that it is not shared with the URL.
        answer = RedirectResponse("/", 303)
        answer.set_cookie(self._cookie, token, httponly=True, samesite="strict")
        return answer


class _Api:
    """The handlers: each parses the request, calls the twin, and returns the changed state."""

    def __init__(self, twin: TwinState) -> None:
        self._twin = twin

    async def state(self, _request: Request) -> Response:
        return _answer(state(self._twin))

    async def events(self, _request: Request) -> Response:
        return StreamingResponse(_events(self._twin), media_type="text/event-stream")

    async def list_phones(self, _request: Request) -> Response:
        return _answer([phone.to_dict() for phone in self._twin.phones.values()])

    async def make_phone(self, request: Request) -> Response:
        posted = await read_object(request, _PHONE_FIELDS)
        phone = self._twin.add_phone(
            read_text(posted, "name"),
            mail=read_text(posted, "mail"),
            app=read_text(posted, "app"),
            platform=read_text(posted, "platform") or "ios",
            side=read_text(posted, "side") or "production",
            is_on=read_flag(posted, "is_on", default=True),
            project=read_text(posted, "project"),
            package=read_text(posted, "package"),
            channels=read_texts(posted, "channels"),
        )
        return _answer(phone.to_dict(), 201)

    async def change_phone(self, request: Request) -> Response:
        phone = self._phone(request)
        posted = await read_object(request, ("is_on", "badge"))
        if "badge" in posted:
            phone = self._twin.set_badge(phone, read_whole(posted, "badge"))
        if "is_on" in posted:
            phone = self._twin.switch(phone, is_on=read_flag(posted, "is_on", default=True))
        return _answer(phone.to_dict())

    async def remove_phone(self, request: Request) -> Response:
        self._twin.remove_phone(self._phone(request))
        return Response(status_code=204)

    async def open_app(self, request: Request) -> Response:
        return _answer(self._twin.open_app(self._phone(request)).to_dict())

    async def set_channel(self, request: Request) -> Response:
        phone = self._phone(request)
        channel = request.path_params["channel"]
        if channel not in {one.id for one in phone.channels}:
            raise HTTPException(404, "The app has no such channel.")
        posted = await read_object(request, ("is_on",))
        changed = self._twin.set_channel(phone, channel, read_flag(posted, "is_on", default=True))
        return _answer(changed.to_dict())

    async def open_card(self, request: Request) -> Response:
        phone, card = self._card(request)
        return _answer(self._twin.open_card(phone, card.id).to_dict())

    async def dismiss_card(self, request: Request) -> Response:
        phone, card = self._card(request)
        return _answer(self._twin.dismiss_card(phone, card.id).to_dict())

    async def make_fault(self, request: Request) -> Response:
        return _answer(self._twin.faults.ask(await read_object(request)).to_dict(), 201)

    async def remove_fault(self, request: Request) -> Response:
        if not self._twin.faults.remove(request.path_params["fault"]):
            raise HTTPException(404, "There is no such fault; it may have been used up.")
        return Response(status_code=204)

    async def clear_faults(self, _request: Request) -> Response:
        self._twin.faults.clear()
        return Response(status_code=204)

    async def add_key(self, request: Request) -> Response:
        posted = await read_object(request, ("team_id", "key_id", "key"))
        team_id, key_id, key = (read_text(posted, field) for field in ("team_id", "key_id", "key"))
        if not (team_id and key_id and key):
            raise HTTPException(400, "A key needs team_id, key_id and key (PEM).")
        self._twin.add_key(team_id, key_id, key)
        return _answer({"team_id": team_id, "key_id": key_id}, 201)

    async def make_service_account(self, request: Request) -> Response:
        posted = await read_object(request, ("project", "is_direct"))
        project = read_text(posted, "project") or DEFAULT_PROJECT
        if not _PROJECT.fullmatch(project):
            raise HTTPException(
                400,
                f"{project!r} is no id of a Google project: 6 to 30 lower-case letters, digits and "
                "hyphens, a letter first.",
            )
        is_direct = read_flag(posted, "is_direct", default=False)
        file = self._twin.make_service_account(project, is_direct=is_direct)
        return _answer(json.loads(file), 201)

    def _phone(self, request: Request) -> Phone:
        phone = self._twin.phones.get(request.path_params["phone"])
        if phone is None:
            raise HTTPException(404, "There is no such phone; it may have been removed.")
        return phone

    def _card(self, request: Request) -> tuple[Phone, Card]:
        phone = self._phone(request)
        card = phone.card(request.path_params["card"])
        if card is None:
            raise HTTPException(404, "The phone shows no such card; it may have been replaced.")
        return phone, card


def state(twin: TwinState) -> dict[str, Any]:
    """Return the page's whole state: addresses, apps, phones, requests newest first, faults."""
    address = twin.address.to_dict()
    return {
        "links": dict(twin.links),
        "address": {name: value for name, value in address.items() if name not in _UNSHOWN},
        "apps": [{"id": app, "name": name} for app, name in twin.apps.items()],
        "phones": [phone.to_dict() for phone in twin.phones.values()],
        "requests": [request.to_dict() for request in twin.requests[:SHOWN_REQUESTS]],
        "faults": [fault.to_dict() for fault in twin.faults],
        "keys": [{"team_id": team_id, "key_id": key_id} for team_id, key_id in twin.keys],
        "service_accounts": [
            {"client_email": account.client_email, "project": account.project}
            for account in twin.service_accounts
        ],
        "reasons": _reasons(),
    }


def _reasons() -> list[dict[str, Any]]:
    """Return what each service answers with, for the faults: Apple's table, FCM's and OAuth's."""
    apple = [
        {"service": "apns", "name": one.name, "status": one.status, "meaning": one.meaning}
        for one in REASONS.values()
    ]
    google = [
        {"service": "fcm", "name": one.name, "status": one.status, "meaning": one.message}
        for one in CODES.values()
    ]
    oauth = [
        {"service": "oauth", "name": name, "status": status, "meaning": "no access token"}
        for name, status in OAUTH_ERRORS.items()
    ]
    return [*apple, *google, *oauth]


async def _events(twin: TwinState) -> AsyncIterator[str]:
    with twin.listen() as listener:
        yield "retry: 1000\n\n"
        while not listener.is_closed:
            try:
                event = await asyncio.wait_for(listener.next(), _HEARTBEAT_SECONDS)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            if event is not None:
                name, value = event
                yield f"event: {name}\ndata: {json.dumps(value.to_dict())}\n\n"


class _Json(JSONResponse):
    """JSON in ASCII: a payload may contain a lone surrogate, which UTF-8 cannot encode."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def _answer(content: Any, status: int = 200) -> Response:
    return _Json(content, status)


def _error(status: int, sentence: str) -> Response:
    return _Json({"error": sentence}, status)


async def _refuse(_request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return _error(error.status_code, error.detail)
    return _error(400, str(error))
