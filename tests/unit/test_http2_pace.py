"""When the next connection to a host may be opened, as a table and for any history."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.http2_reconnect import ReconnectBackOff

ends = st.tuples(
    st.floats(0, 20), st.integers(0, 3000), st.booleans(), st.floats(0, 30)
)  # lived, answers, whether the host asked for calm, and how long afterwards the next one ended


def pauses(count: int, *, lived: float, answers: int = 1, is_calm: bool = False) -> list[float]:
    """Return the pauses after so many connections that all ended alike, one after the other."""
    pace, now, found = ReconnectBackOff(), 0.0, []
    for _ in range(count):
        now = max(now, pace.until) + lived
        pace.ended(now, lived=lived, answers=answers, is_calm=is_calm)
        found.append(round(pace.until - now, 3))
    return found


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        pytest.param({"lived": 0.0}, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15], id="young"),
        pytest.param({"lived": 5.0}, [0] * 10, id="old enough"),
        pytest.param({"lived": 0.1, "answers": 1000}, [0] * 10, id="busy enough"),
        pytest.param({"lived": 86400.0}, [0] * 10, id="old"),
        pytest.param(
            {"lived": 0.0, "is_calm": True}, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60], id="calm"
        ),
        pytest.param({"lived": 60.0, "is_calm": True}, [1] * 10, id="calm after a while"),
    ],
)
def test_pauses_grow_with_each_connection_that_ends_young(
    end: dict[str, float | bool], expected: list[float]
) -> None:
    """How long they lived, what they answered and what the host said decide, and nothing else."""
    found = pauses(10, **{"answers": 0, **end})  # type: ignore[arg-type]
    assert found == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("lived", "answers"), [(0.0, 1), (0.5, 10), (1.0, 100), (2.0, 1)])
def test_an_hour_of_connections_that_die_young_is_a_few_hundred(lived: float, answers: int) -> None:
    """Each is opened seconds after the former one in the end, however often that happens."""
    opened = 0
    pace, now = ReconnectBackOff(), 0.0
    while now < 3600:
        opened += 1
        pace.ended(now + lived, lived=lived, answers=answers, is_calm=False)
        now = pace.until
    assert opened < 260


@given(st.lists(ends, max_size=40))
def test_whatever_happened_the_pause_is_bounded_and_forgotten(
    history: list[tuple[float, int, bool, float]],
) -> None:
    """No history makes one wait for more than a minute, and 50 good seconds make up for any."""
    pace, now = ReconnectBackOff(), 1000.0
    for lived, answers, is_calm, later in history:
        now += later
        pace.ended(now, lived=lived, answers=answers, is_calm=is_calm)
        assert 0 <= pace.level <= 9
        assert pace.until <= now + 60
    now = max(now, pace.until) + 50
    pace.ended(now, lived=50, answers=0, is_calm=False)
    assert pace.until <= now
