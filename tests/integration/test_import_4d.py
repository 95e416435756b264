import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import RegistryError
from handbell.registry.import_4d import ImportStep, import_folder
from handbell.registry.session import Session
from handbell.registry.store import Registry
from handbell.storage.database import Database

APP = "TEAM123456.com.sample.myapp"
KEY_ID = "ABC123DEFG"
NOW = 1_800_000_000
WRITTEN = NOW - 1000
TOKEN = "ab" * 32


class Folder:
    """A MobileApps folder, and what it is imported into."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root / "MobileApps"
        self.apps = AppStore(database, Vault([Fernet.generate_key()]), now=lambda: NOW)
        self.registry = Registry(database, now=lambda: NOW)
        self.write_app(APP)

    def write_app(self, name: str, **manifest: Any) -> Path:
        """Make an app's folder with its manifest."""
        content = {
            "application": {"id": "com.sample.myapp", "name": "My App"},
            "team": {"id": "TEAM123456"},
            "info": {"version": "19R2", "target": "iOS"},
            "id": APP,
            **manifest,
        }
        (self.root / name).mkdir(parents=True)
        (self.root / name / "manifest.json").write_text(json.dumps(content))
        return self.root / name

    def write_session(
        self, name: str, *, folder: str = APP, at: float = WRITTEN, **given: Any
    ) -> Path:
        """Write a session file as the component does; ``device`` is merged into its default."""
        device = {
            "id": "9A8B",
            "description": "iPhone",
            "version": "14.5",
            "simulator": False,
            "token": TOKEN,
            "os": "ios",
            **given.pop("device", {}),
        }
        content = {
            "application": {"id": "com.sample.myapp", "name": "My App", "version": "1.0"},
            "team": {"id": "TEAM123456"},
            "language": {"id": "fr_FR", "code": "fr", "region": "FR"},
            "email": "test@4d.com",
            "device": device,
            "session": {"id": name, "ip": "10.0.0.7"},
            "send": "mail",
            "status": "accepted",
            **given,
        }
        file = self.root / folder / name
        file.write_text(json.dumps(content))
        os.utime(file, (at, at))
        return file

    def write_key(self, name: str = f"AuthKey_{KEY_ID}.p8") -> Path:
        """Write a new key into the app's folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self.root / APP / name
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return file

    def run(self) -> dict[str, ImportStep]:
        """Import the folder and return what became of each file."""
        steps = list(import_folder(self.root, self.apps, self.registry, now=lambda: NOW))
        return {step.file: step for step in steps}

    def sessions(self) -> list[Session]:
        """Return what is in the registry now."""
        return self.registry.sessions(self.apps.find(APP))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    """Yield a folder with one app in it, and an empty registry."""
    with closing(Database.open(f"sqlite:///{tmp_path}/handbell.db")) as database:
        yield Folder(tmp_path, database)


def test_everything_is_taken_over(folder: Folder) -> None:
    """App, key and sessions arrive with what the original knew of them."""
    folder.write_key()
    folder.write_session("7023d9205074199d")
    folder.write_session(
        "81fe",
        status="pending",
        email="Other@4D.com",
        language={"code": "de", "region": "CH"},
        device={"token": "CD" * 32, "os": "iPadOS"},
    )
    steps = folder.run()
    assert {file: step.outcome for file, step in steps.items()} == {
        APP: "imported",
        f"{APP}/AuthKey_{KEY_ID}.p8": "imported",
        f"{APP}/7023d9205074199d": "imported",
        f"{APP}/81fe": "imported",
    }
    assert all(step.reason == "" for step in steps.values())
    app = folder.apps.find()
    assert (app.id, app.name) == (APP, "My App")
    assert folder.apps.credential_for(app, "production").key_id == KEY_ID
    active, pending = (
        folder.registry.sessions_of(app, mail)[0] for mail in ("test@4d.com", "other@4d.com")
    )
    assert (active.status, active.token, active.platform) == ("active", TOKEN, "ios")
    assert (active.locale, active.device, active.external_id) == (
        "fr-FR",
        "iPhone",
        "7023d9205074199d",
    )
    assert active.registered_at == WRITTEN * 1000
    assert (pending.status, pending.token, pending.platform) == ("pending", "cd" * 32, "ipados")
    assert pending.locale == "de-CH"


def test_a_second_run_changes_nothing(folder: Folder) -> None:
    """Whatever was taken over is unchanged the next time, down to the last instant."""
    folder.write_key()
    folder.write_session("one")
    folder.write_session("two", device={"token": "cd" * 32})
    folder.run()
    before = (folder.apps.list(), folder.apps.credentials(folder.apps.find()), folder.sessions())
    steps = folder.run()
    assert {step.outcome for step in steps.values()} == {"unchanged"}
    after = (folder.apps.list(), folder.apps.credentials(folder.apps.find()), folder.sessions())
    assert after == before


def test_a_file_written_again_refreshes_its_session(folder: Folder) -> None:
    """A device that was seen later in the original is seen later here too."""
    folder.write_session("one", status="pending")
    folder.run()
    folder.write_session("one", at=WRITTEN + 60)
    assert folder.run()[f"{APP}/one"].outcome == "imported"
    (session,) = folder.sessions()
    assert (session.status, session.registered_at) == ("active", (WRITTEN + 60) * 1000)


def test_of_two_files_with_one_token_the_later_wins(folder: Folder) -> None:
    """One token, one owner: the file that was written last says whose it is."""
    folder.write_session("b-older", email="owner@4d.com", at=WRITTEN)
    folder.write_session("a-newer", email="other@4d.com", at=WRITTEN + 60)
    for _ in range(2):
        steps = folder.run()
        assert steps[f"{APP}/b-older"].outcome == "skipped"
        assert "a-newer is newer" in steps[f"{APP}/b-older"].reason
        assert [session.mail for session in folder.sessions()] == ["other@4d.com"]


def test_what_was_closed_here_stays_closed(folder: Folder) -> None:
    """A logout after the import is not undone by the next import."""
    folder.write_session("one")
    folder.run()
    folder.registry.close(folder.sessions()[0], "logout")
    step = folder.run()[f"{APP}/one"]
    assert (step.outcome, step.reason) == (
        "unchanged",
        "Its session was closed here since (logout)",
    )
    assert folder.sessions()[0].status == "closed"


def test_a_later_owner_here_is_kept(folder: Folder) -> None:
    """A device that registered here for somebody else since does not go back."""
    folder.write_session("one")
    app = folder.apps.add("TEAM123456", "com.sample.myapp")
    folder.registry.register(app, "other@4d.com", TOKEN)
    step = folder.run()[f"{APP}/one"]
    assert step.outcome == "unchanged"
    assert "other@4d.com" in step.reason
    assert [session.mail for session in folder.sessions()] == ["other@4d.com"]


def test_a_file_of_the_future_is_of_now(folder: Folder) -> None:
    """A wrong clock on the former machine does not shield a session from ever being closed."""
    folder.write_session("one", at=NOW + 10**6)
    folder.run()
    assert folder.sessions()[0].registered_at == NOW * 1000


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"device": {"token": ""}}, "no device token"),
        ({"device": {"token": None}}, "no device token"),
        ({"device": {"token": "booted"}}, "not a device token"),
        ({"device": {"os": "android", "token": "fcm:token"}}, "registration token"),
        ({"device": {"os": "windows"}}, "not a known platform"),
        ({"email": ""}, "no mail address"),
        ({"email": "nobody"}, "not a mail address"),
        ({"email": ["test@4d.com"]}, "no mail address"),
    ],
)
def test_a_session_that_cannot_be_reached_is_skipped(
    folder: Folder, given: dict[str, Any], reason: str
) -> None:
    """Each is skipped with its reason, and the one beside it is taken over."""
    folder.write_session("bad", **given)
    folder.write_session("good", device={"token": "cd" * 32})
    steps = folder.run()
    assert steps[f"{APP}/bad"].outcome == "skipped"
    assert reason in steps[f"{APP}/bad"].reason
    assert steps[f"{APP}/good"].outcome == "imported"


@pytest.mark.parametrize("given", [{"status": "odd"}, {"status": None}])
def test_a_status_that_is_not_known_is_pending(folder: Folder, given: dict[str, Any]) -> None:
    """Nothing is sent to somebody of whom it is not known that they were accepted."""
    folder.write_session("one", **given)
    assert "so it is pending" in folder.run()[f"{APP}/one"].reason
    assert folder.sessions()[0].status == "pending"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[]", "not hold a JSON object"),
        (b'"text"', "not hold a JSON object"),
        (b'{"a": "' + b"x" * 2_000_000 + b'"}', "far too large"),
    ],
)
def test_a_broken_file_is_skipped(folder: Folder, content: bytes, reason: str) -> None:
    """Whatever a file holds, the reason is given and the import goes on."""
    (folder.root / APP / "broken").write_bytes(content)
    folder.write_session("good")
    steps = folder.run()
    assert steps[f"{APP}/broken"].outcome == "skipped"
    assert reason in steps[f"{APP}/broken"].reason
    assert steps[f"{APP}/good"].outcome == "imported"


def test_what_is_not_a_plain_file_is_skipped(folder: Folder) -> None:
    """A pipe is not waited for, and a link that leads nowhere is named."""
    os.mkfifo(folder.root / APP / "pipe")
    (folder.root / APP / "link").symlink_to("nowhere")
    steps = folder.run()
    assert "not a file" in steps[f"{APP}/pipe"].reason
    assert "No such file" in steps[f"{APP}/link"].reason


def test_only_files_without_extension_are_sessions(folder: Folder) -> None:
    """Other files, hidden ones and folders are none of the import's business."""
    folder.write_session("one.bak")
    folder.write_session(".hidden")
    (folder.root / APP / "google-services.json").write_text("{}")
    (folder.root / APP / "backup").mkdir()
    (folder.root / "readme").write_text("hello")
    assert set(folder.run()) == {APP}


