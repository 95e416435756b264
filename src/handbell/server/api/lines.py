"""Splits a byte stream into lines of bounded length."""

from dataclasses import dataclass
from typing import Final

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line that is not blank, by its number from 1 on.

    ``text`` is without the line's end; None for a line that was longer than allowed.
    """

    number: int
    text: bytes | None


class LineSplitter:
    """Splits pieces of a stream into lines; buffers at most ``limit`` bytes of an open line.

    A line ends with a line feed, with or without a carriage return before it; the last one may end
    with the stream. Blank lines are counted and left out, and so is a byte order mark.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._number = 0
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[Line]:
        """Return the lines that end in this piece of the stream."""
        first, *others = piece.split(b"\n")
        self._hold(first)
        if not others:
            return []
        found = self._end()
        rest = others.pop()
        for text in others:
            found += self._line(text)
        self._hold(rest)
        return found

    def close(self) -> list[Line]:
        """Return what the stream ended with, if it did not end with a line's end."""
        return self._end()

    def _hold(self, piece: bytes) -> None:
        self._size += len(piece)
        # One more than the limit, for the carriage return.
        if self._size > self._limit + 1:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _end(self) -> list[Line]:
        is_whole = self._size <= self._limit + 1
        text = b"".join(self._pieces) if is_whole else None
        self._pieces.clear()
        self._size = 0
        return self._line(text)

    def _line(self, text: bytes | None) -> list[Line]:
        self._number += 1
        if text is None or len(text) > self._limit + 1:
            return [Line(self._number, None)]
        if self._number == 1:
            text = text.removeprefix(BYTE_ORDER_MARK)
        text = text.strip()
        if len(text) > self._limit:
            return [Line(self._number, None)]
        return [Line(self._number, text)] if text else []
