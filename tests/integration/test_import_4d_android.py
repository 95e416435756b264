"""Android apps of a 4D MobileApps folder, and what belongs to them."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from handbell.apps.vault import Vault
from handbell.registry.identity import IdentityStore
from handbell.registry.import_4d import ImportStep, import_folder
from handbell.storage.database import Database

from .test_import_4d import APP, NOW, Folder

pytestmark = pytest.mark.databases

DROID = "com.sample.Droid"
FCM = "fGc0_x-:APA91b" + "x" * 140
FINGERPRINT = ":".join(["AB"] * 32)
ANDROID = {"os": "android", "token": FCM, "description": "Pixel 9"}
BOTH = {"version": "21R", "target": ["android", "iOS"]}


class Both(Folder):
    """A MobileApps folder that is imported with its domains."""

    def __init__(self, root: Path, database: Database) -> None:
        super().__init__(root, database)
        self.identities = IdentityStore(database, Vault([Fernet.generate_key()]))

    def run(self) -> dict[str, ImportStep]:
        """Import the folder and return what became of each file; of one file the last."""
        steps = import_folder(
            self.root, self.apps, self.registry, identities=self.identities, now=lambda: NOW
        )
        return {f"{step.file} {step.what}": step for step in steps}


@pytest.fixture
def folder(tmp_path: Path, database_url: str) -> Iterator[Both]:
    """Yield a folder with one app in it, and an empty registry."""
    with closing(Database.open(database_url)) as database:
        yield Both(tmp_path, database)


def test_an_app_of_both_systems_is_one_app(folder: Both) -> None:
    """Package, certificates and domain come along, and both phones of a person are reached."""
    (folder.root / APP / "manifest.json").write_text(
        json.dumps(
            {
                "application": {"id": "com.sample.myapp", "name": "My App"},
                "team": {"id": "TEAM123456"},
                "info": BOTH,
                "id": APP,
                "associatedDomain": "https://links.example.com",
                "signingReport": {"SHA-256": FINGERPRINT},
            }
        )
    )
    folder.write_session("iphone")
    folder.write_session("pixel", device=ANDROID)
    steps = folder.run()
    assert {step.outcome for step in steps.values()} == {"imported"}
    app = folder.apps.find()
    assert (app.id, app.android_package) == (APP, APP.lower())
    assert app.android_fingerprints == (FINGERPRINT,)
    assert "taken for" in steps[f"{APP} app {APP}"].reason
    assert folder.identities.of(app).associated_domain == "links.example.com"
    sessions = folder.registry.sessions_of(app, "test@4d.com")
    assert {(one.service, one.platform, one.device) for one in sessions} == {
        ("apns", "ios", "iPhone"),
        ("fcm", "android", "Pixel 9"),
    }
    again = folder.run()
    assert {step.outcome for step in again.values()} == {"unchanged"}


def test_an_app_of_android_alone_has_no_team(folder: Both) -> None:
    """Its package is Firebase's, where its configuration lies beside the manifest."""
    place = folder.write_app(DROID, team={"id": ""}, info={"target": "android"}, id=DROID)
    configuration = {
        "project_info": {"project_id": "sample"},
        "client": [{"client_info": {"android_client_info": {"package_name": "com.sample.real"}}}],
    }
    (place / "google-services.json").write_text(json.dumps(configuration))
    folder.write_session("pixel", folder=DROID, device=ANDROID)
    steps = folder.run()
    assert steps[f"{DROID} app com.sample.real"].outcome == "imported"
    assert folder.apps.find("com.sample.real").team_id is None
    (session,) = folder.registry.sessions(folder.apps.find("com.sample.real"))
    assert session.service == "fcm"


def test_a_folder_of_the_bundle_id_alone_completes_the_app_beside_it(folder: Both) -> None:
    """The newer component keeps Android's sessions in a folder without the team."""
    folder.write_app("com.sample.myapp", team={}, info={"target": "android"}, id="com.sample.myapp")
    folder.write_session("iphone")
    folder.write_session("pixel", folder="com.sample.myapp", device=ANDROID)
    folder.run()
    (app,) = folder.apps.list()
    assert (app.id, app.android_package) == (APP, "com.sample.myapp")
    assert len(folder.registry.sessions(app)) == 2


def test_what_was_set_here_is_kept(folder: Both) -> None:
    """A domain or package of the operator's is worth more than the manifest's."""
    folder.run()
    app = folder.apps.set_ids(folder.apps.find(), {"android_package": "com.sample.own"})
    folder.identities.set(app, associated_domain="own.example.com")
    (folder.root / APP / "manifest.json").write_text(
        json.dumps({"info": BOTH, "id": APP, "associatedDomain": "links.example.com"})
    )
    steps = folder.run()
    assert folder.apps.find().android_package == "com.sample.own"
    told = steps[f"{APP}/manifest.json domain links.example.com"]
    assert (told.outcome, "own.example.com" in told.reason) == ("unchanged", True)


def test_a_signing_report_that_is_none_costs_nothing_else(folder: Both) -> None:
    """It is told, and the app and its sessions are imported without it."""
    (folder.root / APP / "manifest.json").write_text(
        json.dumps({"info": BOTH, "id": APP, "signingReport": {"SHA-256": "debug"}})
    )
    folder.write_session("pixel", device=ANDROID)
    steps = folder.run()
    assert "fingerprint" in steps[f"{APP}/manifest.json manifest"].reason
    assert steps[f"{APP}/pixel session of test@4d.com"].outcome == "imported"
    assert folder.apps.find().android_fingerprints == ()
