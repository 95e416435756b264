"""A worker's state of one app: its rules, and its pushes in flight."""

import math
from dataclasses import dataclass, field
from typing import Final

from handbell.apps.app import App
from handbell.apps.credential_choice import by_preference
from handbell.delivery.policy.app_rules import AppRules
from handbell.services.table import SERVICES

from .cap_in_flight import CapInFlight
from .load import Load
from .routes import SOON_SECONDS, Route

FIRST_BATCH: Final = 50
"""The number of pushes sent before the first answers, so that a wrong key stops early."""


@dataclass(slots=True)
class AppState:
    """What a worker knows of one app while it sends for it; ``load`` counts its pushes in flight.

    ``cap_in_flight`` counts under the app's cap and is not recorded yet; both follow
    from the tickets (:mod:`~handbell.delivery.work.in_flight`). ``routes`` are those its
    pushes took.
    ``proven`` are the push services that accepted something since a circuit of theirs opened last.
    ``read_at``, when the rules were read, is by a monotonic clock.
    """

    app: App
    rules: AppRules = field(default_factory=AppRules)
    read_at: float = -math.inf
    load: Load = field(default_factory=Load)
    routes: list[Route] = field(default_factory=list)
    proven: set[str] = field(default_factory=set)
    cap_in_flight: CapInFlight = field(default_factory=CapInFlight)
    reserved: int = 0

    @property
    def is_stopped(self) -> bool:
        """Whether a circuit is open on one of its routes."""
        return any(route.stop is not None for route in self.routes)

    @property
    def awaits_proof(self) -> bool:
        """Whether the first answers are pending: a wrong key should cause few refusals."""
        return self.load.handed > 0 and not (self.proven or self.is_stopped)

    def is_proven(self, gateway: str) -> bool:
        """Return whether a gateway may get more than a first batch: its service accepts pushes."""
        return gateway in self.proven or gateway not in SERVICES

    def awaits_proof_of(self, gateway: str) -> bool:
        """Return whether the first answers of a push service are pending."""
        if not self.load.handed or self.is_proven(gateway):
            return False
        mine = (one for one in self.routes if one.configuration.place.service == gateway)
        return not any(one.stop for one in mine)

    def look_again_at(self, route: Route, now: float) -> float:
        """Return when a push that was refused on a route is tried again (UNIX seconds).

        That is soon where another of the app's credentials may take its place.
        """
        return now + SOON_SECONDS if self.has_other(route) else route.resume_at(now)

    def has_other(self, route: Route) -> bool:
        """Return whether another of the app's credentials replaces a refused one."""
        if route.is_last or not route.is_refused:
            return False
        here = route.configuration.place
        alike = (one.configuration.place for one in self.routes if one.is_refused)
        refused = {
            one.credential for one in alike if one._replace(credential=here.credential) == here
        }
        mine = [key for key in self.rules.keys if key.service == here.service]
        serving = {
            key.fingerprint
            for key in by_preference(here.environment, mine, lambda key: key.environment)
        }
        return here.credential in serving and bool(serving - refused)

    def take_rules(self, rules: AppRules, instant: float) -> None:
        """Take over the stored rules as read at an instant of the monotonic clock."""
        self.rules, self.read_at = rules, instant
