import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from handbell.apps.vault import KEY_FILE, Vault
from handbell.errors import CredentialError, SettingsError, StorageError
from handbell.settings import Settings

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def settings(home: Path, **given: object) -> Settings:
    """Return settings that look at nothing but the test's own folder."""
    return Settings.load(home=home / "home", **given)


def test_what_is_sealed_can_be_opened_and_not_read() -> None:
    """Sealing hides the bytes, and the same vault opens them."""
    vault = Vault([OLD])
    sealed = vault.seal(b"a secret")
    assert b"a secret" not in sealed
    assert vault.unseal(sealed) == b"a secret"


def test_the_key_file_is_made_once_and_private(tmp_path: Path) -> None:
    """The first use makes secret.key with mode 600, the next one reads it, nothing else is left."""
    sealed = Vault.open(settings(tmp_path)).seal(b"a secret")
    key = tmp_path / "home" / KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert list(key.parent.iterdir()) == [key]
    assert Vault.open(settings(tmp_path)).unseal(sealed) == b"a secret"


def test_processes_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    """Processes that make the key file at the same time all seal with the same key."""
    code = (
        "import sys; from pathlib import Path; from handbell.settings import Settings; "
        "from handbell.apps.vault import Vault; "
        "print(Vault.open(Settings(home=Path(sys.argv[1]))).seal(b'x').decode())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    sealed = [process.communicate(timeout=50)[0] for process in started]
    vault = Vault.open(settings(tmp_path))
    assert [vault.unseal(one.strip().encode()) for one in sealed] == [b"x"] * 5


def test_a_key_from_the_settings_needs_no_file(tmp_path: Path) -> None:
    """With HANDBELL_SECRET_KEY nothing is written to the home folder."""
    vault = Vault.open(settings(tmp_path, secret_key=OLD))
    assert vault.unseal(Vault([OLD]).seal(b"x")) == b"x"
    assert not (tmp_path / "home").exists()


def test_keys_can_be_changed() -> None:
    """The first key seals, all open; what was resealed no longer needs the old key."""
    sealed = Vault([OLD]).seal(b"x")
    both = Vault([NEW, OLD])
    assert both.unseal(sealed) == b"x"
    assert Vault([NEW]).unseal(both.seal(b"y")) == b"y"
    assert Vault([NEW]).unseal(both.reseal(sealed)) == b"x"


def test_a_key_file_may_hold_several_keys(tmp_path: Path) -> None:
    """One key per line, the first seals."""
    key = tmp_path / "home" / KEY_FILE
    key.parent.mkdir()
    key.touch(mode=0o600)
    key.write_text(f"{NEW}\n{OLD}\n")
    vault = Vault.open(settings(tmp_path))
    assert vault.unseal(Vault([OLD]).seal(b"x")) == b"x"
    assert Vault([NEW]).unseal(vault.seal(b"x")) == b"x"


def test_the_wrong_key_is_named_and_not_shown(tmp_path: Path) -> None:
    """What another key sealed is an error that says where the key was taken from."""
    sealed = Vault([OLD]).seal(b"x")
    vault = Vault.open(settings(tmp_path, secret_key=NEW))
    for opening in (vault.unseal, vault.reseal):
        with pytest.raises(CredentialError, match="HANDBELL_SECRET_KEY") as caught:
            opening(sealed)
        assert "add the credential again" in caught.value.fix
    assert NEW not in repr(vault) + str(caught.value)


def test_damaged_bytes_are_refused() -> None:
    """What was changed since it was sealed cannot be opened."""
    vault = Vault([OLD])
    with pytest.raises(CredentialError):
        vault.unseal(vault.seal(b"x")[:-3] + b"abc")
    with pytest.raises(CredentialError):
        vault.unseal(b"")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """The error says which command closes the file again."""
    Vault.open(settings(tmp_path))
    key = tmp_path / "home" / KEY_FILE
    key.chmod(mode)
    with pytest.raises(StorageError, match=f"chmod 600 {key}"):
        Vault.open(settings(tmp_path))


@pytest.mark.parametrize("content", ["", "not a key", OLD[:-4]], ids=["empty", "words", "cut"])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, content: str) -> None:
    """A key file is never replaced: what is sealed would be lost for good."""
    Vault.open(settings(tmp_path))
    key = tmp_path / "home" / KEY_FILE
    key.write_text(content)
    with pytest.raises(SettingsError, match="no usable key"):
        Vault.open(settings(tmp_path))
    assert key.read_text() == content


def test_a_folder_in_place_of_the_key_is_named(tmp_path: Path) -> None:
    """A key file that cannot be read is a storage error with its path."""
    (tmp_path / "home" / KEY_FILE).mkdir(parents=True, mode=0o700)
    with pytest.raises(StorageError, match=KEY_FILE):
        Vault.open(settings(tmp_path))


def test_a_home_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in place of the home folder is a storage error, and no draft is left behind."""
    (tmp_path / "home").touch()
    with pytest.raises(StorageError, match="HANDBELL_HOME"):
        Vault.open(settings(tmp_path))
    assert os.listdir(tmp_path) == ["home"]  # noqa: PTH208 - names are what is compared
