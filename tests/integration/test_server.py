"""The send server on a real socket: what every answer has in common, and whether it is ready."""

import gc
import json
import re
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec
from openapi_spec_validator import validate
from tests.serving import Server, administrator, server

from handbell import errors
from handbell._collector import settle
from handbell.delivery.queue.workers import LEASE_SECONDS
from handbell.errors import ServeError
from handbell.server.access import unrouted
from handbell.server.application import create_application
from handbell.server.asgi_server import bind, make_context, tls_context, url_of
from handbell.server.routes import ROUTES
from handbell.settings import Settings
from handbell.storage.migrations import HEAD
from handbell.system import System
from handbell.twin.certificates import Authority

__all__ = ["administrator", "server"]

ROOT = Path(__file__).parents[2]
ERRORS = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
KNOWN_CODES = set(re.findall(r"^\| `([a-z-]+)` \|", ERRORS, re.MULTILINE))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Give a folder for a system of its own."""
    return tmp_path / "home"


@pytest.fixture
def system(home: Path) -> Iterator[System]:
    """Give a system without apps."""
    made = System(Settings.load(home=home))
    yield made
    made.database.close()


def quiet(system: System) -> Server:
    """Return a server that sends nothing and shows no console."""
    return Server(system, with_worker=False, has_console=False)


def server_pem(authority: Authority) -> bytes:
    """Return the certificate that the authority issued for this machine, with its key."""
    authority.server_context()
    return (authority.ca_file.parent / "server.pem").read_bytes()


def test_it_lives_and_is_ready(server: Server) -> None:
    """A running server says both, names its worker, and closes with headers that protect."""
    with server.client() as client:
        alive, ready = client.get("/healthz"), client.get("/readyz")
    assert alive.json() == {"status": "alive"}
    worker = server.system.engine.worker.id
    assert ready.json() == {"status": "ready", "schema_revision": HEAD, "worker": worker}
    for answer in (alive, ready):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers


def test_it_is_not_ready_when_its_worker_has_died(server: Server) -> None:
    """Without the worker's heartbeat the answer is 503 with the reason, and it still lives."""
    engine = server.system.engine
    server.system.known_workers.retire(engine.worker.id)
    with server.client() as client:
        answer = client.get("/readyz")
        assert client.get("/healthz").status_code == 200
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    assert "worker" in answer.json()["detail"]
    assert LEASE_SECONDS < 120


def test_it_is_not_ready_when_the_database_cannot_be_written(system: System) -> None:
    """While somebody holds the database the answer is 503 and says so."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with system.database.write():
            held.set()
            release.wait(20)

    system.database._wait = 0.1  # noqa: SLF001 - five seconds would be long for a test
    thread = threading.Thread(target=hold)
    with quiet(system) as server, server.client() as client:
        assert client.get("/readyz").status_code == 200
        thread.start()
        held.wait(5)
        answer = client.get("/readyz")
        release.set()
        thread.join()
        assert client.get("/readyz").status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert "writes of this program have kept the database" in answer.json()["detail"]


def test_every_refusal_is_a_problem_with_a_documented_code(server: Server) -> None:
    """Whatever is wrong with a request, the answer says it in one form."""
    app = server.system.apps.list()[0].id
    with server.client(server.key()) as client:
        answers = {
            404: client.get("/v1/nothing"),
            405: client.put("/v1/apps"),
            400: client.post(
                "/v1/apps", content=b"{", headers={"Content-Type": "application/json"}
            ),
            422: client.post("/v1/apps", json={"id": 1, "colour": "red"}),
            413: client.post("/v1/apps", json={"id": "x" * 2_000_000}),
            415: client.post(f"/v1/apps/{app}/credentials", content=b"x"),
            409: client.post("/v1/apps", json={"id": app}),
        }
        cursor = client.get("/v1/apps", params={"cursor": "nonsense"})
        limit = client.get("/v1/apps", params={"limit": 0})
    for status, answer in answers.items():
        said = answer.json()
        assert answer.status_code == said["status"] == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["code"] in KNOWN_CODES
        assert said["detail"].endswith(".")
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert answers[405].headers["allow"] == "GET, POST"
    assert {fault["where"] for fault in answers[422].json()["errors"]} == {
        "body.id",
        "body.colour",
    }
    assert (cursor.status_code, cursor.json()["code"]) == (400, "cursor-invalid")
    assert (limit.status_code, limit.json()["code"]) == (422, "request-invalid")


def test_a_mistake_of_ours_is_told_without_a_traceback(
    system: System, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nobody foresaw is 500 with a code; the log has the rest, and no address."""
    with quiet(system) as server:
        key = server.key()
        system.__dict__["templates"] = None
        system.apps.add("TEAM123456", "com.sample.myapp")
        with server.client(key) as client:
            answer = client.get("/v1/apps/TEAM123456.com.sample.myapp/templates")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal-error")
    assert "Traceback" not in answer.text
    assert "NoneType" not in answer.text
    record = next(one for one in caplog.records if one.name == "handbell.server.middleware")
    assert "GET /v1/apps/{app}/templates" in record.getMessage()
    assert record.exc_info


