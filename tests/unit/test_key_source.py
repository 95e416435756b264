"""Keys as people have them, and that none of them is ever repeated in an error."""

import base64
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.checkup import caveats
from handbell.errors import CredentialError
from handbell.services.apns.credential import key_id_of_name, read_auth_key, read_certificate

TEAM, KEY_ID = "TEAM123456", "ABC123DEFG"
KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
DER = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
BODY = "".join(PEM.splitlines()[1:-1])
NOW = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def certificate(
    key: ec.EllipticCurvePrivateKey, name: str, begins: dt.datetime, ends: dt.datetime
) -> x509.Certificate:
    """Return a certificate for a key, signed by itself."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.replace("\n", "\r\n"),
        PEM.replace("\n", "\\n"),
        PEM.replace("\n", "\\r\\n"),
        f'"{PEM}"'.replace("\n", "\\n"),
        "\ufeff" + PEM,
        "  \n\n" + PEM + "\n\n",
        "Bag Attributes\n    friendlyName: key\n" + PEM,
        PEM.replace("\n", " "),
        BODY,
        "\n".join(PEM.splitlines()[1:-1]),
        BODY + "\n",
        PEM.replace("\n", "\\\\n"),
        PEM.replace("\n", "\\\\\\\\r\\\\\\\\n"),
        PEM.replace("\n", "\\u000a"),
        PEM.replace("/", "\\/").replace("\n", "\\n"),
        PEM.replace("\n", "\t\n\u00a0"),
        PEM.replace("\n", "\u2028"),
        PEM.replace("\n", "\r"),
        f"'{BODY}'",
        BODY.replace("+", "-").replace("/", "_").rstrip("="),
        base64.b64encode(PEM.encode()).decode(),
        base64.encodebytes(PEM.encode()).decode(),
        base64.b64encode(base64.b64decode(BODY)).decode().replace("A", "A\\n", 1),
    ],
    ids=range(24),
)
@pytest.mark.parametrize("form", ["text", "bytes", "file", "utf-16"])
def test_a_key_is_read_in_each_form_that_people_have(text: str, form: str, tmp_path: Path) -> None:
    """Line ends of any kind, literal ones, a mark in front, no first line: it is the same key."""
    file = tmp_path / "AuthKey_ABC123DEFG.p8"
    file.write_bytes(text.encode("utf-16" if form == "utf-16" else "utf-8"))
    if form == "utf-16" and "-----" not in text:
        pytest.skip("no editor writes bare base64 so")
    source: dict[str, str | bytes | Path] = {
        "text": text,
        "bytes": text.encode(),
        "file": file,
        "utf-16": file,
    }
    key = read_auth_key(source[form], team_id=TEAM, key_id=KEY_ID)
    assert key.private_key.private_numbers() == KEY.private_numbers()


def test_a_key_in_der_is_read() -> None:
    """Some convert it, and it is the same key."""
    key = read_auth_key(DER, team_id=TEAM, key_id=KEY_ID)
    assert key.private_key.private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize(
    ("name", "key_id"),
    [
        ("AuthKey_ABC123DEFG.p8", KEY_ID),
        ("APNsAuthKey_ABC123DEFG.p8", KEY_ID),
        ("AuthKey_ABC123DEFG (1).p8", KEY_ID),
        ("my-AuthKey_ABC123DEFG.p8", KEY_ID),
        ("old.APNsAuthKey_ABC123DEFG.txt", KEY_ID),
        ("AuthKey_ABC123DEFGH.p8", None),
        ("AuthKey_ABC123DEF.p8", None),
        ("NotAuthKey_ABC123DEFG.p8", None),
        ("key.p8", None),
    ],
)
def test_the_key_id_is_read_from_the_names_that_files_have(name: str, key_id: str | None) -> None:
    """Apple's own name, that of its older pages, and what browsers and people add to it."""
    assert key_id_of_name(name) == key_id


