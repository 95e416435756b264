"""A streamed request of lines, answered line by line while it is being read.

What is read and not answered yet is bounded, so a client that reads no answers is not read from
either, and one that sends without a pause takes no more memory than a slow one.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from handbell.errors import MediaTypeError, UnavailableError
from handbell.server.problems import members_of
from handbell.server.requests import (
    BYTES_TYPE,
    STREAM_TYPE,
    STREAM_TYPES,
    headers_by_name,
    media_type,
)

from .lines import Line, LineSplitter

MEDIA_TYPE: Final = STREAM_TYPE
MEDIA_TYPES: Final = STREAM_TYPES

LINES: Final[dict[str, Any]] = {
    "content": {
        MEDIA_TYPE: {"schema": {"type": "string"}},
        BYTES_TYPE: {"schema": {"type": "string", "format": "binary"}},
    }
}
"""Lines as a description names them. Most generators know no lines: to them they are bytes."""
LINES_BODY: Final[dict[str, Any]] = {"requestBody": {"required": True, **LINES}}
"""A body of lines, likewise."""

LINES_AT_ONCE: Final = 1000
"""How many lines are answered together; few enough that others get their turn."""

_BYTES_AT_ONCE: Final = 262_144
_WEIGHT: Final = re.compile(r"\bq=([01](?:\.\d{1,3})?)")

LineHandler = Callable[[Sequence[Line]], Awaitable[Awaitable[bytes]]]
"""Looks at some lines and gives what returns their answers, which must not raise.

The lines that follow are looked at while these are stored.
"""


def type_of_lines(scope: Scope) -> str:
    """Return the media type with which to answer a body that has to be lines.

    Raises MediaTypeError for one that is named as something else.
    """
    named = media_type(headers_by_name(scope))
    if named == BYTES_TYPE:
        return BYTES_TYPE
    if named in STREAM_TYPES:
        return MEDIA_TYPE
    raise MediaTypeError(
        "The body is not a stream of lines", fix=f"Send it as Content-Type: {MEDIA_TYPE}"
    )


def type_wanted(scope: Scope) -> str:
    """Return the media type of lines: ``application/octet-stream`` where the client prefers it."""
    accepted = headers_by_name(scope).get(b"accept", b"").decode("latin-1").lower()
    weights = {
        name.strip(): float(weight[1]) if (weight := _WEIGHT.search(more)) else 1.0
        for name, _, more in (part.partition(";") for part in accepted.split(","))
    }
    as_lines = max(weights.get(name, 0.0) for name in (MEDIA_TYPE, "application/*", "*/*"))
    return BYTES_TYPE if weights.get(BYTES_TYPE, 0.0) > as_lines else MEDIA_TYPE


class LineStream:
    """The lines of a request as they come; the reader of one is slowed down to its consumer.

    ``is_broken`` says that the client went before the end, ``is_stopped`` that :meth:`stop` did;
    ``last_taken`` is the number of the last line that :meth:`next` returned.
    """

    def __init__(self, receive: Receive, *, limit: int) -> None:
        self._receive = receive
        self._splitter = LineSplitter(limit)
        self._lines: list[Line] = []
        self._bytes = 0
        self._is_over = False
        self.is_broken = False
        self.is_stopped = False
        self.last_taken = 0
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def read(self) -> None:
        """Read until the request's end; run it beside what calls :meth:`next`."""
        try:
            while not self._is_over:
                await self._room.wait()
                message = await self._receive()
                self._take(message)
        finally:
            self._is_over = True
            self._came.set()

    def _take(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self.is_broken = self._is_over = True
            return
        lines = self._splitter.feed(message.get("body", b""))
        if not message.get("more_body", False):
            lines += self._splitter.close()
            self._is_over = True
        if lines:
            self._lines += lines
            self._bytes += sum(len(line.text or b"") for line in lines)
            self._came.set()
        if len(self._lines) >= LINES_AT_ONCE or self._bytes >= _BYTES_AT_ONCE:
            self._room.clear()

    async def next(self) -> list[Line]:
        """Return the next lines as soon as there is one; none when the stream is over."""
        while not self._lines and not self._is_over:
            self._came.clear()
            await self._came.wait()
        lines, self._lines = self._lines[:LINES_AT_ONCE], self._lines[LINES_AT_ONCE:]
        if not self._lines:
            self._bytes = 0
            self._room.set()
        if lines:
            self.last_taken = lines[-1].number
        return lines

    def stop(self) -> None:
        """Take no more than what was read, unless that is all."""
        if not self._is_over:
            self.is_stopped = self._is_over = True
            self._came.set()


class StreamedResponse(Response):
    """Answers a stream of lines. ``step`` looks at lines, ``closing`` gives the last answer.

    Starlette's own streaming response reads the request to notice that the client is gone, and
    would take the lines away. When the client goes, what was accepted stays accepted; what was read
    and not looked at is dropped. When ``stopping`` is set, the lines that were read are answered,
    and an error names the first one that was not.
    """

    def __init__(
        self,
        step: LineHandler,
        closing: Callable[[], bytes],
        *,
        limit: int,
        stopping: asyncio.Event,
        media_type: str = MEDIA_TYPE,
    ) -> None:
        super().__init__(media_type=media_type, headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._step = step
        self._closing = closing
        self._limit = limit
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI
        """Read the request and answer it at once."""
        stream = LineStream(receive, limit=self._limit)
        # One looked at, one waiting, one being stored: so much is in hand at most.
        answers: asyncio.Queue[Awaitable[bytes] | None] = asyncio.Queue(maxsize=1)
        reading = asyncio.create_task(stream.read())
        looking = asyncio.create_task(self._look(stream, answers))
        watching = asyncio.create_task(self._watch(stream))
        try:
            first = await answers.get()
            if first is not None or not stream.is_broken:
                start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                await send(start)
            await self._answer(first, answers, send)
            await looking
            if not stream.is_broken:
                left = _left(stream.last_taken + 1) if stream.is_stopped else b""
                await send({"type": "http.response.body", "body": left + self._closing()})
        finally:
            for task in (reading, looking, watching):
                task.cancel()
            await asyncio.gather(reading, looking, watching, return_exceptions=True)

    async def _watch(self, stream: LineStream) -> None:
        await self._stopping.wait()
        stream.stop()

    async def _look(
        self, stream: LineStream, answers: "asyncio.Queue[Awaitable[bytes] | None]"
    ) -> None:
        try:
            while lines := await stream.next():
                await answers.put(await self._step(lines))
        except Exception:
            await answers.put(None)
            raise
        await answers.put(None)

    async def _answer(
        self,
        first: Awaitable[bytes] | None,
        answers: "asyncio.Queue[Awaitable[bytes] | None]",
        send: Send,
    ) -> None:
        following = first
        while following is not None:
            body = await following
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
            following = await answers.get()


def _left(number: int) -> bytes:
    error = UnavailableError(
        "The server is stopping: this line and those behind it were not read",
        fix="Send them again; with an idempotency key it may as well be the whole stream",
    )
    return to_json({"line": number, "error": members_of(error)}) + b"\n"
