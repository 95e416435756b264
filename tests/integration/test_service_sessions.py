"""Sessions by several push services: one owner per address, whichever service it is of."""

import base64
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import ProofRequiredError, RegistryError
from handbell.registry.listing import Directory, SessionFilter
from handbell.registry.registration import DeviceDescription, Registration
from handbell.registry.store import Registry
from handbell.services.address import Address
from handbell.storage.database import Database

pytestmark = pytest.mark.databases

OWNER, OTHER = "owner@4d.com", "other@4d.com"
APPLES = "ab" * 32
ENDPOINT = "https://push.example/Sub-1"
NOTHING = DeviceDescription()


def subscription(endpoint: str = ENDPOINT) -> dict[str, object]:
    """Return a browser's new subscription."""
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    p256dh = base64.urlsafe_b64encode(encoded).rstrip(b"=").decode()
    auth = base64.urlsafe_b64encode(bytes(16)).rstrip(b"=").decode()
    return {
        "endpoint": endpoint,
        "expirationTime": None,
        "keys": {"p256dh": p256dh, "auth": auth},
    }


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a database that is ready."""
    with closing(Database.open(database_url)) as opened:
        yield opened


@pytest.fixture
def app(database: Database) -> App:
    """Add an app of every service."""
    store = AppStore(database, Vault([Fernet.generate_key().decode()]))
    return store.add(
        "TEAM123456",
        "com.sample.shop",
        android_package="com.sample.shop",
        web_origin="https://shop.example",
    )


@pytest.fixture
def registry(database: Database) -> Registry:
    """Return a registry that knows one push host."""
    return Registry(database, check_address=refuse_evil)


def refuse_evil(address: Address, environment: str) -> None:
    """Refuse a host, and subscriptions of the twin."""
    if "evil" in address.token or (address.service, environment) == ("webpush", "twin"):
        raise RegistryError("The host is not allowed", fix="Allow it")


def test_a_subscription_keeps_its_keys_beside_its_endpoint(registry: Registry, app: App) -> None:
    """The endpoint is the token; keys come with each look-up that a send makes."""
    made = registry.register(app, OWNER, subscription(), device_id="laptop")
    assert (made.service, made.kind, made.platform) == ("webpush", "subscription", "web")
    assert (made.token, made.address, made.environment) == (ENDPOINT, ENDPOINT, "production")
    assert made.details is not None
    (found,) = registry.recipient_sessions(app, [OWNER])[OWNER]
    (active,) = registry.page_of_active(app)
    (held,) = registry.holders(app, [ENDPOINT]).values()
    for one in (found, active, held):
        assert (one.service, one.details, one.device_id) == ("webpush", made.details, "laptop")
    assert registry.addresses(app) == [ENDPOINT]
    assert registry.device_tokens(app) == []


def test_new_keys_of_an_endpoint_take_the_place_of_the_former(registry: Registry, app: App) -> None:
    """What is encrypted with former keys nobody could read."""
    former = registry.register(app, OWNER, subscription())
    again = registry.register(app, OWNER, subscription())
    assert again.id == former.id
    assert again.details != former.details


def test_an_account_switch_in_a_browser_moves_the_endpoint(registry: Registry, app: App) -> None:
    """One owner per endpoint: whoever proves it has it, and the former owner has it no more."""
    registry.register(app, OWNER, APPLES)
    former = registry.register(app, OWNER, subscription())
    registration = Registration.read(OTHER, subscription(), at=10)
    admitted = registry.admit(app, registration)
    assert admitted.moved == (former.id,)
    assert registry.session(former.id).status == "closed"
    assert [one.status for one in registry.sessions_of(app, OWNER)].count("active") == 1
    assert registry.holders(app, [ENDPOINT])[ENDPOINT].mail == OTHER


def test_a_pending_subscription_owns_nothing_until_it_is_proven(
    registry: Registry, app: App
) -> None:
    """A claim of an endpoint changes nothing for its owner; its proof does."""
    owner = registry.register(app, OWNER, subscription())
    claim = registry.claim(app, Registration.read(OTHER, subscription(), status="pending", at=1))
    assert registry.holders(app, [ENDPOINT])[ENDPOINT].id == owner.id
    proven = registry.activate(claim)
    assert proven is not None
    assert proven.moved == (owner.id,)
    assert proven.session.details == claim.details


def test_a_device_renews_its_address_with_its_secret(registry: Registry, app: App) -> None:
    """A new subscription, or a token of another service, takes the place of the former one."""
    registration = Registration.read(
        OWNER, APPLES, at=1, secret_digest="digest", environment="development"
    )
    known = registry.admit(app, registration).session
    fresh = subscription("https://push.example/Sub-2")
    renewed = registry.renew(app, "digest", NOTHING, address=fresh)
    assert renewed is not None
    assert renewed.session.id == known.id
    assert renewed.session.token == "https://push.example/Sub-2"
    # Web Push has no development environment.
    assert (renewed.session.service, renewed.session.environment) == ("webpush", "production")
    with pytest.raises(RegistryError):
        registry.renew(app, "digest", NOTHING, address="not an endpoint")
    with pytest.raises(RegistryError, match="no environment"):
        registry.renew(app, "digest", DeviceDescription.read(environment="development"))


def test_a_secret_never_takes_another_persons_endpoint(registry: Registry, app: App) -> None:
    """That takes a proof, as for every address."""
    registry.register(app, OWNER, subscription())
    registry.admit(app, Registration.read(OTHER, APPLES, at=1, secret_digest="digest"))
    with pytest.raises(ProofRequiredError):
        registry.renew(app, "digest", NOTHING, address=subscription())
    assert registry.holders(app, [ENDPOINT])[ENDPOINT].mail == OWNER


def test_many_registrations_of_several_services_are_as_one_by_one(
    registry: Registry, app: App
) -> None:
    """Each address has its last owner, and what is not allowed is refused by its place."""
    texts: list[str | dict[str, object]] = [
        APPLES,
        subscription(),
        subscription("https://evil.example/1"),
        subscription(),
        APPLES,
    ]
    owners = [OWNER, OWNER, OWNER, OTHER, OTHER]
    result = registry.admit_many(
        app,
        [
            Registration.read(mail, text, at=place)
            for place, (mail, text) in enumerate(zip(owners, texts, strict=True))
        ],
    )
    assert list(result.refused) == [2]
    assert len(result.moved) == 2
    held = registry.holders(app, [APPLES, ENDPOINT])
    assert {token: one.mail for token, one in held.items()} == {APPLES: OTHER, ENDPOINT: OTHER}


def test_no_way_in_takes_an_address_that_is_not_allowed(registry: Registry, app: App) -> None:
    """Registered, claimed, renewed or corrected: nothing of it is stored."""
    evil = subscription("https://evil.example/1")
    known = registry.admit(app, Registration.read(OWNER, APPLES, at=1, secret_digest="digest"))
    with pytest.raises(RegistryError, match="not allowed"):
        registry.register(app, OWNER, evil)
    with pytest.raises(RegistryError, match="not allowed"):
        registry.claim(app, Registration.read(OWNER, evil, status="pending", at=1))
    with pytest.raises(RegistryError, match="not allowed"):
        registry.renew(app, "digest", NOTHING, address=evil)
    with pytest.raises(RegistryError, match="not allowed"):
        registry.change(app, known.session.id, NOTHING, address=evil)
    assert registry.addresses(app) == [APPLES]


def test_what_contradicts_the_address_of_a_session_is_refused(registry: Registry, app: App) -> None:
    """Another environment or service alone: the address that is there is checked for it."""
    own = Registration.read(OWNER, subscription(), at=1, secret_digest="digest")
    row = registry.admit(app, own).session.id
    moved = DeviceDescription.read(environment="twin")
    for said, why in (({"about": moved}, "not allowed"), ({"service": "apns"}, "one of Web Push")):
        how: dict[str, Any] = {"about": NOTHING, **said}
        with pytest.raises(RegistryError, match=why):
            registry.renew(app, "digest", **how)
        with pytest.raises(RegistryError, match=why):
            registry.change(app, row, **how)
    assert registry.renew(app, "digest", NOTHING, service="webpush")
    assert registry.sessions(app)[0].environment == "production"


@pytest.mark.parametrize(
    ("address", "about", "why"),
    [
        (subscription(), {"service": "apns"}, "no address of"),
        (subscription(), {"environment": "development"}, "no environment development"),
        (APPLES, {"platform": "web"}, "URL|endpoint"),
        (APPLES, {"service": "apns", "platform": "web"}, "does not reach"),
        (APPLES, {"service": "pigeon"}, "not a push service"),
        (ENDPOINT, {"platform": "web"}, "missing"),
        (ENDPOINT, {}, "not a device token"),
        ({}, {}, "endpoint"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else None,
)
def test_what_is_no_address_of_the_service_is_refused(
    registry: Registry, app: App, address: str | dict[str, object], about: dict[str, str], why: str
) -> None:
    """Checked where it comes in, by the service's own rules; nothing is stored."""
    with pytest.raises(RegistryError, match=why) as caught:
        registry.register(app, OWNER, address, **about)  # type: ignore[arg-type]
    assert caught.value.fix
    assert registry.users(app) == []


def test_sessions_are_listed_by_service(registry: Registry, app: App, database: Database) -> None:
    """Who asks for browsers gets browsers."""
    registry.register(app, OWNER, APPLES)
    made = registry.register(app, OWNER, subscription())
    listed = Directory(database).sessions(app, SessionFilter(service="webpush"))
    assert [one.id for one in listed] == [made.id]
    assert listed[0].details == made.details