def _cut_short(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text,
        _cut_short,
        lambda text: text.replace("-----BEGIN PRIVATE KEY-----", ""),
        lambda text: text.replace("-----", ""),
        lambda text: text.replace("\n", ""),
        lambda text: text[40:140],
        lambda text: "".join(text.splitlines()[1:-1]),
        lambda text: "".join(text.splitlines()[1:-1])[:63],
        lambda text: "".join(text.splitlines()[1:-1])[:30],
        lambda text: "".join(text.splitlines()[1:-1]) + ".p8",
        lambda text: "".join(text.splitlines()[1:-1]) + "/AuthKey_ABC123DEFG.p8",
        lambda text: "~/" + "".join(text.splitlines()[1:-1]),
        lambda text: text.replace("\n", "\0"),
    ],
    ids=range(13),
)
@pytest.mark.parametrize("place", ["auth_key", "certificate", "team_id", "key_id", "path"])
def test_no_part_of_a_key_stands_in_an_error(damage: Callable[[str], str], place: str) -> None:
    """Whatever was done to it and wherever it was put, twelve of its letters are nowhere told."""
    text = damage(PEM)
    readers: dict[str, Callable[[], object]] = {
        "auth_key": lambda: read_auth_key(text, team_id="no", key_id="no"),
        "certificate": lambda: read_certificate(text, password="no"),
        "team_id": lambda: read_auth_key(PEM, team_id=text, key_id=KEY_ID),
        "key_id": lambda: read_auth_key(PEM, team_id=TEAM, key_id=text),
        "path": lambda: read_auth_key(Path(text), team_id=TEAM, key_id=KEY_ID),
    }
    with pytest.raises(CredentialError) as raised:
        readers[place]()
    assert _told(raised.value) == []


@given(st.binary(min_size=24, max_size=200), st.sampled_from(["", "\n", ".p8", "/", " "]))
def test_nothing_that_could_be_a_key_stands_in_an_error(content: bytes, end: str) -> None:
    """Base64 of any length, with whatever behind it, is not repeated."""
    text = base64.b64encode(content).decode() + end
    with pytest.raises(CredentialError) as raised:
        read_auth_key(text, team_id=TEAM, key_id=KEY_ID)
    if end != ".p8":
        assert text[:16] not in str(raised.value)


def _told(error: CredentialError) -> list[str]:
    told = f"{error} {error.what} {error.fix} {error!r}"
    # The first letters are the same in every key of this kind, and stand in examples.
    secret = BODY[36:]
    return [secret[at : at + 12] for at in range(len(secret) - 11) if secret[at : at + 12] in told]


@pytest.mark.parametrize("is_key_first", [False, True])
def test_the_certificate_of_the_key_is_found_behind_its_authority(*, is_key_first: bool) -> None:
    """In a PEM and in a .p12 the certificates may stand in any order."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    begins, ends = NOW - dt.timedelta(days=1), NOW + dt.timedelta(days=1)
    authority = certificate(authority_key, "authority", begins, ends).public_bytes(Encoding.PEM)
    own_certificate = certificate(KEY, "own", begins, ends)
    own = own_certificate.public_bytes(Encoding.PEM)
    parts = [PEM.encode(), authority, own] if is_key_first else [authority, own, PEM.encode()]
    assert read_certificate(b"".join(parts)).name == "own"
    bundle = pkcs12.serialize_key_and_certificates(
        b"x",
        KEY,
        own_certificate,
        [certificate(authority_key, "authority", begins, ends)],
        NoEncryption(),
    )
    assert read_certificate(bundle).name == "own"


@pytest.mark.parametrize(
    ("begins", "ends", "words"),
    [
        (-30, -1, "expired"),
        (-30, 0, "expired"),
        (1, 30, "not valid before"),
        (-30, 30, ""),
    ],
)
def test_a_certificate_that_is_not_valid_now_is_told(begins: int, ends: int, words: str) -> None:
    """Who adds one hears that it has expired, or is not valid yet."""
    found = certificate(
        KEY, "own", NOW + dt.timedelta(days=begins), NOW + dt.timedelta(days=ends)
    ).public_bytes(Encoding.PEM)
    told = caveats(read_certificate(found + PEM.encode()), now=NOW.timestamp())
    assert [words] * bool(words) == [words for line in told if words in line]
    assert bool(told) == bool(words)
