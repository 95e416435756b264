"""How the API accepts sends: one, a list, or a stream of lines."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from handbell._chunks import chunks
from handbell.delivery.accept.prepare import Entry
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import LISTED_AT_MOST
from handbell.delivery.ledger.listing import DeliverySearch
from handbell.errors import HandbellError, StoppedError
from handbell.server.context import Context
from handbell.server.problems import members_of
from handbell.storage.group_commit import MOST_AT_ONCE

from . import representation
from .entries import EntryReader

LONGEST_WAIT_SECONDS: Final = 30
"""How long a call waits for the outcome at most, whatever it prefers."""

_PARTS_AT_ONCE: Final = 2

Outcome = Acceptance | HandbellError


def read_wait(preferences: str | None) -> int | None:
    """Return the seconds a ``Prefer: wait`` header asks for (RFC 7240), or None."""
    for preference in (preferences or "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        seconds = value.strip().strip('"')
        if name.strip().lower() == "wait" and seconds.isascii() and seconds.isdigit():
            return min(int(seconds[:6]), LONGEST_WAIT_SECONDS) or None
    return None


def prefers_minimal(preferences: str | None) -> bool:
    """Return whether ``Prefer: return=minimal`` asks for errors only."""
    named = ((preference.partition(";")[0]) for preference in (preferences or "").split(","))
    return any(one.replace(" ", "").lower() == "return=minimal" for one in named)


async def outcome_of(
    context: Context, acceptance: Acceptance, seconds: int
) -> dict[str, Any] | None:
    """Wait for the outcome of a send: until every delivery has ended or is held.

    Returns None after the time-out, or when this server stops.
    """
    engine = context.system.engine
    try:
        async with asyncio.timeout(seconds):
            await engine.worker.settled(acceptance.row)
    except (TimeoutError, StoppedError):
        return None
    return await context.run(_outcome, context, acceptance.id, list(acceptance.warnings))


def _outcome(context: Context, notification_id: str, warnings: list[str]) -> dict[str, Any]:
    response = context.system.engine.response(notification_id, warnings)
    page = context.system.reports.deliveries(
        notification_id, DeliverySearch(), limit=LISTED_AT_MOST
    )
    return representation.outcome(response, list(page.deliveries))


async def accept_list(
    context: Context, reader: EntryReader, values: Sequence[object]
) -> list[dict[str, Any]]:
    """Accept a list of sends and return their answers in order."""

    def read() -> list[Entry | HandbellError]:
        with context.system.templates.held():
            return [_read(reader, value, number) for number, value in enumerate(values, start=1)]

    entries = await context.run(read)
    return [_answer(outcome) for outcome in await PartSender(context).accept(entries)]


class PartSender:
    """Has entries stored in parts, in their order; others have their turn between the parts.

    One part is checked while the one before it is being stored.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(_PARTS_AT_ONCE)

    async def accept(self, entries: Sequence[Entry | HandbellError]) -> list[Outcome]:
        """Return the outcome of each entry; what could not be read has its error already.

        What comes first is stored first, also where others call meanwhile.
        """
        async with self._turn:
            parts = [await self._begin(some) for some in chunks(entries, MOST_AT_ONCE)]
        return [outcome for outcomes in await asyncio.gather(*parts) for outcome in outcomes]

    async def _begin(self, entries: Sequence[Entry | HandbellError]) -> asyncio.Task[list[Outcome]]:
        await self._places.acquire()
        part = asyncio.create_task(_accept(self._context, entries))
        part.add_done_callback(lambda _: self._places.release())
        return part


def _read(reader: EntryReader, value: object, number: int) -> Entry | HandbellError:
    try:
        return reader.read(value, number)
    except HandbellError as error:
        return error


async def _accept(context: Context, entries: Sequence[Entry | HandbellError]) -> list[Outcome]:
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
    return {"id": outcome.id, **representation.told("warning", outcome.warnings)}
