"""Which gateways a worker keeps, and which it drops."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest

from handbell._thread_pool import ThreadPool
from handbell.apps.app import App
from handbell.delivery.send.gateway_cache import UNUSED_SECONDS, WAY_SECONDS, GatewayCache
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.push_batch import Way
from handbell.delivery.work.routes import Routes
from handbell.errors import HandbellError, MissingCredentialError, StorageError, TwinError


@dataclass(eq=False)
class Named:
    """A gateway that is only told apart."""

    name: str


class World:
    """Who serves whom now, what was dropped, and what time it is."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.dropped: list[str] = []
        self.serving: dict[str, Named | HandbellError] = {}
        self.gateways = GatewayCache(
            cast("Any", self._find),
            cast("Any", self._drop),
            Routes(lambda: self.now),
            threads=ThreadPool(1, "test"),
            clock=lambda: self.now,
        )

    def _find(
        self,
        app: App,
        key: object,  # noqa: ARG002
        name: str,  # noqa: ARG002
        environment: str,  # noqa: ARG002
        *,
        excluded: object = (),  # noqa: ARG002
    ) -> Named:
        found = self.serving[app.apple.bundle_id]
        if isinstance(found, HandbellError):
            raise found
        return found

    async def _drop(self, gateway: Named) -> None:
        self.dropped.append(gateway.name)

    async def ask(self, bundle_id: str) -> str | None:
        """Return by which gateway an app is served."""
        app = App(team_id="TEAM123456", bundle_id=bundle_id)
        composed = SimpleNamespace(app_state=AppState(app), key=None)
        way = Way("apns", "production", bundle_id, None)
        try:
            found = await self.gateways.find(cast("Any", composed), way)
        except HandbellError:
            return None
        finally:
            await asyncio.sleep(0)
        return cast("Named", found).name


def run(story: Callable[[World], Any]) -> list[str]:
    """Return what was dropped in a story."""
    world = World()
    asyncio.run(story(world))
    return world.dropped


def test_one_that_serves_another_app_as_well_is_kept() -> None:
    """A team's key serves all its apps; it is dropped when the last of them leaves it."""

    async def story(world: World) -> None:
        shared = Named("shared")
        world.serving = {"com.one": shared, "com.two": shared}
        assert [await world.ask("com.one"), await world.ask("com.two")] == ["shared", "shared"]
        world.now += WAY_SECONDS + 1
        world.serving["com.one"] = Named("own")
        assert await world.ask("com.one") == "own"
        assert world.dropped == []
        world.serving["com.two"] = Named("other")
        assert await world.ask("com.two") == "other"

    assert run(story) == ["shared"]


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        (MissingCredentialError("removed"), ["first"]),
        (TwinError("not running"), ["first"]),
        (StorageError("away"), []),
    ],
    ids=lambda one: type(one).__name__,
)
def test_one_whose_key_is_gone_is_dropped(error: HandbellError, dropped: list[str]) -> None:
    """A removed key and a twin that is not running end it; a database that is away does not."""

    async def story(world: World) -> None:
        world.serving = {"com.one": Named("first")}
        assert await world.ask("com.one") == "first"
        world.now += WAY_SECONDS + 1
        world.serving["com.one"] = error
        assert await world.ask("com.one") is None

    assert run(story) == dropped


def test_one_that_nothing_is_sent_by_is_dropped() -> None:
    """After a quarter of an hour; one that is asked for is kept however long."""

    async def story(world: World) -> None:
        world.serving = {"com.one": Named("one"), "com.two": Named("two")}
        await world.ask("com.one")
        for _ in range(4):
            await world.ask("com.two")
            assert world.dropped == []
            world.now += UNUSED_SECONDS / 3
        await world.ask("com.two")

    assert run(story) == ["one"]
