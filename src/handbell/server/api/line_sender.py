"""Accepts the sends of a stream in groups of lines."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field

from pydantic_core import to_json

from handbell.delivery.accept.prepare import Entry
from handbell.errors import HandbellError
from handbell.server.context import Context
from handbell.server.problems import members_of

from .acceptance import Outcome, PartSender
from .entries import EntryReader
from .lines import Line
from .representation import told

Read = Entry | HandbellError


@dataclass(slots=True, kw_only=True)
class LineSender:
    """Accepts the lines of one stream and counts them.

    ``is_brief`` leaves out the answers to lines that were accepted without a warning.
    """

    context: Context
    reader: EntryReader
    is_brief: bool = False
    accepted: int = 0
    refused: int = 0
    _parts: PartSender = field(init=False)

    def __post_init__(self) -> None:
        self._parts = PartSender(self.context)

    async def step(self, lines: Sequence[Line]) -> Awaitable[bytes]:
        """Read lines, and return what stores their sends and gives the answers."""
        entries = await self.context.run(self._read_all, lines)
        return asyncio.create_task(self._store(lines, entries))

    def closing(self) -> bytes:
        """Return the last line: how many were accepted and refused, so that none is missed."""
        return to_json({"accepted": self.accepted, "refused": self.refused}) + b"\n"

    def _read_all(self, lines: Sequence[Line]) -> list[Read]:
        with self.context.system.templates.held():
            return [self._read(line) for line in lines]

    def _read(self, line: Line) -> Read:
        try:
            return self.reader.read_line(line)
        except HandbellError as error:
            return error

    async def _store(self, lines: Sequence[Line], entries: Sequence[Read]) -> bytes:
        outcomes = await self._parts.accept(entries)
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
