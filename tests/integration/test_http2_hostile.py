"""The HTTP/2 engine against servers that mean no good: every item ends, once, and costs little."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import cast

import pytest
from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame
from tests.http2_server import LOOPS, Counted, opened, paths, serve
from tests.wire import BAD, OK, block, head

from handbell.gateways.http2 import End, Endpoint, Limits, Pool, Request, StreamResponse
from handbell.twin.certificates import Authority

BRIEF = Limits(in_flight=20, connect_timeout=0.5, request_timeout=0.3)
GREETING = SettingsFrame().serialize()
SEEDS = range(40)
_FIRST_REQUEST = b"\x01\x04\x00\x00\x00\x01"  # HEADERS, whole, on stream 1


class Hostile(Counted):
    """Greets, awaits the first request, and then says whatever it has to say."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", transport)
        self.heard = b""
        self.has_begun = False
        self.transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        """Begin once a request has come."""
        if self.has_begun:
            return
        self.heard += data
        if _FIRST_REQUEST in self.heard:
            self.has_begun = True
            self.begin()

    def begin(self) -> None:
        """Say something."""
        raise NotImplementedError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


class Leaver(Hostile):
    """Answers the first request, says that it leaves, and ends nothing that came later."""

    def begin(self) -> None:
        """Answer, and leave a little later without an end."""
        self.transport.write(head(1, OK, is_end=True))
        said = GoAwayFrame(last_stream_id=2**31 - 1).serialize()
        asyncio.get_running_loop().call_later(0.003, self.transport.write, said)


def test_a_server_that_leaves_each_connection_is_not_given_ever_more(authority: Authority) -> None:
    """Connections that are left and not ended add up to a few dozen at most, and each item ends."""
    server: type[Leaver] = type("OneLeaver", (Leaver,), {})
    ends: Counter[str] = Counter()

    async def story() -> None:
        async with serve(authority, server) as url:
            pool: Pool[str] = Pool(
                Endpoint(url, authority.ca_file),
                Limits(in_flight=2, request_timeout=0.4),
                prepare=lambda path: Request(path, (), (), b"{}"),
                finish=lambda path, _: ends.update([path]),
            )
            pool.submit(paths(150))
            async with asyncio.timeout(10):
                await pool.close()

    asyncio.run(story())
    assert ends == Counter(paths(150))
    assert server.most_present <= 20


class Flooder(Hostile):
    """Reads nothing any more, and asks for replies until it is told to stop."""

    is_over = False

    def begin(self) -> None:
        """Ask, and go on asking."""
        self.transport.pause_reading()
        self.flood()

    def flood(self) -> None:
        """Ask for a few thousand replies."""
        if type(self).is_over:
            self.transport.abort()
        else:
            self.transport.write(PingFrame().serialize() * 3000)
            asyncio.get_running_loop().call_later(0.001, self.flood)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_replies_to_a_server_that_reads_none_are_few(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A flood of PING is cut off long before the timeout, and before it fills the memory."""
    server: type[Flooder] = type("OneFlooder", (Flooder,), {})

    async def story() -> list[End]:
        async with serve(authority, server) as url:
            patient = Limits(in_flight=20, request_timeout=20)
            async with opened(Endpoint(url, authority.ca_file), patient) as ask:
                ends = await ask(paths(5))
            server.is_over = True
        return ends

    with asyncio.Runner(loop_factory=new_loop) as runner:
        began = runner.get_loop().time()
        ends = runner.run(story())
        assert runner.get_loop().time() - began < 3
    assert len(ends) == 5
    assert {end.detail for end in ends if not isinstance(end, StreamResponse)} == {
        "the server broke the protocol: it sends frames without end, and no answer"
    }


def frame(chance: random.Random) -> bytes:
    """Return a frame that may be lawful, or nearly so."""
    kind = chance.choice((0, 0, 1, 1, 1, 2, 3, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11))
    payloads = (
        OK,
        BAD,
        block((":status", "103")),
        block((":status", "abc")),
        b"",
        b"\0" * chance.choice((1, 4, 5, 6, 8, 9)),
        chance.randbytes(chance.choice((1, 4, 8, 24))),
        chance.choice((7, 8, 2**31 - 1)).to_bytes(4, "big"),
        b"\0\3" + chance.choice((0, 1, 5)).to_bytes(4, "big"),
        b"\0\4" + chance.choice((0, 1, 2**31 - 1)).to_bytes(4, "big"),
        chance.choice((0, 1, 3, 2**31 - 1)).to_bytes(4, "big") + b"\0\0\0\1bye",
    )
    payload = chance.choice(payloads)
    number = chance.choice((0, 0, 1, 1, 1, 3, 3, 5, 7, 2))
    flags = chance.choice((0, 1, 4, 4, 5, 5, 5, 8, 13, 0x25))
    length = len(payload) if chance.random() < 0.97 else chance.randrange(40)
    first = length.to_bytes(3, "big") + bytes([kind, flags])
    return first + number.to_bytes(4, "big") + payload


def random_server(seed: int) -> type[Hostile]:
    """Return a server that says the same nonsense each time, and in the end hangs up or does not.

    Now and then it answers what was asked, so that more is asked.
    """

    class Random(Hostile):
        """Says its frames in a few pieces."""

        def begin(self) -> None:
            chance = random.Random(seed)  # noqa: S311 - nonsense that can be repeated
            frames = [frame(chance) for _ in range(chance.randrange(1, 12))]
            if chance.random() < 0.6:
                frames.insert(0, head(1, OK, is_end=True))
            said = b"".join(frames)
            loop = asyncio.get_running_loop()
            pieces = chance.randrange(1, 4)
            size = -(-len(said) // pieces)
            for piece in range(pieces):
                part = said[piece * size : (piece + 1) * size]
                loop.call_later(piece * 0.004, self.transport.write, part)
            hang_up = chance.choice((None, self.transport.close, self.transport.abort))
            if hang_up is not None:
                loop.call_later(0.015, hang_up)

    return Random


async def ends_of(authority: Authority, seed: int) -> Counter[str]:
    """Send to a random server and return how often each item ended."""
    ends: Counter[str] = Counter()
    async with serve(authority, random_server(seed)) as url:
        pool: Pool[str] = Pool(
            Endpoint(url, authority.ca_file),
            BRIEF,
            prepare=lambda path: Request(path, (("x-test", "1"),), (), b"{}" * (seed % 3)),
            finish=lambda path, _: ends.update([path]),
            wants_headers=bool(seed % 2),
        )
        pool.submit(paths(30))
        async with asyncio.timeout(20):
            await pool.close()
        assert pool.connected == 0
    return ends


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_whatever_a_server_says_each_item_ends_once(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Frames at random, lawful and not, cut anywhere: nothing is raised, nothing hangs."""
    faults: list[object] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        everybody = await asyncio.gather(*(ends_of(authority, seed) for seed in SEEDS))
        assert all(ends == Counter(paths(30)) for ends in everybody)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())
    assert faults == []
