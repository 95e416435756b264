"""Google's key file: what is read from it, and what is said of every file that is not one."""

import json
from functools import cache
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import CredentialError
from handbell.services.fcm.credential import ServiceAccount

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@cache
def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """Make a key of a size, once for the file."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def pem(key: Key, encryption: KeySerializationEncryption | None = None) -> str:
    """Return a private key as PEM in PKCS#8."""
    how = encryption or NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


def members(**changes: Any) -> dict[str, Any]:
    """Return a key file's members, changed; None leaves one out."""
    known = {
        "type": "service_account",
        "project_id": "shop-4d",
        "private_key_id": "0123456789abcdef0123456789abcdef01234567",
        "private_key": pem(rsa_key()),
        "client_email": "firebase-adminsdk@shop-4d.iam.gserviceaccount.com",
        "client_id": "123456789012345678901",
        "auth_uri": "https://accounts.google.com/o/oauth2/auth",
        "token_uri": "https://oauth2.googleapis.com/token",
        "universe_domain": "googleapis.com",
    }
    return {name: value for name, value in {**known, **changes}.items() if value is not None}


def read(**changes: Any) -> ServiceAccount:
    """Read a key file, changed."""
    return ServiceAccount.read(json.dumps(members(**changes)))


def test_a_key_file_is_read() -> None:
    """What sending needs is taken, and the fingerprint is of the public key."""
    account = read()
    assert account.client_email == "firebase-adminsdk@shop-4d.iam.gserviceaccount.com"
    assert account.project_id == "shop-4d"
    assert account.key_id == account.private_key_id == members()["private_key_id"]
    assert account.token_uri == "https://oauth2.googleapis.com/token"
    assert account.fingerprint == read(private_key_id=None).key_id
    assert "BEGIN PUBLIC KEY" in account.public_key_pem


def test_it_is_packed_and_unpacked() -> None:
    """The vault gets back what it was given; the private key is in no text of it."""
    account = read()
    assert ServiceAccount.unpack(account.pack()) == account
    secret = pem(rsa_key()).split("\n")[5]
    assert secret in account.pack().replace("\\n", "\n")
    assert secret not in repr(account)


@pytest.mark.parametrize(
    ("changes", "project_id", "token_uri"),
    [
        ({"token_uri": None}, "shop-4d", "https://oauth2.googleapis.com/token"),
        ({"project_id": "example.com:shop"}, "example.com:shop", None),
        ({"token_uri": "https://127.0.0.1:2197/token"}, "shop-4d", "https://127.0.0.1:2197/token"),
        (
            {"token_uri": "https://accounts.google.com/o/oauth2/token"},
            "shop-4d",
            "https://accounts.google.com/o/oauth2/token",
        ),
    ],
    ids=["without-uri", "project-of-a-domain", "twin", "older-uri"],
)
def test_other_forms_are_read(
    changes: dict[str, Any], project_id: str, token_uri: str | None
) -> None:
    """Older projects, older addresses, and the twin's, which is on loopback."""
    account = read(**changes)
    assert account.project_id == project_id
    assert token_uri is None or account.token_uri == token_uri


