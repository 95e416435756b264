"""The send server as clients and proxies see it that nobody here wrote."""

import contextlib
import gzip
import json
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.edge import Client, request
from tests.serving import Server, start_server

from handbell.settings import Settings
from handbell.storage.tables import notifications
from handbell.system import System
from handbell.twin.certificates import Authority

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
APP = "TEAM123456.com.sample.myapp"
SEND = '{"notification": {"title": "%s"}, "recipients": "a@example.com"}'


def tool(name: str) -> str:
    """Return where a program is; the test is skipped where it is missing."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def make(home: Path, **settings: Any) -> System:
    """Return a system with an app that has no key."""
    system = System(Settings.load(home=home, **settings))
    system.apps.add("TEAM123456", "com.sample.myapp")
    return system


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Give a server that accepts and does not send."""
    system = make(tmp_path)
    with start_server(system, with_worker=False, has_console=False) as running:
        yield running
    system.database.close()


def titles(server: Server) -> Counter[str]:
    """Return how often each title was accepted."""
    with server.system.database.read() as connection:
        rows = connection.execute(select(notifications.c.content)).scalars()
        return Counter(
            json.loads(row)["title"] if isinstance(row, str) else row["title"] for row in rows
        )


def run(command: Sequence[str]) -> list[tuple[str, int, str, str]]:
    """Run a client and return what it tells: what was asked, status, version and body."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = []
    for line in done.stdout.splitlines():
        what, status, version, body = line.split("\t")
        found.append((what, int(status), version, body))
    return found


EXPECTED = {
    "length": 202,
    "chunks": 202,
    "late": 202,
    "stream": 200,
    "expect": 202,
    "large": 413,
    "wrong": 401,
    "upgrade": 202,
    "at once": 202,
    "health": 200,
}
ACCEPTED = {"by its length", "in chunks", "late", "line one", "line two", "with leave"}
ACCEPTED |= {f"at once {number}" for number in range(20)}


def check(told: list[tuple[str, int, str, str]], server: Server, accepted: set[str]) -> None:
    """Check that each request was answered as it should be, and each send accepted once."""
    assert [(what, status) for what, status, _, _ in told] == [
        (what, EXPECTED[what]) for what, _, _, _ in told
    ]
    assert Counter(what for what, _, _, _ in told)["at once"] == 20
    assert {version for _, _, version, _ in told} == {"HTTP_1_1"}
    assert titles(server) == Counter(accepted)


@pytest.mark.judge("Java's HTTP client")
@pytest.mark.parametrize("is_tls", [False, True])
def test_java(is_tls: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Java's own client, which offers h2c, is answered in HTTP/1.1 and nothing of it is lost."""
    java = tool("java")
    settings: dict[str, Any] = {}
    more: list[str] = []
    if is_tls:
        authority = Authority.open(tmp_path / "authority")
        authority.server_context()
        settings["tls_certificate"] = authority.ca_file.parent / "server.pem"
        more = [str(authority.ca_file)]
    system = make(tmp_path, **settings)
    with start_server(system, with_worker=False, has_console=False) as server:
        told = run([java, str(HERE / "Client.java"), server.url, APP, server.key("send"), *more])
        check(told, server, ACCEPTED)
    system.database.close()


@pytest.mark.judge("Node's fetch")
def test_node(server: Server) -> None:
    """Node's fetch and http: streams, trailers that are no headers, upgrades, leave to send."""
    command = [tool("node"), str(HERE / "client.mjs"), server.url, APP, server.key("send")]
    check(run(command), server, ACCEPTED | {"with an upgrade"})


CURLS = {
    "h2c": (["--http2"], SEND % "h2c", 202),
    "h2c in chunks": (["--http2", "-H", "Transfer-Encoding: chunked"], SEND % "h2c", 202),
    "h2c with leave": (["--http2", "-H", "Expect: 100-continue"], SEND % "h2c", 202),
    "HTTP/1.1": (["--http1.1"], SEND % "plain", 202),
    "HTTP/1.0": (["--http1.0"], SEND % "old", 202),
    "a byte order mark": ([], "\ufeff" + SEND % "mark", 202),
    "too large": ([], "x" * 3_000_000, 413),
    "too large with leave": (["-H", "Expect: 100-continue"], "x" * 3_000_000, 413),
    "too large in chunks": (["-H", "Transfer-Encoding: chunked"], "x" * 3_000_000, 413),
}


@pytest.mark.judge("curl at the server")
@pytest.mark.parametrize("name", CURLS)
def test_curl(name: str, server: Server, tmp_path: Path) -> None:
    """Curl gets its answer whatever it offers, and what it sent is accepted once."""
    options, body, status = CURLS[name]
    (tmp_path / "body").write_text(body, encoding="utf-8")
    url = f"{server.url}/v1/apps/{APP}/notifications"
    command = [tool("curl"), "-sS", "-m", "20", "-w", "%{http_code} %{http_version}\\n", *options]
    command += ["-H", f"Authorization: Bearer {server.key('send')}"]
    command += ["-H", "Content-Type: application/json", "--data-binary", f"@{tmp_path / 'body'}"]
    said = str(tmp_path / "said")
    command += [url, "-o", said, url, "-o", said]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout == f"{status} 1.1\n" * 2
    assert sum(titles(server).values()) == (2 if status == 202 else 0)


