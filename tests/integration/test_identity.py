"""Identity tokens: what the app's own back end signs, and what is refused."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest
from bench.chaos import Clock
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from sqlalchemy import select
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import AppError, CredentialError, IdentityError
from handbell.registry.identity import Identity, IdentityStore
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.tables import apps as apps_table
from handbell.system import System

pytestmark = pytest.mark.databases

MAIL, OTHER = "user1@example.com", "test@4d.com"
SECRET = "a secret of the back end, with 40 bytes."
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
MINUTE = 60
TOKEN = "ab" * 32


class Desk:
    """A server of two apps whose devices bring identity tokens; one signs with ES256."""

    def __init__(self, system: System, server: Server, clock: Clock) -> None:
        self.system, self.server, self.clock = system, server, clock
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.app = system.apps.add("TEAM123456", "com.sample.myapp")
        self.other = system.apps.add("TEAM123456", "com.sample.other")
        system.identities.set(self.app, proof="token", identity_key=public(self.key))
        system.identities.set(self.other, proof="token", identity_key=SECRET)
        self.number = 0

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return good claims with changes; None leaves a claim out."""
        self.number += 1
        now = int(self.clock())
        good = {
            "aud": self.app.id,
            "sub": MAIL,
            "iat": now,
            "exp": now + 5 * MINUTE,
            "jti": f"token {self.number}",
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def sign(self, key: Any = None, algorithm: str = "ES256", **changes: Any) -> str:
        """Return a token of good claims with changes."""
        return jwt.encode(self.claims(**changes), key or self.key, algorithm=algorithm)

    def register(
        self, client: httpx.Client, token: str, app: App | None = None, **more: Any
    ) -> httpx.Response:
        """Register a device with an identity token."""
        body = {"identity_token": token, "device_token": TOKEN, **more}
        return client.post(f"/v1/apps/{(app or self.app).id}/sessions", json=body)


def public(key: ec.EllipticCurvePrivateKey) -> str:
    """Return a public key in PEM."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Give a server of two apps that ask for tokens."""
    clock = Clock()
    system = System(Settings.load(home=tmp_path_factory.mktemp("home")), now=clock)
    with start_server(system, has_console=False) as server:
        yield Desk(system, server, clock)
    system.database.close()


@pytest.fixture
def client(desk: Desk) -> Iterator[httpx.Client]:
    """Give a client without a key: a device."""
    with desk.server.client() as client:
        yield client


def test_a_token_of_the_back_end_proves_a_device(desk: Desk, client: httpx.Client) -> None:
    """The session is active at once, the person is who the token says, the secret serves."""
    answer = desk.register(client, desk.sign(), locale="fr", app_version="3.1")
    assert answer.status_code == 201
    body = answer.json()
    assert (body["status"], body["session"]["mail"]) == ("active", MAIL)
    assert (body["session"]["locale"], body["session"]["app_version"]) == ("fr", "3.1")
    own = {"Authorization": f"Bearer {body['secret']}"}
    path = f"/v1/apps/{desk.app.id}/sessions/{body['id']}"
    assert client.get(path, headers=own).json() == body["session"]
    assert client.get(path, headers={"Authorization": "Bearer hbs_wrong"}).status_code == 401


def test_a_shared_secret_serves_as_well(desk: Desk, client: httpx.Client) -> None:
    """HS256, the person in the claim email, a list of audiences."""
    audience = ["somebody else", desk.other.id]
    signed = desk.sign(SECRET, "HS256", aud=audience, sub="42", email="User1@Example.com")
    answer = desk.register(client, signed, desk.other)
    assert (answer.status_code, answer.json()["session"]["mail"]) == (201, MAIL)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"exp": -1 * MINUTE}, "expired"),
        ({"exp": 11 * MINUTE}, "too long"),
        ({"exp": 10 * 365 * 24 * 60 * MINUTE}, "too long"),
        ({"iat": 2 * MINUTE}, "future"),
        ({"nbf": 2 * MINUTE}, "future"),
        ({"exp": None}, "no claim exp"),
        ({"iat": None}, "no claim iat"),
        ({"jti": None}, "no claim jti"),
        ({"aud": None}, "aud"),
        ({"sub": None}, "not a text"),
        ({"sub": 7}, "not a text"),
        ({"sub": "nobody"}, "no mail address"),
        ({"email": "nobody"}, "no mail address"),
        ({"jti": 7}, "not a text"),
        ({"jti": ""}, "not a text"),
        ({"jti": "j" * 300}, "too long"),
        ({"exp": "soon"}, "not a number"),
        ({"exp": True}, "not a number"),
        ({"aud": "TEAM123456.com.sample.other"}, "another app"),
        ({"aud": ["TEAM123456.com.sample.other"]}, "another app"),
    ],
)
def test_a_token_that_says_something_wrong_is_refused(
    desk: Desk, client: httpx.Client, changes: dict[str, Any], what: str
) -> None:
    """The answer says what is wrong; instants are counted from now."""
    now = int(desk.clock())
    said = {
        name: now + value if name in {"exp", "iat", "nbf"} and type(value) is int else value
        for name, value in changes.items()
    }
    claims = {name: value for name, value in (desk.claims() | said).items() if value is not None}
    header = _part({"alg": "ES256", "typ": "JWT"})
    signed = f"{header}.{_part(claims)}"
    answer = desk.register(client, f"{signed}.{_signature(desk.key, signed)}")
    assert (answer.status_code, answer.json()["code"]) == (403, "identity-refused")
    assert what in answer.json()["detail"]


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _signature(key: ec.EllipticCurvePrivateKey, signed: str, *, mirrored: bool = False) -> str:
    r, s = utils.decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    s = ORDER - s if mirrored else s
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unsigned(desk: Desk) -> str:
    return jwt.encode(desk.claims(), "", algorithm="none")


