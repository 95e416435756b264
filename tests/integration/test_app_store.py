import datetime as dt
from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier
from sqlalchemy import insert, select, update

from handbell.apps import sample_keys
from handbell.apps.app import App
from handbell.apps.store import KNOWN_SECONDS, AppStore
from handbell.apps.vault import Vault
from handbell.errors import (
    AmbiguousAppError,
    AppError,
    AppExistsError,
    CredentialError,
    MissingCredentialError,
    NameTakenError,
    UnknownAppError,
)
from handbell.services.apns.credential import AuthKey, Certificate, read_certificate
from handbell.storage.database import Database
from handbell.storage.tables import apps, credentials, sessions, users

pytestmark = pytest.mark.databases

TEAM, OTHER_TEAM = "TEAM123456", "TEAM654321"
NOW = 1_800_000_000.5
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a database that is ready."""
    with closing(Database.open(database_url)) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> AppStore:
    """Return a store whose clock stands still."""
    return AppStore(database, Vault([OLD]), now=lambda: NOW)


@pytest.fixture
def app(store: AppStore) -> App:
    """Add one app."""
    return store.add(TEAM, "com.sample.myapp")


def make_key(key_id: str = "ABC123DEFG", *, team_id: str = TEAM) -> AuthKey:
    """Return a new key of a team."""
    key = ec.generate_private_key(ec.SECP256R1())
    return AuthKey(team_id=team_id, key_id=key_id, private_key=key)


def make_certificate(bundle_id: str) -> Certificate:
    """Return a new certificate of an app, for development alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.USER_ID, bundle_id)])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    mark = x509.UnrecognizedExtension(ObjectIdentifier("1.2.840.113635.100.6.3.1"), b"\x05\x00")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + dt.timedelta(395))
        .add_extension(mark, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return read_certificate(certificate.public_bytes(Encoding.PEM) + pem)


def test_an_app_is_added_and_found(store: AppStore) -> None:
    """What was added is there with its row and instant, and a name of its own is kept."""
    added = store.add(TEAM, "com.sample.myapp", "Shop")
    assert added == App(
        team_id=TEAM, bundle_id="com.sample.myapp", name="Shop", created_at=1_800_000_000_500, row=1
    )
    assert store.list() == [added]
    assert store.find() == store.find("Shop") == added


def test_an_app_is_added_once(store: AppStore, app: App) -> None:
    """The same team and bundle id again is an error, the same bundle id of another team is not."""
    with pytest.raises(AppExistsError, match=app.id):
        store.add(app.team_id, app.bundle_id)
    assert store.add(OTHER_TEAM, app.bundle_id).row != app.row


def test_an_app_that_cannot_be_is_not_added(store: AppStore) -> None:
    """A wrong id is refused before anything is written."""
    with pytest.raises(AppError):
        store.add("nobody", "com.sample.myapp")
    assert store.list() == []


def test_without_any_app_the_way_to_one_is_named(store: AppStore) -> None:
    """Whoever has no app yet learns the command that adds one."""
    for reference in (None, "shop"):
        with pytest.raises(UnknownAppError, match="handbell app add"):
            store.find(reference)


@pytest.fixture
def several(store: AppStore, database: Database) -> AppStore:
    """Write apps whose names and bundle ids overlap, as nobody may add them any more."""
    overlapping = [
        (TEAM, "com.sample.shop", "Shop"),
        (TEAM, "com.sample.stock", "com.sample.shop"),
        (OTHER_TEAM, "com.sample.shop", "Other Shop"),
        (TEAM, "com.sample.notes", "Notes"),
        (OTHER_TEAM, "com.sample.pad", "notes"),
    ]
    names = ("team_id", "bundle_id", "name")
    rows = [
        {
            **dict(zip(names, one, strict=True)),
            "public_id": f"{one[0]}.{one[1]}",
            "created_at": 0,
        }
        for one in overlapping
    ]
    with database.write() as connection:
        connection.execute(insert(apps), rows)
    return store


@pytest.mark.parametrize(
    "name",
    [
        "Shop",
        "shop",
        " SHOP ",
        "Ｓｈｏｐ",  # noqa: RUF001 - full width
        "com.sample.shop",
        "COM.SAMPLE.SHOP",
        "TEAM123456.com.sample.shop",
        "team123456.com.sample.shop",
    ],
)
def test_a_name_never_means_another_app(store: AppStore, name: str) -> None:
    """What another app is called by is refused, whatever its case or width, and nothing changed."""
    store.add(TEAM, "com.sample.shop", "Shop")
    other = store.add(OTHER_TEAM, "com.sample.pad", "Pad")
    for work in (
        lambda: store.rename(other, name),
        lambda: store.check_name(other, name),
        lambda: store.add(OTHER_TEAM, "com.sample.third", name),
    ):
        with pytest.raises(NameTakenError, match="another app"):
            work()
    assert [app.name for app in store.list()] == ["Shop", "Pad"]
    assert store.add(OTHER_TEAM, "com.sample.third", name, is_suggested=True).name.endswith(" 2")


def test_an_app_gets_a_name_that_is_free(store: AppStore) -> None:
    """Without one it is the last part of its bundle id, with a number where that is taken."""
    names = [store.add(team, "com.sample.app").name for team in (TEAM, OTHER_TEAM, "TEAM000000")]
    assert names == ["app", "app 2", "app 3"]
    own = store.add(TEAM, "com.sample.own", "com.sample.own")
    assert store.rename(own, "com.sample.own").name == "com.sample.own"
    assert store.rename(own, "Own").name == "Own"


def test_an_id_that_is_another_apps_name_is_not_added(store: AppStore) -> None:
    """Whoever called that app by it would reach the new one: it is renamed first."""
    taken = store.add(TEAM, "com.sample.first", "com.sample.later")
    with pytest.raises(NameTakenError, match=taken.id):
        store.add(OTHER_TEAM, "com.sample.later")
    store.rename(taken, "First")
    assert store.add(OTHER_TEAM, "com.sample.later").name == "later"


def test_who_serves_one_app_is_resolved_within_it(several: AppStore) -> None:
    """Names of other apps mean nothing there, and what they are is not told."""
    own = several.find("TEAM654321.com.sample.shop")
    assert several.find("com.sample.shop", within=own.row) == own
    with pytest.raises(UnknownAppError) as told:
        several.find("Shop", within=own.row)
    assert "TEAM123456" not in str(told.value)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("TEAM123456.com.sample.shop", "TEAM123456.com.sample.shop"),
        ("Shop", "TEAM123456.com.sample.shop"),
        ("com.sample.shop", "TEAM123456.com.sample.stock"),
        ("com.sample.notes", "TEAM123456.com.sample.notes"),
        ("Notes", "TEAM123456.com.sample.notes"),
        ("notes", "TEAM654321.com.sample.pad"),
        (" other shop ", "TEAM654321.com.sample.shop"),
        ("COM.sample.PAD", "TEAM654321.com.sample.pad"),
    ],
)
def test_an_app_is_found_by_the_first_reading_that_fits(
    several: AppStore, reference: str, expected: str
) -> None:
    """Exact id, then name, then bundle id, then all of them without regard to case."""
    assert several.find(reference).id == expected


