"""Sessions of another system from CSV and from lines of JSON."""

import contextlib
import io
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from cryptography.fernet import Fernet
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import RegistryError
from handbell.registry.import_sessions import (
    ImportResult,
    Refusal,
    import_sessions,
    is_csv,
    read_lines,
)
from handbell.registry.store import Registry
from handbell.storage.database import Database

from .test_service_sessions import refuse_evil, subscription

pytestmark = pytest.mark.databases

NOW = 1_800_000_000_000
APPLES, FCM = "ab" * 32, "fGc0:APA91b" + "x" * 140
BROWSER: dict[str, Any] = subscription()
KEYS = BROWSER["keys"]


class Import:
    """Imports texts into one app."""

    def __init__(self, registry: Registry, app: App) -> None:
        self.registry, self.app = registry, app
        self.result = ImportResult()

    def take(self, text: str, name: str = "", **how: object) -> list[Refusal]:
        """Import a file's text and return the refusals."""
        self.result = ImportResult()
        lines = read_lines(io.StringIO(text), self.result, as_csv=is_csv(name, text[:50]))
        steps = import_sessions(
            lines,
            self.registry,
            self.app,
            self.result,
            now=NOW,
            **how,  # type: ignore[arg-type]
        )
        return [refusal for step in steps for refusal in step]

    def found(self) -> dict[str, tuple[str, str, str, str]]:
        """Return what is stored, by address."""
        return {
            one.token: (one.mail, one.service, one.platform, one.status)
            for one in self.registry.sessions(self.app)
        }


@pytest.fixture
def imported(database_url: str) -> Iterator[Import]:
    """Yield an app without sessions."""
    with closing(Database.open(database_url)) as database:
        app = AppStore(database, Vault([Fernet.generate_key().decode()])).add("TEAM123456", "com.a")
        yield Import(Registry(database, check_address=refuse_evil), app)


def test_a_table_of_every_service_is_imported(imported: Import) -> None:
    """Columns in any order, by the names of other systems; unknown ones are told once."""
    text = (
        "\ufeffEmail;Device Type;Token;endpoint;p256dh;auth;Language;Colour;last_active\r\n"
        f"a@4d.com;iPhone;{APPLES};;;;fr;red;2026-01-02T03:04:05Z\r\n"
        f"b@4d.com;Android;{FCM};;;;;;1700000000\r\n"
        "\r\n"
        f'c@4d.com;browser;;{BROWSER["endpoint"]};{KEYS["p256dh"]};"{KEYS["auth"]}";;;soon\r\n'
    )
    assert imported.take(text) == []
    assert imported.found() == {
        APPLES: ("a@4d.com", "apns", "ios", "active"),
        FCM: ("b@4d.com", "fcm", "android", "active"),
        BROWSER["endpoint"]: ("c@4d.com", "webpush", "web", "active"),
    }
    assert imported.result.warnings == ["The column 'Colour' is not known; it is left out."]
    times = {one.token: one.registered_at for one in imported.registry.sessions(imported.app)}
    assert sorted(times.values()) == [1_700_000_000_000, 1_767_323_045_000, NOW]


def test_lines_of_json_are_imported_in_each_form(imported: Import) -> None:
    """As an export has them, with a subscription whole or in parts, and in camel case."""
    other = subscription("https://push.example/2")
    lines = [
        {
            "mail": "a@4d.com",
            "device_token": APPLES,
            "address": APPLES,
            "id": 7,
            "status": "pending",
        },
        {"mail": "b@4d.com", "deviceToken": FCM, "platform": "android", "deviceId": "one"},
        {"mail": "c@4d.com", "subscription": BROWSER, "device_token": BROWSER["endpoint"]},
        {"mail": "d@4d.com", **other},
    ]
    text = "\n".join(json.dumps(line) for line in lines)
    assert imported.take(text) == []
    assert imported.found()[APPLES][3] == "pending"
    assert {one.device_id for one in imported.registry.sessions(imported.app)} == {None, "one"}
    assert imported.result.imported == 4
    # A repeat changes nothing.
    before = imported.found()
    assert imported.take(text) == []
    assert imported.found() == before


