"""Cursors and instants of the API."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import CursorError
from handbell.server.pages import instant, page, read_cursor, write_cursor

NUMBER = st.integers(-(2**62), 2**62)


@given(NUMBER, st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_a_cursor_comes_back_as_the_position_it_was_made_of(number: int, text: str) -> None:
    """Every position survives, and its cursor can stand in an address as it is."""
    cursor = write_cursor(number, text)
    assert read_cursor(cursor, int, str) == (number, text)
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.text(max_size=200))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    """Whatever somebody sends as a cursor is read or refused, and nothing else."""
    try:
        read_cursor(text, int)
    except CursorError as error:
        assert error.status == 400  # noqa: PT017 - only some texts are refused


@pytest.mark.parametrize(
    "position", [[1, 2], [], ["1"], [True], [1.5], [None], {"a": 1}, "1", 1, [1 << 63], [-1 << 64]]
)
def test_a_cursor_of_another_list_is_refused(position: object) -> None:
    """A position of another shape, kind or range is no cursor of this list."""
    cursor = base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
    with pytest.raises(CursorError):
        read_cursor(cursor, int)


def test_a_deep_cursor_is_refused() -> None:
    """A cursor that nests without end does not exhaust the stack."""
    cursor = base64.urlsafe_b64encode(b"[" * 3000).decode()
    with pytest.raises(CursorError):
        read_cursor(cursor, int)


def test_a_page_names_the_next_one_only_where_there_is_more() -> None:
    """One row beyond the limit makes a cursor behind the last row that is shown."""
    assert page([1, 2, 3], 2, lambda row: f"after {row}") == {"data": [1, 2], "next": "after 2"}
    assert page([1, 2], 2, lambda row: f"after {row}") == {"data": [1, 2], "next": None}
    assert page([], 2, str) == {"data": [], "next": None}


def test_an_instant_is_iso_8601_with_milliseconds_and_z() -> None:
    """An instant has one form, to the millisecond, in UTC."""
    assert instant(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert instant(None) is None
