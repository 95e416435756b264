import os
import re
import shutil
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic.fields import FieldInfo

from handbell.errors import SettingsError
from handbell.gateways.http2_values import trusted_certificates
from handbell.server.links.smtp import MailServer
from handbell.setting_values import secret_keys
from handbell.settings import Settings, variable
from handbell.storage.database import Database

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
    shutil.copy(trusted_certificates(), authority)
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
    assert settings.in_flight == 1000
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
        pytest.param("HANDBELL_SECRET_KEY", f"{KEY},hunter2", "44 characters", id="a second key"),
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


def test_a_file_is_weaker_than_the_environment_and_an_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An option wins over the environment, the environment over the file, the file over nothing."""
    file = tmp_path / "other.toml"
    file.write_text('app = "file"\nconnections = 3\nin_flight = 30\nlisten = "0.0.0.0:80"\n')
    monkeypatch.setenv("HANDBELL_CONFIG", str(file))
    monkeypatch.setenv("HANDBELL_APP", "environment")
    monkeypatch.setenv("HANDBELL_CONNECTIONS", "2")
    settings = Settings.load(home=tmp_path, connections=1)
    assert (settings.connections, settings.app, settings.in_flight) == (1, "environment", 30)
    assert settings.listen == "0.0.0.0:80"


def test_the_home_folder_may_hold_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """handbell.toml in the home folder is read, however the home is named; an option beats it."""
    (tmp_path / "handbell.toml").write_text("keep_days = 7\nmetrics_public = true\n")
    assert Settings.load(home=tmp_path).keep_days == 7
    monkeypatch.setenv("HANDBELL_HOME", str(tmp_path))
    assert Settings.load().metrics_public
    other = tmp_path / "other.toml"
    other.write_text("keep_days = 8\n")
    assert Settings.load(config=other).keep_days == 8


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b'app = "shop"\nkeep_days = \n', "line 2"),
        (b'app = "shop"\n[tables]\n', "names tables, which is not a setting"),
        (b"keep_day = 3\n", "names keep_day, which is not a setting"),
        (b"keep_days = 0\n", "keep_days in"),
        (b'config = "other.toml"\n', "names config"),
        (b"app = '\xff'\n", "is not UTF-8"),
        (b"app = " + b"[" * 5000, "is nested too deeply"),
        (b"app = " + b"{a=" * 5000, "is nested too deeply"),
        (b"keep_days = " + b"9" * 5000, "holds a number that is too long"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, text: bytes, what: str) -> None:
    """The error names the file, and the line or the member."""
    file = tmp_path / "handbell.toml"
    file.write_bytes(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(home=tmp_path)
    assert str(file) in caught.value.what
    assert what in caught.value.what
    assert caught.value.fix


def test_a_file_that_is_named_has_to_be_there(tmp_path: Path) -> None:
    """A file that was named and is missing is an error, not silence."""
    with pytest.raises(SettingsError, match="cannot be read"):
        Settings.load(home=tmp_path, config=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "8710"),
        ("listen", "127.0.0.1:"),
        ("listen", "127.0.0.1:70000"),
        ("listen", "::1:8710"),
        ("public_url", "push.example.com"),
        ("public_url", "ftp://push.example.com"),
        ("root_path", "push"),
        ("root_path", "/pu sh"),
        ("trusted_proxies", "10.0.0.0/8, proxy"),
        ("tls_certificate", "/nowhere/server.pem"),
        ("max_body_bytes", "10"),
        ("smtp_url", "mail.example.com"),
        ("smtp_url", "http://mail.example.com"),
        ("smtp_url", "smtp://host:99999"),
        ("proxy", "socks5://127.0.0.1:1080"),
        ("proxy", "https://proxy.example.com:3128"),
        ("proxy", "http://proxy.example.com"),
        ("proxy", "http://proxy.example.com:0"),
        ("proxy", "http://proxy.example.com:3128/path"),
        ("proxy", "http://me:pass/word@proxy.example.com:3128"),
        ("webhook_proxy", "socks5://127.0.0.1:1080"),
        ("webhook_proxy", "proxy.example.com"),
        ("no_proxy", "https://push.example.com"),
        ("no_proxy", "10.0.0.0/33"),
        ("no_proxy", "push.example.com:99999"),
        ("mail_from", "nobody"),
        ("sign_in_hours", "0"),
        ("web_push_hosts", "https://push.example.com"),
        ("web_push_hosts", "push.example.com:99999"),
        ("vapid_subject", "push@example.com"),
        ("vapid_subject", "mailto:nobody"),
        ("vapid_subject", "http://example.com"),
    ],
)
def test_a_setting_of_the_server_is_checked(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """What the server cannot use is refused at its start, with the variable's name."""
    monkeypatch.setenv(variable(name), value)
    with pytest.raises(SettingsError, match=variable(name)):
        Settings.load()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("listen", "[::1]:8710", "[::1]:8710"),
        ("public_url", "https://push.example.com/push/", "https://push.example.com/push"),
        ("root_path", "/push/", "/push"),
        ("root_path", "/", ""),
        ("trusted_proxies", "10.0.0.0/8, ::1", "10.0.0.0/8, ::1"),
        ("mail_from", " push@example.com ", "push@example.com"),
        ("vapid_subject", " mailto:push@example.com ", "mailto:push@example.com"),
        ("vapid_subject", "https://example.com/contact", "https://example.com/contact"),
    ],
)
def test_a_setting_of_the_server_is_read(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: str
) -> None:
    """What can be used arrives in one form."""
    monkeypatch.setenv(variable(name), value)
    assert getattr(Settings.load(), name) == read


