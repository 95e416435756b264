"""A running ``handbell serve --twin`` and what the tests of the apps' clients ask of it.

``python -m tests.device_backend COMMAND ...`` runs a command beside them. It finds in
``HANDBELL_LIVE`` the address of a back end that makes identity tokens, opens mailed links and tells
what the server knows.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import httpx
import jwt
from tests.postbox import Mailbox, link_of, start_mailbox

APP: Final = "TEAM123456.com.sample.myapp"
PROJECT: Final = "sample-project"
IDENTITY_KEY: Final = "k" * 44
COMMAND: Final = Path(sys.executable).with_name("handbell")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """The back end of an app. Its public methods are what a test may ask for, by their names."""

    url: str
    api: httpx.Client
    phones: httpx.Client
    mailbox: Mailbox

    def portal(self) -> Any:
        """Return what a network's sign-in page shows."""
        return "Welcome"

    def server(self) -> Any:
        """Return where the send server is."""
        return {"url": self.url}

    def phone(self, platform: str = "ios") -> Any:
        """Make a virtual phone that is nobody's yet; return its device token."""
        wanted = {"name": "A phone", "app": APP, "platform": platform}
        if platform == "android":
            self._let_send_to_android()
            wanted["project"] = PROJECT
        made = self.phones.post("/api/phones", json=wanted)
        return {"token": made.raise_for_status().json()["token"]}

    def _let_send_to_android(self) -> None:
        """Give the app a service account of the twin's, unless it has one."""
        if any(one["service"] == "fcm" for one in self._app("GET", "/credentials")["data"]):
            return
        made = self.phones.post("/api/service-accounts", json={"project": PROJECT})
        account = made.raise_for_status().text
        self._app("POST", "/credentials", {"service_account": account, "environment": "twin"})

    def proof(self, way: str) -> Any:
        """Let devices prove whose they are in this way."""
        change = {"proof": way, "identity_key": IDENTITY_KEY}
        return self._app("PATCH", "", change)

    def identity(self, mail: str) -> Any:
        """Return a token for a person."""
        now = int(time.time())
        claims = {"sub": mail, "aud": APP, "iat": now, "exp": now + 300, "jti": uuid.uuid4().hex}
        return {"token": jwt.encode(claims, IDENTITY_KEY, algorithm="HS256")}

    def open(self, mail: str, number: str = "1") -> Any:
        """Open the link of the mail of this number to a person, once it has come."""
        deadline = time.monotonic() + 20
        while len(mails := [one for one in self.mailbox.mails if one["To"] == mail]) < int(number):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(mails)} mails came to {mail}")
            time.sleep(0.02)
        opened = self.api.post(f"/prove/{link_of(mails[int(number) - 1])}")
        return {"status": str(opened.status_code)}

    def sessions(self, mail: str) -> Any:
        """Return the statuses of a person's sessions, the newest first."""
        found = self._app("GET", f"/sessions?mail={mail}")["data"]
        return {"statuses": " ".join(session["status"] for session in found)}

    def register(self, mail: str, token: str, platform: str = "ios") -> Any:
        """Register a device by the API key, as a back end does that talks to it alone."""
        body = {"mail": mail, "device_token": token, "platform": platform, "environment": "twin"}
        made = self._app("POST", "/sessions", body)
        return {"id": str(made["id"]), "secret": made["secret"]}

    def send(self, mail: str) -> Any:
        """Send to a person, wait for what becomes of it, and tell on how many phones it arrived."""
        sent = self._app(
            "POST",
            "/notifications",
            {"notification": {"title": "It rings"}, "recipients": mail},
            headers={"Prefer": "wait=10"},
        )
        found = self._app("GET", f"/notifications/{sent['id']}/deliveries")["data"]
        return {"id": sent["id"], "arrived": str(sum(one["state"] == "sent" for one in found))}

    def opened(self, notification: str) -> Any:
        """Tell on how many devices a notification was opened."""
        found = self._app("GET", f"/notifications/{notification}/deliveries")["data"]
        return {"opened": str(sum(one["opened_at"] is not None for one in found))}

    def _app(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        asked = self.api.request(method, f"/v1/apps/{APP}{path}", json=body, headers=headers)
        return asked.raise_for_status().json()


def _handler(backend: Backend) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            name = address.path.strip("/")
            ask: Callable[..., Any] | None = getattr(backend, name, None)
            if name.startswith("_") or ask is None:
                self._tell(404, {})
                return
            try:
                self._tell(200, ask(**dict(parse_qsl(address.query))))
            except Exception as error:  # noqa: BLE001 - the test on the other side shows it
                self._tell(500, {"error": repr(error)})

        def _redirect(self) -> None:
            """Be a network's sign-in page for a client that takes this for the send server."""
            if self.path == "/portal":
                self._tell(204, None)
                return
            self.send_response(307)
            self.send_header("Location", "/portal")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PATCH = do_DELETE = _redirect  # noqa: N815 - the library's names

        def _tell(self, status: int, answer: Any) -> None:
            body = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@contextlib.contextmanager
def start_backend() -> Iterator[str]:
    """Run server, twin, mail server and back end; give the back end's address."""
    with tempfile.TemporaryDirectory() as home, start_mailbox() as mailbox:
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        environment = {
            **kept,
            "HANDBELL_HOME": home,
            "HANDBELL_SMTP_URL": f"smtp://127.0.0.1:{mailbox.port}?tls=none",
            "HANDBELL_MAIL_FROM": "push@example.com",
        }
        with subprocess.Popen(
            [COMMAND, "serve", "--twin", "--listen", "127.0.0.1:0"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                listening, phones = _addresses(running)
                key = subprocess.run(
                    [COMMAND, "api-key", "add", "devices", "--scope", "administer", "--json"],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=True,
                )
                authorization = {"Authorization": f"Bearer {json.loads(key.stdout)['key']}"}
                with (
                    httpx.Client(base_url=listening, headers=authorization, timeout=30) as api,
                    _phones(phones) as page,
                ):
                    backend = Backend(url=listening, api=api, phones=page, mailbox=mailbox)
                    yield from _serve(backend)
            finally:
                running.terminate()
                running.wait(30)


def _serve(backend: Backend) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(backend)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _addresses(running: subprocess.Popen[str]) -> tuple[str, str]:
    said = ""
    for line in running.stdout or ():
        said += line
        if line.startswith("Ctrl-C"):
            break
    listening = re.search(r"^Listening +(\S+)$", said, re.MULTILINE)
    phones = re.search(r"^Phones +(\S+)$", said, re.MULTILINE)
    if listening is None or phones is None:
        raise RuntimeError(f"The server did not start: {said}")
    return f"http://{listening[1]}", phones[1]


@contextlib.contextmanager
def _phones(link: str) -> Iterator[httpx.Client]:
    """Give a client of the phones' page that came in by its printed link."""
    address = urlsplit(link)
    base = f"{address.scheme}://{address.netloc}"
    with httpx.Client(base_url=base, params=dict(parse_qsl(address.query)), timeout=30) as client:
        client.get(address.path or "/")
        yield client


def main() -> int:
    """Run the command beside the server and return its exit code."""
    with start_backend() as address:
        environment = {**os.environ, "HANDBELL_LIVE": address}
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