def test_a_file_with_a_byte_order_mark_is_read(folder: Folder) -> None:
    """An editor may have left one."""
    file = folder.write_session("one")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert folder.run()[f"{APP}/one"].outcome == "imported"


def test_half_characters_do_not_stop_the_import(folder: Folder) -> None:
    """What JSON can escape and a file system can name, but nothing can store, is replaced."""
    folder.write_session("one\udcff", device={"description": "\ud800 phone"})
    assert folder.run()[f"{APP}/one?"].outcome == "imported"
    assert folder.sessions()[0].device == "? phone"


def test_a_key_may_be_a_link(folder: Folder, tmp_path: Path) -> None:
    """A link to the key elsewhere is followed, as the original follows aliases."""
    key = folder.write_key()
    key.rename(tmp_path / key.name)
    (folder.root / APP / "push.p8").symlink_to(tmp_path / key.name)
    assert folder.run()[f"{APP}/push.p8"].outcome == "imported"
    assert folder.apps.credentials(folder.apps.find())[0].key_id == KEY_ID


def test_a_key_that_cannot_be_used_is_skipped(folder: Folder) -> None:
    """A damaged key and one without its id are named; another key is taken over."""
    folder.write_key()
    folder.write_key("mykey.p8")
    (folder.root / APP / "AuthKey_XYZ1234567.p8").write_text("hello")
    (folder.root / APP / "AuthKey_ALIAS12345.p8").write_bytes(b"book\0\0\0\0mark\0\0\0\0...")
    steps = folder.run()
    assert "key id is missing" in steps[f"{APP}/mykey.p8"].reason
    reason = "AuthKey_XYZ1234567.p8 is not a PEM text, as a .p8 file is."
    assert steps[f"{APP}/AuthKey_XYZ1234567.p8"].reason == reason
    assert "developer.apple.com" in steps[f"{APP}/AuthKey_XYZ1234567.p8"].fix
    assert "is a Finder alias" in steps[f"{APP}/AuthKey_ALIAS12345.p8"].reason
    assert steps[f"{APP}/AuthKey_{KEY_ID}.p8"].outcome == "imported"


