"""What the send server makes of a request before a handler sees it: host, body, streams, pace."""

import gzip
import json
import socket
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.console import limited_by, open_console
from tests.edge import Client
from tests.made_once import plain_client
from tests.serving import Server, start_server

from handbell.http_server.bounds import Bounds
from handbell.server.hosts import Hosts
from handbell.server.routes import ROUTES
from handbell.settings import Settings
from handbell.system import System

APP = "TEAM123456.com.sample.myapp"
MAIL = "operator@example.com"
PASSWORD = "correct horse battery"
WRONG = "not the right one"
MARK = b"\xef\xbb\xbf"
STREAMING = f"/v1/apps/{APP}/notifications"
IMPORT = f"/v1/apps/{APP}/sessions/import"
BOUNDS = Bounds(body_seconds=0.4, idle_seconds=3, look_seconds=0.05)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Give a system with an app that has no key."""
    made = System(Settings.load(home=tmp_path_factory.mktemp("home"), max_body_bytes=4096))
    made.apps.add("TEAM123456", "com.sample.myapp")
    yield made
    made.database.close()


@pytest.fixture(scope="module")
def server(system: System) -> Iterator[Server]:
    """Give a server with little patience for bodies."""
    with start_server(system, with_worker=False, has_console=False, bounds=BOUNDS) as running:
        yield running


def wire(server: Server) -> Client:
    """Return a connection on which every byte is ours."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return Client(socket.create_connection((host, int(port)), 5))


# Streams


