"""The campaigns that a worker sends: loaded when they are needed, and kept for a while."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from handbell.apps.app import App

from .campaign import Campaign
from .gathering import Gathering
from .lane import Lane
from .patience import Patience
from .store import Ledger

LoadCampaigns = Callable[[Sequence[int], Callable[[App], Lane]], Mapping[int, Campaign | Exception]]
"""Gives the campaigns of notifications' rows; those that are gone are left out. In a thread."""

_KEPT: Final = 500


class Campaigns:
    """The campaigns of notifications by their row; belongs to one worker."""

    def __init__(
        self,
        ledger: Ledger,
        load: LoadCampaigns,
        *,
        lane_of: Callable[[App], Lane],
        patience: Patience,
    ) -> None:
        self._ledger = ledger
        self._load = load
        self._lane_of = lane_of
        self._patience = patience
        self._kept: dict[int, Campaign] = {}
        self._finding = Gathering(self._find)

    def keep(self, campaign: Campaign) -> None:
        """Keep a campaign, in place of the one that was kept for longest where there are many."""
        if len(self._kept) >= _KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[campaign.row] = campaign

    async def find(self, row: int) -> Campaign | None:
        """Return the campaign of a notification, None when it is gone; raises why it is unread."""
        (campaign,) = await self._finding.bring([row])
        if isinstance(campaign, Exception):
            raise campaign
        return campaign

    async def _find(self, rows: Sequence[int]) -> list[Campaign | Exception | None]:
        found = await self.find_many(list(dict.fromkeys(rows)))
        return [found.get(row) for row in rows]

    async def find_many(self, rows: Sequence[int]) -> dict[int, Campaign | Exception]:
        """Return the campaigns of notifications; those that are gone are left out.

        However many there are, the database is asked once for those that are known and once for
        the others. One that cannot be read is the reason why.
        """
        known = {row: self._kept[row] for row in rows if row in self._kept}
        if known:
            live = await self._patience.call(self._ledger.not_cancelled, list(known))
            for row, campaign in known.items():
                campaign.is_cancelled = row not in live
        rest = [row for row in rows if row not in known]
        loaded = await self._patience.call(self._load, rest, self._lane_of) if rest else {}
        for each in loaded.values():
            if isinstance(each, Campaign):
                self.keep(each)
        return {**known, **loaded}
