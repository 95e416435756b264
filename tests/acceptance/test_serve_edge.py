"""``handbell serve`` under few file descriptors, with its own TLS, and on an open address."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.preloaded import COMMAND

from handbell.twin.certificates import Authority

FILES = 160


@contextlib.contextmanager
def serve(home: Path, *options: str, files: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Run a server for the block: where it listens, and at the end what it complained about."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    command = [str(COMMAND), "serve", "--no-console", *options]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command,
        env={**kept, "HANDBELL_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    complaints: list[str] = []
    try:
        said = ""
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        found = re.search(r"^Listening +(\S+)$", said, re.MULTILINE)
        assert found is not None, said + process.communicate()[1]
        yield found[1], complaints
        process.send_signal(signal.SIGTERM)
        complaints.append(process.communicate(timeout=30)[1])
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Return a certificate of this machine, and what trusts it."""
    authority = Authority.open(folder)
    authority.server_context()
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    return authority.ca_file.parent / "server.pem", trust


@pytest.mark.parametrize("is_tls", [False, True])
def test_with_few_descriptors_others_still_get_in(is_tls: bool, tmp_path: Path) -> None:  # noqa: FBT001
    """Whoever opens more connections than there are descriptors for keeps nobody out."""
    options, trust, scheme = ["--listen", "127.0.0.1:0"], None, "http"
    if is_tls:
        file, trust = certificate(tmp_path / "authority")
        options, scheme = [*options, "--tls-certificate", str(file)], "https"
    with serve(tmp_path / "home", *options, files=FILES) as (listens, complaints):
        host, _, port = listens.rpartition(":")
        with contextlib.ExitStack() as stack:
            for number in range(2 * FILES):
                with contextlib.suppress(OSError):
                    stack.enter_context(
                        socket.create_connection(
                            (host, int(port)), 5, (f"127.0.0.{number % 4 + 2}", 0)
                        )
                    )
            for _ in range(5):
                with httpx.Client(verify=trust or True, trust_env=False, timeout=10) as client:
                    ready = client.get(f"{scheme}://{listens}/readyz")
                assert ready.json()["status"] == "ready"
    assert "Traceback" not in complaints[0]
    assert "Too many open files" not in complaints[0]


@pytest.mark.parametrize(
    ("listen", "is_tls", "is_warned"),
    [
        ("0.0.0.0:0", False, True),
        ("[::]:0", False, True),
        ("[::1]:0", False, False),
        ("0.0.0.0:0", True, False),
    ],
)
def test_plain_http_for_others_is_warned_of(
    listen: str,
    is_tls: bool,  # noqa: FBT001
    is_warned: bool,  # noqa: FBT001
    tmp_path: Path,
) -> None:
    """At the start it says that keys go in the clear, unless it is this machine or TLS."""
    options = ["--listen", listen]
    if is_tls:
        options += ["--tls-certificate", str(certificate(tmp_path / "authority")[0])]
    with serve(tmp_path / "home", *options) as (_, complaints):
        pass
    assert ("warning: plain HTTP on" in complaints[0]) == is_warned