def test_each_bad_line_is_refused_with_its_number(imported: Import) -> None:
    """The good ones go on, and the text says what is wrong."""
    text = (
        "mail,device_token,platform,status\n"
        f"nobody,{APPLES},ios,\n"
        "a@4d.com,,ios,\n"
        f"a@4d.com,{APPLES},symbian,\n"
        '\n"b@4d.com",\n'
        f"c@4d.com,{APPLES},ios,closed\n"
        f"d@4d.com,{APPLES},ios,active,more\n"
        f'e@4d.com,"{APPLES}"x,ios,\n'
        f"f@4d.com,{FCM},ios,\n"
        f"g@4d.com,{APPLES},ios,\n"
    )
    refused = imported.take(text)
    assert [one.line for one in refused] == [2, 3, 4, 6, 7, 8, 9, 10]
    words = ("mail", "no address", "platform", "no address", "closed", "5 columns", "CSV", "token")
    for refusal, word in zip(refused, words, strict=True):
        assert word in str(refusal.error)
        assert refusal.error.fix
    assert imported.found() == {APPLES: ("g@4d.com", "apns", "ios", "active")}
    assert (imported.result.imported, imported.result.refused) == (1, 8)


def test_a_trial_refuses_the_addresses_that_an_import_refuses(imported: Import) -> None:
    """A host that is not sent to, and a line that has two addresses."""
    row = f"{KEYS['p256dh']},{KEYS['auth']}"
    text = (
        "mail,device_token,endpoint,p256dh,auth\n"
        f"a@4d.com,,https://evil.example/1,{row}\n"
        f"b@4d.com,{APPLES},{BROWSER['endpoint']},{row}\n"
        f"c@4d.com,{BROWSER['endpoint']},{BROWSER['endpoint']},{row}\n"
    )
    for is_trial in (True, False):
        refused = [(one.line, one.error.what) for one in imported.take(text, is_trial=is_trial)]
        assert refused == [
            (2, "The host is not allowed."),
            (3, "The line has a device token and a subscription."),
        ]
        assert imported.result.imported == 1


def test_the_last_owner_in_a_file_has_the_address(imported: Import) -> None:
    """As if one line after the other had registered; who lost it is told."""
    imported.take(f"mail,token\na@4d.com,{APPLES}\n")
    imported.take(f"mail,token\nb@4d.com,{APPLES}\nc@4d.com,{APPLES}\n")
    assert len(imported.result.moved) == 2
    held = imported.registry.holders(imported.app, [APPLES])
    assert held[APPLES].mail == "c@4d.com"


def test_a_trial_stores_nothing_and_defaults_fill_in(imported: Import) -> None:
    """What a line does not say is said beside the file."""
    text = f"mail,token\na@4d.com,{FCM}\n"
    assert len(imported.take(text, is_trial=True)) == 1
    android = {"platform": "android", "environment": "twin"}
    assert imported.take(text, is_trial=True, defaults=android) == []
    assert (imported.result.imported, imported.found()) == (1, {})
    imported.take(text, defaults=android)
    (session,) = imported.registry.sessions(imported.app)
    assert (session.service, session.environment) == ("fcm", "twin")


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "first line"), ("a@4d.com,abcd\n", "first line"), ('"mail\n', "first line")],
    ids=["empty", "no-header", "open-quote"],
)
def test_a_table_without_a_header_is_refused(imported: Import, text: str, why: str) -> None:
    """Nothing is guessed from its columns."""
    with pytest.raises(RegistryError, match=why):
        imported.take(text, "sessions.csv")


def test_a_file_in_another_encoding_is_refused(imported: Import) -> None:
    """The error says so, and nothing more is read."""
    raw = io.TextIOWrapper(io.BytesIO("mail,token\né@4d.com,x\n".encode("latin-1")), "utf-8")
    with pytest.raises(RegistryError, match="not UTF-8"):
        list(read_lines(raw, imported.result, as_csv=True))


@pytest.mark.databases("sqlite")
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=200)
    | st.lists(st.sampled_from(["mail", "token", ",", ";", '"', "\n", "{", "}", APPLES])).map(
        "".join
    )
)
def test_any_text_is_imported_or_refused(imported: Import, text: str) -> None:
    """Whatever the file holds: refusals with line numbers, or an error of ours."""
    refused: list[Refusal] = []
    with contextlib.suppress(RegistryError):
        refused = imported.take(text)
    assert imported.result.refused == len(refused)
