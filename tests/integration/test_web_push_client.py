"""The gateway of Web Push against real servers: what is sent, where to, and what comes of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import h2.events
import h11
import http_ece
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.http2_server import Server, run, serve

from handbell._base64url import base64url, read_base64url
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import GatewayError
from handbell.gateways.gateway import Message, Push
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
    Withdrawn,
)
from handbell.gateways.webpush.client import WebPushGateway
from handbell.gateways.webpush.compose import compose, topic_of
from handbell.services.webpush.address import read_subscription
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.hosts import PushHosts
from handbell.twin.certificates import Authority

NOW = 1_800_000_000.0
KEY = VapidKey.make()
SUBJECT = "mailto:push@example.com"
APP = App(name="Shop", web_origin="https://shop.example")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


class PushServer(Server):
    """A push service that answers as the last part of the path asks: ``/wpush/410`` with 410.

    It keeps each request: headers and body.
    """

    seen: ClassVar[list[tuple[dict[str, str], bytes]]]
    answers: ClassVar[dict[str, tuple[list[tuple[str, str]], bytes]]]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with no request."""
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request once it is whole."""
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                pairs = event.headers
                self.heads[event.stream_id] = {name.decode(): text.decode() for name, text in pairs}
                self.bodies[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(len(event.data), event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.respond(event.stream_id)
        self.flush()

    def respond(self, number: int) -> None:
        """Answer one request."""
        head = self.heads.pop(number)
        type(self).seen.append((head, self.bodies.pop(number)))
        wish = head[":path"].rpartition("/")[2]
        if wish == "silent":
            return
        if wish == "close":
            self.transport.close()
            return
        more, body = self.answers.get(wish, ([], b""))
        status = wish if wish.isdigit() and len(wish) == 3 else "201"
        headers = [(":status", status), ("location", f"/m/{number}"), *more]
        self.h2.send_headers(number, headers, end_stream=not body)
        if body:
            self.h2.send_data(number, body, end_stream=True)


@dataclass
class Browser:
    """A browser's keys, and what it reads of a message."""

    private: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    secret: bytes = b"0123456789abcdef"

    def subscription(self, endpoint: str) -> dict[str, Any]:
        """Return the subscription as the page has it."""
        point = self.private.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        keys = {"p256dh": base64url(point), "auth": base64url(self.secret)}
        return {"endpoint": endpoint, "expirationTime": None, "keys": keys}

    def read(self, body: bytes) -> Any:
        """Return the content of a message."""
        return json.loads(http_ece.decrypt(body, private_key=self.private, auth_secret=self.secret))


@dataclass
class Scene:
    """A running push service, and a gateway to it."""

    url: str
    server: type[PushServer]
    gateway: WebPushGateway
    browser: Browser = field(default_factory=Browser)

    def push(self, path: str, message: Message, *, key: int = 0, **changes: Any) -> Push:
        """Return a message to a subscription of this service."""
        return push_to(f"{self.url}/wpush/{path}", message, self.browser, key=key, **changes)

    async def send(self, *pushes: Push) -> dict[int, Outcome]:
        """Send, and return each outcome; each must be told once."""
        return await outcomes_of(self.gateway, pushes)


def push_to(
    endpoint: str, message: Message, browser: Browser, *, key: int = 0, **changes: Any
) -> Push:
    """Return a message to a subscription."""
    address = read_subscription(browser.subscription(endpoint))
    push = Push(key, address.token, "twin", f"id-{key}", message, details=address.details)
    return push._replace(**changes)


async def outcomes_of(gateway: WebPushGateway, pushes: Iterable[Push]) -> dict[int, Outcome]:
    """Send, and return each outcome; each must be told once."""
    outcomes: dict[int, Outcome] = {}

    def report(push: Push, outcome: Outcome) -> None:
        assert push.key not in outcomes
        outcomes[push.key] = outcome

    async with asyncio.timeout(20):
        await gateway.send(list(pushes), report)
    return outcomes


def message_of(**fields: Any) -> Message:
    """Return a composed message."""
    return compose(
        Notification.read({"title": "Hello", **fields}), app=APP, now=NOW, notification_id="n-1"
    )


def server_of(**answers: tuple[list[tuple[str, str]], bytes]) -> type[PushServer]:
    """Return a server class with records of its own."""
    named = {name.replace("_", ""): answer for name, answer in answers.items()}
    return type("Recording", (PushServer,), {"seen": [], "answers": named})