def _with_public_key_as_secret(desk: Desk) -> str:
    # Algorithm confusion: the public key, which everybody may know, taken for a shared secret.
    signed = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(desk.claims())}"
    digest = hmac.digest(public(desk.key).strip().encode(), signed.encode(), hashlib.sha256)
    return f"{signed}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def _of_another_key(desk: Desk) -> str:
    return desk.sign(ec.generate_private_key(ec.SECP256R1()))


def _of_another_curve(desk: Desk) -> str:
    return desk.sign(ec.generate_private_key(ec.SECP384R1()), "ES384")


def _altered(desk: Desk) -> str:
    header, _, signature = desk.sign().split(".")
    return f"{header}.{_part(desk.claims(sub=OTHER))}.{signature}"


@pytest.mark.parametrize(
    "forge",
    [
        _unsigned,
        _with_public_key_as_secret,
        _of_another_key,
        _of_another_curve,
        _altered,
        lambda desk: desk.sign(SECRET, "HS256"),
        lambda desk: desk.sign(headers=None).rpartition(".")[0] + ".",
        lambda _: "not a token",
        lambda _: "a.b.c",
        lambda _: "e30.e30.",
    ],
)
def test_a_token_that_the_back_end_did_not_sign_is_refused(
    desk: Desk, client: httpx.Client, forge: Any
) -> None:
    """The algorithm is the configured one, whatever the token says of itself."""
    answer = desk.register(client, forge(desk))
    assert (answer.status_code, answer.json()["code"]) == (403, "identity-refused")


def test_a_token_of_another_app_is_refused(desk: Desk, client: httpx.Client) -> None:
    """Each app checks with its own key and its own id."""
    foreign = desk.sign(SECRET, "HS256", aud=desk.other.id)
    assert desk.register(client, foreign).status_code == 403
    assert desk.register(client, desk.sign(), desk.other).status_code == 403
    assert desk.register(client, foreign, desk.other).status_code == 201


def test_a_token_serves_once(desk: Desk, client: httpx.Client) -> None:
    """Neither again, nor as the other signature that fits the same token."""
    claims = desk.claims()
    signed = f"{_part({'alg': 'ES256', 'typ': 'JWT'})}.{_part(claims)}"
    token = f"{signed}.{_signature(desk.key, signed)}"
    assert desk.register(client, token).status_code == 201
    twisted = f"{signed}.{_signature(desk.key, signed, mirrored=True)}"
    for again in (token, twisted, desk.sign(jti=claims["jti"])):
        answer = desk.register(client, again)
        assert (answer.status_code, answer.json()["code"]) == (403, "identity-refused")
        assert "used before" in answer.json()["detail"]
    desk.clock.move(11 * MINUTE)
    assert "expired" in desk.register(client, token).json()["detail"]


