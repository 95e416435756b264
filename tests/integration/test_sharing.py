"""Front doors share what they send with, and nobody closes it under somebody else."""

import asyncio
import functools
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from handbell import AsyncPushNotification, PushNotification, Sessions
from handbell._portal import Portal
from handbell._thread_pool import ThreadPool
from handbell.demo_environment import isolated_settings
from handbell.errors import DeadlockError, HandbellError, StorageError
from handbell.shared_systems import using
from handbell.system import System

if TYPE_CHECKING:
    from handbell.settings import Settings
    from handbell.testing import VirtualPhone
    from handbell.twin.threaded import RunningTwin

HELLO = {"title": "Hello"}
MAIL = "test@4d.com"


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture
def settings(handbell_home: Path, handbell_phone: "VirtualPhone") -> "Settings":
    """Return the settings of a home whose twin has a phone."""
    assert handbell_phone.mail == MAIL
    return isolated_settings(handbell_home)


AGAIN_AND_AGAIN = """
import asyncio, gc, os, threading
from handbell import AsyncPushNotification
push = AsyncPushNotification()
async def send():
    assert (await push.send({"title": "Hello"}, "test@4d.com")).success
for _ in range(5):
    asyncio.run(send())
    gc.collect()
    pools = [one for one in threading.enumerate() if one.name.startswith("handbell-")]
    print(len(os.listdir("/proc/self/fd")), threading.active_count() - len(pools))
"""
"""Threads of the pools stay for a while; there are no more than work at once."""


def _workers(settings: "Settings") -> int:
    system = System(settings)
    try:
        return system.known_workers.live_workers()
    finally:
        system.database.close()


