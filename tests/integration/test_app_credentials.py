"""Credentials of several push services, and what depends on them."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.fernet import Fernet

from handbell.apps.app import App
from handbell.apps.sample_keys import make_credentials, make_key, make_service_account
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import AppError, CredentialError, CredentialInUseError, MissingCredentialError
from handbell.registry.session import Session
from handbell.registry.store import Registry
from handbell.services.apns.credential import AuthKey
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey
from handbell.storage.database import Database

from .test_service_sessions import subscription

pytestmark = pytest.mark.databases

TEAM, OWNER = "TEAM123456", "owner@4d.com"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a database that is ready."""
    with closing(Database.open(database_url)) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> AppStore:
    """Return a store of apps."""
    return AppStore(database, Vault([Fernet.generate_key().decode()]))


@pytest.fixture
def app(store: AppStore) -> App:
    """Add an app of every service."""
    return store.add(
        TEAM,
        "com.sample.shop",
        android_package="com.sample.shop",
        web_origin="https://shop.example",
    )


@pytest.fixture
def registry(database: Database) -> Registry:
    """Return the registry of the same database."""
    return Registry(database)


def subscribe(registry: Registry, app: App, number: int, environment: str | None = None) -> Session:
    """Register one browser."""
    address = subscription(f"https://push.example/{environment}/{number}")
    return registry.register(app, OWNER, address, environment=environment)


def test_each_service_has_credentials_of_its_own(store: AppStore, app: App) -> None:
    """What is asked for by service is of that service, secrets included."""
    key, account, vapid = made = make_credentials(app)
    for credential in made:
        store.add_credential(app, credential)
    store.forget()
    assert store.credential_for(app, "production") == key
    assert store.credential_for(app, "production", service="fcm") == account
    found = store.credential_for(app, "twin", service="webpush")
    assert isinstance(vapid, VapidKey)
    assert found.private_key_text == vapid.private_key_text
    assert [one.kind for one in store.credentials(app)] == ["vapid", "service-account", "key"]
    assert [one.service for one in store.credentials(app, "fcm")] == ["fcm"]
    assert isinstance(account, ServiceAccount)
    assert store.service_account(account.client_email) == account
    assert store.service_account("nobody@example.com") is None
    assert store.unusable(app) == {}


def test_a_missing_credential_says_how_to_add_one(store: AppStore, app: App) -> None:
    """Each service has its own way to one."""
    for service, words in {
        "apns": "AuthKey_XXX.p8",
        "fcm": "service-account.json",
        "webpush": "key make web-push",
    }.items():
        with pytest.raises(MissingCredentialError) as caught:
            store.credential_for(app, "production", service=service)
        assert words in caught.value.fix
    with pytest.raises(MissingCredentialError, match="web push key"):
        store.web_push_key(app)


def test_apples_key_needs_apples_ids(store: AppStore) -> None:
    """An app without them says how it gets them."""
    app = store.add(android_package="com.sample.till")
    with pytest.raises(AppError, match="no team id"):
        store.add_credential(app, make_key(TEAM))
    store.add_credential(app, make_service_account(app))
    with pytest.raises(CredentialError, match="no environment development"):
        store.add_credential(app, make_service_account(app), environment="development")


def test_pages_subscribe_with_the_key_that_is_sent_with(store: AppStore, app: App) -> None:
    """The key for production, or the twin's as long as there is no other."""
    twins, real = VapidKey.make(), VapidKey.make()
    store.add_credential(app, twins, environment="twin")
    told = store.web_push_key(app)
    assert (told.public_key, told.environment) == (twins.public_key, "twin")
    store.add_credential(app, real)
    told = store.web_push_key(app)
    assert (told.public_key, told.environment) == (real.public_key, "production")
    assert store.credential_for(app, "twin", service="webpush") == twins


