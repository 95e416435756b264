"""The rig: nginx as the far side, with TLS and HTTP/2, on free ports of loopback.

It answers ``POST /3/device/<token>`` in three ways, one port each: at once; after 60 ms with 500
streams at a time; and at once but refusing 2 %, for mixed reasons. The first one answers as FCM,
its token endpoint and a push service of browsers do as well. One worker process serves, as one
connection is never spread over several.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from handbell._base64url import base64url
from handbell.services.apns.credential import AuthKey
from handbell.services.fcm.credential import ServiceAccount
from handbell.twin.certificates import SERVER_FILE, Authority

from .job import Job

START_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 0.06
SLOW_STREAMS: Final = 500

# auth_delay holds back what is not authorised, which nothing is; error_page then lets it through.
_CONFIGURATION: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  server_tokens off;
  keepalive_requests 1000000000;
  keepalive_timeout 3600s;
  client_body_temp_path {folder}/temp;
  proxy_temp_path {folder}/temp;
  fastcgi_temp_path {folder}/temp;
  uwsgi_temp_path {folder}/temp;
  scgi_temp_path {folder}/temp;
  ssl_certificate {certificate};
  ssl_certificate_key {certificate};
  http2_max_concurrent_streams 1000;
  add_header apns-id $http_apns_id always;

  # Refused for good by the token, so that asking again changes nothing: 1.5 %.
  split_clients $request_uri $token_is {{ 0.8% gone; 0.3% expired; 0.4% bad; * good; }}
  # Refused for now by the turn, so that asking again helps: 0.5 %.
  split_clients $connection-$connection_requests $turn_is {{ 0.3% busy; 0.2% often; * good; }}

  server {{
    listen 127.0.0.1:{fast} ssl http2 backlog=1024;
    location /3/device/ {{ return 200; }}
    location /v1/projects/ {{
      default_type application/json;
      return 200 '{{"name":"projects/bench/messages/0:1500000000000000%31bd1c9431bd1c94"}}';
    }}
    location /wpush/ {{
      add_header location /m/0 always;
      return 201;
    }}
    location = /token {{
      default_type application/json;
      return 200 '{{"access_token":"{access_token}","expires_in":3599,"token_type":"Bearer"}}';
    }}
  }}
  server {{
    listen 127.0.0.1:{slow} ssl http2 backlog=1024;
    http2_max_concurrent_streams {streams};
    location /3/device/ {{
      auth_delay {delay}ms;
      auth_basic "delayed";
      auth_basic_user_file {folder}/nobody;
      error_page 401 =200 @late;
    }}
    location @late {{ return 200; }}
  }}
  server {{
    listen 127.0.0.1:{refusing} ssl http2 backlog=1024;
    location /3/device/ {{
      if ($token_is = gone) {{
        return 410 '{{"reason":"Unregistered","timestamp":{gone_since}}}';
      }}
      if ($token_is = expired) {{
        return 410 '{{"reason":"ExpiredToken","timestamp":{gone_since}}}';
      }}
      if ($token_is = bad) {{ return 400 '{{"reason":"BadDeviceToken"}}'; }}
      if ($turn_is = busy) {{ return 503 '{{"reason":"ServiceUnavailable"}}'; }}
      if ($turn_is = often) {{ return 429 '{{"reason":"TooManyRequests"}}'; }}
      return 200;
    }}
  }}
}}
"""


class RigError(Exception):
    """The rig cannot be built; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the sinks listen."""

    fast: int
    slow: int
    refusing: int


