"""The part of the page's API by which a real browser is one of the phones.

``page/browser.html`` subscribes the browser that shows it, where that was led to the twin's push
service; its service worker tells what was shown and opened.
"""

import json

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from .posted import read_object, read_text
from .state import TwinState
from .untrusted import as_mapping, as_text


def browser_routes(twin: TwinState) -> list[Route]:
    """Return the routes below ``/api`` that the page of a browser and its worker use."""
    api = _Browsers(twin)
    return [
        Route("/api/web-push-key", api.web_push_key),
        Route("/api/browsers", api.adopt, methods=["POST"]),
        Route("/api/browsers/shown", api.note_shown, methods=["POST"]),
        Route("/api/browsers/opened", api.note_opened, methods=["POST"]),
    ]


class _Browsers:
    def __init__(self, twin: TwinState) -> None:
        self._twin = twin

    async def web_push_key(self, request: Request) -> Response:
        key = self._twin.web_push_key(request.query_params.get("app"))
        if key is None:
            raise HTTPException(404, "The app has no web push key.")
        return JSONResponse({"public_key": key})

    async def adopt(self, request: Request) -> Response:
        posted = await read_object(request, ("name", "mail", "app", "subscription"))
        subscription = as_mapping(posted.get("subscription"))
        keys = as_mapping(subscription.get("keys"))
        found = {name: as_text(keys.get(name)) for name in ("auth", "p256dh")}
        if None in found.values():
            raise HTTPException(400, "A browser needs its subscription, with endpoint and keys.")
        phone = self._twin.adopt_browser(
            as_text(subscription.get("endpoint")) or "",
            json.dumps(found, separators=(",", ":")),
            name=read_text(posted, "name"),
            mail=read_text(posted, "mail"),
            app=read_text(posted, "app"),
        )
        return JSONResponse(phone.to_dict(), 201)

    async def note_shown(self, request: Request) -> Response:
        posted = await read_object(request, ("endpoint", "message"))
        message = json.dumps(posted.get("message")).encode()
        self._twin.note_shown(read_text(posted, "endpoint") or "", message)
        return Response(status_code=204)

    async def note_opened(self, request: Request) -> Response:
        posted = await read_object(request, ("endpoint", "card"))
        endpoint, card = read_text(posted, "endpoint"), read_text(posted, "card") or ""
        for phone in list(self._twin.phones.values()):
            if phone.token == endpoint and phone.card(card) is not None:
                self._twin.open_card(phone, card)
        return Response(status_code=204)