def test_a_loop_that_ends_leaves_nothing(settings: "Settings") -> None:
    """``asyncio.run`` again and again keeps no socket, no file, no thread, no worker."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AGAIN_AND_AGAIN],
        env={"HANDBELL_HOME": str(settings.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(set(done.stdout.splitlines())) == 1
    assert _workers(settings) == 0


@in_loop
async def test_one_user_closes_and_the_other_sends_on(settings: "Settings") -> None:
    """A system lives as long as one of its users; the last one to close closes it."""
    first, second = (AsyncPushNotification(settings=settings) for _ in range(2))
    await first.prepare()
    await second.prepare()
    async with using(settings, first) as system:
        engine = system.engine
    await asyncio.gather(*(second.send(HELLO, MAIL) for _ in range(3)), first.close())
    async with using(settings, second) as system:
        assert system.engine is engine
    await second.close()
    await second.close()
    assert system.connections == 0
    assert (await first.send(HELLO, MAIL)).success
    async with using(settings, first) as system:
        assert system.engine is not engine
    await first.close()


@in_loop
async def test_a_user_that_is_gone_holds_nothing(settings: "Settings") -> None:
    """Who drops a front door without closing it does not keep connections from being closed."""
    first, dropped = (AsyncPushNotification(settings=settings) for _ in range(2))
    await dropped.send(HELLO, MAIL)
    async with using(settings, first) as system:
        assert system.connections == 1
    del dropped
    gc.collect()
    await first.close()
    assert system.connections == 0


@in_loop
async def test_a_call_that_runs_keeps_its_system(
    settings: "Settings", handbell_twin: "RunningTwin"
) -> None:
    """Who closes while his own send is on its way gets its answer, and then it is closed."""
    push = AsyncPushNotification(settings=settings)
    handbell_twin.add_fault("slow", count=1, seconds=0.3)
    sending = asyncio.create_task(push.send(HELLO, MAIL))
    async with using(settings, push) as system:
        while not system.in_flight:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)
    await push.close()
    assert (await sending).success
    assert system.connections == 0


@pytest.mark.parametrize("closed_first", [1, 2])
@in_loop
async def test_a_system_that_closes_takes_no_later_one_with_it(
    settings: "Settings", handbell_twin: "RunningTwin", closed_first: int
) -> None:
    """Who opens a system while the former one is still being closed keeps it."""
    former = [AsyncPushNotification(settings=settings) for _ in range(closed_first)]
    for one in former:
        await one.send(HELLO, MAIL)
    later = AsyncPushNotification(settings=settings)
    handbell_twin.add_fault("slow", seconds=0.5)
    closing = [asyncio.create_task(one.close()) for one in former]
    response, *_ = await asyncio.gather(later.send(HELLO, MAIL), *closing)
    assert response is not None and response.success  # noqa: PT018 - for the types
    async with using(settings, later) as system:
        assert system.connections == 1
    await later.close()


def test_doors_are_closed_while_others_send(settings: "Settings") -> None:
    """Threads open, send and close at will beside one that asks: each send has its answer."""
    sessions = Sessions(settings=settings)

    def work(number: int) -> list[bool]:
        answers = []
        for _ in range(4):
            push = PushNotification(settings=settings)
            answers.append(push.send({"title": str(number)}, MAIL).success)
            push.close()
            answers.append(sessions.all_mail_addresses() == [MAIL])
        return answers

    with ThreadPoolExecutor(4) as pool:
        assert all(all(answers) for answers in pool.map(work, range(4)))


@in_loop
async def test_a_start_that_failed_is_tried_again(settings: "Settings") -> None:
    """Whatever a start meets is raised, the next one works, and closing raises nothing."""
    system = System(settings)
    enlist, mistakes = (
        system.known_workers.enlist,
        [StorageError("full"), OSError("odd"), MemoryError()],
    )

    def fail(*arguments: Any) -> int:
        if mistakes:
            raise mistakes.pop()
        return enlist(*arguments)

    system.known_workers.enlist = fail  # type: ignore[method-assign, assignment]
    for expected in (MemoryError, OSError, StorageError):
        with pytest.raises(expected):
            await system.engine.start()
    await system.engine.start()
    await system.close()


@in_loop
async def test_a_system_whose_start_failed_closes(settings: "Settings") -> None:
    """It raises nothing, and nothing stays open."""
    system = System(settings)
    app = system.apps.find()

    def fail(*_: Any) -> int:
        raise OSError("odd")

    system.known_workers.enlist = fail  # type: ignore[method-assign, assignment]
    with pytest.raises(OSError, match="odd"):
        await system.engine.start()
    await system.doctor.check_up(app)
    assert system.connections
    await system.close()
    assert not system.connections


def test_a_call_within_the_door_is_refused(settings: "Settings") -> None:
    """A hook that asks the door it runs in is told so at once, whatever it asks."""
    push = PushNotification(settings=settings)
    calls: list[Callable[[], Any]] = [
        lambda: push.send(HELLO, MAIL),
        lambda: push.send_all(HELLO),
        lambda: push.cancel("x"),
        push.close,
        lambda: PushNotification(settings=settings),
    ]
    told: list[HandbellError] = []

    def hook(_event: object) -> None:
        for call in calls:
            with pytest.raises(DeadlockError) as caught:
                call()
            told.append(caught.value)

    push.add_hook(hook)
    assert push.send(HELLO, MAIL).success
    assert len(told) >= len(calls)
    push.close()


def test_a_door_outlives_what_exits_in_it() -> None:
    """``sys.exit`` in the door's thread is the caller's; others and later calls are answered."""
    portal = Portal()

    async def end() -> None:
        raise SystemExit(4)

    async def answer() -> int:
        await asyncio.sleep(0.05)
        return 42

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(portal.run, answer())
        with pytest.raises(SystemExit):
            portal.run(end())
        assert other.result() == 42
    assert portal.run(answer()) == 42
    portal.shut()
    with pytest.raises(HandbellError, match="program ends"):
        portal.run(answer())


@in_loop
async def test_threads_are_bounded_and_keep_their_order() -> None:
    """More work than threads waits its turn; errors and cancelled calls are each caller's own."""
    threads, seen = ThreadPool(2, "handbell-test"), []
    most, now, lock = 0, 0, threading.Lock()

    def work(number: int) -> int:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
            seen.append(number)
        if number == 3:
            raise ValueError(number)
        with lock:
            now -= 1
        return number

    results = await asyncio.gather(
        *(threads.run(work, number) for number in range(6)), return_exceptions=True
    )
    assert [str(one) for one in results] == ["0", "1", "2", "3", "4", "5"]
    assert isinstance(results[3], ValueError)
    assert most <= 3
    gate = threading.Event()
    held = [asyncio.create_task(threads.run(gate.wait)) for _ in range(2)]
    late = asyncio.create_task(threads.run(work, 9))
    await asyncio.sleep(0)
    late.cancel()
    gate.set()
    assert await asyncio.gather(*held) == [True, True]
    assert await threads.run(work, 10) == 10
    assert 9 not in seen
