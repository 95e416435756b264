"""The HTTP/2 engine where a server falls silent, refuses or leaves: every item ends, once, in time.

Times are a tenth of the real ones; what is waited for is always less than a second.
"""

import asyncio
import contextlib
import gc
import socket
import ssl
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from tests.http2_server import LOOPS, QUICK, Counted, Server, opened, paths, run, send, serve

from handbell.gateways.http2 import (
    End,
    Endpoint,
    Limits,
    Lost,
    NotSent,
    Pool,
    Request,
    StreamResponse,
)
from handbell.gateways.http2_tls import connect
from handbell.twin.certificates import Authority

BRIEF = Limits(in_flight=50, connect_timeout=0.5, request_timeout=0.3)


class Moody(Counted, Server):
    """A server that can fall silent for good, and counts PINGs and who is there."""

    is_deaf = False
    pings = 0

    def data_received(self, data: bytes) -> None:
        """Count the PINGs; say nothing once it has fallen silent."""
        if self.is_deaf:
            return
        self.note(data)
        super().data_received(data)

    def note(self, data: bytes) -> None:
        """Count the PINGs that came."""
        type(self).pings += data.count(b"\x00\x00\x08\x06\x00\x00\x00\x00\x00handbell")

    def answer(self, number: int) -> None:
        """Answer as the path asks, or fall silent."""
        wish = self.paths.get(number, "").rpartition("/")[2].partition("-")[0]
        if wish == "silent":
            return
        if wish == "deaf":
            self.is_deaf = True
            return
        if wish in ("zero", "one"):
            self.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: int(wish == "one")})
        if wish == "leave":
            self.flush()
            said = GoAwayFrame(last_stream_id=number, additional_data=b'{"reason":"Shutdown"}')
            self.transport.write(said.serialize())
            self.transport.close()
            return
        super().answer(number)


def moody(**given: Any) -> type[Moody]:
    """Return a server class with counters of its own."""
    return type("OneMoody", (Moody,), {"asked": Counter(), **given})


Story = Callable[[Endpoint], Any]


def tell(authority: Authority, server: Callable[[], asyncio.Protocol], story: Story) -> Any:
    """Run a story against a server."""

    async def told() -> Any:
        async with serve(authority, server) as url:
            return await story(Endpoint(url, authority.ca_file))

    return run(told)