@pytest.mark.parametrize(
    ("path", "kinds", "status"),
    [
        ("/v1/apps", ["application/x-ndjson"], 408),
        ("/v1/apps", ["text/plain; x=application/x-ndjson"], 408),
        (f"/v1/apps/{APP}/sessions", ["application/jsonl"], 408),
        (STREAMING, ["application/json; x=application/x-ndjson"], 408),
        (STREAMING, ["application/json", "application/x-ndjson"], 408),
        (STREAMING, ["application/x-ndjsonish"], 415),
        (STREAMING, ["application/x-ndjson"], None),
        (STREAMING, ["Application/X-NDJSON; charset=utf-8"], None),
        (STREAMING, ["application/jsonl"], None),
        (IMPORT, ["application/ndjson"], None),
        (IMPORT, ["text/x-application/x-ndjson"], 415),
    ],
)
def test_only_streams_take_longer_than_a_body(
    path: str, kinds: list[str], status: int | None, server: Server
) -> None:
    """The route and the whole media type make a stream, never a text within the type."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Transfer-Encoding: chunked"]
    lines += [f"Authorization: Bearer {server.key()}", *(f"Content-Type: {one}" for one in kinds)]
    with wire(server) as client:
        client.send("\r\n".join([*lines, "", "1\r\n \r\n"]).encode())
        if status is not None:
            answer = client.answer()
            assert answer is not None
            assert answer[0] == status
            return
        client.socket.settimeout(BOUNDS.body_seconds * 3)
        with pytest.raises(TimeoutError):
            client.answer()
        client.socket.settimeout(5)
        client.send(b"0\r\n\r\n")
        answer = client.answer()
        assert answer is not None
        assert answer[0] == 200


@pytest.mark.parametrize("kind", ["application/jsonl", "application/ndjson"])
def test_a_stream_by_any_of_its_names_is_unbounded(kind: str, server: Server) -> None:
    """A stream may be longer than a body may, however it is called."""
    line = json.dumps({"notification": {"title": "x" * 500}, "recipients": "test@4d.com"})
    with server.client(server.key("send"), headers={"Content-Type": kind}) as client:
        answer = client.post(STREAMING, content=f"{line}\n" * 20)
    assert json.loads(answer.text.splitlines()[-1]) == {"accepted": 20, "refused": 0}


# Bodies

JSON_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/apps"): {"id": "TEAM123456.com.sample.second"},
    ("PATCH", f"/v1/apps/{APP}"): {"name": "My app"},
    ("POST", f"/v1/apps/{APP}/credentials"): {"key": "nonsense", "key_id": "ABC123DEFG"},
    ("POST", f"/v1/apps/{APP}/webhooks"): {"url": "https://example.com/hook"},
    ("POST", "/v1/api-keys"): {"name": "test", "scopes": ["send"]},
    ("POST", f"/v1/apps/{APP}/sessions"): {"mail": "a@b.example", "device_token": "ab" * 32},
    ("POST", STREAMING): {"notification": {"title": "Hello"}, "recipients": "test@4d.com"},
    ("POST", f"{STREAMING}/preview"): {"notification": {"title": "Hello"}},
    ("PUT", f"/v1/apps/{APP}/templates/welcome"): {"notification": {"title": "Hello"}},
}


@pytest.mark.parametrize("how", ["whole", "in pieces", "without a type"])
@pytest.mark.parametrize("route", JSON_BODIES, ids=" ".join)
def test_a_byte_order_mark_before_json_is_skipped(
    route: tuple[str, str], how: str, server: Server
) -> None:
    """The answer is that to the same body without the mark, wherever JSON is read."""
    method, path = route
    body = json.dumps(JSON_BODIES[route]).encode()
    headers = {} if how == "without a type" else {"Content-Type": "application/json"}

    def pieces(content: bytes) -> Iterator[bytes]:
        yield from (content[:1], content[1:2], content[2:5], content[5:])

    with server.client(server.key(), headers=headers) as client:
        answers = [
            client.request(method, path, content=pieces(one) if how == "in pieces" else one)
            for one in (body, MARK + body)
        ]
    plain, marked = answers
    if plain.status_code < 300:
        # What was made by the first may be there already; it was read in any case.
        assert marked.status_code in (200, 201, 202, 409, 422), marked.text
        assert "request" not in marked.json().get("code", "")
    else:
        assert (marked.status_code, marked.text) == (plain.status_code, plain.text)
    assert "not JSON" not in plain.text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[" * 1_500 + b"]" * 1_500, "it is nested too deeply"),
        (b'{"id": "x", }', "a name in double quotes is missing in line 1, column 13"),
        (b'{"id": "\xff"}', "it is not UTF-8"),
    ],
    ids=["brackets", "comma", "latin-1"],
)
@pytest.mark.parametrize("route", JSON_BODIES, ids=" ".join)
def test_a_body_that_is_not_json_is_told_what_is_wrong(
    route: tuple[str, str], body: bytes, why: str, server: Server
) -> None:
    """In the same words, wherever JSON is read."""
    with server.client(server.key(), headers={"Content-Type": "application/json"}) as client:
        answer = client.request(*route, content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "request-malformed"), answer.text
    assert answer.json()["detail"].rstrip(".") == f"The body is not JSON: {why}"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "GZIP", "gzip, identity"])
@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", STREAMING, "application/json"),
        ("POST", STREAMING, "application/x-ndjson"),
        ("POST", IMPORT, "application/x-ndjson"),
        ("POST", "/v1/apps", "application/json"),
        ("PATCH", f"/v1/apps/{APP}", "application/json"),
    ],
)
def test_a_compressed_body_is_415(
    method: str, path: str, kind: str, coding: str, server: Server
) -> None:
    """It is not taken for nonsense: the problem names the encoding and what to do."""
    content = b'{"id": 1}'
    body = {"gzip": gzip.compress(content), "deflate": zlib.compress(content)}.get(coding, content)
    headers = {"Content-Type": kind, "Content-Encoding": coding}
    with server.client(server.key(), headers=headers) as client:
        answer = client.request(method, path, content=body)
    assert (answer.status_code, answer.json()["code"]) == (415, "media-type-unsupported")
    assert coding.lower() in answer.json()["detail"]
    assert "Content-Encoding" in answer.json()["fix"]


def test_a_body_as_it_is_may_say_so(server: Server) -> None:
    """The encoding identity is none, and a request without a body has nothing to be encoded."""
    with server.client(server.key(), headers={"Content-Encoding": "identity"}) as client:
        assert client.post("/v1/apps", json={}).status_code == 422
    with server.client(server.key(), headers={"Content-Encoding": "gzip"}) as client:
        assert client.get("/v1/apps").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/v1/apps", "/nowhere"])
def test_head_says_what_get_would(path: str, server: Server) -> None:
    """Status and headers are those of GET, the length included, and there is no body."""
    with server.client(server.key()) as client:
        asked, told = client.get(path), client.head(path)
    assert (told.status_code, told.content) == (asked.status_code, b"")
    for name in ("content-type", "content-length", "cache-control", "x-content-type-options"):
        assert told.headers[name] == asked.headers[name]


# The host


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("localhost:8710", True),
        ("app.localhost", True),
        ("127.0.0.1:8710", True),
        ("203.0.113.7", True),
        ("[::1]:8710", True),
        ("[2001:db8::1]", True),
        ("push.example.com", True),
        ("PUSH.Example.com.:443", True),
        ("handbell:8710", True),
        ("inner.example.net", True),
        ("a.wild.example", True),
        ("a.b.wild.example", True),
        ("wild.example", False),
        ("evil.example", False),
        ("push.example.com.evil.example", False),
        ("evilpush.example.com", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("push.example.com@evil.example", False),
        ("evil.example:80:push.example.com", False),
        ("[::1].evil.example", False),
        ("2130706433.evil.example", False),
        ("push.example.com/evil", False),
        ("push.example.com evil.example", False),
        ("", False),
        ("\xe9vil.example", False),
    ],
)
def test_which_hosts_are_ours(host: str, is_ours: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Names of the settings, addresses and names without a dot are; a stranger's name is not."""
    settings = Settings.load(home=tmp_path, allowed_hosts="inner.example.net, *.wild.example")
    hosts = Hosts(settings, "https://push.example.com/push")
    for _ in range(2):
        if is_ours:
            hosts.check(host.encode("latin-1"))
        else:
            with pytest.raises(Exception, match="not asked under"):
                hosts.check(host.encode("latin-1"))


