from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell._back_off import JITTER, BackOff

DOUBLING = BackOff(60, 2, 3600)


@pytest.mark.parametrize(
    ("steps", "delay"),
    [(0, 60), (1, 120), (5, 1920), (6, 3600), (7, 3600), (10**9, 3600), (0.5, 84.85), (-1, 30)],
)
def test_a_delay_grows_up_to_the_longest(steps: float, delay: float) -> None:
    """By its factor with each step, and in between by parts of it."""
    assert DOUBLING.delay(steps) == pytest.approx(delay, abs=0.01)


@given(
    back_off=st.builds(BackOff, st.floats(0.001, 1e4), st.floats(1, 100), st.floats(0.001, 1e6)),
    steps=st.integers(0, 10**12),
    asked=st.floats(0, 1e6),
    seed=st.integers(),
)
def test_chance_adds_at_most_a_quarter_of_the_delay(
    back_off: BackOff, steps: int, asked: float, seed: int
) -> None:
    """Nothing is earlier than the delay or than what was asked, nor later than a quarter more."""
    delay = back_off.delay(steps)
    assert delay <= back_off.longest
    assert delay <= back_off.delay(steps + 1)
    spread = back_off.spread(steps, Random(seed), at_least=asked)  # noqa: S311 - jitter
    assert max(delay, asked) <= spread <= max(delay, asked) + JITTER * delay
