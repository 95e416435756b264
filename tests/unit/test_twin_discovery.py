"""The address file: how others find a running twin."""

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

from handbell.twin.discovery import (
    KNOWN_SECONDS,
    Address,
    KnownTwin,
    read_address,
    remove_address,
    write_address,
)


def address(port: int) -> Address:
    """Return an address whose page is on this port."""
    return Address(
        production_url="https://127.0.0.1:1",
        development_url="https://127.0.0.1:2",
        page_url=f"http://127.0.0.1:{port}",
        ca_file="ca.pem",
        pid=1,
    )


def test_a_running_twin_is_found(tmp_path: Path) -> None:
    """Who listens is found by the file; who has gone, or never was, is not."""
    assert read_address(tmp_path) is None
    with socket.create_server(("127.0.0.1", 0)) as page:
        running = address(page.getsockname()[1])
        write_address(tmp_path, running)
        assert read_address(tmp_path) == running
    assert read_address(tmp_path) is None


def test_who_asks_often_connects_seldom(tmp_path: Path) -> None:
    """And hears at once of a start and a stop, and of a killed twin within a second."""
    now = 100.0
    known = KnownTwin(tmp_path, clock=lambda: now)
    assert known.address() is None
    with socket.create_server(("127.0.0.1", 0)) as page:
        running = address(page.getsockname()[1])
        write_address(tmp_path, running)
        assert [known.address() for _ in range(50)] == [running] * 50
        assert _connections(page) == 1
        now += KNOWN_SECONDS
        assert [known.address() for _ in range(50)] == [running] * 50
        assert _connections(page) == 1
        with socket.create_server(("127.0.0.1", 0)) as other:
            write_address(tmp_path, address(other.getsockname()[1]))
            assert known.address() == address(other.getsockname()[1])
        write_address(tmp_path, running)
        assert known.address() == running
        remove_address(tmp_path, running)
        assert known.address() is None
        write_address(tmp_path, running)
        assert known.address() == running
    now += KNOWN_SECONDS
    assert known.address() is None


def _connections(page: socket.socket) -> int:
    """Return how many connections wait to be accepted, and close them."""
    page.setblocking(False)
    number = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            page.accept()[0].close()
            number += 1
    return number


def test_only_the_own_file_is_removed(tmp_path: Path) -> None:
    """A twin that stops leaves the file of a later one alone."""
    write_address(tmp_path, address(2))
    remove_address(tmp_path, address(1))
    assert (tmp_path / "address.json").exists()
    remove_address(tmp_path, address(2))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    """Nonsense in the file means that no twin is known."""
    for text in ("", "[]", "{}", '{"page_url": 5}', '"x"'):
        (tmp_path / "address.json").write_text(text)
        assert read_address(tmp_path) is None


def test_the_file_of_another_version_is_read(tmp_path: Path) -> None:
    """One of an earlier twin lacks what it did not have; what a later one adds is left alone."""
    with socket.create_server(("127.0.0.1", 0)) as page:
        port = page.getsockname()[1]
        written = address(port).to_dict()
        earlier = {name: written[name] for name in list(written)[:5]}
        (tmp_path / "address.json").write_text(json.dumps({**earlier, "hologram_url": "x"}))
        read = read_address(tmp_path)
    assert read == address(port)
    assert (read.fcm_url, read.webpush_url, read.proxy_url) == ("", "", "")


def test_looking_for_a_twin_is_light() -> None:
    """Reading the address loads no server."""
    script = "import sys, handbell.twin.discovery; print({'h2', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout == b"set()\n"
