"""Apps that push services know by other ids than Apple's."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from cryptography.fernet import Fernet

from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import (
    AmbiguousAppError,
    AppError,
    AppExistsError,
    NameTakenError,
    UnknownAppError,
)
from handbell.storage.database import Database

pytestmark = pytest.mark.databases

TEAM, PACKAGE, ORIGIN = "TEAM123456", "com.sample.myapp", "https://shop.example"
FINGERPRINT = ":".join(["AB"] * 32)


@pytest.fixture
def store(database_url: str) -> Iterator[AppStore]:
    """Yield a store of an empty database."""
    with closing(Database.open(database_url)) as opened:
        yield AppStore(opened, Vault([Fernet.generate_key().decode()]))


def test_an_app_of_every_service_is_found_by_each_of_its_ids(store: AppStore) -> None:
    """One app: Apple's ids, an Android package and a web origin come back as they were given."""
    added = store.add(
        TEAM,
        "com.sample.Shop",
        "Shop",
        android_package=PACKAGE,
        android_fingerprints=[FINGERPRINT],
        web_origin=ORIGIN,
    )
    store.add(app_id="other", web_origin="https://other.example")
    for reference in (f"{TEAM}.com.sample.Shop", "Shop", "com.sample.Shop", PACKAGE, "SHOP"):
        assert store.find(reference) == added
    assert store.find(added.id).android_fingerprints == (FINGERPRINT,)
    assert store.by_ids([added.id]) == {added.id: added}


def test_a_service_is_added_to_an_app_whose_id_stays(store: AppStore) -> None:
    """What was named ``shop`` is still, and is found by what came later as well."""
    app = store.add(app_id="shop", web_origin=ORIGIN)
    app = store.set_ids(app, {"team_id": TEAM, "bundle_id": "com.sample.shop"})
    app = store.set_ids(app, {"android_package": PACKAGE, "web_origin": None})
    assert store.find("shop") == app == store.find(f"{TEAM}.com.sample.shop")
    assert (app.id, app.android_package, app.web_origin) == ("shop", PACKAGE, None)
    with pytest.raises(AppExistsError, match="shop"):
        store.add(TEAM, "com.sample.shop")


def test_what_others_changed_meanwhile_is_kept(store: AppStore) -> None:
    """A change of one id neither takes back a new name nor another id."""
    app = store.add(app_id="shop", web_origin=ORIGIN)
    store.rename(app, "Our shop")
    store.set_ids(app, {"android_package": PACKAGE})
    changed = store.set_ids(app, {"web_origin": "https://new.example"})
    assert (changed.name, changed.android_package) == ("Our shop", PACKAGE)
    assert store.find("shop") == changed


def test_apples_ids_stay_once_an_app_has_them(store: AppStore) -> None:
    """Its tokens belong to them: others are another app's."""
    app = store.add(TEAM, "com.sample.shop")
    for given in ({"bundle_id": "com.sample.other"}, {"team_id": None, "bundle_id": None}):
        with pytest.raises(AppError, match="already"):
            store.set_ids(app, given)
    assert store.find() == app


def test_a_package_never_takes_a_reference_from_another_app(store: AppStore) -> None:
    """Whoever names a bundle id goes on meaning the app that it meant."""
    shop = store.add(TEAM, PACKAGE)
    with pytest.raises(NameTakenError, match=shop.id) as caught:
        store.add(android_package=PACKAGE)
    assert f"handbell app set {shop.id} --android-package {PACKAGE}" in caught.value.fix
    store.add(app_id="shop-android", android_package=PACKAGE)
    with pytest.raises(AmbiguousAppError, match=PACKAGE):
        store.find(PACKAGE)


def test_ids_of_another_app_are_refused(store: AppStore) -> None:
    """Neither a new app nor a changed one takes another app's ids, and nothing is half done."""
    shop = store.add(TEAM, "com.sample.shop")
    store.add(app_id="till", web_origin=ORIGIN)
    with pytest.raises(AppExistsError, match="till"):
        store.add(app_id="till", android_package=PACKAGE)
    till = store.find("till")
    with pytest.raises(AppExistsError, match=shop.id):
        store.set_ids(till, {"team_id": TEAM, "bundle_id": "com.sample.shop"})
    with pytest.raises(AppError, match="package"):
        store.set_ids(till, {"android_package": "till", "web_origin": None})
    assert store.find("till") == till
    store.remove(till)
    with pytest.raises(UnknownAppError):
        store.set_ids(till, {"android_package": PACKAGE})
