"""Applies caps to a batch, over all workers of a database."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from handbell.delivery.policy.cap import Cap
from handbell.delivery.queue.cap_claims import CapClaims, CapQuestion
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.cap_in_flight import CapInFlight


class Call(Protocol):
    """Calls a store function in a thread, retrying while the database is unavailable."""

    def __call__(self, what: Callable[..., Any], /, *arguments: Any) -> Awaitable[Any]:
        """Return the function's result."""


class CapGate:
    """Admits notifications under the apps' caps; belongs to one worker and its event loop.

    A cap is exact also for what is on its way: what this worker has is known here, and what others
    have they claim in the database. A worker that was alone claims from the first batch on that
    follows another one's start; until then its pushes that are on their way count there once they
    are written. ``worker`` gives the worker's id.
    """

    def __init__(self, claims: CapClaims, *, call: Call, worker: Callable[[], int]) -> None:
        self._claims = claims
        self._call = call
        self._worker = worker

    async def allowed(
        self,
        app_state: AppState,
        cap: Cap,
        notification: int,
        users: Collection[int],
        now: float,
    ) -> Collection[int]:
        """Return which users may get a notification; hold the turn of the app's cap meanwhile."""
        in_flight = app_state.cap_in_flight
        here = {user: in_flight.rows_of(user) for user in users}
        choose = partial(_choose, cap, notification, here)
        asked = CapQuestion(app_state.app.row or 0, frozenset(users), notification, cap.since(now))
        worker = self._worker()
        if not await self._call(self._claims.has_others, worker):
            return choose(await self._call(self._claims.sent_to, asked))
        await self._release(worker, in_flight)
        pairs = in_flight.unclaimed()
        allowed: Collection[int] = await self._call(
            self._claims.claim, worker, asked, choose, pairs
        )
        in_flight.note_claimed([*pairs, *((user, notification) for user in allowed)])
        in_flight.free_unused(pairs)
        return allowed

    async def release(self, app_states: Iterable[AppState]) -> None:
        """Remove the claims of deliveries that are written."""
        for app_state in app_states:
            in_flight = app_state.cap_in_flight
            if in_flight.has_freed:
                async with in_flight.turn:
                    await self._release(self._worker(), in_flight)

    async def _release(self, worker: int, in_flight: CapInFlight) -> None:
        if freed := in_flight.take_freed():
            await self._call(self._claims.release, worker, freed)


def _choose(
    cap: Cap,
    notification: int,
    here: Mapping[int, Collection[int]],
    sent: Mapping[int, Collection[int]],
) -> set[int]:
    return {
        user
        for user, rows in here.items()
        if cap.allows(len({*sent.get(user, ()), *rows} - {notification}))
    }
