"""Header blocks as they are written, read back by hpack's own decoder."""

from dataclasses import dataclass

import pytest
from hpack import Decoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.http2_headers import Headers, HeaderWriter, header_reader, read_block

AUTHORITY = "api.push.apple.com"
PSEUDO = [(":method", "POST"), (":scheme", "https"), (":authority", AUTHORITY)]
NAMES = ("apns-id", "apns-expiration", "apns-collapse-id", "apns-topic", "authorization", "date")
SHARED: Headers = (
    ("apns-push-type", "alert"),
    ("apns-topic", "com.sample.myapp"),
    ("authorization", "bearer abc.def.ghi"),
)
OWN: Headers = (("apns-id", "1b2c"), ("apns-expiration", "0"), ("apns-collapse-id", "score"))


class Peer:
    """The other side's table, which follows ours by what it is told alone."""

    def __init__(self) -> None:
        self.decoder = Decoder()
        self.decoder.max_allowed_table_size = 4096

    def read(self, block: bytes) -> list[tuple[str, str]]:
        """Return the pairs of a block."""
        return [(str(name), str(value)) for name, value in self.decoder.decode(block)]

    @property
    def table(self) -> list[tuple[bytes, bytes]]:
        """What lies in the table, the newest first."""
        return list(self.decoder.header_table.dynamic_entries)


def wanted(path: str, shared: Headers, own: Headers) -> list[tuple[str, str]]:
    """Return what the other side has to read, in order."""
    return [*PSEUDO, (":path", path), *shared, *own]


@dataclass(frozen=True)
class Resize:
    """A table size that the other side announces."""

    size: int


printable = st.characters(min_codepoint=32, max_codepoint=0x2FF).filter(str.isprintable)
values = st.one_of(
    st.sampled_from(["", "0", "10", "alert", "x" * 126, "x" * 127, "x" * 300, "y" * 4100]),
    st.text(printable, max_size=40),
)
headers = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=5).map(tuple)
own_paths = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=200).map(
    "/".__add__
)
few_headers = st.sampled_from([(), SHARED, SHARED[:1], (("apns-topic", "z" * 4000),), OWN])
requests = st.tuples(own_paths, st.one_of(headers, few_headers), st.one_of(headers, few_headers))
resizes = st.one_of(
    st.sampled_from([0, 1, 33, 80, 200, 4095, 4096, 4097, 2**32 - 1]), st.integers(0, 6000)
).map(Resize)


@given(st.lists(st.one_of(requests, requests, resizes), max_size=40))
def test_what_is_written_is_read_back(steps: list[tuple[str, Headers, Headers] | Resize]) -> None:
    """Whatever the order of requests and table sizes, the other side reads what was meant."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    for step in steps:
        if isinstance(step, Resize):
            writer.resize(step.size)
        else:
            assert peer.read(writer.block(*step)) == wanted(*step)


@given(st.lists(resizes, min_size=1, max_size=6))
def test_each_change_of_the_table_is_told(sizes: list[Resize]) -> None:
    """A block after smaller sizes tells the smallest and the last, in two updates at most."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    peer.read(writer.block("/", SHARED, OWN))
    for each in sizes:
        writer.resize(each.size)
    allowed = [min(each.size, 4096) for each in sizes]
    block = writer.block("/", SHARED, OWN)
    told = updates(block) or [4096]
    assert len(told) <= 2
    assert min(told) == min(*allowed, 4096)
    assert told[-1] == allowed[-1]
    peer.decoder.max_allowed_table_size = allowed[-1]
    assert peer.read(block) == wanted("/", SHARED, OWN)
    assert peer.read(writer.block("/", SHARED, OWN)) == wanted("/", SHARED, OWN)


def updates(block: bytes) -> list[int]:
    """Return the table sizes that a block begins with (RFC 7541, section 6.3)."""
    sizes = []
    while block[0] & 0xE0 == 0x20:
        size, place, shift = block[0] & 0x1F, 1, 0
        if size == 0x1F:
            while True:
                size += (block[place] & 0x7F) << shift
                place, shift = place + 1, shift + 7
                if not block[place - 1] & 0x80:
                    break
        sizes.append(size)
        block = block[place:]
    return sizes