@asynccontextmanager
async def scene(
    authority: Authority, server: type[PushServer] | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """Run a push service and a gateway that may send to it."""
    kind = server or server_of()
    async with serve(authority, kind) as url:
        gateway = gateway_to(authority, url, **options)
        try:
            yield Scene(url, kind, gateway)
        finally:
            await gateway.close(within=2)


def gateway_to(authority: Authority, url: str, **options: Any) -> WebPushGateway:
    """Return a gateway whose twin is this origin."""
    return WebPushGateway(
        **{
            "credential": KEY,
            "subject": SUBJECT,
            "hosts": PushHosts.read("", twin=url),
            "ca_file": authority.ca_file,
            "connect_timeout": 2.0,
            "request_timeout": 2.0,
            "now": lambda: NOW,
            **options,
        }
    )


def test_a_message_is_what_the_standards_want(authority: Authority) -> None:
    """Its headers, its token and its encryption are judged by other libraries."""

    async def story() -> None:
        async with scene(authority) as here:
            message = message_of(body="World", collapse_id="order-1", ttl=60, priority=5)
            outcomes = await here.send(here.push("a/b?c=d", message))
            assert outcomes == {0: Accepted("id-0")}
            ((head, body),) = here.server.seen
            assert (head[":method"], head[":path"]) == ("POST", "/wpush/a/b?c=d")
            assert head["ttl"] == "60"
            assert head["urgency"] == "normal"
            assert head["topic"] == topic_of("order-1")
            assert head["content-encoding"] == "aes128gcm"
            assert here.browser.read(body) == json.loads(message.payload)
            scheme, token, key = head["authorization"].replace(",", "").split(" ")
            assert (scheme, token[:2], key) == ("vapid", "t=", f"k={KEY.public_key}")
            point = ec.EllipticCurvePublicKey.from_encoded_point(
                ec.SECP256R1(), read_base64url(KEY.public_key)
            )
            claims = jwt.decode(
                token[2:],
                point,
                algorithms=["ES256"],
                audience=here.url,
                options={"verify_exp": False},
            )
            assert claims["sub"] == SUBJECT
            assert NOW < claims["exp"] <= NOW + 24 * 3600

    run(story)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        pytest.param("200", Accepted("id-0"), id="200"),
        pytest.param("201", Accepted("id-0"), id="201"),
        pytest.param("202", Accepted("id-0"), id="202"),
        pytest.param("204", Accepted("id-0"), id="204"),
        pytest.param("404", DeviceGone("NotFound", int(NOW * 1000), 404), id="404"),
        pytest.param("410", DeviceGone("errno-103", int(NOW * 1000), 410), id="410"),
    ],
)
def test_an_answer_is_an_outcome(authority: Authority, path: str, outcome: Outcome) -> None:
    """What was accepted and what has ended is reported; the whole table is in the unit tests."""
    gone = ([("content-type", "application/json")], b'{"code":410,"errno":103}')

    async def story() -> None:
        async with scene(authority, server_of(_410=gone)) as here:
            assert await here.send(here.push(path, message_of())) == {0: outcome}

    run(story)


def test_a_redirect_is_not_followed(authority: Authority) -> None:
    """Nobody else hears of the message, and the subscription is kept."""

    async def story() -> None:
        async with serve(authority, other := server_of()) as elsewhere:
            server = server_of(_307=([("location", f"{elsewhere}/wpush/a")], b""))
            async with scene(authority, server) as here:
                (outcome,) = (await here.send(here.push("307", message_of()))).values()
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.status) == ("Redirected", 307)
        assert len(server.seen) == 1
        assert other.seen == []
        assert other.connections == 0

    run(story)


def test_a_wait_that_is_asked_for_is_told(authority: Authority) -> None:
    """``Retry-After`` reaches the queue, for this subscription alone."""

    async def story() -> None:
        server = server_of(_429=([("retry-after", "77")], b""))
        async with scene(authority, server) as here:
            message = message_of()
            outcomes = await here.send(
                here.push("429", message, key=1), here.push("b", message, key=2)
            )
        first = outcomes[1]
        assert isinstance(first, RetryLater)
        assert (first.reason, first.after, first.status) == ("TooManyRequests", 77.0, 429)
        assert outcomes[2] == Accepted("id-2")

    run(story)


