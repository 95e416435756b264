"""The HTTP/2 engine against real servers on loopback, good and bad."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from tests.http2_server import LOOPS, QUICK, counting, opened, paths, run, send, serve

from handbell._ip import is_public
from handbell.errors import GatewayError
from handbell.gateways.http2 import (
    MAX_BODY_BYTES,
    End,
    Endpoint,
    Limits,
    Lost,
    NotSent,
    Pool,
    Request,
    StreamResponse,
    trusted_certificates,
)
from handbell.twin.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_every_request_is_answered(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """Requests and answers belong together, over one connection, on either event loop."""
    server = counting()

    async def story() -> None:
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), paths(500))
        assert [end for end in ends if not isinstance(end, StreamResponse)] == []
        assert [
            end.headers()["x-path"] for end in ends if isinstance(end, StreamResponse)
        ] == paths(500)
        assert {end.status for end in ends if isinstance(end, StreamResponse)} == {200}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())
    assert server.connections == 1


@pytest.mark.parametrize("limit", [1, 2, 7, 50, 1000])
def test_the_server_limit_is_kept(authority: Authority, limit: int) -> None:
    """There are never more streams than the server allows, and no second connection."""
    server = counting(limit)

    async def story() -> None:
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), paths(150))
        assert all(isinstance(end, StreamResponse) for end in ends)

    run(story)
    assert server.most_streams <= limit
    assert server.connections == 1
    assert set(server.asked.values()) == {1}


def test_several_connections_share_the_work(authority: Authority) -> None:
    """With more to send than one connection takes, as many are opened as are allowed."""
    server = counting(10)

    async def story() -> None:
        limits = Limits(connections=3, in_flight=10, request_timeout=5)
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), paths(600), limits)
        assert all(isinstance(end, StreamResponse) for end in ends)

    run(story)
    assert server.connections == 3


def test_a_second_connection_waits_until_the_first_is_stretched(authority: Authority) -> None:
    """A send that one connection can carry opens no other, however many are allowed."""
    server = counting(1000)

    async def story() -> None:
        limits = Limits(connections=4, in_flight=300, request_timeout=5)
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), paths(200), limits)
        assert all(isinstance(end, StreamResponse) for end in ends)

    run(story)
    assert server.connections == 1


def test_a_renewed_pool_uses_a_new_connection(authority: Authority) -> None:
    """What is submitted after renew() goes over a connection of its own; all is answered."""
    server = counting()

    async def story() -> None:
        async with (
            serve(authority, server) as url,
            opened(Endpoint(url, authority.ca_file)) as ask,
        ):
            ends = await ask(["/before"])
            first = asyncio.create_task(ask(paths(100, "first")))
            await asyncio.sleep(0)  # it is on the wire then
            assert ask.pool.in_flight
            ask.pool.renew()
            ends += [*await ask(paths(50, "second")), *await first]
            assert all(isinstance(end, StreamResponse) for end in ends)

    run(story)
    assert server.connections == 2


def test_a_connection_closed_while_idle_is_replaced(authority: Authority) -> None:
    """A server that hangs up between two sends costs nothing but a new connection."""
    server = counting()

    async def story() -> None:
        async with (
            serve(authority, server) as url,
            opened(Endpoint(url, authority.ca_file)) as ask,
        ):
            await ask(["/ok-1"])
            assert isinstance((await ask(["/close-1"]))[0], Lost)
            await asyncio.sleep(0.05)
            assert isinstance((await ask(["/ok-2"]))[0], StreamResponse)

    run(story)
    assert server.asked == {"/ok-1": 1, "/close-1": 1, "/ok-2": 1}


@pytest.mark.parametrize("place", [1, 2, 20, 49])
def test_a_goaway_costs_a_new_connection_and_nothing_else(authority: Authority, place: int) -> None:
    """After GOAWAY the rest goes over a new connection; nothing is lost and nothing sent twice."""
    server = counting()
    asked = paths(150)
    asked[place] = "/goaway-1"

    async def story() -> None:
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), asked)
        assert [end for end in ends if not isinstance(end, StreamResponse)] == []

    run(story)
    assert server.connections == 2
    assert server.asked == Counter(asked)


@pytest.mark.parametrize("wish", ["close", "reset"])
@pytest.mark.parametrize("place", [0, 1, 2, 20, 49])
def test_a_lost_request_is_never_repeated(authority: Authority, wish: str, place: int) -> None:
    """However a connection ends, no request goes out twice."""
    server = counting()
    asked = paths(150)
    asked[place] = f"/{wish}-1"

    async def story() -> None:
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, authority.ca_file), asked)
        assert isinstance(ends[place], Lost)
        assert {type(end) for end in ends} <= {StreamResponse, Lost}

    run(story)
    assert set(server.asked.values()) == {1}


def test_a_long_answer_is_cut_off(authority: Authority) -> None:
    """Of an answer that is far too long the status is kept, and not more than the limit."""

    async def story() -> None:
        async with serve(authority, counting()) as url:
            long, short = await send(Endpoint(url, authority.ca_file), ["/long-1", "/ok-1"])
        assert isinstance(long, StreamResponse)
        assert isinstance(short, StreamResponse)
        assert long.status == 400
        assert len(long.body) <= MAX_BODY_BYTES

    run(story)


def test_a_server_of_an_unknown_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    """A certificate of another authority ends the attempt before anything is sent."""
    other = Authority.open(tmp_path / "other")
    server = counting()

    async def story() -> None:
        async with serve(authority, server) as url:
            ends = await send(Endpoint(url, other.ca_file), paths(3))
            ends += await send(Endpoint(url), paths(3))
        assert {(type(end), end[0]) for end in ends} == {(NotSent, "CertificateNotTrusted")}

    run(story)
    assert not server.asked


def test_a_server_of_another_name_is_refused(authority: Authority) -> None:
    """A certificate that is not for the host asked for ends the attempt."""
    server = counting()

    async def story() -> None:
        async with serve(authority, server) as url:
            other = url.replace("127.0.0.1", "127.0.0.2")
            reached = await asyncio.get_running_loop().create_server(
                server,
                "127.0.0.2",
                int(url.rpartition(":")[2]),
                ssl=authority.server_context(),
            )
            async with reached:
                (end,) = await send(Endpoint(other, authority.ca_file), ["/ok-1"])
        assert isinstance(end, NotSent)
        assert end.reason == "CertificateNotTrusted"

    run(story)
    assert not server.asked


class Old(asyncio.Protocol):
    """A server that knows HTTP/1.1 alone, and whatever it is asked says yes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Say yes."""
        assert data
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


@pytest.mark.parametrize("alpn", ["http/1.1", "nothing"])
def test_http1_is_refused(authority: Authority, alpn: str) -> None:
    """A server without HTTP/2 never counts as having answered."""

    async def story() -> None:
        async with serve(authority, Old, alpn=alpn) as url:
            ends = await send(Endpoint(url, authority.ca_file), paths(3))
        for end in ends:
            assert isinstance(end, NotSent)
            assert end.reason == "NoSecureConnection"
            assert not set("()'\"") & set(end.detail)

    run(story)


class Mute(asyncio.Protocol):
    """Takes the connection and never says a word."""


def test_a_mute_port_ends_in_time() -> None:
    """A port where TLS never begins ends as not sent, within the timeout for connecting."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Mute, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            started = loop.time()
            ends = await send(Endpoint(f"https://127.0.0.1:{port}"), paths(20))
            assert loop.time() - started < 0.9
        told = {end._replace(after=None) for end in ends if isinstance(end, NotSent)}
        assert told == {NotSent("CannotConnect", "No connection was made in time")}

    run(story)


