"""A worker's composed notifications, loaded on demand and cached."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from handbell.apps.app import App
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.composed import Composed
from handbell.storage.group_commit import GroupCommit
from handbell.storage.storage_retry import StorageRetry

LoadComposed = Callable[
    [Sequence[int], Callable[[App], AppState]], Mapping[int, Composed | Exception]
]
"""Gives the composed notifications' rows; those that are gone are left out. In a thread."""

_KEPT: Final = 500


class ComposedCache:
    """The composed notifications by their row; belongs to one worker."""

    def __init__(
        self,
        ledger: Ledger,
        load: LoadComposed,
        *,
        app_state_of: Callable[[App], AppState],
        storage_retry: StorageRetry,
    ) -> None:
        self._ledger = ledger
        self._load = load
        self._app_state_of = app_state_of
        self._storage_retry = storage_retry
        self._kept: dict[int, Composed] = {}
        self._finding = GroupCommit(self._find)

    def keep(self, composed: Composed) -> None:
        """Cache a notification, evicting the oldest one if there are many."""
        if len(self._kept) >= _KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[composed.row] = composed

    async def find(self, row: int) -> Composed | None:
        """Return a composed notification, None if it is gone; raises the error of reading it."""
        (composed,) = await self._finding.bring([row])
        if isinstance(composed, Exception):
            raise composed
        return composed

    async def _find(self, rows: Sequence[int]) -> list[Composed | Exception | None]:
        found = await self.find_many(list(dict.fromkeys(rows)))
        return [found.get(row) for row in rows]

    async def find_many(self, rows: Sequence[int]) -> dict[int, Composed | Exception]:
        """Return the composed notifications; missing ones are left out.

        The database is queried once for cached ones and once for the others, for any number. An
        unreadable one is replaced by its error.
        """
        known = {row: self._kept[row] for row in rows if row in self._kept}
        if known:
            live = await self._storage_retry.call(self._ledger.not_cancelled, list(known))
            for row, composed in known.items():
                composed.is_cancelled = row not in live
        rest = [row for row in rows if row not in known]
        loaded = (
            await self._storage_retry.call(self._load, rest, self._app_state_of) if rest else {}
        )
        for each in loaded.values():
            if isinstance(each, Composed):
                self.keep(each)
        return {**known, **loaded}