@pytest.mark.judge("curl at the server")
def test_curl_with_a_compressed_body(server: Server, tmp_path: Path) -> None:
    """It is told that compressed bodies are not read."""
    (tmp_path / "body").write_bytes(gzip.compress((SEND % "packed").encode()))
    command = [tool("curl"), "-sS", "-m", "20", "-H", f"Authorization: Bearer {server.key()}"]
    command += ["-H", "Content-Encoding: gzip", "-H", "Content-Type: application/json"]
    command += [
        "--data-binary",
        f"@{tmp_path / 'body'}",
        f"{server.url}/v1/apps/{APP}/notifications",
    ]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (said["status"], said["code"]) == (415, "media-type-unsupported")


@pytest.mark.judge("curl at the server")
def test_curl_that_knows_http2_already(server: Server) -> None:
    """Prior knowledge of HTTP/2 is refused at once, and not waited out."""
    begun = time.monotonic()
    command = [tool("curl"), "-s", "-m", "20", "--http2-prior-knowledge", f"{server.url}/healthz"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert time.monotonic() - begun < 8


# Proxies

NGINX = """
daemon off; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s; client_max_body_size 4m;
  upstream handbell {{ server {upstream}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location /push/ {{
      proxy_pass http://handbell/; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host push.example.com; proxy_set_header X-Forwarded-Proto https;
      proxy_set_header X-Forwarded-For $remote_addr; proxy_request_buffering off;
      proxy_buffering off;
    }}
    location /old/ {{ proxy_pass http://{upstream}/; proxy_set_header Host push.example.com; }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 20s
  timeout server 20s
frontend in
  bind 127.0.0.1:{port}
  default_backend handbell
backend handbell
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  http-request replace-path /(push|old)/(.*) /\\2
  http-request set-header Host push.example.com
  http-reuse always
  server one {upstream}
"""


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextlib.contextmanager
def proxy(name: str, upstream: str, home: Path) -> Iterator[int]:
    """Run a proxy in front of a server while the block runs, and give its port."""
    port = free_port()
    template = NGINX if name == "nginx" else HAPROXY
    config = home / f"{name}.conf"
    config.write_text(template.format(home=home, upstream=upstream, port=port))
    options = (
        ["-e", f"{home}/error.log", "-p", str(home), "-c"] if name == "nginx" else ["-db", "-f"]
    )
    process = subprocess.Popen(
        [tool(name), *options, str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        deadline = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "the proxy does not answer"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=10)


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.judge(one)) for one in ("nginx", "haproxy")],
)
def test_a_proxy_in_front(name: str, tmp_path: Path) -> None:
    """Through a proxy of Debian's everything arrives once, in order, and its client is known."""
    tool(name)
    public = "https://push.example.com/push"
    system = make(tmp_path / "home", public_url=public, trusted_proxies="127.0.0.1")
    with (
        start_server(system, with_worker=False, has_console=False) as server,
        proxy(name, server.url.removeprefix("http://"), tmp_path) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client,
    ):
        headers = {"Authorization": f"Bearer {server.key('send')}"}
        sends = f"v1/apps/{APP}/notifications"
        for prefix in ("push", "old"):
            for number in range(30):
                body = json.loads(SEND % f"{prefix} {number}")
                answer = client.post(f"/{prefix}/{sends}", json=body, headers=headers)
                assert answer.status_code == 202, answer.text
        assert answer.headers["strict-transport-security"]
        lines = "".join(f"{SEND % f'line {number}'}\n" for number in range(200))
        kind = {"Content-Type": "application/x-ndjson"}
        stream = client.post(
            f"/push/{sends}", content=iter([lines.encode()]), headers=headers | kind
        )
        assert json.loads(stream.text.splitlines()[-1]) == {"accepted": 200, "refused": 0}
        large = client.post(f"/push/{sends}", content=b"x" * 3_000_000, headers=headers)
        assert large.status_code == 413
        # On a connection of its own: the proxy closes the one whose body it threw away.
        alive = httpx.head(f"http://127.0.0.1:{port}/push/healthz", timeout=10, trust_env=False)
        assert (alive.status_code, alive.headers["content-length"], alive.text) == (200, "18", "")
        # What a proxy lets through of an upgrade or of two requests in one stays one request.
        with Client(socket.create_connection(("127.0.0.1", port), 5)) as wire:
            inner = request(path="/push/v1/apps").decode()
            more = (f"Authorization: {headers['Authorization']}", f"Content-Length: {len(inner)}")
            path = f"/push/{sends}"
            upgrade = ("Connection: Upgrade", "Upgrade: h2c")
            wire.send(request(*more, *upgrade, method="POST", path=path, body=inner))
            codes = [one[0] for one in wire.answers()]
        assert codes in ([415], [400]), codes
    assert sum(titles(server).values()) == 60 + 200
    assert set(titles(server).values()) == {1}
    system.database.close()