@pytest.mark.parametrize("by", ["removing", "replacing"])
def test_a_web_push_key_is_lost_only_by_force(
    store: AppStore, registry: Registry, app: App, by: str
) -> None:
    """Without force nothing changes and the number is told; with it they wait for the key."""
    key = VapidKey.make()
    store.add_credential(app, key)
    store.add_credential(app, VapidKey.make(), environment="twin")
    lost = [subscribe(registry, app, number) for number in range(2)]
    kept = subscribe(registry, app, 3, "twin")
    phone = registry.register(app, OWNER, "ab" * 32)

    def change(*, is_forced: bool) -> None:
        if by == "removing":
            store.remove_credential(app, key.key_id, is_forced=is_forced)
        else:
            store.add_credential(app, VapidKey.make(), is_forced=is_forced)

    with pytest.raises(CredentialInUseError, match="2 subscriptions") as caught:
        change(is_forced=False)
    assert caught.value.sessions == 2
    assert store.credential_for(app, "production", service="webpush") == key
    change(is_forced=True)
    statuses = {one.id: one.status for one in registry.sessions(app)}
    assert [statuses[one.id] for one in lost] == ["quarantined", "quarantined"]
    assert statuses[kept.id] == statuses[phone.id] == "active"
    # A browser that subscribes with the new key is reached at once, and loses nothing by force.
    store.add_credential(app, key, is_forced=True)
    assert {one.status for one in registry.sessions(app)} == {"active"}
    assert store.credential_for(app, "production", service="webpush") == key


@pytest.mark.parametrize("by", ["limiting", "adding"])
def test_a_web_push_key_that_serves_no_longer_is_lost_only_by_force(
    store: AppStore, registry: Registry, app: App, by: str
) -> None:
    """It is limited to another environment, or one for this environment alone is added."""
    key, other = VapidKey.make(), VapidKey.make()
    store.add_credential(app, key)
    subscribe(registry, app, 1)

    def change(*, is_forced: bool) -> None:
        if by == "limiting":
            store.add_credential(app, key, environment="twin", is_forced=is_forced)
        else:
            store.add_credential(app, other, environment="production", is_forced=is_forced)

    with pytest.raises(CredentialInUseError, match="1 subscription"):
        change(is_forced=False)
    assert [one.environment for one in store.credentials(app)] == [None]
    change(is_forced=True)
    assert [one.status for one in registry.sessions(app)] == ["quarantined"]
    if by == "limiting":
        store.add_credential(app, key)
    else:
        store.remove_credential(app, other.key_id)
    assert [one.status for one in registry.sessions(app)] == ["active"]


def test_the_same_web_push_key_may_be_added_again(
    store: AppStore, registry: Registry, app: App
) -> None:
    """Nothing is lost by it."""
    key = VapidKey.make()
    store.add_credential(app, key)
    session = subscribe(registry, app, 1)
    store.add_credential(app, key)
    assert registry.session(session.id).status == "active"
    assert len(store.credentials(app)) == 1


def test_a_twins_app_keeps_its_browsers_when_it_is_adopted(
    store: AppStore, registry: Registry
) -> None:
    """Its key of Apple's form is made anew, since the sample's speaks for a sample."""
    sample = store.add(TEAM, "com.sample.shop", web_origin="http://localhost:8000")
    sample = store.set_ids(sample, {"android_package": "com.sample.shop"})
    for credential in make_credentials(sample, is_of_sample=True):
        store.add_credential(sample, credential, environment="twin")
    session = subscribe(registry, sample, 1, "twin")
    key = store.credential_for(sample, "twin", service="webpush")
    other = store.add(TEAM, "com.sample.other")
    assert store.find() == other
    store.remove(other)
    adopted = store.add(TEAM, "com.sample.shop", "Shop")
    assert (adopted.row, adopted.web_origin) == (sample.row, "http://localhost:8000")
    assert store.find("Shop") == adopted
    assert registry.session(session.id).status == "active"
    assert store.credential_for(adopted, "twin", service="webpush") == key
    assert isinstance(store.credential_for(adopted, "twin"), AuthKey)
    assert isinstance(store.credential_for(adopted, "twin", service="fcm"), ServiceAccount)