def test_a_name_that_is_not_ours_reads_nothing(server: Server, system: System) -> None:
    """A page that lets its name lead here gets 421, from all but what watches and links need."""
    open_to_all = {path for (_, path), need in ROUTES.items() if need.any_host}
    assert open_to_all == {
        "/healthz",
        "/readyz",
        "/.well-known/apple-app-site-association",
        "/apple-app-site-association",
        "/.well-known/assetlinks.json",
        "/mobileapp/{path:path}",
    }
    with server.client(server.key(), headers={"Host": "rebound.example"}) as client:
        for path in ("/v1/apps", "/metrics", "/openapi.json", "/docs", "/", "/prove/x", STREAMING):
            answer = client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (421, "host-not-served"), path
            assert "HANDBELL_ALLOWED_HOSTS" in answer.json()["fix"]
            assert "rebound" not in answer.text
        assert client.get("/healthz").status_code == 200
    with (
        open_console(system) as desk,
        desk.server.client(headers={"Host": "rebound.example"}) as client,
    ):
        for path in ("/console", "/console/sign-in", "/console/static/console.css"):
            assert client.get(path).status_code == 421, path
        assert (
            client.post("/console/sign-in", data={"mail": "a", "password": "b"}).status_code == 421
        )


@pytest.mark.parametrize(
    "listed", ["https://a.example", "a.example:80", "a b", "*.*.example", "a/"]
)
def test_a_host_that_is_no_name_is_a_bad_setting(listed: str, tmp_path: Path) -> None:
    """Scheme, port and path do not belong there, and the error says so."""
    with pytest.raises(Exception, match="given as allowed_hosts"):
        Settings.load(home=tmp_path, allowed_hosts=listed)