@pytest.mark.parametrize(
    ("reference", "candidates"),
    [
        (None, 5),
        ("NOTES", 2),
        ("COM.SAMPLE.SHOP", 3),
    ],
)
def test_an_ambiguous_reference_is_not_guessed(
    several: AppStore, reference: str | None, candidates: int
) -> None:
    """More than one app is an error that lists them, never a choice."""
    with pytest.raises(AmbiguousAppError) as caught:
        several.find(reference)
    assert len(caught.value.candidates) == candidates
    assert all(candidate in caught.value.fix for candidate in caught.value.candidates)


@pytest.mark.parametrize("reference", ["", " ", "\t", "\u00a0\n"])
def test_an_empty_reference_means_no_app(store: AppStore, reference: str) -> None:
    """Where there is one app alone, an empty variable still does not name it, least to remove."""
    store.add(TEAM, "com.sample.shop")
    with pytest.raises(UnknownAppError, match="empty"):
        store.find(reference)


@pytest.mark.parametrize("reference", ["com.sample.stok", "TEAM123456.com.sample.stok"])
def test_an_unknown_reference_names_what_is_near(several: AppStore, reference: str) -> None:
    """A slip of the pen is answered with the app that was meant."""
    with pytest.raises(UnknownAppError, match=r"Did you mean TEAM123456\.com\.sample\.stock"):
        several.find(reference)
    with pytest.raises(UnknownAppError, match="handbell app list"):
        several.find("xyz")


def test_an_app_is_switched_off_and_on(store: AppStore, app: App) -> None:
    """The push switch is kept, and the app as it is now comes back."""
    assert store.set_enabled(app, False).is_enabled is False
    assert store.find().is_enabled is False
    assert store.set_enabled(app, True) == store.find() == app


