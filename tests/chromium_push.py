"""Google's push service as far as a stock Chromium needs it: check-in, registration, messages.

Chromium is led here by switches. Messages come over MCS, a stream of protobuf frames over TLS;
their fields are those of the public ``mcs.proto`` and ``checkin.proto``.
"""

import asyncio
import base64
import contextlib
import hashlib
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_VERSION: Final = 41
_PING, _PONG, _LOGIN, _LOGGED_IN, _DATA = 0, 1, 2, 3, 8
_FORM: Final = "application/x-www-form-urlencoded"


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def _number(place: int, value: int) -> bytes:
    return _varint(place << 3) + _varint(value)


def _fixed(place: int, value: int) -> bytes:
    return _varint(place << 3 | 1) + value.to_bytes(8, "little")


def _bytes(place: int, value: bytes | str) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return _varint(place << 3 | 2) + _varint(len(raw)) + raw


def _frame(tag: int, content: bytes) -> bytes:
    return bytes([tag]) + _varint(len(content)) + content


@dataclass
class GooglePush:
    """A running stand-in. ``subscriptions`` are the registrations by their token."""

    address: str
    mcs_port: int
    certificate: Path
    subscriptions: dict[str, Mapping[str, str]] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    writer: asyncio.StreamWriter | None = None
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)

    @property
    def switches(self) -> list[str]:
        """Return what leads a Chromium here."""
        certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
        spki = certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        digest = base64.b64encode(hashlib.sha256(spki).digest()).decode()
        return [
            f"--gcm-checkin-url={self.address}/checkin",
            f"--gcm-registration-url={self.address}/register",
            f"--gcm-mcs-endpoint=https://localhost:{self.mcs_port}",
            f"--ignore-certificate-errors-spki-list={digest}",
        ]

    def push(self, token: str, body: bytes) -> None:
        """Send an encrypted message to the browser of a subscription."""
        form = self.subscriptions[token]
        encoding = _bytes(1, "content-encoding") + _bytes(2, "aes128gcm")
        subtype = _bytes(1, "subtype") + _bytes(2, form["X-subtype"])
        stanza = (
            _bytes(2, secrets.token_hex(4))
            + _bytes(3, form["sender"])
            + _bytes(5, form["app"])
            + _bytes(7, subtype)
            + _bytes(7, encoding)
            + _bytes(9, secrets.token_hex(8))
            + _number(17, 60)
            + _number(18, int(time.time() * 1000))
            + _bytes(21, body)
        )
        self.loop.call_soon_threadsafe(self._send, _frame(_DATA, stanza))

    def _send(self, message: bytes) -> None:
        self.messages.append(message)
        if self.writer is not None:
            self.writer.write(message)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak MCS with one browser; who logs in gets what it may have missed."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readexactly(1)
            writer.write(bytes([_VERSION]))
            while True:
                (tag,) = await reader.readexactly(1)
                await reader.readexactly(await _size(reader))
                if tag == _LOGIN:
                    told = _bytes(1, "login") + _number(8, int(time.time() * 1000))
                    writer.write(_frame(_LOGGED_IN, told) + b"".join(self.messages))
                    self.writer = writer
                elif tag == _PING:
                    writer.write(_frame(_PONG, b""))
        writer.close()


@contextlib.contextmanager
def google_push(certificate: Path) -> Iterator[GooglePush]:
    """Run the stand-in with a server certificate (PEM, with its key) of ``localhost``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with (
        ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as http,
        socket.create_server(("127.0.0.1", 0)) as bound,
    ):
        address = f"http://127.0.0.1:{http.server_port}"
        running = _Handler.running = GooglePush(address, bound.getsockname()[1], certificate)
        loop = running.loop
        server = loop.run_until_complete(
            asyncio.start_server(running.talk, sock=bound, ssl=context)
        )
        threads = [threading.Thread(target=run) for run in (http.serve_forever, loop.run_forever)]
        for thread in threads:
            thread.start()
        try:
            yield running
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            http.shutdown()
            for thread in threads:
                thread.join()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


class _Handler(BaseHTTPRequestHandler):
    running: GooglePush

    def do_POST(self) -> None:
        """Answer a check-in, or a registration."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/checkin":
            # stats_ok, android_id, security_token, settings_diff
            answer = _number(1, 1) + _fixed(7, 1234) + _fixed(8, 5678) + _number(9, 1)
        else:
            form = dict(parse_qsl(body.decode()))
            token = secrets.token_urlsafe(96)
            self.running.subscriptions[token] = form
            answer = f"token={token}".encode()
        self.send_response(200)
        self.send_header(
            "content-type", "application/x-protobuf" if self.path == "/checkin" else _FORM
        )
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_what: Any) -> None:
        """Say nothing."""


async def _size(reader: asyncio.StreamReader) -> int:
    size = shift = 0
    while True:
        (byte,) = await reader.readexactly(1)
        size |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return size