def test_the_document_describes_every_operation(server: Server) -> None:
    """The OpenAPI document is valid, and each operation is complete."""
    with server.client() as client:
        document = client.get("/openapi.json").json()
        page = client.get("/docs")
    validate(document)
    described = {
        (method.upper(), path) for path, item in document["paths"].items() for method in item
    }
    expected = {
        (method, path.replace(":person", ""))
        for (method, path), need in ROUTES.items()
        if need.kind in ("key", "device", "metrics")
    }
    assert expected <= described
    operations = [one for item in document["paths"].values() for one in item.values()]
    names = [one["operationId"] for one in operations]
    assert len(names) == len(set(names))
    for one in operations:
        assert re.fullmatch(r"[a-z][A-Za-z]+", one["operationId"])
        assert one["summary"]
        assert not one["summary"].endswith(".")
        assert one["tags"]
        assert one["description"]
        assert "default" in one["responses"]
        assert f'id="{one["operationId"]}"' in page.text
    assert "<code>next</code> is the cursor" in page.text
    assert "`" not in page.text
    first = page.text.index('<article class="operation"')
    assert page.text.index('id="sendNotification"') < page.text.index("</article>", first)
    assert "HTTPValidationError" not in json.dumps(document)
    assert set(document["components"]["securitySchemes"]) == {"apiKey", "sessionSecret"}


def test_the_page_of_the_document_needs_no_other_host(server: Server) -> None:
    """Nothing is loaded from elsewhere, and the policy lets nothing but its own style in."""
    with server.client() as client:
        page = client.get("/docs")
        root = client.get("/")
    assert not re.findall(r"<(?:script|link|img|iframe)", page.text)
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]+'", page.headers["content-security-policy"])
    assert "script-src" not in page.headers["content-security-policy"]
    assert (root.status_code, root.headers["location"]) == (307, "/docs")


def test_an_address_with_a_slash_at_its_end_leads_nowhere(server: Server) -> None:
    """A redirect would send the caller, with its key, to the host that the request names."""
    with server.client() as client:
        answer = client.get("/v1/apps/", headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not-found")
    assert "location" not in answer.headers


def test_routes_and_table_are_the_same(system: System) -> None:
    """No row of the table is without its route; a route without a row keeps it from starting."""
    application = create_application(make_context(system, public_url="http://127.0.0.1"))
    assert unrouted(application.routes) == []


def test_figures_count_requests_by_their_route(server: Server) -> None:
    """The figures hold requests by template, the engine's state, and no address."""
    with server.client(server.key()) as client:
        client.get("/v1/apps/nothing-secret-7")
        figures = client.get("/metrics").text
    line = 'handbell_requests_total{method="GET",route="/v1/apps/{app}",status="404"} 1.0'
    assert line in figures
    assert "handbell_queue_depth 0.0" in figures
    assert "nothing-secret-7" not in figures


def test_every_error_that_a_request_can_meet_has_its_row() -> None:
    """The codes of the server's own refusals are documented."""
    assert errors.RateLimitedError.code in KNOWN_CODES
    assert errors.HeadersTooLargeError.code in KNOWN_CODES


# Behind a proxy


def test_behind_a_proxy_it_knows_its_client_and_its_own_address(home: Path) -> None:
    """A trusted proxy's word counts for links; the prefix may be left on or stripped."""
    settings = Settings.load(
        home=home, trusted_proxies="127.0.0.1", public_url="https://push.example.com/push"
    )
    system = System(settings)
    with quiet(system) as server, server.client(server.key()) as client:
        assert server.context.public_url == "https://push.example.com/push"
        said = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
        for number, path in enumerate(("/v1/apps", "/push/v1/apps")):
            body = {"id": f"TEAM123456.com.sample.app{number}"}
            made = client.post(path, json=body, headers=said)
            assert made.status_code == 201, made.text
            assert made.headers["location"] == f"/push/v1/apps/{body['id']}"
        with server.client() as stranger:
            prefixed = stranger.get("/", headers=said | {"X-Forwarded-Prefix": "/other"})
        assert prefixed.headers["location"] == "/other/docs"
    system.database.close()


def test_a_stranger_that_plays_a_proxy_is_not_believed(system: System) -> None:
    """Without trusted proxies the headers change nothing."""
    with quiet(system) as server, server.client() as client:
        answer = client.get("/", headers={"X-Forwarded-Prefix": "/evil"})
    assert answer.headers["location"] == "/docs"


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a certificate authority made for these tests."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


def test_it_speaks_tls_itself(home: Path, authority: Authority, tmp_path: Path) -> None:
    """With a certificate it serves https to who trusts its authority, and nothing in the clear."""
    certificate = tmp_path / "server.pem"
    certificate.write_bytes(server_pem(authority))
    system = System(Settings.load(home=home, tls_certificate=certificate))
    with quiet(system) as server:
        assert server.context.public_url.startswith("https://127.0.0.1:")
        trust = ssl.create_default_context(cafile=str(authority.ca_file))
        with server.client(verify=trust) as client:
            assert client.get("/healthz").json() == {"status": "alive"}
        plain = server.url.replace("https:", "http:")
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"{plain}/healthz", trust_env=False)
    system.database.close()


