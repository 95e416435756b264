"""autopush's WebSocket: how a stock Firefox subscribes and gets its messages.

Source: https://mozilla-push-service.readthedocs.io/en/latest/design/ ("SimplePush Protocol"), and
what Firefox was seen to send. Messages stay in the queue until the browser acknowledges them.
"""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from .encryption import encode
from .handler import EndpointHandler
from .subscriptions import PushMessage
from .vapid import read_key

SUBPROTOCOL: Final = Subprotocol("push-notification")

_OK: Final = 200
_REFUSED: Final = 400
_MAX_FRAME_BYTES: Final = 65_536


class BrowserSockets:
    """The connections of browsers to a service; at most one for each, the latest."""

    def __init__(self, service: EndpointHandler) -> None:
        self._service = service
        self._store = service.store
        self._server: Server | None = None
        self._connections: dict[str, ServerConnection] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        service.browsers = self

    @property
    def connected(self) -> int:
        """Return the number of connected browsers."""
        return len(self._connections)

    async def start(self, bound: socket.socket) -> None:
        """Accept browsers on a bound socket."""
        self._server = await serve(
            self._talk,
            sock=bound,
            subprotocols=[SUBPROTOCOL],
            # Firefox names the server itself; a page that a user visits is turned away.
            origins=[re.compile(r"wss?://.*"), None],
            max_size=_MAX_FRAME_BYTES,
            compression=None,
            server_header=None,
        )

    async def stop(self) -> None:
        """Close every connection and the port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    def send(self, browser: str, channel: str, message: PushMessage) -> bool:
        """Send a message; return whether the browser is connected."""
        connection = self._connections.get(browser)
        if connection is None:
            return False
        self._run(_say(connection, _notification(channel, message)))
        return True

    def close(self, browser: str) -> None:
        """Forget a browser and close its connection: it subscribes anew under another id."""
        self._store.forget(browser)
        connection = self._connections.pop(browser, None)
        if connection is not None:
            self._run(connection.close())

    def forget_all(self) -> None:
        """Forget every connected browser; each subscribes anew."""
        for browser in list(self._connections):
            self.close(browser)

    def _run(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # One browser

    async def _talk(self, connection: ServerConnection) -> None:
        browser: str | None = None
        try:
            async for text in connection:
                frame = _read(text)
                if frame is None:
                    break
                if frame.get("messageType") == "hello" and browser is None:
                    browser = await self._greet(connection, frame)
                elif frame and browser is None:
                    break
                elif browser is not None or not frame:
                    await self._hear(connection, browser or "", frame)
        except ConnectionClosed:
            pass
        finally:
            if browser is not None and self._connections.get(browser) is connection:
                del self._connections[browser]

    async def _greet(self, connection: ServerConnection, frame: Mapping[str, Any]) -> str:
        """Answer ``hello``: a known browser keeps its id, and gets what waits for it."""
        said = frame.get("uaid")
        known = isinstance(said, str) and self._store.knows(said)
        browser = self._store.admit(said if known else None)
        former = self._connections.pop(browser, None)
        if former is not None:
            self._run(former.close())
        self._connections[browser] = connection
        await _say(
            connection,
            {
                "messageType": "hello",
                "status": _OK,
                "uaid": browser,
                "use_webpush": True,
                "broadcasts": {},
            },
        )
        for subscription, message in self._store.waiting(browser, self._service.now()):
            await _say(connection, _notification(subscription.channel, message))
        return browser

    async def _hear(
        self, connection: ServerConnection, browser: str, frame: Mapping[str, Any]
    ) -> None:
        match frame.get("messageType"):
            case None:  # a ping
                await _say(connection, {})
            case "register":
                await _say(connection, self._register(browser, frame))
            case "unregister":
                await _say(connection, self._unregister(browser, frame))
            case "ack":
                updates = frame.get("updates")
                items = updates if isinstance(updates, list) else []
                self._store.acknowledge(
                    browser,
                    [str(item.get("version")) for item in items if isinstance(item, dict)],
                )
            case "nack":
                self._store.acknowledge(browser, [str(frame.get("version"))])

    def _register(self, browser: str, frame: Mapping[str, Any]) -> dict[str, Any]:
        channel, key = frame.get("channelID"), frame.get("key")
        answer = {"messageType": "register", "channelID": channel}
        try:
            read = read_key(key) if isinstance(key, str) and key else None
        except ValueError:
            return answer | {"status": _REFUSED}
        if not isinstance(channel, str) or not channel:
            return answer | {"status": _REFUSED}
        subscription = self._store.subscribe(self._service.origin(), browser, channel, key=read)
        return answer | {"status": _OK, "pushEndpoint": subscription.endpoint}

    def _unregister(self, browser: str, frame: Mapping[str, Any]) -> dict[str, Any]:
        channel = frame.get("channelID")
        found = self._store.of_channel(browser, str(channel))
        if found is not None:
            self._store.end(found.endpoint)
        return {"messageType": "unregister", "status": _OK, "channelID": channel}


def _notification(channel: str, message: PushMessage) -> dict[str, Any]:
    frame: dict[str, Any] = {
        "messageType": "notification",
        "channelID": channel,
        "version": message.id,
        "ttl": message.ttl,
    }
    if message.body:
        frame |= {"data": encode(message.body), "headers": {"encoding": message.encoding}}
    return frame


def _read(text: str | bytes) -> Mapping[str, Any] | None:
    try:
        frame = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return frame if isinstance(frame, dict) else None


async def _say(connection: ServerConnection, frame: Mapping[str, Any]) -> None:
    with contextlib.suppress(ConnectionClosed):
        await connection.send(json.dumps(frame))