def test_a_renewed_key_replaces_the_former(folder: Folder) -> None:
    """Another key under the same id is taken over."""
    folder.write_key()
    folder.run()
    former = folder.apps.credentials(folder.apps.find())
    folder.write_key()
    assert folder.run()[f"{APP}/AuthKey_{KEY_ID}.p8"].outcome == "imported"
    assert folder.apps.credentials(folder.apps.find()) != former


def test_a_folder_named_by_its_bundle_id_takes_the_team_from_its_manifest(folder: Folder) -> None:
    """The newer component has such folders beside the others: both are one app."""
    folder.write_app("com.sample.myapp")
    folder.write_session("one", folder="com.sample.myapp")
    steps = folder.run()
    assert steps["com.sample.myapp/one"].outcome == "imported"
    assert [app.id for app in folder.apps.list()] == [APP]


def test_a_folder_without_a_team_is_skipped(folder: Folder) -> None:
    """An app of Apple's has one; the folder is named, and the others go on."""
    folder.write_app("com.sample.droid", team={"id": ""})
    (folder.root / "notes").mkdir()
    steps = folder.run()
    assert "team id" in steps["com.sample.droid"].reason
    assert steps["notes"].outcome == "skipped"
    assert steps[APP].outcome == "imported"


def test_an_app_without_a_usable_manifest_keeps_its_name(folder: Folder) -> None:
    """The folder's name says which app it is; only the app's name is missing."""
    (folder.root / APP / "manifest.json").write_text("{")
    steps = folder.run()
    assert steps[f"{APP}/manifest.json"].outcome == "skipped"
    assert folder.apps.find().name == "myapp"


def test_the_folder_of_one_app_is_taken_too(folder: Folder) -> None:
    """Whoever names the app's folder in place of MobileApps gets that app."""
    folder.write_session("one")
    folder.write_app("TEAM123456.com.sample.other", id="TEAM123456.com.sample.other")
    steps = list(import_folder(folder.root / APP, folder.apps, folder.registry))
    assert [step.file for step in steps] == [APP, f"{APP}/one"]


def test_a_folder_that_cannot_be_read_is_an_error(folder: Folder, tmp_path: Path) -> None:
    """Nothing to import is not a success."""
    (tmp_path / "empty").mkdir()
    for place in ("nowhere", "empty", "handbell.db"):
        with pytest.raises(RegistryError, match="MobileApps"):
            list(import_folder(tmp_path / place, folder.apps, folder.registry))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "email": JSON,
            "status": JSON,
            "language": JSON | st.fixed_dictionaries({"id": JSON, "code": JSON}),
            "device": st.fixed_dictionaries({}, optional={"token": JSON, "os": JSON}),
        },
    )
)
def test_no_session_file_stops_the_import(folder: Folder, content: dict[str, Any]) -> None:
    """Whatever JSON a session file holds, it is one step, and never an error of another kind."""
    folder.write_session("one", **content)
    assert set(folder.run()) == {APP, f"{APP}/one"}
