"""The ways that a page of a broadcast goes, and whether all of it may wait for one of them."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import Final

from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.session_pages import Listener
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.push_batch import Way, way_of
from handbell.delivery.work.routes import Route
from handbell.errors import HandbellError
from handbell.registry.session import Environment
from handbell.services.table import service_of
from handbell.storage.storage_retry import StorageRetry

from .gateway_cache import GatewayCache

_MAIN_SECONDS: Final = 30.0
_PLACE: Final = attrgetter("gateway", "environment")


class PageRoutes:
    """Finds the routes of broadcasts for one worker; belongs to its event loop.

    ``is_mixed`` tells of an app's row whether the app has sessions of several push services.
    """

    def __init__(
        self,
        gateways: GatewayCache,
        rules_store: RulesStore,
        *,
        storage_retry: StorageRetry,
        is_mixed: Callable[[int], bool],
    ) -> None:
        self._gateways = gateways
        self._rules_store = rules_store
        self._storage_retry = storage_retry
        self._is_mixed = is_mixed
        self._environments: dict[tuple[int, str, bool], tuple[Environment | None, float]] = {}

    async def main(
        self, app_row: int, composed: Composed, listeners: Sequence[Listener]
    ) -> Route | None:
        """Return the route of most of a page; if one is stopped, that of most persons.

        A single person with many sessions must not hold up all others, nor one push service, or
        one server of browsers, another one.
        """
        most = Counter(map(_PLACE, listeners)).most_common(1)[0][0]
        way = _first_way(composed, listeners, *most)
        route = await self._gateways.route(composed, way)
        if not composed.app_state.is_stopped:
            return route
        if self._is_mixed(app_row):
            for other in {way_of(composed, one) for one in listeners} - {way}:
                its = await self._gateways.route(composed, other)
                is_elsewhere = (other.gateway, other.topic) != (way.gateway, way.topic)
                if is_elsewhere and its is not None and its.stop is None:
                    return its
        environment = await self._main_environment(app_row, composed, way.gateway)
        if environment is None:
            return route
        return await self._gateways.route(composed, way._replace(environment=environment))

    async def _main_environment(
        self, app_row: int, composed: Composed, service: str
    ) -> Environment | None:
        """Return the environment of most persons of an app, cached for some seconds."""
        loop, asked = asyncio.get_running_loop(), (app_row, service, composed.is_development)
        known, until = self._environments.get(asked, (None, 0.0))
        if loop.time() > until:
            users = await self._storage_retry.call(self._rules_store.users_by_environment, *asked)
            most = max(users.values(), default=0)
            known = next((name for name, number in users.items() if number == most), None)
            self._environments[asked] = known, loop.time() + _MAIN_SECONDS
        return known

    async def problem(
        self, app_row: int, composed: Composed, listeners: Sequence[Listener]
    ) -> HandbellError | None:
        """Return why no session of a page can be reached, and the others need not wait for it."""
        places = set(map(_PLACE, listeners))
        if self.has_others(app_row, composed.app_state, {gateway for gateway, _ in places}):
            return None
        problem: HandbellError | None = None
        for place in places:
            try:
                await self._gateways.find(composed, _first_way(composed, listeners, *place))
            except HandbellError as error:
                problem = error
            else:
                return None
        return problem

    def has_others(self, app_row: int, app_state: AppState, services: Collection[str]) -> bool:
        """Return whether an app's other sessions are reached although these services are not.

        Where addresses name their server, those of another server may be.
        """
        if not self._is_mixed(app_row):
            return False
        if any(service_of(name).origin_of is not None for name in services):
            return True
        stopped = {
            one.configuration.place.service for one in app_state.routes if one.stop is not None
        }
        return bool({key.service for key in app_state.rules.keys} - stopped - {*services})


def _first_way(
    composed: Composed, listeners: Sequence[Listener], gateway: str, environment: str
) -> Way:
    """Return the way of the first session of a page that goes by this gateway."""
    return next(
        way_of(composed, one)
        for one in listeners
        if one.gateway == gateway and one.environment == environment
    )
