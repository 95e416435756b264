"""The push services' names mapped to a twin, for clients that have them and port 443 built in."""

import asyncio
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest
from tests.contract.clients.namespace import Relay
from tests.contract.clients.tools import HERE, run

from handbell.twin.hosts import HOSTS
from handbell.twin.threaded import RunningTwin

_UNSHARE: Final = ["unshare", "--net", "--mount", "--kill-child"]


def _unshare() -> list[str]:
    """Return the command that makes the namespaces; skip where they are not allowed."""
    command = _UNSHARE if os.geteuid() == 0 else [*_UNSHARE, "--map-root-user"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    script = "mount --bind /etc/hosts /etc/hosts"
    tried = run([*command, "sh", "-c", script], seconds=20)
    if tried.returncode:
        pytest.skip(f"no namespaces here: {tried.stderr.strip()[:200]}")
    return command


@contextmanager
def mapped(twin: RunningTwin) -> Iterator[list[str]]:
    """Yield the words before a command that let it meet the twin by the services' names."""
    before = _unshare()
    urls = {
        "production": twin.production_url,
        "development": twin.development_url,
        "fcm": twin.fcm_url,
        "webpush": twin.address.webpush_url,
    }
    addresses = {side: f"127.0.1.{number}" for number, side in enumerate(urls, start=1)}
    lines = [f"{addresses[side]} {name}" for name, side in HOSTS.items()]
    # A path of a Unix socket has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="twin-") as made:
        folder = Path(made)
        (folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        ports = {folder / addresses[side]: urlsplit(url).port or 0 for side, url in urls.items()}
        with _relays(ports):
            yield [*before, sys.executable, str(HERE / "namespace.py"), made]


@contextmanager
def _relays(ports: dict[Path, int]) -> Iterator[None]:
    """Pass what comes to each socket on to a port, while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> list[asyncio.Server]:
        return [
            await asyncio.start_unix_server(Relay(port).meet, path) for path, port in ports.items()
        ]

    async def stop(servers: list[asyncio.Server]) -> None:
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait(others, timeout=5) if others else None

    servers = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stop(servers), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
