"""Header blocks (HPACK, RFC 7541), encoded for many similar pushes.

The library ``hpack`` keeps the table and decodes answers. This module decides what goes into the
table: headers shared by many requests are indexed once and cost a byte each from then on; those
that differ each time are literals without indexing, as Apple asks. So most of a block is ready
before its request.

An answer's block never refers to another one, as we announce a table of size zero. So it can be
decoded alone, or skipped.
"""

import logging
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hpack import Decoder, Encoder
from hpack.hpack import encode_integer

Headers = tuple[tuple[str, str], ...]
"""Pairs of a lower-case name and a value."""

_PATH: Final = b"\x04"  # literal without indexing, named by the static table's entry 4
_NEW_NAME: Final = b"\x00"
_MOST_TABLE_BYTES: Final = 4096  # RFC 7541's initial size; a larger one would gain nothing
_MOST_KEPT: Final = 256
_SHORT: Final = 127
_LENGTHS: Final = tuple(bytes([length]) for length in range(_SHORT))

# hpack logs header values at DEBUG, the provider token included.
logging.getLogger("hpack").setLevel(logging.INFO)


class HeaderWriter:
    """Encodes the header blocks of one connection, in sending order.

    An encoded block must be sent: the peer's table follows it.
    """

    def __init__(self, authority: str) -> None:
        self._encoder = Encoder()
        self._pseudo = ((":method", "POST"), (":scheme", "https"), (":authority", authority))
        self._kept: dict[Headers, tuple[bytes, bytes]] = {}
        self._names: dict[str, bytes] = {}
        self._taught: set[str] = set()

    def resize(self, size: int) -> None:
        """Apply the peer's table size.

        The next block announces the smallest size since the last one, and the current size.
        """
        size = min(size, _MOST_TABLE_BYTES)
        if size == self._encoder.header_table_size:
            return  # hpack would skip a change that it has not announced yet
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
        """Return what precedes and what follows the path; cached once it is stable."""
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
        """Return the literal's prefix for a name, or None when it is not in the table yet."""
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
        """Add a name to the table, with its current value."""
        self._taught.add(name)
        written = self._encoder.encode(((name, value),))
        self._forget()
        return written

    def _forget(self) -> None:
        """Drop the cache: the table has changed, and its indices with it."""
        self._kept.clear()
        self._names.clear()


def _length(text: bytes) -> bytes:
    size = len(text)
    return _LENGTHS[size] if size < _SHORT else _long_length(size)


@lru_cache(maxsize=4096)
def _long_length(size: int) -> bytes:
    # Endpoints of browsers have hundreds of characters.
    return bytes(encode_integer(size, 7))


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
    """Return the pairs of a block; raises :class:`hpack.HPACKError` for an invalid one."""
    return [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
