"""VAPID keys: made, taken along from other programs, and packed for the vault."""

import base64
import json
import os
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from handbell._base64url import base64url, read_base64url
from handbell.errors import CredentialError
from handbell.services.webpush.credential import VapidKey

KEY = VapidKey.make()
PRIVATE = KEY.private_key
_PKCS8 = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
_SEC1 = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
_DER = PRIVATE.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(KEY.private_key_text, id="web-push"),
        pytest.param(f" {KEY.private_key_text}=\n", id="padded"),
        pytest.param(_PKCS8, id="pkcs8"),
        pytest.param(_SEC1, id="sec1"),
        pytest.param(_PARAMETERS + _SEC1, id="openssl-ecparam"),
        pytest.param(_PKCS8.replace(b"\n", b"\\n"), id="one-line"),
        pytest.param(base64url(_DER), id="der-in-base64"),
        pytest.param(base64.b64encode(_DER).decode(), id="der-in-usual-base64"),
        pytest.param(_DER, id="der"),
        pytest.param(
            json.dumps({"publicKey": KEY.public_key, "privateKey": KEY.private_key_text}),
            id="web-push-json",
        ),
        pytest.param(json.dumps({"private_key": KEY.private_key_text}), id="json-snake"),
    ],
)
def test_a_key_is_read_in_each_form(text: str | bytes) -> None:
    """Whatever program made the key, the page's subscriptions go on working."""
    assert VapidKey.read(text).public_key == KEY.public_key


def test_a_key_comes_back_from_the_vault() -> None:
    """What is packed is read as the same key."""
    unpacked = VapidKey.unpack(KEY.pack())
    assert unpacked == KEY
    assert unpacked.private_key_text == KEY.private_key_text


def test_the_public_key_is_the_pages() -> None:
    """It is the uncompressed point, 65 bytes, which ``applicationServerKey`` takes."""
    point = PRIVATE.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert read_base64url(KEY.public_key) == point
    assert KEY.key_id == KEY.fingerprint


def _other(curve: ec.EllipticCurve) -> bytes:
    key = ec.generate_private_key(curve)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _rsa(form: PrivateFormat) -> bytes:
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, form, NoEncryption())


def _mixed() -> bytes:
    """Return a key whose public part is another key's."""
    other = VapidKey.make().private_key
    mine, others = (
        read_base64url(VapidKey(private_key=each).public_key) for each in (PRIVATE, other)
    )
    return _DER.replace(mine, others)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", "is empty", id="empty"),
        pytest.param("hello", "not a VAPID key", id="text"),
        pytest.param(KEY.private_key_text[:-1], "not a VAPID key", id="short"),
        pytest.param(KEY.public_key, "the public key", id="public"),
        pytest.param(base64url(b"\0" * 32), "no private key on P-256", id="zero"),
        pytest.param(base64url(b"\xff" * 32), "no private key on P-256", id="too-large"),
        pytest.param(
            PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "a public key",
            id="public-pem",
        ),
        pytest.param(
            PRIVATE.private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x" * 8)
            ),
            "protected by a password",
            id="encrypted",
        ),
        pytest.param(_other(ec.SECP384R1()), "not one on P-256", id="p384"),
        pytest.param(_rsa(PrivateFormat.PKCS8), "not one on P-256", id="rsa"),
        pytest.param(_rsa(PrivateFormat.TraditionalOpenSSL), "an RSA key", id="rsa-own-form"),
        pytest.param(_PKCS8[:120], "no private key that can be read", id="cut"),
        pytest.param(_PKCS8.replace(b"MIGH", b"MIGG"), "damaged", id="damaged"),
        pytest.param(_mixed(), "not a VAPID key", id="mixed"),
        pytest.param("{}", "without a `privateKey`", id="empty-json"),
        pytest.param(
            json.dumps(
                {
                    "type": "service_account",
                    "private_key": "-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----\n",
                }
            ),
            "service account",
            id="googles-file",
        ),
        pytest.param("{", "damaged", id="cut-json"),
        pytest.param('{"privateKey": 7}', "without a `privateKey`", id="json-number"),
        pytest.param(
            json.dumps({"privateKey": KEY.private_key_text, "publicKey": "BA"}),
            "does not belong",
            id="json-mixed",
        ),
        pytest.param(os.urandom(70_000), "too large", id="large"),
    ],
)
def test_anything_else_is_refused_in_words(text: str | bytes, told: str) -> None:
    """Each mistake is named with what to give instead, and no key is repeated."""
    with pytest.raises(CredentialError, match=told) as refused:
        VapidKey.read(text, where="vapid.pem")
    assert refused.value.fix
    assert KEY.private_key_text[:12] not in str(refused.value)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_whatever_is_given_is_a_key_or_an_error(text: str | bytes) -> None:
    """Nothing but ``CredentialError`` comes out."""
    with suppress(CredentialError):
        VapidKey.read(text)


def test_a_key_is_not_in_its_text() -> None:
    """No log or traceback shows it."""
    assert KEY.private_key_text not in repr(KEY)
    assert "private" not in repr(KEY)
