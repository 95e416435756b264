"""What the contract tests of our gateways have in common: a send whose pushes all come back."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from handbell.gateways.gateway import Push
from handbell.gateways.outcomes import Outcome
from handbell.gateways.push_client import PushClient

UNHURRIED = {"request_timeout": 10.0}
"""Where every push is answered, a busy machine may take its time."""


class GatewayStage(ABC):
    """A twin, and gateways to it."""

    @abstractmethod
    def gateway(self, **options: Any) -> PushClient:
        """Open a gateway to the twin, with short timeouts."""

    def send(self, pushes: Sequence[Push], **options: Any) -> list[Outcome]:
        """Send with a gateway of this call's own; return the outcomes in the pushes' order."""

        async def told() -> list[Outcome]:
            gateway = self.gateway(**options)
            outcomes = await send(gateway, pushes)
            await gateway.close()
            return outcomes

        return asyncio.run(told())


async def send(gateway: PushClient, pushes: Sequence[Push]) -> list[Outcome]:
    """Send and return the outcomes in the pushes' order; each push must be reported once."""
    told: list[tuple[Push, Outcome]] = []
    await asyncio.wait_for(gateway.send(pushes, lambda *end: told.append(end)), 20)
    assert sorted(push.key for push, _ in told) == sorted(push.key for push in pushes)
    by_key = {push.key: outcome for push, outcome in told}
    return [by_key[push.key] for push in pushes]