def test_many_messages_share_a_connection_and_nothing_else(authority: Authority) -> None:
    """Each is readable by its own browser alone, and has a salt of its own."""

    async def story() -> None:
        async with scene(authority) as here:
            message = message_of()
            browsers = [Browser(secret=bytes([number] * 16)) for number in range(150)]
            outcomes = await here.send(
                *(
                    push_to(f"{here.url}/wpush/b{number}", message, browser, key=number)
                    for number, browser in enumerate(browsers)
                )
            )
            assert outcomes == {number: Accepted(f"id-{number}") for number in range(150)}
            for head, body in here.server.seen:
                browser = browsers[int(head[":path"].rpartition("b")[2])]
                assert browser.read(body)["notification"]["title"] == "Hello"
            assert len({body[:16] for _, body in here.server.seen}) == 150
            assert len({head["authorization"] for head, _ in here.server.seen}) == 1
            assert here.gateway.opened <= 2

    run(story)


def test_the_time_to_live_is_what_is_left(authority: Authority) -> None:
    """A message that is sent later than it was composed lives as long as it was meant to."""
    clock = {"now": NOW}

    async def story() -> None:
        async with scene(authority, now=lambda: clock["now"]) as here:
            message = message_of(ttl=60)
            for passed in (0, 20, 70):
                clock["now"] = NOW + passed
                await here.send(here.push("a", message))
            await here.send(here.push("a", message_of(expires_at=0)))
            await here.send(here.push("a", message_of()))
        assert [head["ttl"] for head, _ in here.server.seen] == ["60", "40", "0", "0", "2592000"]

    run(story)


def test_a_repeat_of_unknown_end_replaces_what_waits(authority: Authority) -> None:
    """It gets a Topic where its message has none; the message's own wins."""

    async def story() -> None:
        async with scene(authority) as here:
            await here.send(here.push("a", message_of(), collapse_id="again"))
            await here.send(here.push("a", message_of(collapse_id="own"), collapse_id="again"))
        topics = [head["topic"] for head, _ in here.server.seen]
        assert topics == [topic_of("again"), topic_of("own")]

    run(story)


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        pytest.param("https://push.example.com/a", "not the twin", id="not-the-twins"),
        pytest.param("https://127.0.0.1:1/a", "not the twin", id="another-port"),
        pytest.param("https://user@updates.push.services.mozilla.com/a", "a user", id="user"),
        pytest.param("http://127.0.0.1/a", "https://", id="http"),
        pytest.param("https://[::1]/a", "not the twin", id="loopback"),
        pytest.param("nonsense", "https://", id="nonsense"),
    ],
)
def test_an_endpoint_that_is_not_allowed_is_not_sent_to(
    authority: Authority, endpoint: str, told: str
) -> None:
    """It is refused without a connection, beside others that are sent."""

    async def story() -> None:
        async with scene(authority) as here:
            allowed = here.push("a", message_of(), key=1)
            outcomes = await here.send(allowed, allowed._replace(key=2, address=endpoint))
            refused = outcomes[2]
            assert outcomes[1] == Accepted("id-1")
            assert isinstance(refused, Refused)
            assert (refused.reason, refused.status) == ("OtherTwin", 0)
            assert told in refused.detail
            assert len(here.server.seen) == 1

    run(story)


def test_the_twins_endpoints_are_not_for_production(authority: Authority) -> None:
    """Loopback is refused outside the environment ``twin``, whatever the setting says."""

    async def story() -> None:
        async with serve(authority, server := server_of()) as url:
            gateway = gateway_to(authority, url, hosts=PushHosts.read(f"any,{url[8:]}", twin=url))
            push = push_to(f"{url}/a", message_of(), Browser(), environment="production")
            (outcome,) = (await outcomes_of(gateway, [push])).values()
            await gateway.close()
        assert isinstance(outcome, Refused)
        assert outcome.reason == "HostNotAllowed"
        assert "not a public address" in outcome.detail
        assert server.connections == 0

    run(story)


def test_an_address_without_keys_costs_its_own_message_only(authority: Authority) -> None:
    """What cannot be encrypted is told in words; the others are sent."""

    async def story() -> None:
        async with scene(authority) as here:
            good = here.push("a", message_of(), key=1)
            outcomes = await here.send(
                good, good._replace(key=2, details=None), good._replace(key=3, details='{"auth":1}')
            )
            assert outcomes[1] == Accepted("id-1")
            for key in (2, 3):
                bad = outcomes[key]
                assert isinstance(bad, RetryLater)
                assert bad.reason == "RequestUnusable"
                assert "keys" in bad.detail

    run(story)