def reasons(ends: list[End]) -> Counter[str]:
    """Count the ends by kind, and by reason where there is one."""
    return Counter(
        "StreamResponse"
        if isinstance(end, StreamResponse)
        else f"{type(end).__name__} {end.reason}"
        for end in ends
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


def test_a_connection_is_asked_before_it_is_used_after_a_rest(authority: Authority) -> None:
    """After a rest a PING goes first; answered, the same connection carries on."""
    server = moody()

    async def story(endpoint: Endpoint) -> None:
        async with opened(endpoint, replace(QUICK, rest=0.03)) as ask:
            ends = await ask(["/ok-1"])
            assert server.pings == 0
            await asyncio.sleep(0.05)
            ends += await ask(paths(20, "later"))
        assert reasons(ends) == {"StreamResponse": 21}

    tell(authority, server, story)
    assert server.pings == 1
    assert server.connections == 1


def test_a_connection_that_died_while_at_rest_costs_no_request(authority: Authority) -> None:
    """A server that is gone without a word is found out by PING; the request goes elsewhere."""
    server = moody()

    async def story(endpoint: Endpoint) -> list[End]:
        async with opened(endpoint, replace(BRIEF, rest=0.03)) as ask:
            await ask(["/ok-1"])
            await ask(["/deaf-1"])
            return await ask(paths(20, "later"))

    assert reasons(tell(authority, server, story)) == {"StreamResponse": 20}
    assert server.asked == Counter(["/ok-1", *paths(20, "later")])


def test_a_server_that_falls_silent_is_found_out_before_the_timeout(authority: Authority) -> None:
    """With requests on the wire, a PING without an answer ends them as lost, and says so."""
    server = moody()

    async def story(endpoint: Endpoint) -> list[End]:
        async with opened(endpoint, Limits(in_flight=50, request_timeout=0.9)) as ask:
            await ask(["/ok-1"])
            began = asyncio.get_running_loop().time()
            ends = await ask(["/deaf-1"])
            assert asyncio.get_running_loop().time() - began < 0.85
            return ends

    (end,) = tell(authority, server, story)
    assert end == Lost("ConnectionLost", "the server did not answer a PING")


def test_the_reason_of_a_goaway_reaches_the_detail(authority: Authority) -> None:
    """What a server says when it leaves is told with each request that is lost by it."""

    async def story(endpoint: Endpoint) -> list[End]:
        return await send(endpoint, ["/leave-1"])

    (end,) = tell(authority, moody(), story)
    assert isinstance(end, Lost)
    assert end.detail == 'the server said NO_ERROR: {"reason":"Shutdown"}'


@pytest.mark.parametrize("limit", [1, 100])
def test_a_first_stream_that_stays_silent_does_not_hold_up_the_others(
    authority: Authority, limit: int
) -> None:
    """The first request alone ends by its timeout; what waited behind it is answered."""
    server = moody(limit=limit)

    async def story(endpoint: Endpoint) -> list[End]:
        return await send(endpoint, ["/silent-1", *paths(30)], BRIEF)

    silent, *others = tell(authority, server, story)
    assert isinstance(silent, Lost)
    assert silent.reason == "TimedOut"
    assert reasons(others) == {"StreamResponse": 30}
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("wish", ["one", "zero"])
def test_a_limit_that_is_lowered_and_never_raised(authority: Authority, wish: str) -> None:
    """One stream at a time is slow and enough; none at all ends as not sent, and is tried anew."""
    server = moody()

    async def story(endpoint: Endpoint) -> list[End]:
        async with opened(endpoint, Limits(in_flight=50, request_timeout=0.2)) as ask:
            await ask([f"/{wish}-1"])
            ends = await ask(paths(20))
            ends += await ask(paths(3, "again"))
            return ends

    ends = tell(authority, server, story)
    stalled = {} if wish == "one" else {"NotSent Stalled": 20}
    assert reasons(ends) == {"StreamResponse": 23 - sum(stalled.values()), **stalled}
    assert server.connections == (1 if wish == "one" else 2)


def test_a_server_that_never_allows_a_stream(authority: Authority) -> None:
    """What may never go out ends as not sent, and nothing of it was asked for."""
    server = moody(limit=0)

    async def story(endpoint: Endpoint) -> list[End]:
        return await send(endpoint, paths(20), Limits(request_timeout=0.2))

    assert reasons(tell(authority, server, story)) == {"NotSent Stalled": 20}
    assert not server.asked


def test_a_window_that_never_opens_ends_by_the_timeout(authority: Authority) -> None:
    """A body that may not be sent holds up what follows, and all of it ends."""
    server = moody(window=0)

    async def story(endpoint: Endpoint) -> list[End]:
        return await send(endpoint, paths(5), Limits(request_timeout=0.2))

    ends = reasons(tell(authority, server, story))
    assert set(ends) <= {"Lost TimedOut", "NotSent Stalled"}
    assert ends["Lost TimedOut"] >= 1
    assert sum(ends.values()) == 5
    assert not server.asked


def test_a_server_that_never_greets_is_sent_nothing(authority: Authority) -> None:
    """Where not even settings come, nothing goes out, and all of it ends as not sent, in time."""
    heard = bytearray()

    class Mute(asyncio.Protocol):
        """Takes TLS, and never says a word of HTTP/2."""

        def data_received(self, data: bytes) -> None:
            """Keep what came."""
            heard.extend(data)

    async def story(endpoint: Endpoint) -> list[End]:
        began = asyncio.get_running_loop().time()
        ends = await send(endpoint, paths(20), Limits(connect_timeout=0.2))
        assert asyncio.get_running_loop().time() - began < 0.6
        return ends

    assert reasons(tell(authority, Mute, story)) == {"NotSent CannotConnect": 20}
    assert heard.startswith(b"PRI * HTTP/2.0")
    assert b"/ok-" not in heard


def test_a_server_that_answers_nobody_is_not_stormed(authority: Authority) -> None:
    """There are never more than a few connections to a server that takes requests and is silent."""
    server = moody(limit=1)

    async def story(endpoint: Endpoint) -> list[End]:
        return await send(endpoint, paths(30, "silent"), BRIEF)

    ends = reasons(tell(authority, server, story))
    assert sum(ends.values()) == 30
    assert set(ends) <= {"Lost TimedOut", "NotSent Stalled"}
    assert server.most_present <= 4


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_opening_may_be_given_up_at_any_moment(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A connection that is replaced while it opens leaves nothing behind, however far it was."""
    server = moody()
    faults: list[dict[str, Any]] = []
    patient = replace(QUICK, connect_timeout=20, request_timeout=20)

    async def story() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, fault: faults.append(fault))
        async with serve(authority, server) as url:
            for moment in range(40):
                async with opened(Endpoint(url, authority.ca_file), patient) as ask:
                    first = asyncio.create_task(ask([f"/first-{moment}"]))
                    for _ in range(moment):
                        await asyncio.sleep(0)
                    ask.pool.renew()
                    ends = [*await ask([f"/second-{moment}"]), *await first]
                    assert reasons(ends) == {"StreamResponse": 2}
            await asyncio.sleep(0.05)
            assert server.present == 0
        gc.collect()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())
    assert [fault for fault in faults if "incoming" not in fault["message"]] == []
    assert set(server.asked.values()) == {1}


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_a_server_that_hangs_up_at_once_leaves_no_descriptor_behind(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """What the loop has closed is not closed again, when its number may be somebody else's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    taken, _ = listening.accept()
                    at_once = struct.pack("ii", 1, 0)
                    taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                    taken.close()

        async def story() -> None:
            endpoint = Endpoint(f"https://127.0.0.1:{listening.getsockname()[1]}")
            for _ in range(30):
                with pytest.raises(OSError):  # noqa: PT011 - as loop and kernel have it
                    await connect(
                        endpoint,
                        ssl.create_default_context(),
                        asyncio.Protocol,
                        seconds=1,
                        farewell_seconds=1,
                    )
            gc.collect()

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(story())
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()
    gc.collect()


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_what_waits_ends_when_opening_is_cancelled_from_outside(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """A loop that is being shut down cancels every task; what waited is told at once."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        async with silent:
            url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
            ends: list[End] = []
            pool: Pool[str] = Pool(
                Endpoint(url),
                Limits(connect_timeout=5),
                prepare=lambda path: Request(path, (), (), b"{}"),
                finish=lambda _, end: ends.append(end),
            )
            pool.submit(paths(10))
            await asyncio.sleep(0.05)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            async with asyncio.timeout(0.5):
                await pool.close()
            assert reasons(ends) == {"NotSent ConnectionClosed": 10}

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


class Stone(Moody):
    """Reads nothing any more once it has answered, not even the end of TLS."""

    stones: ClassVar[list[asyncio.Transport]]

    def answer(self, number: int) -> None:
        """Answer, and read no further."""
        super().answer(number)
        self.transport.pause_reading()
        self.stones.append(self.transport)


@pytest.mark.parametrize("new_loop", LOOPS.values(), ids=LOOPS)
def test_closing_does_not_wait_for_a_peer_that_never_ends_tls(
    authority: Authority, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """close() takes no longer than TLS is given to end, however deaf the other side is."""
    server: type[Stone] = type("OneStone", (Stone,), {"asked": Counter(), "stones": []})

    async def story() -> None:
        async with serve(authority, server) as url:
            loop = asyncio.get_running_loop()
            hurried = replace(QUICK, farewell_timeout=0.1)
            async with opened(Endpoint(url, authority.ca_file), hurried) as ask:
                assert reasons(await ask(["/ok-1"])) == {"StreamResponse": 1}
                began = loop.time()
            assert loop.time() - began < 0.4
            server.stones[0].abort()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(story())


def test_close_may_be_called_twice_at_once_and_waits_for_what_comes_in_between(
    authority: Authority,
) -> None:
    """Each close() returns when all has ended, that which was submitted while it waited as well."""
    ends: list[End] = []

    async def story(endpoint: Endpoint) -> None:
        def finish(path: str, end: End) -> None:
            ends.append(end)
            if path == "/ok-49":
                asyncio.get_running_loop().call_soon(pool.submit, paths(10, "late"))

        pool: Pool[str] = Pool(
            endpoint,
            BRIEF,
            prepare=lambda path: Request(path, (), (), b"{}"),
            finish=finish,
        )
        pool.submit(paths(50))
        async with asyncio.timeout(5):
            impatient = asyncio.create_task(pool.close())
            await asyncio.sleep(0)
            both = asyncio.gather(pool.close(), pool.close())
            await asyncio.sleep(0)
            impatient.cancel()
            await both
        assert reasons(ends) == {"StreamResponse": 60}
        assert pool.connected == 0

    tell(authority, moody(), story)


def test_a_callback_that_fails_harms_its_own_item_alone(authority: Authority) -> None:
    """An error of finish goes to the loop, one of prepare ends the item; the others go on."""
    faults: list[dict[str, Any]] = []
    ends: Counter[str] = Counter()
    unusable: list[End] = []

    async def story(endpoint: Endpoint) -> None:
        def prepare(path: str) -> Request:
            if path == "/ok-7":
                raise RuntimeError("no token")
            return Request(path, (("x-test", "1"),), (), b"{}")

        def finish(path: str, end: End) -> None:
            ends[path] += 1
            if path == "/ok-7":
                unusable.append(end)
            if path.endswith("3"):
                raise RuntimeError(path)

        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        pool: Pool[str] = Pool(endpoint, BRIEF, prepare=prepare, finish=finish)
        pool.submit(paths(40))
        await pool.close()

    tell(authority, moody(), story)
    assert ends == Counter(paths(40))
    assert unusable == [NotSent("RequestUnusable", "no token")]
    assert sorted(str(fault["exception"]) for fault in faults) == [
        "/ok-13",
        "/ok-23",
        "/ok-3",
        "/ok-33",
    ]


def test_what_was_begun_long_ago_is_forgotten(authority: Authority) -> None:
    """A connection that has been used many times remembers nothing of what is over."""

    async def story(endpoint: Endpoint) -> None:
        async with opened(endpoint) as ask:
            for number in range(20):
                await ask([f"/ok-{number}"])
            (connection,) = ask.pool._connections  # noqa: SLF001 - nothing else would show it
            connection.sweep(asyncio.get_running_loop().time())
            assert not connection._begun  # noqa: SLF001

    tell(authority, moody(), story)