@pytest.mark.parametrize(
    ("given", "contact"),
    [
        ({}, None),
        ({"public_url": "http://push.example.com"}, None),
        ({"public_url": "https://push.example.com"}, "https://push.example.com"),
        (
            {"public_url": "https://push.example.com", "mail_from": "push@bücher.example"},
            "mailto:push@xn--bcher-kva.example",
        ),
        (
            {"vapid_subject": "https://example.com", "mail_from": "push@example.com"},
            "https://example.com",
        ),
    ],
    ids=["nothing", "plain-http", "public-url", "sender-of-mails", "subject"],
)
def test_push_services_have_somebody_to_write_to(
    given: dict[str, str], contact: str | None
) -> None:
    """The subject is set, or else the sender of mails, or else the public URL."""
    assert Settings.load(**given).web_push_contact == contact


def test_no_secret_is_shown() -> None:
    """Neither the secret key nor a database password is in the text of the settings."""
    settings = Settings.load(
        secret_key=KEY,
        database_url="postgresql://me:hunter2@db/handbell",
        smtp_url="smtp://me:hunter2@mail.example.com",
        proxy="http://me:hunter2@proxy.example.com:3128",
    )
    assert "hunter2" not in repr(settings.proxies)
    assert KEY not in repr(settings) + str(settings)
    assert "hunter2" not in repr(settings) + str(settings)


def test_settings_are_frozen() -> None:
    """Nobody changes the settings of a running system."""
    with pytest.raises(Exception, match="frozen"):
        Settings.load().connections = 3


def _documented(field: FieldInfo) -> str:
    """Return a default as the list has it: as one would write it into a variable."""
    default = field.default
    if field.default_factory is not None:
        return "the user's data folder"
    if isinstance(default, bool):
        default = int(default)
    if isinstance(default, float):
        default = f"{default:g}"
    return f"`{default}`" if default or default == 0 else "none"


def test_every_setting_is_documented() -> None:
    """docs/settings.md holds each variable with its default and its description, and no other."""
    expected = [
        (f"`{variable(name)}`", _documented(field), field.description)
        for name, field in Settings.model_fields.items()
    ]
    rows = re.findall(
        r"^\| (`HANDBELL_\w+`) \| (.+?) \| (.+) \|$", DOCUMENT.read_text(), re.MULTILINE
    )
    assert rows == expected


def test_what_was_given_by_hand_is_named_as_such(tmp_path: Path) -> None:
    """An option of the command is blamed, and not a variable that nobody has set."""
    with pytest.raises(SettingsError) as caught:
        Settings.load(home=tmp_path, listen="nonsense")
    assert "given as listen" in caught.value.what
    assert "HANDBELL_LISTEN" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", KEY],
    ids=["empty", "a text", "a broken one", "a key"],
)
def test_an_authority_that_is_none_names_its_setting(tmp_path: Path, content: str) -> None:
    """Of the push service and of the mail server alike, and the file's text is not repeated."""
    file = tmp_path / "ca.pem"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"apns_ca_file.*no certificates in PEM") as refused:
        Settings.load(apns_ca_file=file)
    mail = Settings.load(
        smtp_url=f"smtps://mail.example.com?ca_file={file}", mail_from="push@example.com"
    )
    with pytest.raises(SettingsError, match=r"HANDBELL_SMTP_URL.*no certificates in PEM"):
        MailServer.of(mail)
    assert KEY not in str(refused.value)


def test_the_database_is_told_in_words_of_operators() -> None:
    """Its description and its refusal name the two databases that may be used."""
    about = Settings.model_fields["database_url"].description or ""
    with pytest.raises(SettingsError) as refused:
        Database("mysql://somewhere/else")
    for text in (about.lower(), refused.value.fix.lower()):
        assert "sqlite" in text
        assert "postgresql" in text
        assert "sqlalchemy" not in text


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 3000, "x/" * 2000, "\udcff"])
@pytest.mark.parametrize("name", ["apns_ca_file", "tls_certificate", "tls_key", "config"])
def test_a_path_that_leads_nowhere_names_its_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, path: str
) -> None:
    """Also one that the system would not even look for."""
    monkeypatch.setenv(f"HANDBELL_{name.upper()}", path)
    with pytest.raises(SettingsError, match=name.upper()):
        Settings.load()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "x" * 3000])
def test_a_home_that_cannot_be_is_refused_by_who_uses_it(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """The settings themselves are read."""
    monkeypatch.setenv("HANDBELL_HOME", path)
    assert Settings.load().home.name == path.rpartition("/")[2]


@pytest.mark.parametrize("name", ["HANDBELL_NO_PROXY", "HANDBELL_TRUSTED_PROXIES"])
def test_the_password_of_an_address_in_the_wrong_setting_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Who took one setting of a proxy for the other reads which, and no secret."""
    monkeypatch.setenv(name, "http://user:hunter2@proxy.example.com:3128")
    with pytest.raises(SettingsError, match=name) as caught:
        Settings.load()
    assert "hunter2" not in str(caught.value)