def test_a_lost_answer_is_unknown(authority: Authority) -> None:
    """The connection ended after the message went out."""

    async def story() -> None:
        async with scene(authority) as here:
            (outcome,) = (await here.send(here.push("close", message_of()))).values()
            assert isinstance(outcome, Unknown)
            assert len(here.server.seen) == 1

    run(story)


class OldServer(asyncio.Protocol):
    """A push service that speaks HTTP/1.1 alone, by h11; it answers as a path asks."""

    connections: ClassVar[int] = 0
    seen: ClassVar[list[tuple[str, bytes]]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with no request."""
        type(self).connections += 1
        self.transport = cast("asyncio.Transport", transport)
        self.h11 = h11.Connection(h11.SERVER)
        self.target, self.body = "", b""

    def data_received(self, data: bytes) -> None:
        """Answer each request once it is whole."""
        self.h11.receive_data(data)
        while (event := self.h11.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            match event:
                case h11.Request():
                    self.target = event.target.decode()
                case h11.Data():
                    self.body += event.data
                case h11.EndOfMessage():
                    self.respond()
                case _:
                    return

    def respond(self) -> None:
        """Answer one request, or hang up."""
        type(self).seen.append((self.target, self.body))
        self.body = b""
        wish = self.target.rpartition("/")[2]
        if wish == "close":
            self.transport.close()
            return
        status = int(wish) if wish.isdigit() and len(wish) == 3 else 201
        more = [("connection", "close")] if wish == "last" else []
        head = h11.Response(status_code=status, headers=[("content-length", "0"), *more])
        self.transport.write(self.h11.send(head) or b"")
        self.transport.write(self.h11.send(h11.EndOfMessage()) or b"")
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        else:
            self.transport.close()


@pytest.mark.parametrize("alpn", ["http/1.1", "other"])
def test_a_host_without_http2_is_sent_to_by_http1(authority: Authority, alpn: str) -> None:
    """Each message arrives once and is read by its browser, over few connections."""
    server: type[OldServer] = type("Counting", (OldServer,), {"connections": 0, "seen": []})

    async def story() -> None:
        async with serve(authority, server, alpn=alpn) as url:
            gateway = gateway_to(authority, url)
            browser = Browser()
            wishes = ["404", "429", "close", "last", *(f"a{number}" for number in range(30))]
            outcomes = await outcomes_of(
                gateway,
                [
                    push_to(f"{url}/wpush/{wish}", message_of(), browser, key=number)
                    for number, wish in enumerate(wishes)
                ],
            )
            assert gateway.connections <= 8
            await gateway.close(within=1)
        named = dict(zip(wishes, (outcomes[key] for key in range(len(wishes))), strict=True))
        assert isinstance(named.pop("404"), DeviceGone)
        assert isinstance(named.pop("429"), RetryLater)
        assert isinstance(named.pop("close"), Unknown)
        assert {type(outcome) for outcome in named.values()} == {Accepted}
        assert sorted(target for target, _ in server.seen) == sorted(f"/wpush/{w}" for w in wishes)
        assert browser.read(server.seen[0][1])["notification"]["title"] == "Hello"

    run(story)


class Mute(asyncio.Protocol):
    """Accepts a connection and says nothing."""


def test_a_silent_host_without_http2_ends_in_time(authority: Authority) -> None:
    """Its messages end as unknown, and nothing waits for an answer to a PING."""

    async def story() -> None:
        async with serve(authority, Mute, alpn="http/1.1") as url:
            gateway = gateway_to(authority, url, request_timeout=0.4)
            push = push_to(f"{url}/a", message_of(), Browser())
            (outcome,) = (await outcomes_of(gateway, [push])).values()
            await gateway.close(within=1)
        assert isinstance(outcome, Unknown)
        assert outcome.reason == "TimedOut"

    run(story)


# -- origins -------------------------------------------------------------------------------------


async def _services(
    stack: AsyncExitStack, authority: Authority, count: int
) -> list[tuple[str, type[PushServer]]]:
    servers = [server_of() for _ in range(count)]
    urls = [await stack.enter_async_context(serve(authority, server)) for server in servers]
    return list(zip(urls, servers, strict=True))


class AnyLoopback(PushHosts):
    """Hosts that let any origin of loopback through, as if each were a twin's.

    They stand for hosts of strangers, which no test may reach.
    """

    def target(self, endpoint: str, environment: str) -> Any:
        """Return the target, whatever its port."""
        origin = endpoint[: endpoint.index("/", 8)]
        return PushHosts(twin=origin).target(endpoint, environment)

    def is_named(self, _: object) -> bool:
        """Return False: nobody named them."""
        return False


def test_each_origin_has_its_own_connection_and_token(authority: Authority) -> None:
    """Messages of one call go to several push services, each with a token for it."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            services = await _services(stack, authority, 3)
            gateway = gateway_to(authority, "", hosts=AnyLoopback())
            message = message_of()
            pushes = [
                push_to(f"{url}/{number}", message, Browser(), key=3 * place + number)
                for place, (url, _) in enumerate(services)
                for number in range(3)
            ]
            outcomes = await outcomes_of(gateway, pushes)
            assert set(outcomes.values()) == {Accepted(f"id-{key}") for key in range(9)}
            assert sorted(gateway.origins) == sorted(url for url, _ in services)
            for url, server in services:
                tokens = {head["authorization"] for head, _ in server.seen}
                audience = jwt.decode(
                    tokens.pop().split("t=")[1].split(",")[0], options={"verify_signature": False}
                )["aud"]
                assert (audience, tokens, len(server.seen)) == (url, set(), 3)
            await gateway.close()

    run(story)


@pytest.mark.parametrize("path", ["a", "silent"])
def test_strangers_share_a_few_places(authority: Authority, path: str) -> None:
    """Connections to hosts that nobody named are few at once; each message still has its end."""
    most: list[int] = []

    async def story() -> None:
        async with AsyncExitStack() as stack:
            services = await _services(stack, authority, 4)
            gateway = gateway_to(
                authority, "", hosts=AnyLoopback(), most_origins=2, request_timeout=0.4
            )
            outcomes: dict[int, Outcome] = {}

            def report(push: Push, outcome: Outcome) -> None:
                most.append(gateway.connections)
                outcomes[push.key] = outcome

            wishes = [path, "a", "a", "a"]
            await gateway.send(
                [
                    push_to(f"{url}/{number}/{wish}", message_of(), Browser(), key=number)
                    for number, ((url, _), wish) in enumerate(zip(services, wishes, strict=True))
                ],
                report,
            )
            await gateway.close()
            assert len(outcomes) == 4
            assert [outcomes[key] for key in (1, 2, 3)] == [
                Accepted(f"id-{key}") for key in (1, 2, 3)
            ]

    run(story)
    assert max(most) <= 2


def test_a_host_without_traffic_is_left(authority: Authority) -> None:
    """Its connections are closed after a while, and opened again when they are needed."""

    async def story() -> None:
        async with scene(authority, idle_seconds=0.1) as here:
            await here.send(here.push("a", message_of()))
            assert here.gateway.connections == 1
            async with asyncio.timeout(10):
                while here.gateway.origins:  # noqa: ASYNC110 - nobody tells of it
                    await asyncio.sleep(0.02)
            assert here.gateway.connections == 0
            assert await here.send(here.push("a", message_of())) == {0: Accepted("id-0")}
            assert here.server.connections == 2

    run(story)


def test_withdrawn_messages_are_not_sent(authority: Authority) -> None:
    """What waits is reported as withdrawn; nothing of it reaches the browser."""

    async def story() -> None:
        async with scene(authority) as here:
            here.gateway.require(lambda: False)
            sending = asyncio.ensure_future(here.send(here.push("a", message_of())))
            await asyncio.sleep(0)
            here.gateway.withdraw(lambda push: push.key == 0)
            assert await sending == {0: Withdrawn()}
            assert here.server.seen == []

    run(story)


def test_a_closed_gateway_refuses(authority: Authority) -> None:
    """Nothing is sent after the end."""

    async def story() -> None:
        async with scene(authority) as here:
            push = here.push("a", message_of())
            await here.send(push)
            await here.gateway.close()
            with pytest.raises(GatewayError, match="closed"):
                await here.gateway.send([push], lambda *_: None)

    run(story)
