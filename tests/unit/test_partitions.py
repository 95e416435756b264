"""Where partitions of the ledger begin and end, and what time is in an id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.storage.partitions import (
    DAY,
    EPOCH,
    NUMBER_BITS,
    day_of,
    id_at,
    instant_of,
    span_days,
    spans,
)

SECONDS = st.integers(min_value=EPOCH, max_value=EPOCH + 200 * 365 * DAY)
NUMBERS = st.integers(min_value=0, max_value=(1 << NUMBER_BITS) - 1)


@given(SECONDS, NUMBERS)
def test_an_id_tells_when_it_was_given_out(seconds: int, number: int) -> None:
    """Whatever its low bits, and for two centuries it is exact in a float as well."""
    row = id_at(seconds) | number
    assert instant_of(row) == seconds
    assert row < 2**53
    assert id_at(seconds) <= row < id_at(seconds + 1)


@given(SECONDS, st.integers(0, 400 * DAY), st.integers(1, 300))
def test_spans_leave_no_gap(seconds: int, ahead: int, days: int) -> None:
    """They begin where they are told to, reach as far, and are of whole days."""
    first = id_at(day_of(seconds))
    until = first + (ahead << NUMBER_BITS)
    found = spans(first, until, days)
    assert [end for _, end in found[:-1]] == [begin for begin, _ in found[1:]]
    assert [begin for begin, _ in found][:1] in ([], [first])
    assert (found[-1][1] if found else first) >= until
    assert all(end - begin == (days * DAY) << NUMBER_BITS for begin, end in found)
    assert all(day_of(instant_of(end)) == instant_of(end) for _, end in found)


@pytest.mark.parametrize(
    ("keep_days", "days"), [(1, 1), (1.5, 1), (7, 1), (13, 1), (14, 2), (30, 3), (90, 7), (365, 29)]
)
def test_there_are_never_many_partitions(keep_days: float, days: int) -> None:
    """The longer rows are kept, the more days one partition spans."""
    assert span_days(keep_days) == days
    assert keep_days / days <= 13
