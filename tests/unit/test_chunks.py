from hypothesis import given
from hypothesis import strategies as st

from handbell._chunks import chunks


@given(values=st.lists(st.integers()), size=st.integers(1, 9))
def test_every_value_comes_once_and_in_order(values: list[int], size: int) -> None:
    """All but the last chunk are full, none is empty, and any iterable will do."""
    found = list(chunks(iter(values), size))
    assert [value for chunk in found for value in chunk] == values
    assert all(len(chunk) == size for chunk in found[:-1])
    assert all(found)
    assert len(found) == -(-len(values) // size)