@pytest.mark.parametrize(
    ("url", "reason"),
    [("https://127.0.0.1:1", "CannotConnect"), ("https://nowhere.invalid", "HostNotFound")],
)
def test_an_unreachable_host_is_told_at_once(url: str, reason: str) -> None:
    """Where nothing listens, all that waits ends as not sent, in this machine's words."""

    async def story() -> None:
        async with opened(Endpoint(url), Limits(request_timeout=5)) as ask:
            ends = await ask(paths(100))
            assert {(type(end), end[0]) for end in ends} == {(NotSent, reason)}
            assert " " in ends[0][1]
            assert "Errno" not in ends[0][1]
            assert ask.pool.opened <= 2

    run(story)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_address_that_is_not_accepted_is_not_connected_to(
    authority: Authority, host: str
) -> None:
    """A host that somebody else chose is looked up, judged, and not even greeted."""
    server = counting()

    async def story() -> None:
        async with serve(authority, server) as url:
            theirs = url.replace("127.0.0.1", host)
            endpoint = Endpoint(theirs, authority.ca_file, accepts=is_public)
            ends = await send(endpoint, paths(3))
        assert {end.reason for end in ends if isinstance(end, NotSent)} == {"AddressNotAllowed"}

    run(story)
    assert server.connections == 0