def test_the_same_size_twice_is_still_told() -> None:
    """A size that comes twice before the next block does not keep that block from telling it."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    peer.read(writer.block("/", SHARED, OWN))
    writer.resize(100)
    writer.resize(100)
    assert updates(writer.block("/", SHARED, OWN)) == [100]


def test_a_path_is_never_indexed() -> None:
    """However often paths are sent, none of them gets into the table."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    for number in range(50):
        peer.read(writer.block(f"/3/device/{number % 5:064x}", SHARED, OWN))
    assert ":path" not in {name.decode() for name, _ in peer.table}


def test_what_is_shared_is_indexed_and_costs_a_byte_each() -> None:
    """From the second request on, shared headers and the pseudo-headers are one byte each."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    peer.read(writer.block("/a", SHARED, ()))
    assert {(name.decode(), value.decode()) for name, value in peer.table} == {
        (":authority", AUTHORITY),
        *SHARED,
    }
    settled = writer.block("/a", SHARED, ())
    assert len(settled) == len(PSEUDO) + len(b"\x04\x02/a") + len(SHARED)
    assert peer.read(settled) == wanted("/a", SHARED, ())


def test_own_headers_are_indexed_by_name_after_the_first_time() -> None:
    """``apns-id`` and its like get into the table once; later values are literals beside a name."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    for number in range(10):
        own = tuple((name, f"{value}-{number}") for name, value in OWN)
        block = writer.block("/a", SHARED, own)
        assert peer.read(block) == wanted("/a", SHARED, own)
    first = {name.encode(): f"{value}-0".encode() for name, value in OWN}
    assert {name: value for name, value in peer.table if name in first} == first
    assert b"apns-collapse-id" not in block


def test_the_name_is_written_out_where_the_table_has_lost_it() -> None:
    """With a table too small for anything, own headers are literals and are still read."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    peer.read(writer.block("/a", SHARED, OWN))
    writer.resize(0)
    peer.decoder.max_allowed_table_size = 0
    for _ in range(3):
        assert peer.read(block := writer.block("/a", SHARED, OWN)) == wanted("/a", SHARED, OWN)
        assert peer.table == []
    assert b"apns-collapse-id" in block


BAD = {
    "an empty path": ("", SHARED, OWN),
    "a path without a slash": ("3/device/1", SHARED, OWN),
    "a blank": ("/3/device/1 2", SHARED, OWN),
    "a line break": ("/3\r\nx", SHARED, OWN),
    "letters that no path has": ("/3/device/é", SHARED, OWN),
    "half a character": ("/\ud800", SHARED, OWN),
    "a line break in a shared header": ("/", (("apns-topic", "a\nb"),), OWN),
    "a zero in a header of its own": ("/", SHARED, (("apns-id", "a\0b"),)),
    "half a character in a header": ("/", SHARED, (("apns-new", "\udfff"),)),
}


@pytest.mark.parametrize("request_", BAD.values(), ids=BAD)
@pytest.mark.parametrize("is_fresh", [True, False])
def test_what_cannot_be_sent_leaves_the_table(
    request_: tuple[str, Headers, Headers], *, is_fresh: bool
) -> None:
    """A refused request leaves both tables alike: the next one is read as it was meant."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    if not is_fresh:
        peer.read(writer.block("/a", SHARED, ()))
    with pytest.raises(ValueError, match=r"path|header|ascii"):
        writer.block(*request_)
    for _ in range(2):
        assert peer.read(writer.block("/a", SHARED, OWN)) == wanted("/a", SHARED, OWN)


def test_many_different_shared_headers_do_not_pile_up() -> None:
    """Headers that were meant to be shared and never are, are read, and forgotten again."""
    writer, peer = HeaderWriter(AUTHORITY), Peer()
    for number in range(600):
        shared = (("apns-topic", "com.sample"), ("apns-priority", str(number % 300)))
        assert peer.read(writer.block("/a", shared, OWN)) == wanted("/a", shared, OWN)
    assert len(peer.table) < 100


@given(st.binary(max_size=200))
def test_any_bytes_are_a_block_or_an_error_of_hpack(block: bytes) -> None:
    """A reader raises nothing but an error of hpack, and no block changes how the next is read."""
    reader = header_reader(65536)
    try:
        read_block(reader, block)
    except HPACKError:
        pass
    else:
        assert list(reader.header_table.dynamic_entries) == []
    assert read_block(reader, b"\x88") == [(b":status", b"200")]
