"""Sessions as lines of JSON: out of one server and into another."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.server.api.transfer import MOST_REPORTED
from handbell.settings import Settings
from handbell.system import System

LINES = {"Content-Type": "application/x-ndjson"}


class Office:
    """An app over HTTP, by a key that may register."""

    def __init__(self, system: System, server: Server, app: App) -> None:
        self.system, self.server, self.app = system, server, app
        self.client = server.client(server.key("register"))
        self.path = f"/v1/apps/{app.id}/sessions"

    def bring(self, content: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Import lines; return what was told of bad ones, and the last line."""
        answer = self.client.post(f"{self.path}/import", content=content, headers=LINES)
        assert answer.status_code == 200, answer.text
        *told, last = (json.loads(line) for line in answer.text.splitlines())
        return told, last

    def export(self, **params: str) -> list[dict[str, Any]]:
        """Return the lines of an export."""
        answer = self.client.get(f"{self.path}/export", params=params)
        assert answer.headers["content-type"] == "application/x-ndjson"
        return [json.loads(line) for line in answer.text.splitlines()]


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Give an empty app."""
    system = System(Settings.load(home=tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    with start_server(system, has_console=False) as server:
        office = Office(system, server, app)
        yield office
        office.client.close()
    system.database.close()


def line(number: int, **more: Any) -> bytes:
    """Return one line."""
    said = {"mail": f"u{number}@example.com", "device_token": f"{number:064x}", **more}
    return json.dumps(said).encode() + b"\n"


@pytest.mark.parametrize(
    ("accept", "named"),
    [
        (None, "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("application/json", "application/x-ndjson"),
        ("application/octet-stream", "application/octet-stream"),
        ("Application/Octet-Stream; q=0.9", "application/octet-stream"),
        ("application/octet-stream, */*", "application/x-ndjson"),
        ("application/octet-stream, */*;q=0.8", "application/octet-stream"),
        ("application/x-ndjson;q=0.5, application/octet-stream", "application/octet-stream"),
        ("application/x-ndjson, application/octet-stream;q=0.5", "application/x-ndjson"),
        ("application/octet-stream;q=nothing, text/*", "application/octet-stream"),
        ("application/octet-stream;q=0", "application/x-ndjson"),
        (",;,", "application/x-ndjson"),
    ],
)
def test_an_export_is_named_as_its_client_can_take_it(
    office: Office, accept: str | None, named: str
) -> None:
    """As bytes for a client that prefers them, the same lines in any case."""
    office.bring(line(1) + line(2))
    headers = {"Accept": accept} if accept is not None else {}
    answer = office.client.get(f"{office.path}/export", headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == named
    assert [json.loads(each)["mail"][:2] for each in answer.text.splitlines()] == ["u2", "u1"]


def test_moving_house_keeps_what_is_known(office: Office) -> None:
    """What one app exports another imports: the same people, tokens, states and times."""
    registry, app = office.system.registry, office.app
    registry.register(
        app, "a@example.com", "aa" * 32, platform="ipados", locale="fr-CH", device="iPad",
        time_zone="Europe/Zurich", environment="development", external_id="7", registered_at=5000,
    )  # fmt: skip
    registry.register(app, "b@example.com", "bb" * 32, status="pending", registered_at=6000)
    refused = registry.register(app, "c@example.com", "cc" * 32, registered_at=7000)
    registry.quarantine(refused, reason="BadDeviceToken")
    closed = registry.register(app, "d@example.com", "dd" * 32)
    registry.close(closed, "closed")
    exported = office.client.get(f"{office.path}/export").content
    assert b"hbs_" not in exported
    second = office.system.apps.add("TEAM123456", "com.sample.second")
    house = Office(office.system, office.server, second)
    told, summary = house.bring(exported)
    assert (told, summary) == ([], {"imported": 3, "refused": 0})
    fields = ("mail", "token", "platform", "environment", "locale", "time_zone", "device")
    before, after = (
        {
            one.mail: ([getattr(one, name) for name in fields], one.registered_at, one.external_id)
            for one in registry.sessions(which)
            if one.status != "closed"
        }
        for which in (app, second)
    )
    assert after == before
    # Apple is asked anew about a token that it refused once.
    assert {one.mail: one.status for one in registry.sessions(second)} == {
        "a@example.com": "active",
        "b@example.com": "pending",
        "c@example.com": "active",
    }
    house.client.close()


def test_a_bad_line_is_told_and_the_rest_goes_on(office: Office) -> None:
    """Each with its number and its problem, as of a stream of sends; the last line counts."""
    bad = [
        b"{}\n",
        b"not JSON\n",
        b"[1]\n",
        line(1, mail="nobody"),
        line(2, device_token="zz"),
        line(3, status="closed"),
        line(5, registered_at="yesterday"),
        b'{"mail": "' + b"m" * 2_000_000 + b'"}\n',
        b"\xff\xfe\n",
    ]
    good = [line(100 + number, id=7, unknown=[1], time_zone="Nowhere") for number in range(3)]
    content = b"\n".join([good[0], *bad, good[1]]) + good[2].rstrip(b"\n")
    told, summary = office.bring(content)
    assert summary == {"imported": 3, "refused": 9}
    assert [one["line"] for one in told] == sorted(one["line"] for one in told)
    assert [one["line"] for one in told if "warnings" in one] == [1, 21, 22]
    problems = [one["error"] for one in told if "error" in one]
    assert len(problems) == 9
    assert all(one["code"] and one["detail"] and one["fix"] for one in problems)
    assert "too long" in problems[7]["detail"]
    assert len(office.system.registry.sessions(office.app)) == 3


def test_of_lines_with_one_token_the_last_one_owns_it(office: Office) -> None:
    """An import is read in order, as registrations are."""
    token = "ab" * 32
    told, summary = office.bring(line(1, device_token=token) + line(2, device_token=token))
    assert (told, summary["imported"]) == ([], 2)
    found = office.system.registry.holders(office.app, [token])
    assert found[token].mail == "u2@example.com"


def test_a_repeat_changes_nothing_but_the_times(office: Office) -> None:
    """The same lines again: nobody is there twice."""
    content = b"".join(line(number) for number in range(300))
    assert office.bring(content)[1] == office.bring(content)[1]
    assert len(office.system.registry.sessions(office.app)) == 300


def test_thousands_of_bad_lines_are_counted(office: Office) -> None:
    """The first of them are told one by one, so that a client which reads later is not stuck."""
    told, summary = office.bring(b"x\n" * 5000)
    assert (len(told), summary["refused"]) == (MOST_REPORTED, 5000)


def test_an_import_takes_lines_only(office: Office) -> None:
    """JSON in one piece is refused with the media type to use."""
    answer = office.client.post(f"{office.path}/import", json=[])
    assert (answer.status_code, answer.json()["code"]) == (415, "media-type-unsupported")
    assert "x-ndjson" in answer.json()["fix"]


def test_thousands_move_in_and_out_in_pages(office: Office) -> None:
    """What is longer than a batch, a page and a buffer comes in and goes out whole."""
    told, summary = office.bring(line(one) for one in range(2500))
    assert (told, summary["imported"]) == ([], 2500)
    with office.client.stream("GET", f"{office.path}/export") as answer:
        tokens = {json.loads(text)["device_token"] for text in answer.iter_lines()}
    assert tokens == {f"{one:064x}" for one in range(2500)}
    assert office.export(status="closed") == []


def test_moving_house_is_noted(office: Office) -> None:
    """Device tokens leave the house with an export, so the audit trail says who took them."""
    office.bring(line(1))
    office.export()
    noted = office.system.audit.list(app=office.app.id, action="session.")
    assert [one.action for one in noted] == ["session.export", "session.import"]
    assert all(one.actor.startswith("key hbk_") for one in noted)
