"""The state of each app in a worker: in-flight limits and cached rules."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from handbell.apps.app import App
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.circuit import CircuitScope
from handbell.delivery.policy.rules_store import RulesStore
from handbell.storage.group_commit import GroupCommit
from handbell.storage.storage_retry import StorageRetry

from .app_state import FIRST_BATCH, AppState
from .in_flight import InFlight
from .rate_shares import Granted, RateShares
from .routes import Routes

PAGE: Final = 2000
"""The number of deliveries taken from the database at a time."""

WINDOW: Final = 9000
"""The maximum number of pushes in flight or unrecorded.

One app may use two thirds of what the others leave, so there is always room for the next: even
if many apps get no answers, another one continues.
"""

RULES_SECONDS: Final = 5.0
"""How long an app's rules are cached."""

_PAGES: Final = 3


class AppStates:
    """The states of all apps, and their shared window; belongs to one worker.

    ``window`` is how many pushes may be in flight at once; it may be changed at any time.
    ``rates`` are the worker's shares of the apps' rates. ``on_closed`` is told of a circuit that
    was closed by others, or by hand. ``clock`` never goes back.
    """

    def __init__(
        self,
        rules_store: RulesStore,
        in_flight: InFlight,
        routes: Routes,
        *,
        rates: RateShares,
        storage_retry: StorageRetry,
        on_closed: Callable[[CircuitScope], None],
        clock: Callable[[], float],
    ) -> None:
        self.window = WINDOW
        self._routes = routes
        self._on_closed = on_closed
        self._in_flight = in_flight
        self._rules_store = rules_store
        self._rates = rates
        self._storage_retry = storage_retry
        self._clock = clock
        self._app_states: dict[str, AppState] = {}
        self._reading = GroupCommit(self._read)
        self._reserved = 0

    def of(self, app: App) -> AppState:
        """Return the state of an app, created on first use, in any thread."""
        app_state = self._app_states.get(app.id)
        if app_state is None:
            app_state = self._app_states.setdefault(app.id, AppState(app))
        former = app_state.app.row
        if None not in (former, app.row) and former != app.row:
            # The app was removed and added again, with other keys and circuits.
            app_state = self._app_states[app.id] = AppState(app)
        return app_state

    async def read_rules(self, app_state: AppState) -> None:
        """Apply an app's current rules, cached for some seconds."""
        if self._clock() - app_state.read_at > RULES_SECONDS:
            before = self._routes.known(app_state.routes)
            (rules,) = await self._reading.bring([app_state.app.id])
            app_state.take_rules(rules, self._clock())
            noted = (*rules.circuits, *rules.services)
            for place in self._routes.adopt(noted, before, app_state.routes):
                self._on_closed(place)

    async def grant(self, app_state: AppState, wanted: int) -> Granted:
        """Return how many of so many pushes of an app its rate allows now, or when more may go."""
        rate = app_state.rules.rate
        if rate is None:
            return Granted(wanted)
        return await self._rates.grant(app_state.app.id, rate, wanted)

    def forget_rules(self) -> None:
        """Read the rules of every app again before its next send: some have changed."""
        for app_state in self.all():
            app_state.read_at = -math.inf

    async def _read(self, app_ids: Sequence[str]) -> list[AppRules]:
        return await self._storage_retry.call(self._rules_store.rules_of_many, app_ids)

    @property
    def in_flight(self) -> int:
        """The number of pushes in flight or unrecorded."""
        return self._in_flight.load.all

    def room_of(self, app: App) -> int:
        """Return how many more pushes of an app may be in flight or unrecorded."""
        app_state = self.of(app)
        return self._share(app_state) - app_state.load.out

    def page_of(self, app_state: AppState) -> int:
        """Return how many pushes of an app are handed out at a time; 0 while it has no room."""
        share = self._share(app_state)
        size = min(PAGE, share // _PAGES)
        return size if app_state.load.out + size <= share else 0

    def full(self) -> list[str]:
        """Return the apps for which no more work is taken now."""
        return [
            app_state.app.id
            for app_state in self.all()
            if app_state.load.out and not self.page_of(app_state)
        ]

    @contextmanager
    def reserving(self, app_state: AppState, number: int) -> Iterator[None]:
        """Reserve room for pushes of an app while they are read, in parallel with other apps."""
        self._reserved += number
        app_state.reserved += number
        try:
            yield
        finally:
            self._reserved -= number
            app_state.reserved -= number

    def all(self) -> list[AppState]:
        """Return the current states of apps."""
        # A copy: composed notifications are loaded in threads, which make the states of their apps.
        return list(self._app_states.values())

    def move(self, jump: float) -> None:
        """Let probes of open circuits come when they would have: the wall's clock was set."""
        self._routes.move(jump)

    def most_due(self) -> int:
        """Return how many single deliveries, of all apps, are taken at a time."""
        return min(PAGE, max(FIRST_BATCH, (self.window - self.in_flight) // _PAGES))

    def _share(self, app_state: AppState) -> int:
        others = self.in_flight - app_state.load.out + self._reserved - app_state.reserved
        left_by_others = self.window - others
        # However many apps wait for an answer, each can send its first batch.
        return max(_PAGES * FIRST_BATCH, left_by_others * 2 // 3)
