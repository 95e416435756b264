"""Webhooks through a proxy that an operator names for them: what it may do, and what it may not."""

import asyncio
import base64
import contextlib
import datetime as dt
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.proxy import ProxyServer, opens, proxying

from handbell._proxy import Proxies
from handbell.delivery.webhooks.call_target import CallResult  # noqa: TC001 - read at run time
from handbell.delivery.webhooks.safe_http import OutboundOptions
from handbell.settings import Settings
from handbell.system import System

NAME = "hooks.example.com"
USER = "me:hunter2%20x"
NEVER = threading.Event()
HEADERS = {"webhook-id": "msg_1", "content-type": "application/json"}


class _Handler(BaseHTTPRequestHandler):
    got: list[dict[str, str]]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.got.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_arguments: object) -> None:
        """Say nothing of callers that go away."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a certificate of the receiver's name, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("receiver") / "receiver.pem"
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + pem)
    return file


class Receiver:
    """A back end on loopback under a public name; ``got`` are the headers of the calls."""

    def __init__(self, port: int, got: list[dict[str, str]]) -> None:
        self.port = port
        self.got = got
        self.url = f"https://{NAME}:{port}/hook"


@pytest.fixture
def receiver(certificate: Path) -> Iterator[Receiver]:
    """Run a back end with TLS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    got: list[dict[str, str]] = []
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"got": got})) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Receiver(server.server_address[1], got)
        finally:
            server.shutdown()
            thread.join()


def _nowhere(host: str, _port: int) -> list[str]:
    raise AssertionError(f"{host} is the proxy's to look up")


@contextlib.asynccontextmanager
async def through(
    certificate: Path,
    answer: Callable[[str], bytes | None] = opens,
    *,
    exceptions: str = "",
    environment: Mapping[str, str] | None = None,
    resolve: Callable[[str, int], list[str]] = _nowhere,
) -> AsyncIterator[tuple[ProxyServer, Callable[[str], "asyncio.Future[CallResult]"]]]:
    """Give a proxy, and what calls an address by it."""
    async with proxying(answer) as proxy:
        setting = proxy.url(USER) if environment is None else "environment"
        named = {"HTTPS_PROXY": proxy.url(USER), **(environment or {})}
        outbound = OutboundOptions(
            proxies=Proxies.read(setting, exceptions, named),
            ca_file=certificate,
            resolve=resolve,
            request_seconds=5,
        )

        def call(url: str) -> "asyncio.Future[CallResult]":
            work = asyncio.to_thread(outbound.post, url, b"{}", HEADERS, stop=NEVER)
            return asyncio.ensure_future(work)

        yield proxy, call


@pytest.mark.parametrize("environment", [None, {}], ids=["named", "of the environment"])
def test_a_call_goes_through_the_proxy(
    certificate: Path, receiver: Receiver, environment: Mapping[str, str] | None
) -> None:
    """By CONNECT to the name, which is looked up by nobody here; each side sees its own headers."""

    async def story() -> None:
        async with through(certificate, environment=environment) as (proxy, call):
            assert (await call(receiver.url)).status == 204
        (head,) = proxy.heads
        assert head.startswith(f"CONNECT {NAME}:{receiver.port} HTTP/1.1\r\n")
        sent = head.partition("Proxy-Authorization: Basic ")[2].partition("\r\n")[0]
        assert base64.b64decode(sent) == b"me:hunter2 x"
        assert "webhook-id" not in head.lower()
        (headers,) = receiver.got
        assert headers["webhook-id"] == "msg_1"
        assert not [name for name in headers if name.startswith("proxy-")]

    asyncio.run(story())


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/hook",
        "https://10.0.0.1/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:127.0.0.1]/hook",
        "https://[fd00::1]/hook",
        "https://127.0.0.1/hook",
        "https://localhost/hook",
        "https://2130706433/hook",
        "https://0x7f000001/hook",
        "https://127.1/hook",
        "https://user@hooks.example.com/hook",
        "https://hooks.example.com/a b",
        "ftp://hooks.example.com/hook",
    ],
)
def test_what_the_address_itself_says_is_checked_as_before(certificate: Path, url: str) -> None:
    """The proxy is not even asked."""

    async def story() -> None:
        async with through(certificate) as (proxy, call):
            answer = await call(url)
        assert (answer.status, proxy.heads) == (None, [])
        assert "cannot be called" in answer.reason

    asyncio.run(story())


