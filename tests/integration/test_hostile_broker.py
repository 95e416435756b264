"""What strangers, operators and a broken broker do to the work: it costs time, and nothing else."""

import asyncio
import gc
import itertools
import json
import os
import signal
import time
from typing import Any

import pytest
from tests.jetstream_ground import PEOPLE, Ground
from tests.scripted import EVERYBODY

from handbell.delivery.queue.broker import ACK_SECONDS
from handbell.delivery.queue.work_messages import Kind, subject
from handbell.delivery.urgency import LEVELS

KINDS: tuple[Kind, Kind] = ("due", "shards")


def test_what_strangers_publish_does_nothing(ground: Ground) -> None:
    """Garbage, numbers that no database takes, work of another kind: dropped, and told."""
    app = ground.app.id
    told = [
        b"",
        b"[7]",
        b"x" * 900_000,
        *(
            json.dumps({"v": 1, "app": app, "level": 9, "at": 1, **wrong}).encode()
            for wrong in ({"keys": [[10**30, 1]]}, {"shard": 10**30}, {"keys": [[1, 1]]})
        ),
    ]

    async def scenario() -> None:
        async with ground.worker(), await ground.client() as client:
            await ground.accept("user1@example.com")
            await ground.until_sent(1)
            stream = client.jetstream()
            for kind, level in itertools.product(KINDS, LEVELS):
                for data in told:
                    await stream.publish(subject(ground.stream, kind, level, app), data)
            await ground.accept(EVERYBODY)
            await ground.until_sent(1 + PEOPLE)
            async with asyncio.timeout(30):
                while (await stream.stream_info(ground.stream)).state.messages:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


@pytest.mark.cluster
@pytest.mark.parametrize("part", ["stream", "consumer", "messages"])
def test_what_an_operator_deletes_is_made_again(ground: Ground, part: str) -> None:
    """The stream, a consumer or all messages, with work on its way: it costs a moment."""

    async def scenario() -> None:
        async with ground.worker(), await ground.client() as client:
            await ground.accept(EVERYBODY)
            await ground.until_sent(PEOPLE)
            stream = client.jetstream()
            await ground.accept([f"user{number}@example.com" for number in range(30)])
            if part == "stream":
                await stream.delete_stream(ground.stream)
            elif part == "consumer":
                await stream.delete_consumer(ground.stream, "due-5")
            else:
                await stream.purge_stream(ground.stream)
            await ground.accept(EVERYBODY)
            await ground.accept([f"user{number}@example.com" for number in range(30)])
            await ground.until_sent(2 * PEOPLE + 60)
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


@pytest.mark.cluster
@pytest.mark.parametrize(
    "wrong", [{"retention": "limits"}, {"subjects": ["{}.shards.>"]}], ids=["retention", "subjects"]
)
def test_a_stream_that_would_lose_work_is_told(
    ground: Ground, wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What is accepted stays in its rows, and goes out once the stream is deleted as told."""
    name = ground.stream
    config = {"subjects": ["{}.due.>", "{}.shards.>"], "retention": "workqueue", **wrong}
    config["subjects"] = [one.format(name) for one in config["subjects"]]

    async def scenario() -> None:
        async with await ground.client() as client:
            await client.jetstream().add_stream(name=name, **config)
            await ground.accept(EVERYBODY)
            assert f"The stream {name} of the broker" in caplog.text
            assert next(iter(wrong)) in caplog.text
            await client.jetstream().delete_stream(name)
        async with ground.worker():
            await ground.until_sent(PEOPLE)
        await ground.server.close_gateways()

    asyncio.run(scenario())


@pytest.mark.cluster
def test_a_full_stream_costs_time(ground: Ground) -> None:
    """One message fits at a time; everything that was accepted goes out."""
    name = ground.stream

    async def scenario() -> None:
        async with await ground.client() as client:
            await client.jetstream().add_stream(
                name=name,
                subjects=[f"{name}.due.>", f"{name}.shards.>"],
                retention="workqueue",
                discard="new",
                max_bytes=600,
            )
        async with ground.worker():
            for number in range(10):
                await ground.accept(f"user{number}@example.com")
            await ground.accept(EVERYBODY)
            await ground.until_sent(10 + PEOPLE)
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # nats-py leaves failed attempts open
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_frozen_broker_costs_time(ground: Ground, caplog: pytest.LogCaptureFixture) -> None:
    """Frozen for longer than leases and messages last: accepted within seconds, sent once."""

    async def scenario() -> None:
        async with ground.worker():
            await ground.accept("user0@example.com")
            await ground.until_sent(1)
            os.kill(ground.broker.pid, signal.SIGSTOP)
            try:
                deadline = time.monotonic() + ACK_SECONDS + 3
                number = 0
                while time.monotonic() < deadline:
                    number += 1
                    async with asyncio.timeout(5):
                        await ground.accept(f"user{number}@example.com")
                    await asyncio.sleep(2)
            finally:
                os.kill(ground.broker.pid, signal.SIGCONT)
            await ground.until_sent(1 + number)
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert set(ground.pushed.values()) == {1}
    assert not [one for one in caplog.records if one.exc_info]
    gc.collect()


def test_nobody_waits_for_a_broker_that_is_away(ground: Ground) -> None:
    """A server that comes up without it accepts at once."""

    async def scenario() -> None:
        ground.broker.stop()
        async with asyncio.timeout(4):
            for number in range(10):
                await ground.accept(f"user{number}@example.com")
        await ground.server.close_gateways()

    asyncio.run(scenario())
    assert ground.states() == {"queued": 10}
