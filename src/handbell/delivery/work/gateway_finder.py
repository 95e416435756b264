"""How a worker is given the gateway that serves an app, and gives it back."""

from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from handbell.apps.app import App
from handbell.delivery.delivery import GatewayName
from handbell.gateways.gateway import Gateway
from handbell.registry.session import Environment

DropGateway = Callable[[Gateway], Awaitable[None]]
"""Closes a gateway that nothing is sent by any more, and forgets it."""


class FindGateway(Protocol):
    """Gives the way for an app to an environment, or raises the error that says why there is none.

    ``key`` is the credential of a sender whose app is not in the registry, or None. Credentials
    whose fingerprints are in ``excluded`` are passed over where there is another.
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
