"""Limits per caller: how much one may have in a time, of all servers together."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.standing_clock import StandingClock

from handbell.clocks import MachineClock
from handbell.errors import RateLimitedError
from handbell.server.limits import Limit, Limiter
from handbell.storage.database import Database
from handbell.storage.shared_buckets import SharedBuckets

Server = Callable[[], Limiter]
THREE = Limit(number=3, seconds=30)


@pytest.fixture
def clock() -> StandingClock:
    """Give a clock."""
    return StandingClock(1000.0)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open a database."""
    with closing(Database.open(database_url)) as database:
        yield database


@pytest.fixture
def server(database: Database, clock: StandingClock) -> Server:
    """Give what makes the limiter of one more server."""
    buckets = SharedBuckets(database, MachineClock("test", clock))
    return lambda: Limiter(lambda: buckets, clock=clock)


def test_a_caller_gets_so_many_and_is_then_told_how_long_to_wait(
    server: Server, clock: StandingClock
) -> None:
    """Three at once are granted; the fourth waits for its share of the time, and costs nothing."""
    limiter = server()
    assert [limiter.take("mail", "a", THREE) for _ in range(3)] == [0, 0, 0]
    assert limiter.take("mail", "a", THREE) == pytest.approx(10, abs=1e-4)
    clock.at += 9
    assert limiter.take("mail", "a", THREE) == pytest.approx(1, abs=1e-4)
    clock.at += 1.001
    assert limiter.take("mail", "a", THREE) == 0
    assert limiter.take("mail", "a", THREE) == pytest.approx(10, abs=0.01)


def test_servers_share_what_a_caller_may_have(server: Server, clock: StandingClock) -> None:
    """An exact limit is exact over all servers; what is given back or forgotten is so for all."""
    one, other = server(), server()
    assert [one.take("mail", "a", THREE), other.take("mail", "a", THREE)] == [0, 0]
    assert one.take("mail", "a", THREE) == 0
    assert other.take("mail", "a", THREE) > 0
    one.give_back("mail", "a", THREE)
    clock.at += 1
    assert other.take("mail", "a", THREE) == 0
    assert one.take("mail", "a", THREE) > 0
    one.forget("mail", "a")
    clock.at += 1
    assert [other.take("mail", "a", THREE) for _ in range(3)] == [0, 0, 0]


def test_a_limit_in_steps_exceeds_by_a_step_at_each_further_server(server: Server) -> None:
    """What is granted lies between the limit and one step more for each server beyond one."""
    servers = [server() for _ in range(3)]
    limit = Limit(number=50, seconds=1e6, step=5)
    granted = sum(not servers[turn % 3].take("key", "a", limit) for turn in range(200))
    assert granted == 50


def test_purposes_and_callers_do_not_share_a_bucket(server: Server) -> None:
    """What one caller used up for one purpose is another's, and another purpose's, to have."""
    limiter = server()
    for _ in range(3):
        limiter.require("mail", "a", THREE)
    limiter.require("mail", "b", THREE)
    limiter.require("sign-in", "a", THREE)
    with pytest.raises(RateLimitedError) as caught:
        limiter.require("mail", "a", THREE)
    assert caught.value.retry_after == pytest.approx(10, abs=1e-4)
    assert "10 s" in caught.value.fix


def test_a_clock_that_goes_back_gives_nothing(server: Server, clock: StandingClock) -> None:
    """A bucket is never fuller than its limit, and a step back of the clock does not fill it."""
    for _ in range(3):
        server().require("mail", "a", THREE)
    clock.at -= 500
    assert server().take("mail", "a", THREE) == pytest.approx(10, abs=1e-4)
    clock.at += 10_000
    assert [server().take("mail", "a", THREE) for _ in range(3)] == [0, 0, 0]
    assert server().take("mail", "a", THREE) > 0


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(pauses=st.lists(st.floats(0, 20), max_size=30))
def test_no_caller_gets_more_than_the_limit(
    server: Server, clock: StandingClock, pauses: list[float]
) -> None:
    """Whatever the pace, as much is granted as the limit and the time allow."""
    caller, began, granted = str(uuid4()), clock.at, 0
    limiters = [server(), server()]
    for turn, pause in enumerate(pauses):
        clock.at += pause
        granted += limiters[turn % 2].take("mail", caller, THREE) == 0
        assert granted <= THREE.number + (clock.at - began) / 10 + 1e-3


def test_memory_is_bounded_and_nobody_is_freed_by_that(
    database: Database, clock: StandingClock
) -> None:
    """A flood of callers does not free the one who has used everything up."""
    buckets = SharedBuckets(database, MachineClock("test", clock))
    limiter = Limiter(lambda: buckets, clock=clock, most=20)
    for _ in range(3):
        limiter.require("mail", "used up", THREE)
    for number in range(60):
        limiter.take("mail", str(number), THREE)
    assert limiter.size <= 21
    assert limiter.take("mail", "used up", THREE) > 0


def test_threads_share_a_bucket(server: Server) -> None:
    """Several threads together get no more than one would."""
    limiter, waits = server(), list[float]()
    limit = Limit(number=20, seconds=1e6)

    def take() -> None:
        waits.extend(limiter.take("mail", "a", limit) for _ in range(15))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits.count(0.0) == 20


def test_a_bucket_that_has_been_full_for_an_hour_leaves_no_row(
    database: Database, server: Server, clock: StandingClock
) -> None:
    """And one that is not full yet stays."""
    buckets = SharedBuckets(database, MachineClock("test", clock))
    for _ in range(3):
        server().require("mail", "a", THREE)
    assert buckets.prune() == 0
    clock.at += 30 + 3601
    server().require("mail", "b", THREE)
    assert buckets.prune() == 1
