"""Lines out of a stream, however it is cut into pieces."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.server.api.lines import Line, LineSplitter

LIMIT = 8


def cut(stream: bytes, places: list[int]) -> list[Line]:
    """Return the lines of a stream that comes in pieces, cut at these places."""
    splitter = LineSplitter(LIMIT)
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    return [line for piece in pieces for line in splitter.feed(piece)] + splitter.close()


def expected(stream: bytes) -> list[Line]:
    """Return the lines of a stream as its whole text says."""
    return [
        Line(number, text if len(text) <= LIMIT else None)
        for number, raw in enumerate(stream.split(b"\n"), start=1)
        if (text := raw.strip())
    ]


@given(
    st.lists(st.sampled_from([b"a", b"{}", b"\n", b"\r\n", b"\n\n", b"12345678"]), max_size=30),
    st.lists(st.integers(0, 500), max_size=20),
)
def test_the_pieces_do_not_matter(parts: list[bytes], places: list[int]) -> None:
    """However a stream is cut, its lines, their numbers and the overlong ones are the same."""
    stream = b"".join(parts)
    assert cut(stream, places) == expected(stream)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=20))
def test_any_bytes_have_lines_of_bounded_length(stream: bytes, places: list[int]) -> None:
    """Whatever comes, no line is longer than allowed, and the numbers only rise."""
    lines = cut(stream, places)
    numbers = [line.number for line in lines]
    assert all(len(line.text) <= LIMIT for line in lines if line.text is not None)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"", []),
        (b"\n\n", []),
        (b"a", [Line(1, b"a")]),
        (b"a\r\nb\n", [Line(1, b"a"), Line(2, b"b")]),
        (b"\xef\xbb\xbfa\nb", [Line(1, b"a"), Line(2, b"b")]),
        (b"12345678\r\n", [Line(1, b"12345678")]),
        (b"123456789\nb\n", [Line(1, None), Line(2, b"b")]),
        (b"a\n" + b"x" * 100, [Line(1, b"a"), Line(2, None)]),
        (b"a" + b" " * 20 + b"\nb\n", [Line(1, None), Line(2, b"b")]),
        (b"b\na" + b" " * 20 + b"\nb\n", [Line(1, b"b"), Line(2, None), Line(3, b"b")]),
    ],
)
def test_lines(stream: bytes, lines: list[Line]) -> None:
    """Blank lines count and are left out; after a line that is too long the next is read."""
    assert cut(stream, []) == lines
    assert cut(stream, list(range(len(stream)))) == lines


def test_an_endless_line_takes_no_memory() -> None:
    """Of a line beyond the limit nothing is held."""
    splitter = LineSplitter(LIMIT)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    held = sum(map(len, splitter._pieces))  # noqa: SLF001 - what it is about
    assert held <= LIMIT + 1
    assert splitter.feed(b"\nb\n") == [Line(1, None), Line(2, b"b")]