class Rig:
    """The sinks and what a client needs for them, in a temporary folder, while it is entered."""

    def __init__(self, *, tokens: int) -> None:
        self._tokens = tokens
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="handbell-bench-"))
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def job(self, sink: str, count: int) -> Job:
        """Return a job for one of the sinks.

        They are ``fast``, ``slow`` and ``refusing``, and the first one as ``fcm`` or ``webpush``.
        """
        if sink == "webpush":
            return replace(
                self.job("fast", count),
                key_file=str(self.vapid_file),
                tokens=str(self.subscriptions_file),
            )
        if sink == "fcm":
            return replace(
                self.job("fast", count),
                key_file=str(self.account_file),
                tokens=str(self.registrations_file),
            )
        return Job(
            url=f"https://127.0.0.1:{getattr(self.ports, sink)}",
            ca_file=str(self.ca_file),
            key_file=str(self.key_file),
            tokens=str(self.tokens_file),
            count=count,
        )

    def make_subscriptions(self, count: int) -> None:
        """Make what a job for ``webpush`` needs: a key, and so many subscriptions."""
        _write_vapid_key(self.vapid_file)
        origin = f"https://127.0.0.1:{self.ports.fast}"
        lines = (json.dumps(subscription(origin)) + "\n" for _ in range(count))
        self.subscriptions_file.write_text("".join(lines))

    def sink_cpu(self) -> float:
        """Return the seconds of CPU that the sink's worker has used."""
        fields = Path(f"/proc/{self._worker()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _worker(self) -> int:
        master = self._process.pid if self._process else 0
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        return int(children[0])

    def _build(self) -> None:
        authority = Authority.open(self.folder / "authority")
        authority.server_context()
        self.ca_file = authority.ca_file
        self.key_file = self.folder / "AuthKey_KEY1234567.p8"
        self.tokens_file = self.folder / "tokens"
        self.ports = Ports(*_free_ports(3))
        _write_key(self.key_file)
        lines = (secrets.token_hex(32) + "\n" for _ in range(self._tokens))
        self.tokens_file.write_text("".join(lines))
        self.account_file = self.folder / "service-account.json"
        self.registrations_file = self.folder / "registrations"
        _write_account(self.account_file, f"https://127.0.0.1:{self.ports.fast}/token")
        lines = (registration_token() + "\n" for _ in range(self._tokens))
        self.registrations_file.write_text("".join(lines))
        self.vapid_file = self.folder / "vapid.pem"
        self.subscriptions_file = self.folder / "subscriptions"
        self._start(authority.folder / SERVER_FILE)

    def _start(self, certificate: Path) -> None:
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        configuration = self.folder / "nginx.conf"
        (self.folder / "nobody").touch()
        configuration.write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                certificate=certificate,
                fast=self.ports.fast,
                slow=self.ports.slow,
                refusing=self.ports.refusing,
                streams=SLOW_STREAMS,
                delay=round(SLOW_SECONDS * 1000),
                access_token="ya29.c." + secrets.token_urlsafe(200),
                gone_since=int(time.time() * 1000),
            )
        )
        with (self.folder / "nginx.log").open("wb") as log:
            command = [program, "-c", str(configuration), "-p", str(self.folder)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_start()

    def _await_start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _is_listening(self.ports.refusing):
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = (self.folder / "nginx.log").read_text(errors="replace").strip()
                raise RigError(f"nginx did not start: {said or 'it does not listen'}")
            time.sleep(0.02)

    def _remove(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)


def _write_key(path: Path) -> None:
    key = AuthKey(
        team_id="TEAM123456",
        key_id="KEY1234567",
        private_key=ec.generate_private_key(ec.SECP256R1()),
    )
    path.touch(mode=0o600)
    path.write_bytes(key.private_key_pem())


def _write_account(path: Path, token_uri: str) -> None:
    account = ServiceAccount(
        client_email="sender@bench.iam.gserviceaccount.com",
        project_id="bench",
        private_key=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        private_key_id=secrets.token_hex(20),
        token_uri=token_uri,
    )
    path.touch(mode=0o600)
    path.write_text(account.pack())


def _write_vapid_key(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def subscription(origin: str) -> dict[str, Any]:
    """Return a browser's subscription at a push service, with an endpoint as long as Mozilla's."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {
        "endpoint": f"{origin}/wpush/v2/gAAAAAB{secrets.token_urlsafe(130)}",
        "keys": {"p256dh": base64url(point), "auth": base64url(secrets.token_bytes(16))},
    }


def registration_token() -> str:
    """Return a token of the length and the form that FCM gives out."""
    return f"{secrets.token_urlsafe(16)}:APA91b{secrets.token_urlsafe(84)}"


def _free_ports(count: int) -> list[int]:
    opened = [socket.socket() for _ in range(count)]
    for each in opened:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in opened]
    for each in opened:
        each.close()
    return ports


def _is_listening(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0
