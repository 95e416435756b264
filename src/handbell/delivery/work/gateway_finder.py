"""How a worker gets the gateway for an app, and returns it."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from handbell.apps.app import App
from handbell.delivery.delivery import GatewayName
from handbell.gateways.gateway import Gateway
from handbell.registry.session import Environment

DropGateway = Callable[[Gateway], Awaitable[None]]
"""Closes an unused gateway, and forgets it."""


class FindGateway(Protocol):
    """Finds the gateway of an app for an environment, or raises an error with the reason.

    ``key`` is the credential of a sender whose app is not in the registry, or None. Credentials
    whose fingerprints are in ``excluded`` are skipped if there is another.
    """

    def __call__(
        self,
        app: App,
        key: Any,
        name: GatewayName,
        environment: Environment,
        /,
        *,
        excluded: Collection[str] = (),
    ) -> Gateway:
        """Return the gateway; the same one each time, so that connections are shared."""
