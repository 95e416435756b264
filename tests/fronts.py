"""The front doors, here and to a send server: what one does the other does."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.conftest import Stage
from tests.serving import Server

from handbell import AsyncPushNotification, AsyncSessions

Front = Callable[..., Any]
"""Makes PushNotification or Sessions of one kind, local or remote."""


@pytest.fixture(params=["local", "remote"])
def front(request: pytest.FixtureRequest, server: Server, stage: Stage) -> Iterator[Front]:
    """Give what opens the door here, or the one to the server."""
    how: dict[str, Any] = {"settings": stage.system.settings}
    if request.param == "remote":
        how = {"url": server.url, "api_key": server.key("send", "register", app=stage.app)}
    opened: list[Any] = []

    def make(kind: type, *arguments: Any, **named: Any) -> Any:
        made = kind(*arguments, **how, **named)
        if not issubclass(kind, AsyncPushNotification | AsyncSessions):
            opened.append(made)
        return made

    yield make
    for each in opened:
        each.__exit__(None, None, None)


def run(work: Any) -> Any:
    """Run a coroutine to its end, in an event loop of its own."""
    return asyncio.run(work)
