"""Signals between machines on one PostgreSQL: at once, and nothing missed where they get lost."""

import asyncio
import contextlib
import dataclasses
import logging
import queue
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest
from bench.postgresql import PostgresServer
from pydantic import SecretStr
from sqlalchemy import make_url
from tests.conftest import Stage, open_stage

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Engine
from handbell.storage.database import Database
from handbell.storage.signals import EVERYTHING, Kind, Signal
from handbell.system import System

SECONDS = 30.0
_LISTENERS = "SELECT pid FROM pg_stat_activity WHERE application_name = 'handbell signals'"


@pytest.fixture
def url(postgresql: PostgresServer) -> Iterator[str]:
    """Give the URL of a PostgreSQL database of the test's own."""
    with postgresql.database() as url:
        yield url


@pytest.fixture
def server(tmp_path: Path, url: str) -> Iterator[Stage]:
    """Give a machine that accepts and does not send."""
    with open_stage(tmp_path, url) as stage:
        yield stage


def _name(url: str) -> str:
    return url.rsplit("/", maxsplit=1)[-1].split("?", maxsplit=1)[0]


def _cut(postgresql: PostgresServer, url: str) -> None:
    """End the connections on which signals are heard, as a failing network does."""
    cut = _LISTENERS.replace("pid", "pg_terminate_backend(pid)", 1)
    postgresql.execute(f"{cut} AND datname = '{make_url(url).database}'")


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not is_so():  # noqa: ASYNC110 - a thread, or another machine, makes it so
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def _machine(server: Stage) -> AsyncIterator[System]:
    """Give another machine, which sends, once it hears signals."""
    system = System(server.system.settings)
    try:
        await system.engine.start()
        await _until(lambda: system.signals.is_prompt)
        yield system
    finally:
        await system.close()


async def _accept(server: Stage, engine: Engine, mail: str) -> int:
    acceptance, _ = await engine.accept(
        server.app, Notification(title="Hello"), Recipients.read({"mails": [mail]})
    )
    return acceptance.row


def test_an_idle_worker_elsewhere_sends_at_once_and_the_caller_hears_of_the_end(
    server: Stage,
) -> None:
    """From accepting to the end takes much less than one poll of either."""
    server.add_phone("anna@example.com")

    async def one(engine: Engine) -> float:
        began = time.monotonic()
        await engine.worker.settled(await _accept(server, engine, "anna@example.com"))
        return time.monotonic() - began

    async def scenario() -> list[float]:
        async with _machine(server):
            engine = server.system.engine
            await one(engine)
            await _until(lambda: server.system.signals.is_prompt)
            took = []
            for _ in range(5):
                # The worker has nothing to do any more, and rests.
                await asyncio.sleep(0.3)
                took.append(await one(engine))
            await server.system.close_gateways()
            return took

    took = asyncio.run(scenario())
    assert server.twin.accepted == 6
    assert median(took) < 0.4, took


def test_a_lost_connection_of_signals_misses_nothing(
    server: Stage, postgresql: PostgresServer, url: str
) -> None:
    """What is told while nobody listens is looked for when the connection is there again."""
    with closing(Database.open(url)) as database:
        heard: queue.SimpleQueue[Signal] = queue.SimpleQueue()
        leave = database.signals.subscribe(heard.put)
        for signal in EVERYTHING:
            assert heard.get(timeout=SECONDS) == signal
        assert database.signals.is_prompt
        _cut(postgresql, url)
        with server.system.database.write():
            server.system.database.signal(Kind.REVOKED, [7])
        told = [heard.get(timeout=SECONDS) for _ in range(2 * len(EVERYTHING))]
        # When it is lost, so that everybody polls, and when it is there again.
        assert [one for one in told if one.numbers is None] == [*EVERYTHING, *EVERYTHING]
        assert database.signals.is_prompt
        with server.system.database.write():
            server.system.database.signal(Kind.ENDED, [8])
        assert heard.get(timeout=SECONDS) == Signal(Kind.ENDED, frozenset([8]))
        leave()


def test_sends_go_on_while_signals_are_cut_again_and_again(
    server: Stage, postgresql: PostgresServer, url: str
) -> None:
    """Each send of a server without a worker ends once, whatever becomes of the signals."""
    server.add_phone("anna@example.com")

    async def scenario() -> None:
        async with _machine(server):
            for number in range(12):
                row = await _accept(server, server.system.engine, "anna@example.com")
                if number % 3 == 0:
                    await asyncio.to_thread(_cut, postgresql, url)
                async with asyncio.timeout(SECONDS):
                    await server.system.engine.worker.settled(row)
            await server.system.close_gateways()

    asyncio.run(scenario())
    assert server.twin.accepted == 12


def test_where_signals_do_not_arrive_it_is_said_and_changes_are_polled_for(
    server: Stage, postgresql: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Behind a pooler LISTEN hears nothing: one warning, a finding, and sends go out even so."""
    server.add_phone("anna@example.com")
    with postgresql.database() as elsewhere:
        # What listens there hears as much as behind a pooler.
        update = {"signals_url": SecretStr(elsewhere)}
        settings = server.system.settings.model_copy(update=update)
        deaf = dataclasses.replace(server, system=System(settings))

        async def scenario() -> None:
            engine = deaf.system.engine
            await engine.start()
            await _until(lambda: "do not arrive" in caplog.text)
            assert not deaf.system.signals.is_prompt
            row = await _accept(server, server.system.engine, "anna@example.com")
            async with asyncio.timeout(SECONDS):
                await engine.worker.settled(row)
            finding = next(
                one
                for one in await deaf.system.doctor.check_up(server.app)
                if one.check == "signals"
            )
            assert finding.verdict == "doubtful"
            assert "HANDBELL_SIGNALS_URL" in finding.fix
            await deaf.system.close()
            await server.system.close_gateways()

        with caplog.at_level(logging.WARNING):
            asyncio.run(scenario())
    assert caplog.text.count("do not arrive") == 1
    assert server.twin.accepted == 1


def test_a_changed_rule_and_a_revoked_key_are_heard_of_at_once(server: Stage) -> None:
    """A switch and an API key are not kept for as long as a cache would."""
    server.add_phone("anna@example.com")
    key, secret = server.system.api_keys.add("back end", ["send"])

    async def scenario() -> None:
        async with _machine(server) as machine:
            row = await _accept(server, machine.engine, "anna@example.com")
            await machine.engine.worker.settled(row)
            state = machine.engine.worker.app_states.of(server.app)
            assert state.rules.is_enabled
            assert machine.api_keys.check(secret) is not None
            server.system.app_control.switch(server.app, False)
            server.system.api_keys.revoke(key.prefix)
            began = time.monotonic()
            await _until(lambda: machine.api_keys.known(secret) is None)
            await machine.engine.worker.app_states.read_rules(state)
            assert not state.rules.is_enabled
            assert time.monotonic() - began < 0.9

    asyncio.run(scenario())