WRONG: list[Any] = [
    pytest.param("", "is empty", id="empty"),
    pytest.param("hello", "is not JSON", id="text"),
    pytest.param('{"type": "service_account", ', "is damaged", id="cut"),
    pytest.param("[1]", "no key file", id="list"),
    pytest.param("{}", "`type` is not", id="empty-object"),
    pytest.param("[" * 60_000, "not JSON", id="deep"),
    pytest.param("x" * 70_000, "far too large", id="large"),
    pytest.param(
        pem(ec.generate_private_key(ec.SECP256R1())), "Apple's AuthKey_XXX.p8", id="apples-key"
    ),
    pytest.param(pem(rsa_key()), "a private key alone", id="key-alone"),
    pytest.param(
        '{"project_info": {"project_id": "x"}, "client": []}',
        "google-services.json, which holds no private key",
        id="google-services",
    ),
    pytest.param('{"installed": {}}', "OAuth client for desktop", id="desktop-client"),
    pytest.param('{"web": {}}', "OAuth client for web", id="web-client"),
    pytest.param('{"apiKey": "x", "messagingSenderId": "1"}', "web app", id="web-config"),
    pytest.param('{"type": "authorized_user"}', "a user's own credentials", id="user"),
    pytest.param('{"type": "external_account"}', "a workload identity", id="workload"),
    pytest.param({"private_key": None}, "`private_key` is missing", id="no-key"),
    pytest.param({"private_key": ""}, "`private_key` is missing", id="empty-key"),
    pytest.param({"private_key": 7}, "`private_key` is not a text", id="number-for-key"),
    pytest.param({"private_key": "abc"}, "is not a PEM text", id="no-pem"),
    pytest.param({"private_key": pem(rsa_key())[:900]}, "is damaged", id="cut-key"),
    pytest.param(
        {"private_key": pem(ec.generate_private_key(ec.SECP256R1()))}, "not an RSA key", id="ec"
    ),
    pytest.param(
        {"private_key": pem(rsa_key(), BestAvailableEncryption(b"secret"))},
        "protected by a password",
        id="encrypted",
    ),
    pytest.param({"private_key": pem(rsa_key(1024))}, "has 1,024 bits", id="small"),
    pytest.param({"client_email": None}, "`client_email` is missing", id="no-mail"),
    pytest.param({"client_email": "nobody"}, "which is no service account", id="no-address"),
    pytest.param({"project_id": None}, "`project_id` is missing", id="no-project"),
    pytest.param({"project_id": "../other"}, "no id of a project", id="path-for-project"),
    pytest.param({"project_id": "a b"}, "no id of a project", id="blank-in-project"),
    pytest.param({"private_key_id": "a\nb"}, "`private_key_id`", id="key-id"),
    pytest.param({"token_uri": "http://oauth2.googleapis.com/token"}, "only https", id="http"),
    pytest.param({"token_uri": "http://10.0.0.1/token"}, "only https", id="http-inside"),
    pytest.param({"token_uri": "https://10.0.0.1/token"}, "not to Google", id="inside"),
    pytest.param({"token_uri": "https://evil.example/token"}, "not to Google", id="stranger"),
    pytest.param({"token_uri": "https://xgoogleapis.com/t"}, "not to Google", id="lookalike"),
    pytest.param(
        {"token_uri": "https://oauth2.googleapis.com@evil.example/t"}, "not an address", id="user"
    ),
    pytest.param({"token_uri": "https://oauth2.googleapis.com"}, "not an address", id="no-path"),
    pytest.param({"token_uri": "https://[::1/t"}, "not an address", id="half-an-address"),
    pytest.param({"token_uri": 7}, "`token_uri` is not a text", id="number-for-uri"),
]


@pytest.mark.parametrize(("given", "words"), WRONG)
def test_a_wrong_file_is_told_in_words(given: str | dict[str, Any], words: str) -> None:
    """Each error says what the file is or lacks and what to do, and repeats no key."""
    text = given if isinstance(given, str) else json.dumps(members(**given))
    with pytest.raises(CredentialError) as error:
        ServiceAccount.read(text, where="/home/user/key.json")
    assert words in str(error.value)
    assert error.value.fix
    assert not any(line in str(error.value) for line in text.split("\n") if len(line) > 60)


def test_a_key_whose_numbers_do_not_fit_is_damaged() -> None:
    """A private key that does not belong to its public one is refused, and quickly."""
    ours = rsa_key().private_numbers()
    mixed = rsa.RSAPrivateNumbers(
        p=ours.p,
        q=ours.q,
        d=ours.d ^ 2,
        dmp1=ours.dmp1 ^ 2,
        dmq1=ours.dmq1,
        iqmp=ours.iqmp,
        public_numbers=ours.public_numbers,
    ).private_key(unsafe_skip_rsa_key_validation=True)
    with pytest.raises(CredentialError, match="does not fit its public key"):
        read(private_key=pem(mixed))


@given(
    st.dictionaries(
        st.sampled_from([*members(), "x"]),
        st.none() | st.booleans() | st.text() | st.lists(st.text(), max_size=2),
    )
)
def test_any_members_are_an_error_or_an_account(changes: dict[str, Any]) -> None:
    """Whatever stands in a file, it is read or refused in words, and raises nothing else."""
    try:
        account = ServiceAccount.read(json.dumps({**members(), **changes}))
    except CredentialError:
        return
    assert ServiceAccount.unpack(account.pack()) == account


@given(st.binary(max_size=300))
def test_any_bytes_are_an_error(data: bytes) -> None:
    """No bytes raise anything but the error."""
    with pytest.raises(CredentialError):
        ServiceAccount.read(data)