def test_removing_an_app_takes_everything_of_it(
    store: AppStore, app: App, database: Database
) -> None:
    """Credentials, users and sessions go with the app; the app is gone afterwards."""
    store.add_credential(app, make_key())
    with database.write() as connection:
        user = connection.execute(
            insert(users).values(app_id=app.row, mail="test@4d.com", created_at=0)
        ).inserted_primary_key
        assert user is not None
        connection.execute(
            insert(sessions).values(
                app_id=app.row,
                user_id=user[0],
                token="ab" * 32,
                platform="ios",
                environment="production",
                status="active",
                created_at=0,
                registered_at=0,
            )
        )
    store.remove(app)
    with database.read() as connection:
        left = [connection.execute(select(table)).all() for table in (credentials, users, sessions)]
    assert left == [[], [], []]
    for using in (
        lambda: store.remove(app),
        lambda: store.set_enabled(app, True),
        lambda: store.add_credential(app, make_key()),
    ):
        with pytest.raises(UnknownAppError, match="not there"):
            using()


def test_a_key_is_sealed_and_listed_without_its_secret(
    store: AppStore, app: App, database: Database
) -> None:
    """The list tells id and fingerprint; neither it nor the database holds the key in the clear."""
    key = make_key()
    stored = store.add_credential(app, key)
    assert store.credentials(app) == [stored]
    assert (stored.kind, stored.key_id, stored.fingerprint) == ("key", key.key_id, key.fingerprint)
    assert (stored.environment, stored.expires_at, stored.created_at) == (None, None, NOW * 1000)
    with database.read() as connection:
        sealed = connection.scalar(select(credentials.c.sealed))
    body = key.private_key_pem().splitlines()[1]
    assert sealed
    assert body not in sealed
    assert body.decode() not in repr(store.credentials(app))


def test_a_key_added_again_replaces_the_former(store: AppStore, app: App) -> None:
    """The same key id is never there twice, and the last one counts."""
    store.add_credential(app, make_key())
    key = make_key()
    store.add_credential(app, key)
    assert len(store.credentials(app)) == 1
    assert store.credential_for(app, "production") == key


def test_a_key_of_another_team_is_refused(store: AppStore, app: App) -> None:
    """A key proves its own team's apps only."""
    with pytest.raises(CredentialError, match=OTHER_TEAM):
        store.add_credential(app, make_key(team_id=OTHER_TEAM))
    assert store.credentials(app) == []


def test_the_credential_of_an_environment(store: AppStore, app: App) -> None:
    """A limited key wins in its environment, the newest general one serves the rest."""
    older, newer, limited = make_key("OLDER12345"), make_key("NEWER12345"), make_key("DEV1234567")
    store.add_credential(app, older)
    store.add_credential(app, newer)
    store.add_credential(app, limited, environment="development")
    assert store.credential_for(app, "production") == newer
    assert store.credential_for(app, "development") == limited
    store.remove_credential(app, newer.key_id)
    assert store.credential_for(app, "production") == older


def test_what_another_process_changes_counts_after_a_second(database: Database, app: App) -> None:
    """A credential is not looked up again for each send, and its successor is not missed."""
    clock = [100.0]
    store = AppStore(database, Vault([OLD]), clock=lambda: clock[0])
    elsewhere = AppStore(database, Vault([OLD]))
    former, key = make_key("OLDER12345"), make_key("NEWER12345")
    store.add_credential(app, former)
    assert store.credential_for(app, "production") == former
    elsewhere.add_credential(app, key)
    clock[0] += KNOWN_SECONDS / 2
    assert store.credential_for(app, "production") == former
    clock[0] += KNOWN_SECONDS
    assert store.credential_for(app, "production") == key
    elsewhere.remove_credential(app, former.key_id)
    elsewhere.remove_credential(app, key.key_id)
    clock[0] += KNOWN_SECONDS
    with pytest.raises(MissingCredentialError):
        store.credential_for(app, "production")


def test_a_certificate_is_kept_like_a_key(store: AppStore, app: App) -> None:
    """It is limited to the environment it was issued for, and listed with its expiry."""
    certificate = make_certificate(app.apple.bundle_id)
    stored = store.add_credential(app, certificate)
    assert (stored.kind, stored.environment) == ("certificate", "development")
    assert stored.expires_at == certificate.expires_at
    assert store.credential_for(app, "development") == certificate
    with pytest.raises(MissingCredentialError):
        store.credential_for(app, "production")


def test_a_certificate_of_another_app_is_refused(store: AppStore, app: App) -> None:
    """A certificate is for the topics it lists and no other."""
    with pytest.raises(CredentialError, match=r"for com\.sample\.other, not for"):
        store.add_credential(app, make_certificate("com.sample.other"))


