"""The gateways of a worker, and the closing of unused ones."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from handbell._thread_pool import ThreadPool
from handbell.delivery.delivery import GatewayName
from handbell.delivery.policy.circuit import CircuitScope
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.gateway_finder import DropGateway, FindGateway
from handbell.delivery.work.push_batch import Way
from handbell.delivery.work.routes import Route, Routes
from handbell.errors import CredentialError, HandbellError, TwinError
from handbell.gateways.gateway import Gateway
from handbell.registry.session import Environment
from handbell.services.table import SERVICES
from handbell.storage.group_commit import GroupCommit

WAY_SECONDS: Final = 5.0
"""How long a gateway is used before it is looked up again."""

UNUSED_SECONDS: Final = 15 * 60.0
"""How long an unused gateway is kept: an open connection saves the next push a
second, and Apple treats rapid connects and disconnects as an attack."""

_log = logging.getLogger(__name__)

_Place = tuple[str, str, str, str | None, frozenset[str]]


@dataclass(slots=True)
class _Way:
    """A gateway in use, when to look it up again, and the latest time to do so."""

    gateway: Gateway
    until: float


class GatewayCache:
    """The gateways with which one worker sends; belongs to its event loop.

    A gateway that serves nobody any more (its key was removed, its twin was restarted, nothing was
    sent by it for :data:`UNUSED_SECONDS`) is handed to ``drop``.
    """

    def __init__(
        self,
        find_gateway: FindGateway,
        drop: DropGateway | None,
        routes: Routes,
        *,
        threads: ThreadPool,
        clock: Callable[[], float],
    ) -> None:
        self._find_gateway = find_gateway
        self._drop = drop
        self._routes = routes
        self._threads = threads
        self._clock = clock
        self._gateways: dict[_Place, _Way] = {}
        self._finding = GroupCommit(self._ask_all)
        self._unused: set[Gateway] = set()
        self._asking = 0
        self._dropping: set[asyncio.Task[None]] = set()

    async def find(self, composed: Composed, way: Way) -> Gateway:
        """Return the gateway for a notification's way; raises the errors of the look-up.

        If its credential was refused, returns that of another one which serves the environment.
        """
        refused: frozenset[str] = frozenset()
        while True:
            gateway = await self._find(composed, way.gateway, way.environment, refused)
            route = self.route_of(composed, way, gateway)
            if route is None or not route.is_refused:
                return gateway
            credential = route.configuration.place.credential
            if credential in refused or composed.key is not None:
                route.is_last = True
                return gateway
            refused |= {credential}

    async def _find(
        self,
        composed: Composed,
        name: GatewayName,
        environment: Environment,
        refused: frozenset[str],
    ) -> Gateway:
        app, key = composed.app_state.app, composed.key
        place = (app.id, name, environment, None if key is None else key.fingerprint, refused)
        way = self._gateways.get(place)
        if way is not None and self._clock() <= way.until:
            return way.gateway
        self._asking += 1
        try:
            ask = partial(self._find_gateway, app, key, name, environment, excluded=refused)
            (found,) = await self._finding.bring([ask])
            if isinstance(found, Exception):
                raise found
        except (CredentialError, TwinError):
            self._leave(place)
            raise
        else:
            self._leave(place)
            self._gateways[place] = _Way(found, self._clock() + WAY_SECONDS)
            return found
        finally:
            self._asking -= 1
            self._drop_unused()

    def forget(self) -> None:
        """Look every gateway up again before its next use: keys have changed."""
        now = self._clock()
        for way in self._gateways.values():
            way.until = min(way.until, now - 1)

    async def _ask_all(self, asks: Sequence[Callable[[], Gateway]]) -> list[Gateway | Exception]:
        """Look up gateways in one call, since a thread switch costs as much as a look-up."""
        return await self._threads.run(lambda: list(map(_answer, asks)))

    async def route(self, composed: Composed, way: Way) -> Route | None:
        """Return the route of a notification's way, None if there is none."""
        try:
            gateway = await self.find(composed, way)
        except HandbellError:
            return None
        return self.route_of(composed, way, gateway)

    def route_of(self, composed: Composed, way: Way, gateway: Gateway) -> Route | None:
        """Return the route through a gateway; None if it has no circuit."""
        if way.gateway not in SERVICES:
            return None
        app_state = composed.app_state
        credential = getattr(gateway, "fingerprint", "")
        # Where neither message nor address names one, it is the credential's: Google's project.
        topic = way.topic or getattr(gateway, "topic", "")
        route = self._routes.of(
            CircuitScope(app_state.app.id, way.environment, credential, topic, way.gateway)
        )
        if route not in app_state.routes:
            app_state.routes.append(route)
        return route

    def _leave(self, place: _Place) -> None:
        if (way := self._gateways.pop(place, None)) is not None:
            self._unused.add(way.gateway)

    def _drop_unused(self) -> None:
        if self._asking:
            # Somebody is being given a gateway in this moment; it may be one of these.
            return
        now = self._clock()
        late = [one for one, way in self._gateways.items() if now > way.until + UNUSED_SECONDS]
        for place in late:
            self._leave(place)
        unused, self._unused = self._unused, set()
        used = {way.gateway for way in self._gateways.values()}
        for gateway in unused - used:
            if self._drop is not None:
                task = asyncio.create_task(self._close(gateway, self._drop))
                self._dropping.add(task)
                task.add_done_callback(self._dropping.discard)

    async def _close(self, gateway: Gateway, drop: DropGateway) -> None:
        try:
            await drop(gateway)
        except Exception:  # noqa: BLE001 - nothing is sent by it, and others are
            _log.exception("Could not close unused gateway")


def _answer(ask: Callable[[], Gateway]) -> Gateway | Exception:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - it is raised to whoever asked
        return error
