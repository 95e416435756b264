"""The sends of a stream, some lines at a time: read, stored, answered."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TypeVar

from pydantic_core import from_json, to_json

from handbell.creation.plain import PlainSend
from handbell.delivery.accept.prepare import Entry
from handbell.errors import HandbellError
from handbell.server.context import Context
from handbell.server.problems import members_of

from .acceptance import Outcome, accept_parts
from .entries import EntryReader, plain_send
from .lines import Line
from .plain import told

T = TypeVar("T")

Read = Entry | HandbellError
ReadPlain = PlainSend | HandbellError


@dataclass(slots=True, kw_only=True)
class LineSender:
    """Accepts the lines of one stream, and counts.

    ``is_brief`` leaves out the answers to lines that were accepted without a warning. Lines that
    are nothing but plain sends, or wrong, are stored as such while nothing could go out at once.
    """

    context: Context
    reader: EntryReader
    is_brief: bool = False
    accepted: int = 0
    refused: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def step(self, lines: Sequence[Line]) -> Awaitable[bytes]:
        """Read lines, and return what stores their sends and gives the answers."""
        if not self.context.system.engine.has_room(self.reader.app):
            plain = await self.context.run(self._read_plain, lines)
            if plain is not None:
                return asyncio.create_task(self._in_turn(self._store_plain, lines, plain))
        entries = await self.context.run(self._read_all, lines)
        return asyncio.create_task(self._in_turn(self._store, lines, entries))

    def closing(self) -> bytes:
        """Return the last line: how many were accepted and refused, so that none is missed."""
        return to_json({"accepted": self.accepted, "refused": self.refused}) + b"\n"

    async def _in_turn(
        self,
        store: Callable[[Sequence[Line], Sequence[T]], Awaitable[bytes]],
        lines: Sequence[Line],
        read: Sequence[T],
    ) -> bytes:
        # What comes first is stored first, also where it takes longer to look at.
        async with self._turn:
            return await store(lines, read)

    def _read_plain(self, lines: Sequence[Line]) -> list[ReadPlain] | None:
        """Return the plain sends and what is wrong; None where there is a send that is not plain.

        The order of what is stored is that of the lines, so it is all of them or none.
        """
        found: list[ReadPlain] = []
        for line in lines:
            read = _plain(line, self.reader.key) or self._read(line)
            if isinstance(read, Entry):
                return None
            found.append(read)
        return found

    def _read_all(self, lines: Sequence[Line]) -> list[Read]:
        return [self._read(line) for line in lines]

    def _read(self, line: Line) -> Read:
        try:
            return self.reader.read_line(line)
        except HandbellError as error:
            return error

    async def _store_plain(self, lines: Sequence[Line], read: Sequence[ReadPlain]) -> bytes:
        sends = [one for one in read if isinstance(one, PlainSend)]
        try:
            stored = await self.context.system.engine.accept_plain(self.reader.app, sends)
        except HandbellError as error:
            outcomes = [one if isinstance(one, HandbellError) else error for one in read]
            return b"".join(map(self._answer, lines, outcomes))
        if stored is None:
            return await self._store(lines, await self.context.run(self._read_all, lines))
        places = count()
        return b"".join(
            self._refused(line.number, one)
            if isinstance(one, HandbellError)
            else self._accepted(line.number, stored.ids[place := next(places)], stored.of(place))
            for line, one in zip(lines, read, strict=True)
        )

    async def _store(self, lines: Sequence[Line], entries: Sequence[Read]) -> bytes:
        outcomes = await accept_parts(self.context, entries)
        return b"".join(map(self._answer, lines, outcomes))

    def _answer(self, line: Line, outcome: Outcome) -> bytes:
        if isinstance(outcome, HandbellError):
            return self._refused(line.number, outcome)
        return self._accepted(line.number, outcome.id, outcome.warnings)

    def _refused(self, number: int, error: HandbellError) -> bytes:
        self.refused += 1
        return to_json({"line": number, "error": members_of(error)}) + b"\n"

    def _accepted(self, number: int, name: str, warnings: Sequence[str]) -> bytes:
        self.accepted += 1
        if warnings:
            return to_json({"line": number, "id": name, **told("warning", warnings)}) + b"\n"
        # Nearly all of a long stream's answers, and nothing in them has to be escaped.
        return b"" if self.is_brief else b'{"line":%d,"id":"%s"}\n' % (number, name.encode())


def _plain(line: Line, prefix: str | None) -> PlainSend | None:
    """Return the send of a line that is plain; ``prefix`` is the stream's idempotency key."""
    if line.text is None:
        return None
    key = None if prefix is None else f"{prefix}:{line.number}"
    try:
        value = from_json(line.text, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return None
    return plain_send(value, key)
