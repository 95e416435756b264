"""Many who wait for what becomes of their sends, and a worker that is held up by none of them."""

import asyncio
import threading

from sqlalchemy import event
from tests.scene import Scene

from handbell._thread_pool import in_thread

MANY = 200
MAIL = "user0@example.com"
HOUR = 3600


def test_those_who_wait_share_their_questions(scene: Scene) -> None:
    """Two hundred who wait ask the database as often as one would, not two hundred times."""
    scene.add_phones(1)
    scene.twin.add_fault("slow", seconds=0.5, count=MANY)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT notifications.id") and "EXISTS" in statement:
            asked.append(statement)

    engine_of_database = scene.system.database._engine  # noqa: SLF001 - to count statements
    event.listen(engine_of_database, "before_cursor_execute", note)

    async def scenario() -> None:
        async with scene.running() as engine:
            sends = [scene.accept(engine, MAIL) for _ in range(MANY)]
            rows = [acceptance.row for acceptance in await asyncio.gather(*sends)]
            assert not asked
            await asyncio.gather(*(engine.worker.settled(row) for row in rows))

    asyncio.run(scenario())
    assert scene.twin.accepted == MANY
    assert len(asked) < MANY / 4


def test_cancels_that_wait_share_their_questions(scene: Scene) -> None:
    """So do those who wait for workers to let go of broadcasts."""
    scene.add_phones(2)
    scene.twin.add_fault("slow", seconds=1.0, count=1000)
    asked: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT DISTINCT shards.notification_id"):
            asked.append(statement)

    event.listen(scene.system.database._engine, "before_cursor_execute", note)  # noqa: SLF001

    async def scenario() -> None:
        async with scene.running() as engine:
            accepted = [await scene.accept(engine, {"everybody": True}) for _ in range(40)]
            await asyncio.gather(*(engine.cancel(scene.app, one.id) for one in accepted))

    asyncio.run(scenario())
    # Each for itself they would ask twenty times a second.
    assert 0 < len(asked) < 200


def test_a_worker_has_threads_of_its_own(scene: Scene) -> None:
    """Whoever fills the threads that all share does not hold up what is due."""
    (phone,) = scene.add_phones(1)
    go_on = threading.Event()

    async def scenario() -> None:
        async with scene.running() as engine:
            await scene.send(engine, MAIL)  # so that a connection is there
            await scene.accept(engine, MAIL, {"send_at": scene.clock() + HOUR})
            fillers = [asyncio.create_task(asyncio.to_thread(go_on.wait)) for _ in range(64)]
            fillers += [asyncio.create_task(in_thread(go_on.wait)) for _ in range(64)]
            scene.clock.move(HOUR + 1)
            try:
                async with asyncio.timeout(15):
                    while len(scene.accepted(phone)) < 2:
                        engine.worker.wake()
                        await asyncio.sleep(0.02)
            finally:
                go_on.set()
                await asyncio.gather(*fillers)

    asyncio.run(scenario())
