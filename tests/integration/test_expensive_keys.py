"""Files that would keep whoever reads them busy for minutes: refused at once, or in time."""

import base64
import datetime as dt
import threading
import time

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID
from tests.conftest import APP, Stage
from tests.serving import Server, administrator, server

from handbell.errors import AppError, CredentialError
from handbell.services.apns.credential import read_auth_key

__all__ = ["administrator", "server"]

KEY = ec.generate_private_key(ec.SECP256R1())
PASSWORD = "a password"
KEY_URL = f"/v1/apps/{APP}/credentials"
PRIME = 2**9941 - 1
"""A number that a library which is to check it works at for the best part of a minute."""

DIFFIE_HELLMAN = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x03\x01"


def element(tag: int, content: bytes) -> bytes:
    """Return one element of DER."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def number(value: int) -> bytes:
    """Return an integer in DER."""
    return element(2, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pem(label: str, der: bytes) -> bytes:
    """Return DER as the text of a file."""
    text = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{text}-----END {label}-----\n".encode()


KIND = element(0x30, DIFFIE_HELLMAN + element(0x30, number(PRIME) + number(2)))
PRIVATE = element(0x30, number(0) + KIND + element(4, number(12345)))
PUBLIC = element(0x30, KIND + element(3, b"\0" + number(12345)))


def certificate() -> x509.Certificate:
    """Return a certificate of the key, of the app."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.USER_ID, "com.sample.myapp"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "TEAM123456"),
        ]
    )
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), 7)
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(KEY, hashes.SHA256())


def with_rounds(der: bytes, rounds: int) -> bytes:
    """Return the structures with another number of rounds before a password opens the key."""
    changed = b""
    while der:
        tag, size, start = der[0], der[1], 2
        if size & 0x80:
            start += size & 0x7F
            size = int.from_bytes(der[2:start], "big")
        content, der = der[start : start + size], der[start + size :]
        if tag == 0x30:
            content = with_rounds(content, rounds)
        is_rounds = tag == 2 and len(content) > 1
        changed += number(rounds) if is_rounds else element(tag, content)
    return changed


def test_a_key_of_another_kind_is_not_loaded() -> None:
    """What it is stands at its beginning; its numbers are nobody's affair."""
    with pytest.raises(CredentialError, match="another kind of key"):
        read_auth_key(pem("PRIVATE KEY", PRIVATE), team_id="TEAM123456", key_id="ABC123DEFG")


def test_an_identity_key_of_another_kind_is_not_loaded(stage: Stage) -> None:
    """The same of a public key."""
    with pytest.raises(AppError, match="P-256"):
        stage.system.identities.set(
            stage.app, proof="token", identity_key=pem("PUBLIC KEY", PUBLIC)
        )


def test_a_certificate_that_takes_for_ever_is_given_up(
    server: Server, administrator: httpx.Client
) -> None:
    """Its password takes two thousand million rounds; meanwhile the server answers others."""
    encryption = BestAvailableEncryption(PASSWORD.encode())
    sealed = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption)
    costly = pem("ENCRYPTED PRIVATE KEY", with_rounds(sealed, 2**31 - 1))
    file = certificate().public_bytes(Encoding.PEM) + costly
    answers: list[httpx.Response] = []

    def upload() -> None:
        files = {"file": ("push.pem", file)}
        answers.append(
            administrator.post(KEY_URL, files=files, data={"password": PASSWORD}, timeout=60)
        )

    uploading = threading.Thread(target=upload)
    uploading.start()
    longest = 0.0
    with server.client() as other:
        while uploading.is_alive():
            began = time.monotonic()
            assert other.get("/healthz").status_code == 200
            longest = max(longest, time.monotonic() - began)
            time.sleep(0.02)
    assert longest < 1
    assert (answers[0].status_code, answers[0].json()["code"]) == (422, "credential-invalid")
    assert "far more work" in answers[0].json()["detail"]


def test_a_certificate_is_taken(administrator: httpx.Client) -> None:
    """A pair as Keychain Access exports it arrives, and the wrong password is told as such."""
    encryption = BestAvailableEncryption(PASSWORD.encode())
    bundle = pkcs12.serialize_key_and_certificates(b"push", KEY, certificate(), None, encryption)
    files = {"file": ("push.p12", bundle)}
    wrong = administrator.post(KEY_URL, files=files, data={"password": "another"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "credential-invalid")
    made = administrator.post(KEY_URL, files=files, data={"password": PASSWORD})
    assert (made.status_code, made.json()["kind"]) == (201, "certificate")
