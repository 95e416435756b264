"""The ways out of all apps: how much of each is on its way, and by which rules."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from handbell.apps.app import App

from .circuit import Place
from .gathering import Gathering
from .in_flight import InFlight
from .lane import FIRST_BATCH, Lane
from .patience import Patience
from .routes import Routes
from .rulebook import RuleBook
from .rules import AppRules

PAGE: Final = 2000
"""How many deliveries are taken from the database at a time."""

WINDOW: Final = 9000
"""How many pushes may be on their way, or not written down yet, at once.

One app may have two thirds of what the others leave, so there is always room for the next: however
many apps get no answer, another one goes on.
"""

RULES_SECONDS: Final = 5.0
"""For how long an app's rules are not read again."""

_PAGES: Final = 3


class Lanes:
    """A lane for each app, and the window that they share; belongs to one worker.

    ``window`` is how many pushes may be in flight at once; it may be changed at any time.
    ``on_closed`` is told of a circuit that was closed by others, or by hand. ``clock`` never goes
    back.
    """

    def __init__(
        self,
        rulebook: RuleBook,
        in_flight: InFlight,
        routes: Routes,
        *,
        patience: Patience,
        on_closed: Callable[[Place], None],
        clock: Callable[[], float],
    ) -> None:
        self.window = WINDOW
        self._routes = routes
        self._on_closed = on_closed
        self._in_flight = in_flight
        self._rulebook = rulebook
        self._patience = patience
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._reading = Gathering(self._read)
        self._reserved = 0

    def of(self, app: App) -> Lane:
        """Return the lane of an app, made when first asked for, in whatever thread."""
        lane = self._lanes.setdefault(app.id, Lane(app))
        former = lane.app.row
        if None not in (former, app.row) and former != app.row:
            # The app was removed and added anew: its keys and its circuits are others.
            lane = self._lanes[app.id] = Lane(app)
        return lane

    async def read_rules(self, lane: Lane) -> None:
        """Let a lane go by its app's rules as they are now, or were some seconds ago."""
        if self._clock() - lane.read_at > RULES_SECONDS:
            before = self._routes.known(lane.routes)
            (rules,) = await self._reading.bring([lane.app.id])
            lane.take_rules(rules, self._clock())
            noted = (*rules.circuits, *rules.services)
            for place in self._routes.adopt(noted, before, lane.routes):
                self._on_closed(place)

    async def _read(self, app_ids: Sequence[str]) -> list[AppRules]:
        return await self._patience.call(self._rulebook.rules_of_many, app_ids)

    @property
    def in_flight(self) -> int:
        """How many pushes are on their way, or not written down yet."""
        return self._in_flight.load.all

    def room_of(self, app: App) -> int:
        """Return how many more pushes of an app may be on their way, or not written down yet."""
        lane = self.of(app)
        return self._share(lane) - lane.load.out

    def page_of(self, lane: Lane) -> int:
        """Return how many pushes of an app are handed out at a time; 0 while it has no room."""
        share = self._share(lane)
        size = min(PAGE, share // _PAGES)
        return size if lane.load.out + size <= share else 0

    def full(self) -> list[str]:
        """Return the apps of which no more is taken now."""
        return [lane.app.id for lane in self.all() if lane.load.out and not self.page_of(lane)]

    @contextmanager
    def reserving(self, lane: Lane, number: int) -> Iterator[None]:
        """Keep room for pushes of an app while they are read: other apps are read beside it."""
        self._reserved += number
        lane.reserved += number
        try:
            yield
        finally:
            self._reserved -= number
            lane.reserved -= number

    def all(self) -> list[Lane]:
        """Return the lanes that there are now."""
        # A copy: campaigns are loaded in threads, which make the lanes of their apps.
        return list(self._lanes.values())

    def move(self, jump: float) -> None:
        """Let probes of open circuits come when they would have: the wall's clock was set."""
        self._routes.move(jump)

    def most_due(self) -> int:
        """Return how many single deliveries, of whatever apps, are taken at a time."""
        return min(PAGE, max(FIRST_BATCH, (self.window - self.in_flight) // _PAGES))

    def _share(self, lane: Lane) -> int:
        others = self.in_flight - lane.load.out + self._reserved - lane.reserved
        left_by_others = self.window - others
        # However many apps wait for an answer, each can send its first batch.
        return max(_PAGES * FIRST_BATCH, left_by_others * 2 // 3)