def test_a_token_is_not_used_up_by_a_bad_registration(desk: Desk, client: httpx.Client) -> None:
    """What was refused for another reason can be put right with the same token."""
    token = desk.sign()
    assert desk.register(client, token, platform="toaster").status_code == 422
    assert desk.register(client, token, mail=OTHER).status_code == 422
    assert desk.register(client, token, time_zone="Europe/Paris").status_code == 201


def test_without_a_token_nobody_registers(desk: Desk, client: httpx.Client) -> None:
    """A mail address proves nothing here, and the answer says what does."""
    body = {"mail": MAIL, "device_token": TOKEN}
    answer = client.post(f"/v1/apps/{desk.app.id}/sessions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "proof-required")
    assert "identity_token" in answer.json()["fix"]


# The store


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a database that is ready."""
    database = Database.open(database_url)
    yield database
    database.close()


OLD, NEW = Fernet.generate_key(), Fernet.generate_key()


def test_an_identity_key_is_sealed(database: Database) -> None:
    """It does not stand in the database, is not returned, and opens with its key alone."""
    app = AppStore(database, Vault([OLD])).add("TEAM123456", "com.sample.myapp")
    store = IdentityStore(database, Vault([OLD]))
    set_to = store.set(app, proof="token", identity_key=SECRET, store_url="https://example.com/a")
    assert set_to == Identity(proof="token", algorithm="HS256", store_url="https://example.com/a")
    with database.read() as connection:
        row = str(connection.execute(select(apps_table)).one())
    assert SECRET not in row
    token = jwt.encode({"aud": app.id}, SECRET, algorithm="HS256")
    with pytest.raises(IdentityError, match="no claim"):
        store.check(app, token)
    with pytest.raises(CredentialError):
        IdentityStore(database, Vault([NEW])).check(app, token)


def _private() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _edwards() -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"proof": "trust"}, "not a known proof"),
        ({"proof": "token"}, "no identity key"),
        ({"identity_key": "short"}, "5 bytes"),
        ({"identity_key": "-----BEGIN PUBLIC KEY-----\nAAAA"}, "P-256"),
        ({"identity_key": public(ec.generate_private_key(ec.SECP384R1()))}, "P-256"),
        ({"identity_key": _edwards()}, "P-256"),
        ({"identity_key": _private()}, "private key"),
        ({"associated_domain": "https://example.com"}, "not a domain"),
        ({"associated_domain": "a b"}, "not a domain"),
        ({"store_url": "http://apps.apple.com/app/id1"}, "store"),
        ({"store_url": "javascript:alert(1)"}, "store"),
        ({"store_url": "https://apple.com@evil.example/"}, "store"),
        ({"store_url": "https://[::1"}, "store"),
    ],
)
def test_what_cannot_be_set_is_refused(
    database: Database, given: dict[str, str], what: str
) -> None:
    """The error says why, and nothing of the call is written."""
    app = AppStore(database, Vault([OLD])).add("TEAM123456", "com.sample.myapp")
    store = IdentityStore(database, Vault([OLD]))
    with pytest.raises(AppError, match=what):
        store.set(app, **{"associated_domain": "example.com", **given})
    assert store.of(app) == Identity()


def test_what_was_set_can_be_removed(database: Database) -> None:
    """``none`` removes; a key that tokens are checked with cannot go while they are asked for."""
    app = AppStore(database, Vault([OLD])).add("TEAM123456", "com.sample.myapp")
    store = IdentityStore(database, Vault([OLD]))
    store.set(app, proof="token", identity_key=SECRET, associated_domain="applinks:Ex.example")
    assert store.of(app).associated_domain == "ex.example"
    with pytest.raises(AppError, match="no identity key"):
        store.set(app, identity_key="none")
    assert store.set(app, proof="key", identity_key="none", associated_domain="none") == Identity()
