"""Header blocks (HPACK, RFC 7541) as a push service wants them.

The library ``hpack`` keeps the table and reads answers. What is written here is the choice that it
does not make: headers which are the same for many requests are put into the table once and cost a
byte each from then on; those which are different each time are written as they are and stay out of
it. Apple asks for just that. So most of a block is ready before its request comes.

An answer's block never refers to another one, as we announce a table of size zero. It can therefore
be read by itself, or not at all.
"""

import logging
from collections.abc import Sequence
from typing import Final

from hpack import Decoder, Encoder
from hpack.hpack import encode_integer

Headers = tuple[tuple[str, str], ...]
"""Pairs of a lower-case name and a value."""

_PATH: Final = b"\x04"  # a literal without indexing, its name that of the static table's entry 4
_NEW_NAME: Final = b"\x00"
_MOST_TABLE_BYTES: Final = 4096  # what RFC 7541 begins with; a larger one would gain nothing
_MOST_KEPT: Final = 256
_SHORT: Final = 127
_LENGTHS: Final = tuple(bytes([length]) for length in range(_SHORT))

# hpack tells the values of headers at DEBUG, and the provider token is one.
logging.getLogger("hpack").setLevel(logging.INFO)


class HeaderWriter:
    """Writes the header blocks of one connection, in the order in which they go out.

    A block that was written has to be sent: the other side's table follows it.
    """

    def __init__(self, authority: str) -> None:
        self._encoder = Encoder()
        self._pseudo = ((":method", "POST"), (":scheme", "https"), (":authority", authority))
        self._kept: dict[Headers, tuple[bytes, bytes]] = {}
        self._names: dict[str, bytes] = {}
        self._taught: set[str] = set()

    def resize(self, size: int) -> None:
        """Follow the table size that the other side allows.

        The next block tells it of the smallest size since the last one, and of the size now.
        """
        size = min(size, _MOST_TABLE_BYTES)
        if size == self._encoder.header_table_size:
            return  # hpack would forget to tell of a change that it has not told of yet
        self._encoder.header_table_size = size
        changes = self._encoder.table_size_changes
        self._encoder.table_size_changes = sorted({min(changes), size})
        self._forget()

    def block(self, path: str, shared: Headers, own: Headers) -> bytes:
        """Return the block of a POST request; ``shared`` goes into the table, ``own`` does not.

        Raises ValueError for a path or a value that cannot be sent, before the table is touched.
        """
        if not path.isprintable() or " " in path or path[:1] != "/":
            raise ValueError(
                "the path does not begin with a slash, or has characters that cannot be sent"
            )
        for name, value in own:
            if not value.isprintable():
                raise ValueError(f"the header {name} has a character that cannot be sent")
        target = path.encode("ascii")
        head, tail = self._kept.get(shared) or self._write(shared)
        parts = [head, _PATH, _length(target), target, tail]
        for name, value in own:
            known = self._names.get(name) or self._name(name)
            if known is None:
                parts.append(self._teach(name, value))
            else:
                text = value.encode()
                parts += (known, _length(text), text)
        return b"".join(parts)

    def _write(self, shared: Headers) -> tuple[bytes, bytes]:
        """Return what comes before the path and what after it; it is kept once it settles."""
        for name, value in shared:
            if not value.isprintable():
                raise ValueError(f"the header {name} has a character that cannot be sent")
        table = self._encoder.header_table
        is_new = table.resized
        entries = tuple(table.dynamic_entries)
        written = self._encoder.encode(self._pseudo), self._encoder.encode(shared)
        if is_new or entries != tuple(table.dynamic_entries):
            self._forget()
        else:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[shared] = written
        return written

    def _name(self, name: str) -> bytes | None:
        """Return how a literal with this name begins, or None where it is yet to be taught."""
        found = self._encoder.header_table.search(name.encode(), b"")
        if found is not None:
            begin = bytes(encode_integer(found[0], 4))
        elif name in self._taught:
            begin = _NEW_NAME + _length(name.encode()) + name.encode()
        else:
            return None
        self._names[name] = begin
        return begin

    def _teach(self, name: str, value: str) -> bytes:
        """Put a name into the table, with the value that it has now."""
        self._taught.add(name)
        written = self._encoder.encode(((name, value),))
        self._forget()
        return written

    def _forget(self) -> None:
        """Drop what is kept: the table has moved, and it would refer to other entries now."""
        self._kept.clear()
        self._names.clear()


def _length(text: bytes) -> bytes:
    size = len(text)
    return _LENGTHS[size] if size < _SHORT else bytes(encode_integer(size, 7))


def header_reader(most_bytes: int) -> Decoder:
    """Return a reader of blocks that refer to no table but the static one.

    Reading one raises :class:`hpack.OversizedHeaderListError` as soon as its headers are longer
    than ``most_bytes``, counted as RFC 9113, 6.5.2, does.
    """
    decoder = Decoder(most_bytes)
    decoder.header_table_size = 0
    decoder.max_allowed_table_size = 0
    return decoder


def read_block(decoder: Decoder, block: bytes) -> Sequence[tuple[bytes, bytes]]:
    """Return the pairs of a block; raises :class:`hpack.HPACKError` for one that is none."""
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
