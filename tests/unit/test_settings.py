import os
import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from handbell.errors import SettingsError
from handbell.settings import Settings, secret_keys, variable

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
KEY = Fernet.generate_key().decode()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts without a HANDBELL_ variable, whatever the developer has set."""
    for name in [name for name in os.environ if name.startswith("HANDBELL_")]:
        monkeypatch.delenv(name)


def test_nothing_needs_to_be_set() -> None:
    """Without any variable the home folder is the platform's, and the database a file in it."""
    settings = Settings.load()
    assert settings.home.name == "handbell"
    assert settings.database_url == f"sqlite:///{settings.home}/handbell.db"
    assert settings.secret_key is None
    assert settings.apns_production_url is None


def test_the_database_follows_the_home_folder(tmp_path: Path) -> None:
    """Another home folder takes the database with it; a database of its own stays where it is."""
    assert Settings.load(home=tmp_path).database_url == f"sqlite:///{tmp_path}/handbell.db"
    own = Settings.load(home=tmp_path, database_url="sqlite:////var/lib/other.db")
    assert own.database_url == "sqlite:////var/lib/other.db"


def test_every_field_is_read_from_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A value from the environment arrives parsed, and an override wins over it."""
    authority = tmp_path / "ca.pem"
    authority.touch()
    for name, value in {
        "HANDBELL_HOME": "~/push",
        "HANDBELL_SECRET_KEY": f"{KEY}, {KEY}",
        "HANDBELL_APP": "shop",
        "HANDBELL_APNS_PRODUCTION_URL": "https://127.0.0.1:8443/",
        "HANDBELL_APNS_CA_FILE": str(authority),
        "HANDBELL_CONNECT_TIMEOUT": "2.5",
        "HANDBELL_CONNECTIONS": "4",
        "HANDBELL_IN_FLIGHT": "",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load(connections=2, request_timeout=None)
    assert settings.home == Path.home() / "push"
    assert settings.secret_key is not None
    assert secret_keys(settings.secret_key) == [KEY, KEY]
    assert settings.app == "shop"
    assert settings.apns_production_url == "https://127.0.0.1:8443"
    assert settings.apns_ca_file == authority
    assert settings.connect_timeout == 2.5
    assert settings.connections == 2
    assert settings.in_flight == 300
    assert settings.request_timeout == 30


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("HANDBELL_CONNECT_TIMEOUT", "soon", "valid number"),
        ("HANDBELL_CONNECT_TIMEOUT", "0", "greater than 0"),
        ("HANDBELL_CONNECTIONS", "0", "greater than or equal to 1"),
        ("HANDBELL_IN_FLIGHT", "1e9", "valid integer"),
        ("HANDBELL_APNS_PRODUCTION_URL", "http://127.0.0.1", "https://host"),
        ("HANDBELL_APNS_DEVELOPMENT_URL", "https://host/3/device", "https://host"),
        ("HANDBELL_APNS_CA_FILE", "/nowhere/ca.pem", "there is no file"),
        ("HANDBELL_SECRET_KEY", "hunter2", "44 characters"),
        ("HANDBELL_SECRET_KEY", f"{KEY},hunter2", "44 characters"),
        ("HANDBELL_SECRET_KEY", "é", "44 characters"),
    ],
)
def test_a_wrong_value_names_the_variable_and_the_fix(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, why: str
) -> None:
    """The error names the variable, what is wrong with its value, and what to do."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert name in caught.value.what
    assert why in caught.value.what
    assert name in caught.value.fix
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", ["HANDBELL_DATABASE_URI", "HANDBELL_CONECTIONS"])
def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    """A name that is nearly a setting's is an error with the right name, not silently ignored."""
    monkeypatch.setenv(given, "1")
    with pytest.raises(SettingsError, match="Rename it to HANDBELL_"):
        Settings.load()


def test_other_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables of other parts share the prefix and do no harm."""
    monkeypatch.setenv("HANDBELL_CERTIFICATE_PASSWORD", "secret")
    assert Settings.load().app is None


def test_an_unknown_override_is_refused() -> None:
    """A name that is no setting is an error which lists the settings."""
    with pytest.raises(SettingsError, match="no setting named colour"):
        Settings.load(colour="red")


def test_no_secret_is_shown() -> None:
    """Neither the secret key nor a database password is in the text of the settings."""
    settings = Settings.load(secret_key=KEY, database_url="postgresql://me:hunter2@db/handbell")
    assert KEY not in repr(settings) + str(settings)
    assert "hunter2" not in repr(settings) + str(settings)


def test_settings_are_frozen() -> None:
    """Nobody changes the settings of a running system."""
    with pytest.raises(Exception, match="frozen"):
        Settings.load().connections = 3


def test_every_setting_is_documented() -> None:
    """docs/settings.md holds each variable with its default and its description, and no other."""
    expected = []
    for name, field in Settings.model_fields.items():
        default = f"`{field.default:g}`" if isinstance(field.default, int | float) else "none"
        expected.append((f"`{variable(name)}`", default, field.description))
    rows = re.findall(
        r"^\| (`HANDBELL_\w+`) \| (.+?) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert rows == expected
