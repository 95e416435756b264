"""A device that wants to register is registered, whatever it tells of itself beside its token."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import open_system
from tests.serving import start_server

from handbell.registry.device_attributes import FACTS, read_attributes
from handbell.registry.session import time_zone_of

_ZONES = """
from zoneinfo import ZoneInfo
from handbell.registry.session import read_time_zone
print(ZoneInfo(read_time_zone("US/Pacific")), read_time_zone("europe/paris"))
"""
TOKEN = "ab" * 32
MAIL = "ada@4d.com"


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("Europe/Paris", "Europe/Paris"),
        ("europe/paris", "Europe/Paris"),
        ("EUROPE/PARIS", "Europe/Paris"),
        ("America/New York", "America/New_York"),
        ("US/Pacific", "US/Pacific"),
        ("Asia/Calcutta", "Asia/Calcutta"),
        ("GMT+0200", "Etc/GMT-2"),
        ("GMT-3", "Etc/GMT+3"),
        ("UTC+02:00", "Etc/GMT-2"),
        ("+00:00", "UTC"),
        ("-0800", "Etc/GMT+8"),
        ("Z", "UTC"),
        ("utc", "UTC"),
        ("GMT", "GMT"),
        ("+05:30", None),
        ("GMT+99", None),
        ("Europe/Nowhere", None),
        ("Moon", None),
        ("\ud800", None),
        ("../../etc/passwd", None),
    ],
)
def test_a_time_zone_is_known_as_devices_write_it(text: str, zone: str | None) -> None:
    """Case, blanks and offsets of whole hours are read; half an hour has no zone of its own."""
    assert time_zone_of(text) == zone


def test_zones_are_known_where_the_system_has_none() -> None:
    """The package brings them: an empty search path changes nothing."""
    run = subprocess.run(
        [
            *(sys.executable, "-c"),
            _ZONES,
        ],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert run.stdout == "US/Pacific Europe/Paris\n"


@given(
    st.dictionaries(
        st.sampled_from(FACTS),
        st.none()
        | st.booleans()
        | st.floats()
        | st.integers()
        | st.text(st.characters(codec=None), max_size=600)
        | st.lists(st.text(max_size=3), max_size=2),
    )
)
def test_whatever_is_told_can_be_read(given_: dict[str, Any]) -> None:
    """Each fact is stored as a text, told of in a warning, or both where it was cut."""
    facts, warnings = read_attributes(given_)
    for name, value in given_.items():
        is_absent = value is None or (isinstance(value, str) and not value.strip())
        assert is_absent or name in facts or any(name in one or "zone" in one for one in warnings)
    assert all(facts.values())


PATH = "/v1/apps/TEAM123456.com.sample.myapp/sessions"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Give a client of a server with one app, by a key that may register."""
    with (
        open_system(tmp_path_factory.mktemp("facts")) as (system, _twin),
        start_server(system, has_console=False) as server,
    ):
        system.apps.add("TEAM123456", "com.sample.myapp")
        with server.client(server.key("register")) as client:
            yield client


@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ({"time_zone": "Moon"}, "'Moon' is not a time zone"),
        ({"time_zone": 7}, "'7' is not a time zone"),
        ({"time_zone": {"id": 1}}, "time_zone is no text"),
        ({"locale": ["fr"]}, "locale is no text"),
        ({"device": "x" * 513}, "device is cut to 512"),
        ({"locale": "Mars/Phobos"}, "'Mars/Phobos' is not a locale"),
        ({"locale": "C"}, "'C' is not a locale"),
        ({"locale": 0}, "'0' is not a locale"),
        ({"time_zone": "localtime"}, "'localtime' is not a time zone"),
        ({"app_version": True}, "app_version is no text"),
        ({"idfa": "x"}, "'idfa' is not known"),
        ({"timezone": "Europe/Paris"}, "Did you mean time_zone?"),
        ({"status": "active"}, "'status' is not known"),
    ],
)
def test_what_cannot_be_stored_is_left_out_with_a_warning(
    client: httpx.Client, said: dict[str, Any], warned: str
) -> None:
    """The device is registered, and on a change and a repeat nothing that is known is wiped."""
    known = {"time_zone": "Europe/Paris", "locale": "fr", "device": "One", "app_version": "1"}
    body = {"mail": MAIL, "device_token": TOKEN}
    first = client.post(PATH, json={**body, **known})
    assert (first.status_code, first.json()["warnings"]) == (201, [])
    again = client.post(PATH, json={**body, **said})
    assert again.status_code == 201
    assert warned in again.json()["warnings"][0]
    changed = client.patch(f"{PATH}/{again.json()['id']}", json=said)
    assert changed.status_code == 200
    assert warned in changed.json()["warnings"][0]
    session = changed.json()
    kept = known if "device" not in said else {**known, "device": "x" * 512}
    assert {name: session[name] for name in known} == kept


def test_a_renewed_token_is_kept_whatever_else_is_told(client: httpx.Client) -> None:
    """A change of the token with a zone that nobody knows changes the token."""
    made = client.post(PATH, json={"mail": MAIL, "device_token": TOKEN}).json()
    secret = {"Authorization": f"Bearer {made['secret']}"}
    body = {"device_token": "cd" * 32, "time_zone": "GMT+05:30", "app_version": 2.1}
    renewed = client.post(PATH, json=body, headers=secret)
    assert renewed.status_code == 200
    session = renewed.json()["session"]
    assert (session["device_token"], session["app_version"]) == ("cd" * 32, "2.1")
    assert "time zone" in renewed.json()["warnings"][0]


@pytest.mark.parametrize("value", ["1\x002", "1\ud8002"], ids=["NUL", "half a pair"])
def test_what_no_database_stores_is_replaced(value: str) -> None:
    """A text is kept with a mark in place of what SQLite or PostgreSQL would refuse."""
    assert read_attributes({"app_version": value}) == ({"app_version": "1\ufffd2"}, [])


@pytest.mark.parametrize("platform", ["iOS", " iPadOS ", "WATCHOS", ""])
def test_a_platform_is_read_as_the_device_calls_itself(client: httpx.Client, platform: str) -> None:
    """Case and blanks do not refuse a device, and an empty text is not told of."""
    said = {"mail": MAIL, "device_token": TOKEN, "platform": platform, "environment": "Production"}
    made = client.post(PATH, json=said)
    assert made.status_code == 201
    assert made.json()["session"]["platform"] in (platform.strip().lower(), "watchos", "ios")


def test_an_import_leaves_out_what_cannot_be_stored_and_says_so(client: httpx.Client) -> None:
    """Each line is imported; the answer tells its warnings, and nothing of an export's members."""
    odd: list[dict[str, Any]] = [
        {"time_zone": "Moon"},
        {"locale": ["fr"]},
        {"device": "\ud800"},
        {"idfa": 1},
        {"external_id": False},
        {"platform": "iOS"},
    ]
    lines = [
        json.dumps({"mail": MAIL, "device_token": f"{number:064x}", **said})
        for number, said in enumerate(odd, 1)
    ]
    lines += client.get(f"{PATH}/export").text.splitlines()[:1]
    answer = client.post(
        f"{PATH}/import",
        content="\n".join(lines),
        headers={"Content-Type": "application/x-ndjson"},
    )
    *told, last = [json.loads(line) for line in answer.text.splitlines()]
    assert last == {"imported": len(lines), "refused": 0}
    assert [one["line"] for one in told] == [1, 2, 4, 5]
    assert told[0]["warnings"] == ["'Moon' is not a time zone. It is left out."]