def test_the_twin_takes_any_credential(store: AppStore, app: App) -> None:
    """A key for development alone is good enough for the twin, and not for production."""
    key = make_key()
    store.add_credential(app, key, environment="development")
    assert store.credential_for(app, "twin") == key
    with pytest.raises(MissingCredentialError, match="no key for production") as caught:
        store.credential_for(app, "production")
    assert f"handbell key add AuthKey_XXX.p8 --app {app.id}" in caught.value.fix


def test_a_key_is_found_by_its_team_and_id(store: AppStore, app: App) -> None:
    """Whoever knows team and key id gets the key, of whichever app it was added to."""
    key = make_key()
    store.add_credential(app, key)
    assert store.auth_key(TEAM, key.key_id) == key
    assert store.auth_key(OTHER_TEAM, key.key_id) is None
    assert store.auth_key(TEAM, "XYZ1234567") is None


def test_a_credential_is_removed_once(store: AppStore, app: App) -> None:
    """What is not there cannot be removed, and the error says where to look."""
    store.add_credential(app, make_key())
    store.remove_credential(app, "ABC123DEFG")
    with pytest.raises(MissingCredentialError, match="handbell key list"):
        store.remove_credential(app, "ABC123DEFG")


def test_a_credential_put_in_place_of_another_is_noticed(
    store: AppStore, app: App, database: Database
) -> None:
    """Sealed bytes moved from one row to another are not used."""
    store.add_credential(app, make_key("FIRST12345"))
    store.add_credential(app, make_key("SECOND1234"))
    with database.write() as connection:
        sealed = connection.scalar(
            select(credentials.c.sealed).where(credentials.c.key_id == "FIRST12345")
        )
        connection.execute(update(credentials).values(sealed=sealed))
    with pytest.raises(CredentialError, match="not the one that was added"):
        store.credential_for(app, "production")


@pytest.fixture
def sample(store: AppStore) -> App:
    """Make the app that a twin makes in an empty home."""
    made = store.add(TEAM, "com.sample.myapp", "My App")
    store.add_credential(made, sample_keys.make_key(TEAM, is_of_sample=True), environment="twin")
    return made


OWN = {
    "another team, the same bundle id": (OTHER_TEAM, "com.sample.myapp", None, "com.sample.myapp"),
    "the same name": (OTHER_TEAM, "com.sample.other", "My App", "My App"),
    "the same name in small letters": (OTHER_TEAM, "com.sample.other", "my app", "MY APP"),
    "a name that is the bundle id": (OTHER_TEAM, "a.b", "com.sample.myapp", "com.sample.myapp"),
    "nothing in common": (OTHER_TEAM, "com.sample.other", None, None),
}


@pytest.mark.parametrize("case", OWN)
def test_a_twins_app_never_stands_in_the_way(case: str, store: AppStore, sample: App) -> None:
    """Beside an app of one's own it is neither meant nor keeps a name; its id still means it."""
    team, bundle, name, reference = OWN[case]
    assert store.find() == store.find("my app") == sample
    own = store.add(team, bundle, name)
    assert store.find() == store.find(reference) == own
    assert store.find(sample.id).row == sample.row
    names = [app.name for app in store.list()]
    assert len({one.casefold() for one in names}) == 2
    store.remove(own)
    assert store.find().row == sample.row


@pytest.mark.parametrize("name", [None, "My App", "Mine"])
def test_adding_the_twins_app_makes_it_ones_own(
    name: str | None, store: AppStore, sample: App
) -> None:
    """It keeps its row and goes on with the twin; then it is there already, and counts."""
    adopted = store.add(TEAM, "com.sample.myapp", name)
    assert (adopted.row, adopted.name) == (sample.row, name or "My App")
    assert store.list() == [adopted]
    assert store.credential_for(adopted, "twin").key_id == store.credentials(adopted)[0].key_id
    with pytest.raises(AppExistsError):
        store.add(TEAM, "com.sample.myapp", name)
    store.add(OTHER_TEAM, "com.sample.other")
    with pytest.raises(AmbiguousAppError):
        store.find()


@pytest.mark.parametrize("kind", ["a key of Apple's", "a key for the twin"])
def test_an_app_with_another_key_is_ones_own(kind: str, store: AppStore, sample: App) -> None:
    """Whoever gives the sample app a key of their own has two apps from then on."""
    key, environment = (
        (make_key(), None) if kind == "a key of Apple's" else (sample_keys.make_key(TEAM), "twin")
    )
    store.add_credential(sample, key, environment=environment)
    store.add(OTHER_TEAM, "com.sample.other")
    with pytest.raises(AmbiguousAppError):
        store.find()
    with pytest.raises(AppExistsError):
        store.add(TEAM, "com.sample.myapp")
