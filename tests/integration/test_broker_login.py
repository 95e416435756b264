"""How a broker is proved to: by password, token or file, and over nothing that is not encrypted."""

import asyncio
import base64
import binascii
import contextlib
import secrets
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.nats import NatsServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.jetstream_ground import running

from handbell.delivery.queue.broker import Broker
from handbell.delivery.queue.broker_address import BrokerAddress
from handbell.delivery.queue.broker_login import sign
from handbell.errors import QueueUnavailableError
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.certificates import Authority

PASSWORD = "p@ss/w:rd%"
QUOTED = "p%40ss%2Fw%3Ard%25"


@contextlib.contextmanager
def _server(folder: Path, *options: str) -> Iterator[NatsServer]:
    folder.mkdir()
    with running(NatsServer(folder, *options)) as server:
        yield server


def _ask(url: str, **files: Path) -> None:
    """Use a broker once."""

    async def ask() -> None:
        broker = Broker(BrokerAddress.read(url, **files))  # type: ignore[arg-type]
        try:
            async with asyncio.timeout(10):
                await broker.counts()
        finally:
            await broker.close()

    asyncio.run(ask())


def test_a_password_may_hold_any_character(tmp_path: Path) -> None:
    """Percent-encoded in the address, as in any URL; a wrong one is told and not repeated."""
    with _server(tmp_path / "nats", "--user", "me", "--pass", PASSWORD) as server:
        _ask(f"nats://me:{QUOTED}@127.0.0.1:{server.port}")
        with pytest.raises(QueueUnavailableError, match="Authorization Violation") as refused:
            _ask(f"nats://me:SECRET@127.0.0.1:{server.port}")
        assert "SECRET" not in str(refused.value)
    with _server(tmp_path / "token", "--auth", PASSWORD) as server:
        _ask(f"nats://{QUOTED}@127.0.0.1:{server.port}")


@pytest.mark.parametrize("others", ["", "nats://127.0.0.1:1,"])
def test_no_password_is_told_without_encryption(tmp_path: Path, others: str) -> None:
    """A server that offers no TLS hears nothing of an address with tls, and is refused by name."""
    heard: list[bytes] = []

    def answer(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(2)
                    connection.sendall(b'INFO {"version":"2.10.0","auth_required":true}\r\n')
                    heard.append(connection.recv(4096))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        answering = threading.Thread(target=answer, args=[listening], daemon=True)
        answering.start()
        url = f"{others}tls://user:secret@127.0.0.1:{listening.getsockname()[1]}"
        state = System(Settings.load(home=tmp_path, engine=url)).status.read().broker
        listening.shutdown(socket.SHUT_RDWR)
        answering.join(10)
    assert state is not None
    assert "offers no TLS" in state.problem
    assert heard
    assert set(heard) == {b""}


def test_a_broker_is_reached_by_tls_with_a_password(tmp_path: Path) -> None:
    """Its certificate is checked by the authority that the settings name, and by no other."""
    authority = Authority.open(tmp_path / "authority")
    authority.server_context()
    pem = authority.ca_file.parent / "server.pem"
    (tmp_path / "nats").mkdir()
    options = ("--tls", "--tlscert", str(pem), "--tlskey", str(pem), "--user", "u", "--pass", "p")
    with running(NatsServer(tmp_path / "nats", *options)) as own:
        url = own.url().replace("nats://", "tls://u:p@")
        for number, ca_file in enumerate((authority.ca_file, None)):
            home = tmp_path / f"home{number}"
            system = System(Settings.load(home=home, engine=url, nats_ca_file=ca_file))
            state = system.status.read().broker
            assert state is not None
            assert state.is_reachable == (ca_file is not None), state.problem
            assert ("certificate" in state.problem.lower()) == (ca_file is None)


def test_a_file_of_credentials_signs_what_the_server_asks() -> None:
    """As NATS writes a user's key, it signs the nonce of a server."""
    raw = secrets.token_bytes(32)
    key = Ed25519PrivateKey.from_private_bytes(raw)
    seed = base64.b32encode(bytes([0x92, 0x80]) + raw + b"..").decode().rstrip("=")
    key.public_key().verify(base64.b64decode(sign(seed, "nonce")), b"nonce")


@pytest.mark.parametrize("text", ["", "-----BEGIN NATS USER JWT-----\nx\n", None])
def test_a_file_without_credentials_is_told(tmp_path: Path, text: str | None) -> None:
    """An empty one, half of one, none: in words, and in bounded time."""
    path = tmp_path / "away.creds"
    if text is not None:
        path.write_text(text)
    config = tmp_path / "config"
    user = bytes([20 << 3]) + bytes(32)
    checked = base64.b32encode(user + binascii.crc_hqx(user, 0).to_bytes(2, "little"))
    config.write_text(f"authorization {{ users [ {{ nkey: {checked.decode().rstrip('=')} }} ] }}")
    with (
        _server(tmp_path / "nats", "--config", str(config)) as server,
        pytest.raises(QueueUnavailableError, match="HANDBELL_NATS_CREDENTIALS"),
    ):
        _ask(server.url(), credentials_file=path)
