"""Servers whose connections die young: few are opened, what waits is told why, and goes later."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from hyperframe.frame import GoAwayFrame, RstStreamFrame
from tests.http2_server import Server, opened, paths, run, serve

from handbell.gateways.http2 import End, Endpoint, Limits, Lost, NotSent, StreamResponse
from handbell.twin.certificates import Authority

LIMITS = Limits(in_flight=50, connect_timeout=2, request_timeout=5)
CALM = 11


def leave(server: "ShortLived", error: int) -> None:
    """Say GOAWAY, of which a clean end is the rest."""
    said = GoAwayFrame(last_stream_id=server.answered, error_code=error, additional_data=b"why")
    server.transport.write(said.serialize())
    server.transport.close()


WAYS: dict[str, Callable[["ShortLived"], None]] = {
    "GOAWAY": lambda server: leave(server, 0),
    "GOAWAY INTERNAL_ERROR": lambda server: leave(server, 2),
    "GOAWAY ENHANCE_YOUR_CALM": lambda server: leave(server, CALM),
    "hangs up": lambda server: server.transport.close(),
    "reset": lambda server: server.hang_up(),
    "breaks the protocol": lambda server: server.transport.write(RstStreamFrame(2).serialize()),
}


class ShortLived(Server):
    """Ends each connection in its own way once so many answers have been given on it."""

    way: Callable[["ShortLived"], None]
    answers = 1
    deaths = 1_000_000
    answered = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count."""
        super().connection_made(transport)
        self.given = 0

    def answer(self, number: int) -> None:
        """Answer, and die of it."""
        if self.given >= self.answers and self.connections <= self.deaths:
            return
        super().answer(number)
        self.given += 1
        self.answered = number
        if self.given == self.answers and self.connections <= self.deaths:
            type(self).way(self)


def short_lived(way: str, **given: int) -> type[ShortLived]:
    """Return a server class with counters of its own."""
    return type("OneShortLived", (ShortLived,), {"asked": Counter(), "way": WAYS[way], **given})


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("answers", [1, 5])
@pytest.mark.parametrize("way", WAYS)
def test_connections_that_die_young_are_not_opened_without_end(
    authority: Authority, way: str, answers: int
) -> None:
    """A few are tried; what still waits is given back, with the reason and the time in words."""
    server = short_lived(way, answers=answers)

    async def story() -> list[End]:
        async with (
            serve(authority, server) as url,
            opened(Endpoint(url, authority.ca_file), LIMITS) as ask,
        ):
            return await ask(paths(300))

    ends: list[End] = run(story)
    assert server.connections <= 5
    assert sum(isinstance(end, StreamResponse) for end in ends) >= answers
    assert sum(isinstance(end, Lost) for end in ends) <= 50 + 5 * (1 + answers)
    given_back = [end for end in ends if isinstance(end, NotSent)]
    assert len(given_back) >= 100
    assert all(end.after is not None and end.after > 0.1 for end in given_back)
    assert {end.reason for end in given_back} <= {"ConnectionClosed", "GoneAway"}
    assert all("the push service ends each connection" in end.detail for end in given_back)
    if "GOAWAY" in way:
        code = way.partition(" ")[2] or "NO_ERROR"
        assert all(f"the server said {code}: why" in end.detail for end in given_back)


def test_a_host_that_asks_for_calm_gets_it(authority: Authority) -> None:
    """After ENHANCE_YOUR_CALM the next connection is a second away, from the first time on."""
    server = short_lived("GOAWAY ENHANCE_YOUR_CALM")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with (
            serve(authority, server) as url,
            opened(Endpoint(url, authority.ca_file), LIMITS) as ask,
        ):
            await ask(["/ok-1"])
            began = loop.time()
            (end,) = await ask(["/ok-2"])
            assert isinstance(end, StreamResponse)
            assert loop.time() - began > 0.9

    run(story)
    assert server.connections == 2


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_lost_by_it_and_all_goes_when_the_host_is_well(
    authority: Authority, way: str
) -> None:
    """What is given back and sent again at the time that was named is answered in the end."""
    server = short_lived(way, deaths=3 if "CALM" not in way else 1)

    async def story() -> Counter[str]:
        ends: Counter[str] = Counter()
        async with (
            serve(authority, server) as url,
            opened(Endpoint(url, authority.ca_file), LIMITS) as ask,
        ):
            waiting = paths(60)
            for again in range(5):
                asked = [f"{path}-{again}" for path in waiting]
                told = dict(zip(waiting, await ask(asked), strict=True))
                ends.update("answered" for end in told.values() if isinstance(end, StreamResponse))
                ends.update("lost" for end in told.values() if isinstance(end, Lost))
                waiting = [path for path, end in told.items() if isinstance(end, NotSent)]
                if not waiting:
                    break
                after = max(end.after or 0 for end in told.values() if isinstance(end, NotSent))
                await asyncio.sleep(after)
        return ends

    ends = run(story)
    assert ends.total() == 60
    assert ends["lost"] <= (3 if "GOAWAY" in way else 60)  # else all that was on the wire may be
    assert server.connections <= 5


def test_a_push_that_goaway_hands_back_each_time_is_told_as_such(authority: Authority) -> None:
    """It went out on several connections, and each was left before it was taken: not refused."""

    class Leaver(Server):
        def answer(self, number: int) -> None:
            """Leave without having taken anything."""
            self.transport.write(GoAwayFrame(last_stream_id=number - 1).serialize())
            self.transport.close()

    async def story() -> list[End]:
        async with (
            serve(authority, Leaver) as url,
            opened(Endpoint(url, authority.ca_file), LIMITS) as ask,
        ):
            return await ask(["/ok-1"])

    (end,) = run(story)
    assert isinstance(end, NotSent)
    assert "refused" not in end.detail
    assert "the server said NO_ERROR" in end.detail
