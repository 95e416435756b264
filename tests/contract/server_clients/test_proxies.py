"""The way to a push service through proxies that nobody here wrote."""

import asyncio
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.contract.server_clients.test_server_clients import tool
from tests.http2_server import counting, paths, send, serve

from handbell._proxy import Proxy
from handbell.gateways.http2 import End, Endpoint, NotSent, StreamResponse
from handbell.twin.certificates import Authority

pytestmark = [pytest.mark.clients, pytest.mark.judge("tinyproxy")]

CONFIGURATION = """
Port {port}
Listen 127.0.0.1
Timeout 20
Allow 127.0.0.1
BasicAuth me hunter2
{more}
"""


@contextmanager
def tinyproxy(folder: Path, more: str = "") -> Iterator[int]:
    """Run Debian's tinyproxy with a user and a password; give its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    file = folder / "tinyproxy.conf"
    file.write_text(CONFIGURATION.format(port=port, more=more))
    command = [tool("tinyproxy"), "-d", "-c", str(file)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            _wait(port)
            yield port
        finally:
            running.terminate()


def _wait(port: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail("tinyproxy did not start")


def ends_through(folder: Path, user: str, more: str = "", host: str = "localhost") -> list[End]:
    """Return the ends of a hundred requests to a server on loopback through tinyproxy."""
    authority = Authority.open(folder)

    async def story(port: int) -> list[End]:
        async with serve(authority, counting()) as url:
            proxy = Proxy.read(f"http://{user}127.0.0.1:{port}")
            named = url.replace("127.0.0.1", host)
            return await send(Endpoint(named, authority.ca_file, proxy=proxy), paths(100))

    with tinyproxy(folder, more) as port:
        return asyncio.run(story(port))


def test_tinyproxy_lets_pushes_through(tmp_path: Path) -> None:
    """A hundred requests go over its tunnel, with user and password."""
    assert {type(end) for end in ends_through(tmp_path, "me:hunter2@")} == {StreamResponse}


@pytest.mark.parametrize(
    ("user", "more", "host", "reason"),
    [
        ("", "", "localhost", "ProxyAuthentication"),
        ("me:wrong@", "", "localhost", "ProxyAuthentication"),
        ("me:hunter2@", "ConnectPort 443", "localhost", "ProxyRefused"),
        ("me:hunter2@", "", "nowhere.invalid", "ProxyRefused"),
    ],
)
def test_tinyproxys_refusals_are_told_in_words(
    tmp_path: Path, user: str, more: str, host: str, reason: str
) -> None:
    """No user, a wrong one, a port that it does not open, a name it cannot find: each is told."""
    for end in ends_through(tmp_path, user, more, host):
        assert isinstance(end, NotSent)
        assert end.reason == reason
        assert "hunter2" not in end.detail
