"""Workers join and leave, and versions meet, in fleets of real processes."""

import asyncio
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fleet import Fleet, run_fleet, send, until

import handbell
from handbell.delivery.queue.broker import Broker
from handbell.delivery.queue.broker_address import BrokerAddress

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

PEOPLE = 12_000


@pytest.fixture(params=[False, True], ids=["rows", "jetstream"])
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """Give a fleet on PostgreSQL alone, and one with a broker."""
    with run_fleet(tmp_path, sessions=PEOPLE, has_broker=request.param) as opened:
        yield opened


def test_a_worker_that_leaves_hands_back_within_seconds(fleet: Fleet) -> None:
    """Stopped in a broadcast, its processes leave nothing behind; others begin with it at once.

    Everybody is reached once.
    """
    server = fleet.serve("server")
    fleet.start("first", "worker", "--processes", "2")
    until(lambda: fleet.leased()[2] == 2, what="the workers do not come")
    send(server, "everybody")
    until(lambda: fleet.sent() > PEOPLE / 20)
    stopped = fleet.stop("first")
    sent = fleet.sent()
    assert sent < PEOPLE, "it was over before the stop"
    # Nobody else is there, so this is what the stop itself gave back.
    assert fleet.leased() == (0, 0, 0)
    fleet.start("second", "worker", "--processes", "2")
    until(lambda: fleet.leased()[2] > 0)
    taken = until(lambda: fleet.sent() > sent)
    until(lambda: fleet.sent() == PEOPLE, 200)
    print(f"stopped in {stopped:.1f} s, the next push {taken:.1f} s after the others came")  # noqa: T201
    assert fleet.ground.duplicates() == 0
    # Messages that were not given back would be handed out after 30 seconds alone.
    assert stopped < 15
    assert taken < 15


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """Give the folder of a Handbell whose messages are of a later version."""
    package = tmp_path / "newer" / "handbell"
    shutil.copytree(
        Path(handbell.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    messages = package / "delivery" / "queue" / "work_messages.py"
    text, count = re.subn(r"(?m)^VERSION: Final = \d+", "VERSION: Final = 99", messages.read_text())
    assert count == 1
    messages.write_text(text)
    return package.parent


@pytest.mark.parametrize("fleet", [True], indirect=True, ids=["jetstream"])
def test_messages_of_two_versions_share_a_stream(fleet: Fleet, newer: Path) -> None:
    """What a worker cannot read reaches everybody all the same, and is not asked for in circles.

    Alone, the older worker sends what it finds in the rows; beside a newer one, that has it soon.
    """
    people = fleet.ground.mails[:20]
    server = fleet.serve("newer-server", package=newer)
    fleet.start("older", "worker")
    until(lambda: fleet.leased()[2] == 1, what="the worker does not come")
    send(server, people)
    alone = until(lambda: fleet.sent() == 20)
    assert "left to other versions" in fleet.log("older")

    fleet.start("newer", "worker", package=newer)
    until(lambda: fleet.leased()[2] == 2, what="the newer worker does not come")
    slowest = 0.0
    for number, mail in enumerate(people, 21):
        send(server, [mail], urgency="urgent")
        slowest = max(slowest, until(lambda number=number: fleet.sent() == number))  # type: ignore[misc]
    handed_out = asyncio.run(_handed_out(fleet.engine))
    print(f"alone {alone:.1f} s, together {slowest:.1f} s; handed out {handed_out} times")  # noqa: T201
    assert slowest < 20
    assert handed_out < 10 * len(people)

    older = fleet.serve("older-server")
    fleet.stop("older")
    send(older, people)
    until(lambda: fleet.sent() == 60, what="the newer worker does not read older messages")


async def _handed_out(engine: str) -> int:
    """Return how often urgent messages were handed out, repeats included."""
    broker = Broker(BrokerAddress.read(engine))
    try:
        stream = await broker._open()  # noqa: SLF001
        info = await stream.consumer_info(broker.stream, "due-9")
        return info.delivered.consumer_seq if info.delivered else 0
    finally:
        await broker.close()
