"""The ways out of all apps: how much of each is on its way, and by which rules."""

from collections.abc import Callable
from typing import Final

from handbell.apps.app import App

from .circuit import Place
from .in_flight import InFlight
from .lane import FIRST_BATCH, Lane
from .patience import Patience
from .routes import Routes
from .rulebook import RuleBook

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
    ``on_service_up`` is told of a service that others saw take pushes again.
    """

    def __init__(
        self,
        rulebook: RuleBook,
        in_flight: InFlight,
        routes: Routes,
        *,
        patience: Patience,
        on_service_up: Callable[[Place], None],
        now: Callable[[], float],
    ) -> None:
        self.window = WINDOW
        self._routes = routes
        self._on_service_up = on_service_up
        self._in_flight = in_flight
        self._rulebook = rulebook
        self._patience = patience
        self._now = now
        self._lanes: dict[str, Lane] = {}

    def of(self, app: App) -> Lane:
        """Return the lane of an app, made when first asked for, in whatever thread."""
        return self._lanes.setdefault(app.id, Lane(app))

    async def read_rules(self, lane: Lane) -> None:
        """Let a lane go by its app's rules as they are now, or were some seconds ago."""
        if self._now() - lane.read_at > RULES_SECONDS:
            before = self._routes.known(lane.routes)
            rules = await self._patience.call(self._rulebook.rules_of, lane.app.id)
            lane.take_rules(rules, self._now())
            noted = (*rules.circuits, *rules.services)
            for service in self._routes.adopt(noted, before, lane.routes):
                self._on_service_up(service)

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

    def all(self) -> list[Lane]:
        """Return the lanes that there are now."""
        # A copy: campaigns are loaded in threads, which make the lanes of their apps.
        return list(self._lanes.values())

    def most_due(self) -> int:
        """Return how many single deliveries, of whatever apps, are taken at a time."""
        return min(PAGE, max(FIRST_BATCH, (self.window - self.in_flight) // _PAGES))

    def _share(self, lane: Lane) -> int:
        left_by_others = self.window - (self.in_flight - lane.load.out)
        # However many apps wait for an answer, each can send its first batch.
        return max(_PAGES * FIRST_BATCH, left_by_others * 2 // 3)