def test_plain_http_never_goes_through_it(certificate: Path) -> None:
    """Also where private addresses are allowed, nothing is sent in the clear."""

    async def story() -> None:
        async with proxying() as proxy:
            outbound = OutboundOptions(
                allow_private=True,
                proxies=Proxies.read(proxy.url(), "", {}),
                ca_file=certificate,
                resolve=_nowhere,
            )
            answer = await asyncio.to_thread(
                outbound.post, "http://hooks.example.com/", b"", {}, stop=NEVER
            )
        assert (answer.status, proxy.heads) == (None, [])
        assert "loopback only" in answer.reason

    asyncio.run(story())


def test_the_certificate_is_checked_behind_the_proxy(certificate: Path, receiver: Receiver) -> None:
    """Whoever the proxy leads to has to be who was named."""

    async def story() -> None:
        async with through(certificate) as (_, call):
            answer = await call(receiver.url.replace(NAME, "other.example.com"))
        assert answer.status is None
        assert "through the proxy 127.0.0.1:" in answer.reason
        assert receiver.got == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "407"),
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n", "403"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502"),
        (b"", "through the proxy"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "through the proxy"),
    ],
    ids=["407", "403", "502", "silent", "no proxy"],
)
def test_a_proxy_that_opens_no_way_is_named(certificate: Path, said: bytes, words: str) -> None:
    """What it answered is no answer of the receiver; nothing of the credentials is told."""

    async def story() -> None:
        async with through(certificate, lambda _: said) as (proxy, call):
            answer = await call(f"https://{NAME}/hook")
        assert not answer.is_success
        assert answer.status is None
        assert f"through the proxy 127.0.0.1:{proxy.port}" in answer.reason
        assert words in answer.reason
        assert "hunter2" not in answer.reason

    asyncio.run(story())


def test_a_proxy_that_is_not_there_is_named(certificate: Path) -> None:
    """The reason says which proxy could not be reached."""
    outbound = OutboundOptions(
        proxies=Proxies.read("http://127.0.0.1:1", "", {}), ca_file=certificate, resolve=_nowhere
    )
    answer = outbound.post(f"https://{NAME}/hook", b"", {}, stop=NEVER)
    assert answer.reason.startswith("through the proxy 127.0.0.1:1: ")


@pytest.mark.parametrize("exceptions", [NAME, "example.com", "*"])
def test_an_exception_is_called_directly_and_pinned(certificate: Path, exceptions: str) -> None:
    """Hosts of HANDBELL_NO_PROXY are resolved here, and have to be public."""

    async def story() -> None:
        async with through(
            certificate, exceptions=exceptions, resolve=lambda _host, _port: ["10.0.0.1"]
        ) as (proxy, call):
            answer = await call(f"https://{NAME}/hook")
        assert (answer.status, proxy.heads) == (None, [])
        assert "10.0.0.1, which is not public" in answer.reason

    asyncio.run(story())


@pytest.mark.parametrize(
    ("given", "leads"),
    [({}, False), ({"proxy": "http://a.example:1"}, False), ({"webhook_proxy": "b:2"}, True)],
    ids=["nothing", "the push services' alone", "webhooks' own"],
)
def test_the_setting_alone_switches_it_on(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    leads: bool,  # noqa: FBT001
) -> None:
    """Neither the usual variables nor the proxy towards Apple are used for webhooks."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://elsewhere.example:3128")
    system = System(Settings.load(home=tmp_path, **given))
    found = system.outbound.proxies.to(f"https://{NAME}/hook")
    assert (found is not None) is leads
    assert found is None or found.authority == "b:2"
