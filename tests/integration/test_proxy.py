"""The way to a push service through an HTTP proxy: opened, refused, or not there."""

import asyncio
import base64
from collections.abc import Callable

import pytest
from tests.http2_server import LOOPS, QUICK, counting, opened, paths, run, send, serve
from tests.proxy import proxying

from handbell._proxy import Proxy
from handbell.delivery.policy.decision import UNREACHED, HealthSignal, health_signal
from handbell.delivery.policy.meanings import meaning
from handbell.gateways.http2 import Endpoint, NotSent, StreamResponse
from handbell.gateways.outcomes import RetryLater
from handbell.services.reactions import Reaction
from handbell.twin.certificates import Authority

PASSWORD = "hunter2 ü"
USER = "me:hunter2%20%C3%BC"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_pushes_go_through_the_proxy(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """All of them, over one tunnel to the host's name, with the credentials, on either loop."""

    async def story() -> None:
        async with serve(authority, counting()) as url, proxying() as proxy:
            # The name is the proxy's to find: it leads to loopback whatever it is called.
            named = url.replace("127.0.0.1", "localhost")
            endpoint = Endpoint(named, authority.ca_file, proxy=proxy.proxy(USER))
            ends = await send(endpoint, paths(200))
            assert {type(end) for end in ends} == {StreamResponse}
            (head,) = proxy.heads
            first, host, credentials, *_ = head.split("\r\n")
            authority_of = named.removeprefix("https://")
            assert first == f"CONNECT {authority_of} HTTP/1.1"
            assert host == f"Host: {authority_of}"
            told = base64.b64decode(credentials.removeprefix("Proxy-Authorization: Basic "))
            assert told.decode() == f"me:{PASSWORD}"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "ProxyAuthentication", "407"),
        (b"HTTP/1.0 403 Filtered\r\nX: y\r\n\r\n<html>", "ProxyRefused", "403 Filtered"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "ProxyRefused", "502 Bad Gateway"),
        (b"HTTP/1.1 301\r\n\r\n", "ProxyRefused", "301"),
        (b"HTTP/1.1 200 \r\n\r\nmore", "ProxyUnreadable", "more than the answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "ProxyUnreadable", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "ProxyUnreadable", "broke off"),
        (b"", "ProxyUnreadable", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "ProxyUnreadable", "no end"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_a_proxy_that_opens_no_way_is_told_in_words(
    answer: bytes,
    reason: str,
    words: str,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Nothing is sent, the proxy is named with what it said, and no credential is repeated."""

    async def story() -> None:
        async with proxying(lambda _: answer) as proxy:
            endpoint = Endpoint("https://push.example.com", proxy=proxy.proxy(USER))
            async with opened(endpoint) as ask:
                for end in await ask(paths(20)):
                    assert isinstance(end, NotSent)
                    assert end.reason == reason
                    assert words in end.detail
                    assert f"127.0.0.1:{proxy.port}" in end.detail
                    assert "hunter2" not in repr(end) + repr(endpoint)
                assert len(proxy.heads) <= 2

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


def test_a_proxy_that_is_not_there_is_told_apart_from_the_push_service() -> None:
    """A closed port, a name that nobody knows, and silence are the proxy's, not the host's."""

    async def story() -> None:
        server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for where, words in (
            ("127.0.0.1:1", "refused"),
            ("proxy.invalid:3128", "proxy.invalid:3128"),
            (f"127.0.0.1:{port}", "in time"),
        ):
            endpoint = Endpoint("https://push.example.com", proxy=Proxy.read(where))
            (end,) = await send(endpoint, ["/ok-1"], QUICK)
            assert isinstance(end, NotSent)
            assert end.reason == "ProxyUnreachable"
            assert words in end.detail.lower()
        server.close()

    run(story)


@pytest.mark.parametrize("reason", [name for name in sorted(UNREACHED) if name[:5] == "Proxy"])
def test_a_proxy_in_the_way_is_an_outage_and_has_a_fix(reason: str) -> None:
    """One such end is enough to stop sending until a probe comes through; no token is judged."""
    outcome = RetryLater(reason, Reaction.RECONNECT)
    assert health_signal(outcome) is HealthSignal.UNREACHED
    words, fix = meaning(reason)
    assert "proxy" in words.lower()
    assert fix
