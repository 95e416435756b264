"""Writing down: what has ended goes to the ledger in batches, and is told once it stands there."""

import asyncio
import contextlib
import logging
from typing import Final

from .batch import Batch
from .events import Hooks
from .in_flight import InFlight
from .parcels import Broadcast
from .patience import Patience
from .settlement import Settlement
from .store import Ledger
from .webhooks import NAMES

FLUSH_SECONDS: Final = 0.02
"""How long an end that came back waits for others, to be written with them."""

_FLUSH_AT: Final = 2000
_BULK_FLUSH_SECONDS: Final = 0.04
"""With so many on their way nobody waits for one; a commit costs as much for 500 as for 1500."""


_log = logging.getLogger(__name__)


class Writer:
    """Writes what a settlement has gathered; belongs to one worker and its event loop."""

    def __init__(
        self,
        book: Settlement,
        ledger: Ledger,
        *,
        in_flight: InFlight,
        hooks: Hooks,
        patience: Patience,
    ) -> None:
        self._book = book
        self._ledger = ledger
        self._in_flight = in_flight
        self._hooks = hooks
        self._patience = patience
        self._written = asyncio.Event()
        self._awaited: dict[int, set[asyncio.Future[None]]] = {}

    async def gathered(self) -> None:
        """Return when something is to be written, and others had the time to come along."""
        await self._book.reported.wait()
        on_way = self._in_flight.load.all
        if self._book.unwritten < min(_FLUSH_AT, on_way):
            is_bulk = on_way >= _FLUSH_AT
            await asyncio.sleep(_BULK_FLUSH_SECONDS if is_bulk else FLUSH_SECONDS)
        self._book.reported.clear()

    async def flush(self, broadcasts: list[Broadcast]) -> None:
        """Write what was gathered until now, and how far these broadcasts came, then tell of it."""
        batch, events, ended = self._book.cut(broadcasts)
        batch.told += [event for event in events if type(event) in NAMES]
        if batch:
            await self._record(batch)
        self._in_flight.note_written(ended)
        self._written.set()
        if self._awaited:
            self._wake(batch)
        for event in events:
            self._hooks.emit(event)

    async def _record(self, batch: Batch) -> None:
        """Write a batch; where something in it cannot be written, everything else of it."""
        try:
            await self._patience.call(self._ledger.record, batch)
        except Exception:  # noqa: BLE001 - one thing must not take the others with it
            _log.exception("A batch of ends cannot be written as it is; its parts are, one by one")
        else:
            return
        for part in batch.parts():
            try:
                await self._patience.call(self._ledger.record, part)
            except Exception:  # noqa: BLE001 - the same
                _log.exception("This cannot be written, and is left out: %s", part)

    async def next_written(self, seconds: float) -> None:
        """Return when something was written, or after so many seconds."""
        self._written.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._written.wait(), seconds)

    async def next_written_of(self, row: int, seconds: float) -> None:
        """Do as :meth:`next_written` does, for what may have ended one notification."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.setdefault(row, set()).add(written)
        try:
            await asyncio.wait([written], timeout=seconds)
        finally:
            self._awaited[row].discard(written)
            if not self._awaited[row]:
                del self._awaited[row]

    def _wake(self, batch: Batch) -> None:
        rows = {row for row, *_ in batch.sent} | {one.notification_id for one in batch.endings}
        if batch.finished_shards:  # whose they are is not said
            rows.update(self._awaited)
        for row in rows:
            for written in self._awaited.get(row, ()):
                if not written.done():
                    written.set_result(None)
