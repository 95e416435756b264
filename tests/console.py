"""A server with its console on a free port, and clients that sign in to it."""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
from argon2 import PasswordHasher

from handbell.access.operators import OperatorStore
from handbell.access.passwords import Passwords
from handbell.server.application import create_application
from handbell.server.context import Context
from handbell.server.running import bind, make_context, serving
from handbell.system import System

MAIL: Final = "operator@example.com"
PASSWORD: Final = "a bell rings twice"
_TOKEN: Final = re.compile(r'name="token" value="([0-9a-f]+)"')


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A running console. ``url`` has no slash at its end."""

    url: str
    context: Context
    system: System

    def client(self) -> httpx.Client:
        """Return a client that has not signed in and sends forms as a browser does."""
        headers = {"origin": self.url, "sec-fetch-site": "same-origin"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=10)

    @contextmanager
    def signed_in(self, mail: str = MAIL) -> Iterator["Visitor"]:
        """Give a visitor who has signed in; the operator is made where there is none."""
        if all(one.mail != mail for one in self.system.operators.list()):
            self.system.operators.add(mail, PASSWORD)
        with self.client() as client:
            answer = client.post("/console/sign-in", data={"mail": mail, "password": PASSWORD})
            assert answer.status_code == 303, answer.text
            yield Visitor(client)


@dataclass(frozen=True)
class Visitor:
    """A signed-in client that fills in forms."""

    client: httpx.Client

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Return a page; redirections are followed."""
        return self.client.get(path, follow_redirects=True, **more)

    def post(
        self, path: str, data: dict[str, Any] | None = None, *, follow: bool = True, **more: Any
    ) -> httpx.Response:
        """Post a form with the token of this sign-in."""
        sent = {"token": self.token, **(data or {})}
        return self.client.post(path, data=sent, follow_redirects=follow, **more)

    @property
    def token(self) -> str:
        """The token that every form of this sign-in carries."""
        found = _TOKEN.search(self.get("/console/apps").text)
        assert found is not None
        return found[1]


def quick_operators(system: System) -> OperatorStore:
    """Return the operators with a cheap hash; the real one is tested by itself."""
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    return OperatorStore(system.database, passwords=passwords, now=system.now)


@contextmanager
def open_console(
    system: System, *, change: Callable[[Context], Context] = lambda context: context
) -> Iterator[Desk]:
    """Run the server in a thread of its own, with an event loop of its own, and stop it."""
    system.__dict__["operators"] = quick_operators(system)
    bound = bind("127.0.0.1:0")
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    context = change(make_context(system, public_url=url))
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with serving(create_application(context), bound):
            await system.engine.start()
            started.set()
            await stop.wait()
            await system.close_gateways()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert started.wait(20), "the server did not start"
        yield Desk(url=url, context=context, system=system)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
        bound.close()
        context.pool.shutdown()