@pytest.mark.parametrize("what", ["nonsense", "no key", "another key", "protected", "key alone"])
def test_a_certificate_that_cannot_be_used_is_named(
    what: str, authority: Authority, tmp_path: Path
) -> None:
    """The error names the file and what is wrong with it; nobody is asked for a password."""
    pem = server_pem(authority)
    certificate, key = tmp_path / "server.pem", tmp_path / "key.pem"
    end = b"-----END CERTIFICATE-----\n"
    certificate.write_bytes(pem.partition(end)[0] + end)
    other = ec.generate_private_key(ec.SECP256R1())
    lock: form.KeySerializationEncryption = form.NoEncryption()
    if what == "protected":
        lock = form.BestAvailableEncryption(b"secret")
    key.write_bytes(other.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, lock))
    named: dict[str, Path] = {"tls_certificate": certificate, "tls_key": key}
    match what:
        case "nonsense":
            certificate.write_bytes(b"nonsense")
        case "no key":
            del named["tls_key"]
        case "key alone":
            del named["tls_certificate"]
    with pytest.raises(ServeError) as caught:
        tls_context(Settings.load(home=tmp_path, **named))
    assert caught.value.fix
    assert what == "key alone" or str(certificate) in caught.value.what


# Where it listens


def test_a_taken_port_is_named() -> None:
    """A second server on one port says who is in the way, and what to do."""
    with bind("127.0.0.1:0") as bound:
        listen = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ServeError, match="already listens") as caught:
            bind(listen)
    assert "--listen" in caught.value.fix


@pytest.mark.parametrize("listen", ["203.0.113.7:8710", "no-such-host.invalid:8710"])
def test_an_address_of_another_machine_is_refused(listen: str) -> None:
    """What is not this machine's is an error that names it."""
    with pytest.raises(ServeError, match=re.escape(listen)):
        bind(listen)


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, r"http://127\.0\.0\.1:\d+"),
        ({"root_path": "/push"}, r"http://127\.0\.0\.1:\d+/push"),
        ({"public_url": "https://a.example.com"}, "https://a.example.com"),
        (
            {"public_url": "https://a.example.com", "root_path": "/push"},
            "https://a.example.com/push",
        ),
        (
            {"public_url": "https://a.example.com/x", "root_path": "/push"},
            "https://a.example.com/x",
        ),
    ],
)
def test_links_begin_with_the_address_that_others_use(
    settings: dict[str, str], url: str, tmp_path: Path
) -> None:
    """The public URL wins; without it, it is where the server listens, with its path."""
    with bind("127.0.0.1:0") as bound:
        assert re.fullmatch(url, url_of(bound, Settings.load(home=tmp_path, **settings)))


def test_what_a_server_is_made_of_is_left_alone_by_the_collector(server: Server) -> None:
    """What lasts is not gone through again; what comes later is collected as ever."""
    gc.unfreeze()
    try:
        settle()
        frozen = gc.get_freeze_count()
        assert frozen > 10_000
        circle: list[object] = []
        circle.append(circle)
        del circle
        assert gc.collect() >= 1
        with server.client() as client:
            assert client.get("/healthz").status_code == 200
    finally:
        gc.unfreeze()
