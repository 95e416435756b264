"""A ceiling of connections is that of all workers together."""

import asyncio
import time

from tests.conftest import Stage

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.system import System


def test_workers_share_a_ceiling_of_connections(stage: Stage) -> None:
    """Each begins with one connection and takes its share once the others have heard of it."""
    mails = [f"user{one}@example.com" for one in range(20)]
    for mail in mails:
        stage.add_phone(mail)
    stage.twin.add_fault("slow", seconds=0.5, count=100_000)
    few = {"total_connections": 3, "connections": 8, "in_flight": 4}
    settings = stage.system.settings.model_copy(update=few)

    async def scenario() -> None:
        systems = [System(settings) for _ in range(2)]
        seen, deadline = list[int](), time.monotonic() + 40
        try:
            for system in systems:
                await system.engine.start()
            while seen[-5:] != [3] * 5:
                for system in systems:
                    asked = Recipients.read(mails)
                    await system.engine.accept(stage.app, Notification(title="Hello"), asked)
                seen.append(await asyncio.to_thread(lambda: stage.twin.connections))
                assert seen[-1] <= 3
                assert time.monotonic() < deadline, seen
                await asyncio.sleep(0.2)
        finally:
            for system in systems:
                await system.close(within=1)
        assert 2 in seen

    asyncio.run(scenario())
