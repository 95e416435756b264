"""``handbell webhook`` as an operator uses it, against a back end on this machine."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.preloaded import preloaded

APP = "TEAM123456.com.sample.myapp"


class _BackEnd(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204 if self.path == "/hook" else 404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    """Run a back end on a free port of loopback and give its address."""
    with HTTPServer(("127.0.0.1", 0), _BackEnd) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_webhook_from_its_addition_to_its_removal(tmp_path: Path, address: str) -> None:
    """Each command does what it says, the secret is shown once, and exit codes tell the end."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    private = {"HANDBELL_WEBHOOK_ALLOW_PRIVATE": "1"}

    def run(*arguments: str, code: int = 0, extra: dict[str, str] = private) -> str:
        ended = subprocess.run(
            [preloaded(), *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**kept, **extra, "HANDBELL_HOME": str(tmp_path)},
        )
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    run("app", "add", APP)
    assert "does not begin with https://" in run(
        "webhook", "add", f"{address}/hook", code=2, extra={}
    )
    added = run("webhook", "add", f"{address}/hook", "--events", "session.closed")
    assert "Secret: whsec_" in added
    lost = json.loads(run("webhook", "add", f"{address}/lost", "--json"))
    assert lost["secret"].startswith("whsec_")
    assert "took it: answered 204" in run("webhook", "test", "1")
    assert "did not take it: answered 404" in run("webhook", "test", "2", code=1)
    assert "Webhook 2 is off; 0 calls" in run("webhook", "disable", "2")
    listed = json.loads(run("webhook", "list", "--app", APP, "--json"))
    assert [one["webhook"]["is_enabled"] for one in listed] == [True, False]
    assert "whsec_" not in run("webhook", "list")
    run("webhook", "remove", "1")
    assert "There is no webhook 1" in run("webhook", "remove", "1", code=2)
