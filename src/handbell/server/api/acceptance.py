"""How the API accepts sends: one, a list, or a stream of lines."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from handbell.delivery.accepting import Acceptance
from handbell.delivery.engine import LISTED_AT_MOST
from handbell.delivery.gathering import MOST_AT_ONCE
from handbell.delivery.intake import Entry
from handbell.delivery.listing import DeliverySearch
from handbell.errors import HandbellError
from handbell.server.context import Context
from handbell.server.problems import members_of

from . import plain
from .entries import EntryReader
from .lines import Line

LONGEST_WAIT_SECONDS: Final = 30
"""How long a call waits for the outcome at most, whatever it prefers."""

Outcome = Acceptance | HandbellError


def read_wait(preferences: str | None) -> int | None:
    """Return for how many seconds a header ``Prefer`` asks to wait (RFC 7240); None for not."""
    for preference in (preferences or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "wait" and seconds.isascii() and seconds.isdigit():
            return min(int(seconds[:6]), LONGEST_WAIT_SECONDS) or None
    return None


def prefers_minimal(preferences: str | None) -> bool:
    """Return whether a header ``Prefer`` asks for no more than the errors of a stream."""
    named = ((preference.partition(";")[0]) for preference in (preferences or "").split(","))
    return any(one.replace(" ", "").lower() == "return=minimal" for one in named)


async def outcome_of(
    context: Context, acceptance: Acceptance, seconds: int
) -> dict[str, Any] | None:
    """Return what became of a send once all of it has ended or waits; None when it takes longer."""
    engine = context.system.engine
    try:
        async with asyncio.timeout(seconds):
            await engine.worker.settled(acceptance.row)
    except TimeoutError:
        return None
    return await context.run(_outcome, context, acceptance.id, list(acceptance.warnings))


def _outcome(context: Context, notification_id: str, warnings: list[str]) -> dict[str, Any]:
    response = context.system.engine.response(notification_id, warnings)
    page = context.system.reports.deliveries(
        notification_id, DeliverySearch(), limit=LISTED_AT_MOST
    )
    return plain.outcome(response, list(page.deliveries))


async def accept_list(
    context: Context, reader: EntryReader, values: Sequence[object]
) -> list[dict[str, Any]]:
    """Accept the sends of a list and return the answer to each, in their order."""
    entries = await context.run(
        lambda: [_read(reader, value, number) for number, value in enumerate(values, start=1)]
    )
    answers = []
    for some in _parts(entries):
        answers += [_answer(outcome) for outcome in await _accept(context, some)]
    return answers


def _parts(entries: Sequence[Entry | HandbellError]) -> list[Sequence[Entry | HandbellError]]:
    return [entries[start : start + MOST_AT_ONCE] for start in range(0, len(entries), MOST_AT_ONCE)]


def _read(reader: EntryReader, value: object, number: int) -> Entry | HandbellError:
    try:
        return reader.read(value, number)
    except HandbellError as error:
        return error


async def _accept(context: Context, entries: Sequence[Entry | HandbellError]) -> list[Outcome]:
    """Return the outcome of each entry; what could not be read has its error already."""
    good = [entry for entry in entries if isinstance(entry, Entry)]
    outcomes: Sequence[Outcome] = ()
    if good:
        try:
            outcomes = await context.system.engine.accept_gathered(good)
        except HandbellError as error:
            outcomes = [error] * len(good)
    following = iter(outcomes)
    return [next(following) if isinstance(entry, Entry) else entry for entry in entries]


def _answer(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, HandbellError):
        return {"error": members_of(outcome)}
    return {"id": outcome.id, "warnings": outcome.warnings}


@dataclass(slots=True, kw_only=True)
class LineSender:
    """Accepts the lines of one stream, and counts.

    ``is_brief`` leaves out the answers to lines that were accepted without a warning.
    """

    context: Context
    reader: EntryReader
    is_brief: bool = False
    accepted: int = 0
    refused: int = 0

    async def step(self, lines: Sequence[Line]) -> Awaitable[bytes]:
        """Read lines, and return what stores their sends and gives the answers."""
        entries = await self.context.run(self._read_all, lines)
        return asyncio.create_task(self._store(lines, entries))

    def closing(self) -> bytes:
        """Return the last line: how many were accepted and refused, so that none is missed."""
        return to_json({"accepted": self.accepted, "refused": self.refused}) + b"\n"

    def _read_all(self, lines: Sequence[Line]) -> list[Entry | HandbellError]:
        return [self._read(line) for line in lines]

    def _read(self, line: Line) -> Entry | HandbellError:
        try:
            return self.reader.read_line(line)
        except HandbellError as error:
            return error

    async def _store(
        self, lines: Sequence[Line], entries: Sequence[Entry | HandbellError]
    ) -> bytes:
        outcomes = await _accept(self.context, entries)
        failed = sum(isinstance(outcome, HandbellError) for outcome in outcomes)
        self.refused += failed
        self.accepted += len(outcomes) - failed
        return b"".join(
            self._line(line, outcome) for line, outcome in zip(lines, outcomes, strict=True)
        )

    def _line(self, line: Line, outcome: Outcome) -> bytes:
        if isinstance(outcome, HandbellError):
            return to_json({"line": line.number, "error": members_of(outcome)}) + b"\n"
        if outcome.warnings:
            answer: Mapping[str, Any] = {"line": line.number, **_answer(outcome)}
            return to_json(answer) + b"\n"
        # Nearly all of a long stream's answers, and nothing in them has to be escaped.
        if self.is_brief:
            return b""
        return b'{"line":%d,"id":"%s"}\n' % (line.number, outcome.id.encode())
