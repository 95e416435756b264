"""Token buckets: how much one caller may have in a time."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import RateLimitedError
from handbell.server.limits import Limit, Limiter


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        """Return the time in seconds."""
        return self.time


THREE = Limit(number=3, seconds=30)


def test_a_bucket_gives_what_is_in_it_and_then_says_how_long_to_wait() -> None:
    """Three at once are granted; the fourth waits for its share of the time, and costs nothing."""
    clock = Clock()
    limiter = Limiter(now=clock)
    assert [limiter.take("mail", "a", THREE) for _ in range(3)] == [0, 0, 0]
    assert limiter.take("mail", "a", THREE) == pytest.approx(10)
    clock.time += 9
    assert limiter.take("mail", "a", THREE) == pytest.approx(1)
    clock.time += 1
    assert limiter.take("mail", "a", THREE) == 0
    assert limiter.take("mail", "a", THREE) == pytest.approx(10)


def test_purposes_and_callers_do_not_share_a_bucket() -> None:
    """What one caller used up for one purpose is another's, and another purpose's, to have."""
    limiter = Limiter(now=Clock())
    for _ in range(3):
        limiter.require("mail", "a", THREE)
    limiter.require("mail", "b", THREE)
    limiter.require("sign-in", "a", THREE)
    with pytest.raises(RateLimitedError) as caught:
        limiter.require("mail", "a", THREE)
    assert caught.value.retry_after == pytest.approx(10)
    assert "10 s" in caught.value.fix


def test_a_forgotten_bucket_is_full_again() -> None:
    """After a success nobody has to wait for the attempts before it."""
    limiter = Limiter(now=Clock())
    for _ in range(3):
        limiter.require("sign-in", "a", THREE)
    limiter.forget("sign-in", "a")
    assert limiter.take("sign-in", "a", THREE, amount=3) == 0


def test_a_clock_that_goes_back_gives_nothing() -> None:
    """A bucket is never fuller than its limit, and a step back of the clock does not empty it."""
    clock = Clock()
    limiter = Limiter(now=clock)
    limiter.require("mail", "a", THREE, amount=2)
    clock.time -= 500
    assert limiter.take("mail", "a", THREE) == 0
    clock.time += 10_000
    assert limiter.take("mail", "a", THREE, amount=3) == 0
    assert limiter.take("mail", "a", THREE) > 0


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 3)), max_size=60))
def test_no_caller_gets_more_than_the_limit(steps: list[tuple[float, float]]) -> None:
    """Whatever the pace, the sum granted stays within the bucket and what came back into it."""
    clock = Clock()
    limiter = Limiter(now=clock)
    granted = 0.0
    for pause, amount in steps:
        clock.time += pause
        if limiter.take("mail", "a", THREE, amount=amount) == 0:
            granted += amount
        assert granted <= THREE.number + (clock.time - 1000) * THREE.number / THREE.seconds + 1e-6


def test_memory_is_bounded_and_the_fullest_buckets_go_first() -> None:
    """A flood of callers does not free the one who has used everything up."""
    limiter = Limiter(now=Clock(), most=100)
    limiter.require("mail", "used up", THREE, amount=3)
    for number in range(1000):
        limiter.take("mail", str(number), THREE)
    assert limiter.size <= 101
    assert limiter.take("mail", "used up", THREE) > 0


def test_threads_share_a_bucket() -> None:
    """Several threads together get no more than one would."""
    limiter = Limiter(now=Clock())
    waits: list[float] = []

    def take() -> None:
        waits.extend(limiter.take("mail", "a", Limit(number=50, seconds=1)) for _ in range(40))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert waits.count(0.0) == 50