@pytest.mark.parametrize(
    ("public_url", "host", "scheme", "is_strict"),
    [
        ("https://push.example.com", "push.example.com", None, True),
        ("https://push.example.com", "localhost", None, False),
        ("https://push.example.com", "127.0.0.1:8710", None, False),
        ("https://203.0.113.7", "203.0.113.7", None, False),
        ("https://[::1]:8443", "[::1]:8443", None, False),
        ("http://push.example.com", "push.example.com", None, False),
        ("http://push.example.com", "push.example.com", "https", True),
        ("", "handbell", None, False),
        ("", "handbell", "https", True),
        ("", "app.localhost", "https", False),
        ("", "10.0.0.1", "https", False),
    ],
)
def test_who_is_told_to_use_https_alone(
    public_url: str,
    host: str,
    scheme: str | None,
    is_strict: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """Names reached by HTTPS are, here or at a proxy; loopback and addresses never."""
    settings = Settings.load(home=tmp_path, public_url=public_url, trusted_proxies="127.0.0.1")
    headers = {"Host": host} | ({"X-Forwarded-Proto": scheme} if scheme else {})
    system = System(settings)
    with (
        closing(system.database),
        start_server(system, with_worker=False, has_console=False) as server,
        server.client(headers=headers) as client,
    ):
        answer = client.get("/healthz")
    assert ("strict-transport-security" in answer.headers) == is_strict


# The pace of signing in


class Doors:
    """The sign-in page, tried from many places; ``clock`` is in seconds."""

    def __init__(self, url: str, clock: list[float]) -> None:
        self.clock = clock
        self._url = url

    def visitor(self, address: str) -> httpx.Client:
        """Return a browser at an address."""
        headers = {"X-Forwarded-For": address, "Origin": self._url}
        return plain_client(self._url, headers=headers)

    def knock(
        self, address: str, password: str = WRONG, mail: str = MAIL, times: int = 1
    ) -> list[int]:
        """Return what so many tries from an address are answered."""
        with self.visitor(address) as client:
            sent = {"mail": mail, "password": password}
            return [client.post("/console/sign-in", data=sent).status_code for _ in range(times)]

    def knock_from(self, addresses: Iterable[str]) -> list[int]:
        """Return what a wrong password from each address is answered."""
        sent = {"mail": MAIL, "password": WRONG}
        with self.visitor("") as client:
            return [
                client.post(
                    "/console/sign-in", data=sent, headers={"X-Forwarded-For": address}
                ).status_code
                for address in addresses
            ]


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    """Give the sign-in page behind a trusted proxy, with an operator."""
    clock = [0.0]
    system = System(Settings.load(home=tmp_path, trusted_proxies="127.0.0.1"))
    with (
        closing(system.database),
        open_console(system, limiter=limited_by(system, lambda: clock[0])) as desk,
    ):
        system.operators.add(MAIL, PASSWORD)
        yield Doors(desk.url, clock)


def test_nobody_locks_an_operator_out(doors: Doors) -> None:
    """Wrong passwords slow down who sent them, and nobody else; a /64 is one sender."""
    assert doors.knock("203.0.113.1", times=9) == [422] * 8 + [429]
    assert doors.knock("203.0.113.1", PASSWORD) == [429]
    assert doors.knock("203.0.113.2", PASSWORD) == [303]
    ends = [f"2001:db8::{number}" for number in range(1, 10)]
    assert [doors.knock(one)[0] for one in ends] == [422] * 8 + [429]
    assert doors.knock("2001:db8::ffff", PASSWORD) == [429]
    assert doors.knock("2001:db8:0:1::1", PASSWORD) == [303]
    doors.clock[0] += 900
    assert doors.knock("203.0.113.1", PASSWORD) == [303]


def test_guessing_from_everywhere_is_slow_and_known_ones_pass(doors: Doors) -> None:
    """An account has so many tries from strangers; who signed in before is none."""
    with doors.visitor("203.0.113.1") as owner:
        sent = {"mail": MAIL, "password": PASSWORD}
        first = owner.post("/console/sign-in", data=sent)
        assert first.status_code == 303
        known = first.cookies["handbell-known"]
        found = doors.knock_from(f"198.51.100.{number}" for number in range(110))
        assert found == [422] * 100 + [429] * 10
        # A stranger with the right password waits like the others.
        assert doors.knock("192.0.2.1", PASSWORD) == [429]
        # The same network, and the same browser elsewhere, do not.
        assert doors.knock("203.0.113.1", PASSWORD) == [303]
        owner.headers["X-Forwarded-For"] = "192.0.2.2"
        assert owner.post("/console/sign-in", data=sent).status_code == 303
    # A pass is for its account, and its own tries are bounded.
    with doors.visitor("192.0.2.3") as thief:
        thief.cookies.set("handbell-known", known)
        sent = {"mail": MAIL, "password": "wrong"}
        codes = [thief.post("/console/sign-in", data=sent).status_code for _ in range(9)]
        assert codes == [422] * 8 + [429]
    for forged in ("nonsense", known[:-2], known.swapcase(), "gAAAAA"):
        with doors.visitor("192.0.2.4") as thief:
            thief.cookies.set("handbell-known", forged)
            assert thief.post("/console/sign-in", data=sent).status_code == 429
    doors.clock[0] += 60
    assert doors.knock("192.0.2.5", PASSWORD) == [303]


def test_right_passwords_cost_nothing(doors: Doors) -> None:
    """An office behind one address signs in as often as it likes."""
    assert doors.knock("203.0.113.9", PASSWORD, times=25) == [303] * 25


def test_changing_a_password_has_tries_of_its_own(doors: Doors) -> None:
    """Wrong sign-ins from outside do not keep who is signed in from changing the password."""
    with doors.visitor("203.0.113.1") as owner:
        sent = {"mail": MAIL, "password": PASSWORD}
        assert owner.post("/console/sign-in", data=sent).status_code == 303
        assert doors.knock("203.0.113.1", times=9)[-1] == 429
        page = owner.get("/console/settings/account").text
        token = page.partition('name="token" value="')[2].partition('"')[0]
        new = "another horse battery"
        form = {"token": token, "current": PASSWORD, "password": new, "again": new}
        assert owner.post("/console/settings/account/password", data=form).status_code == 303
