"""One worker's shares of the apps' rates, which all workers of a database take from together.

An app's rate is one bucket in the database. A worker takes tokens for what it is about to send,
and under continuous load for the next tenth of a second: so a
stream of single pushes makes ten queries a second, not one for each.
"""

import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

from handbell.delivery.policy.rate_limit import RateLimit
from handbell.storage.group_commit import GroupCommit
from handbell.storage.shared_buckets import Ask, Given

SHARE_SECONDS: Final = 0.1
"""For how long a share may be used: over a second, all workers exceed a rate by that at most."""


class Buckets(Protocol):
    """The buckets that all workers share."""

    def take(self, asks: Sequence[Ask]) -> list[Given]:
        """Return the tokens given for each request; each bucket is named once."""


class Call(Protocol):
    """Calls a store function in a thread, retrying while the database is unavailable."""

    def __call__(self, what: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return the function's result."""


class Granted(NamedTuple):
    """The number of pushes that may go now; if none, the seconds until one may, and the others.

    "The others" are as many as were wanted, or as the rate lets go at once.
    """

    number: int
    wait_seconds: float = 0.0
    wait_all_seconds: float = 0.0


class _Wanted(NamedTuple):
    app: str
    rate: RateLimit
    number: int


@dataclass(slots=True)
class _Share:
    """What is left of what was taken, until when, and how much was wanted last."""

    left: int = 0
    until: float = -math.inf
    taken_at: float = -math.inf
    last: int = 0

    def use(self, wanted: int, instant: float) -> int:
        """Return how many of so many pushes the remaining tokens allow."""
        if instant >= self.until:
            return 0
        used = min(wanted, self.left)
        self.left -= used
        return used


class RateShares:
    """Grants pushes of apps that have a rate; belongs to one worker and its event loop.

    Over a second and all workers, at most the burst and 1.1 times the rate are granted. What is
    not used within :data:`SHARE_SECONDS` is given back with the next question. ``clock`` never
    goes back.
    """

    def __init__(self, buckets: Buckets, *, call: Call, clock: Callable[[], float]) -> None:
        self._buckets = buckets
        self._call = call
        self._clock = clock
        self._shares: dict[str, _Share] = {}
        self._asking = GroupCommit(self._take, pause=0.0)

    async def grant(self, app: str, rate: RateLimit, wanted: int) -> Granted:
        """Return how many of so many pushes of an app may go now."""
        used = self._shares.setdefault(app, _Share()).use(wanted, self._clock())
        if used or not wanted:
            return Granted(used)
        (granted,) = await self._asking.bring([_Wanted(app, rate, wanted)])
        return granted

    async def _take(self, wanted: Sequence[_Wanted]) -> list[Granted]:
        """Take tokens for all concurrent callers, by one query."""
        by_app: dict[str, list[int]] = {}
        for place, one in enumerate(wanted):
            by_app.setdefault(one.app, []).append(place)
        instant = self._clock()
        asks = [
            self._ask(wanted[places[0]], sum(wanted[place].number for place in places), instant)
            for places in by_app.values()
        ]
        given = await self._call(self._buckets.take, asks)
        granted = [Granted(0)] * len(wanted)
        for (app, places), one in zip(by_app.items(), given, strict=True):
            left = one.granted
            for place in places:
                number = min(wanted[place].number, left)
                left -= number
                granted[place] = Granted(number) if number else _later(one, wanted[place])
            share = self._shares[app]
            share.left, share.until = left, instant + SHARE_SECONDS
        return granted

    def _ask(self, first: _Wanted, total: int, instant: float) -> Ask:
        share, rate = self._shares[first.app], first.rate
        is_stream = instant - share.taken_at <= SHARE_SECONDS
        more = min(share.last, int(rate.per_second * SHARE_SECONDS)) if is_stream else 0
        back, share.left = share.left, 0
        share.taken_at, share.last = instant, total + more
        return Ask(
            name=f"rate {first.app}",
            size=float(rate.burst),
            rate=rate.per_second,
            wanted=total + more,
            back=back,
        )


def _later(given: Given, wanted: _Wanted) -> Granted:
    rate = wanted.rate
    wait = given.wait_seconds or 1 / rate.per_second
    return Granted(0, wait, wait + (min(wanted.number, rate.burst) - 1) / rate.per_second)