def test_the_loop_works_between_rounds_that_take_long(authority: Authority) -> None:
    """Where making a request takes long, other work gets its turn after each few of them."""
    turns: list[int] = []
    limits = Limits(in_flight=1000, round=5, is_slow_to_prepare=True)
    made: list[int] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()

        def prepare(item: int) -> Request:
            made.append(item)
            return Request(f"/ok-{item}", (), (), b"{}")

        def other_work() -> None:
            turns.append(len(made))
            if len(made) < 200:
                loop.call_soon(other_work)

        async with serve(authority, counting(1000)) as url:
            pool: Pool[int] = Pool(
                Endpoint(url, authority.ca_file),
                limits,
                prepare=prepare,
                finish=lambda _, end: ends.append(end),
            )
            ends: list[End] = []
            loop.call_soon(other_work)
            pool.submit(range(200))
            await pool.close()
        assert [end for end in ends if not isinstance(end, StreamResponse)] == []
        assert len(ends) == 200

    run(story)
    assert max(after - before for before, after in pairwise(turns)) <= 5


def test_proxies_of_the_environment_are_not_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy named in the environment does not see a push."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")

    async def story() -> None:
        async with serve(authority, counting()) as url:
            (end,) = await send(Endpoint(url, authority.ca_file), ["/ok-1"])
        assert isinstance(end, StreamResponse)

    run(story)


def test_trusted_certificates_come_from_the_environment_first(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSL_CERT_FILE names the trusted certificates; without it the machine's own are found."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    assert ssl.create_default_context(cafile=str(trusted_certificates())).get_ca_certs()
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    assert trusted_certificates() == authority.ca_file

    async def story() -> None:
        async with serve(authority, counting()) as url:
            (end,) = await send(Endpoint(url), ["/ok-1"])
        assert isinstance(end, StreamResponse)

    run(story)


def test_what_is_no_longer_wanted_is_not_sent(authority: Authority) -> None:
    """An item whose preparation says no is dropped; the others are sent."""
    server = counting()
    ends: list[tuple[int, End]] = []

    async def story() -> None:
        async with serve(authority, server) as url:
            pool: Pool[int] = Pool(
                Endpoint(url, authority.ca_file),
                QUICK,
                prepare=lambda item: Request(f"/ok-{item}", (), (), b"{}") if item % 2 else None,
                finish=lambda item, end: ends.append((item, end)),
            )
            pool.submit(range(100))
            await pool.close()
            with pytest.raises(GatewayError, match="closed"):
                pool.submit([1])

    run(story)
    assert sorted(item for item, _ in ends) == list(range(1, 100, 2))
    assert len(server.asked) == 50
