"""Addresses and device tokens over HTTP and on the command line: two names of one value."""

import json
from typing import Any

import pytest
from tests.conftest import Stage
from tests.serving import Server, server

__all__ = ["server"]

MAIL, TOKEN, OTHER = "test@4d.com", "ab" * 32, "cd" * 32


def _names(told: dict[str, Any]) -> set[str]:
    return {told["address"], told["device_token"]}


@pytest.mark.parametrize("name", ["address", "device_token"])
def test_a_device_is_registered_and_changed_by_either_name(
    server: Server, stage: Stage, name: str
) -> None:
    """Registered, repeated with the session's secret, and corrected; answers hold both names."""
    where = f"/v1/apps/{stage.app.id}/sessions"
    with server.client(server.key("register")) as client:
        made = client.post(where, json={"mail": MAIL, name: TOKEN}).json()
        assert _names(made["session"]) == {TOKEN}
        assert made["warnings"] == []
        with server.client(made["secret"]) as device:
            again = device.post(where, json={name: OTHER})
            assert _names(again.json()["session"]) == {OTHER}
            changed = device.patch(f"{where}/current", json={name: TOKEN}).json()
            assert (_names(changed), changed["warnings"]) == ({TOKEN}, [])
        listed = client.get(where).json()["data"]
        assert [_names(one) for one in listed] == [{TOKEN}]


def test_two_values_under_two_names_are_refused(server: Server, stage: Stage) -> None:
    """Nobody guesses which was meant; the same value twice is no contradiction."""
    where = f"/v1/apps/{stage.app.id}/sessions"
    with server.client(server.key("register", "send")) as client:
        both = {"mail": MAIL, "address": TOKEN, "device_token": OTHER}
        refused = client.post(where, json=both)
        assert (refused.status_code, refused.json()["code"]) == (422, "request-invalid")
        assert client.get(where).json()["data"] == []
        assert client.post(where, json={**both, "device_token": TOKEN}).status_code == 201
        content = {"notification": {"title": "x"}}
        named = {"addresses": [TOKEN], "device_tokens": [OTHER]}
        sent = f"/v1/apps/{stage.app.id}/notifications"
        wrong = client.post(sent, json={**content, "recipients": named})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "recipients-invalid")


def test_an_import_takes_either_name_and_an_export_writes_both(
    server: Server, stage: Stage
) -> None:
    """What one server writes the next one reads."""
    where = f"/v1/apps/{stage.app.id}/sessions"
    lines = "\n".join(
        json.dumps({"mail": f"user{number}@example.com", name: token})
        for number, (name, token) in enumerate([("address", TOKEN), ("device_token", OTHER)])
    )
    kind = {"Content-Type": "application/x-ndjson"}
    with server.client(server.key("register")) as client:
        told = client.post(f"{where}/import", content=lines, headers=kind).text
        assert json.loads(told.splitlines()[-1]) == {"imported": 2, "refused": 0}
        written = client.get(f"{where}/export").text
        names = [_names(json.loads(line)) for line in written.splitlines()]
        assert sorted(names, key=sorted) == [{TOKEN}, {OTHER}]
        told = client.post(f"{where}/import", content=written, headers=kind).text
        assert json.loads(told.splitlines()[-1]) == {"imported": 2, "refused": 0}


def test_recipients_are_read_by_either_name_and_told_by_both(server: Server, stage: Stage) -> None:
    """An outcome's deliveries hold both, with the parts of what failed beside its text."""
    sent = f"/v1/apps/{stage.app.id}/notifications"
    with server.client(server.key("send", "register"), {"Prefer": "wait=10"}) as client:
        for name in ("addresses", "device_tokens"):
            body = {"notification": {"title": "x"}, "recipients": {name: [TOKEN]}}
            told = client.post(sent, json=body).json()
            assert [_names(one) for one in told["deliveries"]] == [{TOKEN}]
            assert [one["apns_id"] for one in told["deliveries"]] == [told["deliveries"][0]["id"]]
            assert told["states"] == {"failed": 1}
            assert not told["is_running"]
            (parts,) = told["error_details"]
            assert (parts["recipient"], parts["reason"]) == (TOKEN, "BadDeviceToken")
            assert told["errors"][0].endswith(parts["fix"])
            assert "warning_details" not in told


@pytest.mark.parametrize("how", ["one", "list", "lines"])
def test_warnings_have_their_parts_however_a_send_comes(
    server: Server, stage: Stage, how: str
) -> None:
    """Alone, in a list or as a line: whom it is about and why stand beside the text."""
    sent = f"/v1/apps/{stage.app.id}/notifications"
    body = {"notification": {"title": "x"}, "recipients": MAIL}
    with server.client(server.key("send")) as client:
        if how == "one":
            told = client.post(sent, json=body).json()
        elif how == "list":
            (told,) = client.post(f"{sent}/list", json=[body]).json()
        else:
            kind = {"Content-Type": "application/x-ndjson"}
            lines = client.post(f"{sent}/lines", content=json.dumps(body), headers=kind).text
            told = json.loads(lines.splitlines()[0])
    assert told["warnings"][0].startswith(f"{MAIL} has no device")
    assert told["warning_details"] == [{"recipient": MAIL, "reason": "NoDevice", "fix": ""}]


def test_a_key_that_only_sends_reads_no_whole_address(server: Server, stage: Stage) -> None:
    """Under neither name: not in outcomes, lists of deliveries, and what is told of errors."""
    phone = stage.add_phone(MAIL)
    stage.twin.add_fault("answer", reason="BadTopic")
    sent = f"/v1/apps/{stage.app.id}/notifications"
    with server.client(server.key("send"), {"Prefer": "wait=10"}) as client:
        body = {"notification": {"title": "x"}, "recipients": MAIL}
        answer = client.post(sent, json=body)
        deliveries = client.get(f"{sent}/{answer.json()['id']}/deliveries")
        for told in (answer, deliveries, client.get(f"{sent}/{answer.json()['id']}")):
            assert told.is_success
            assert phone.token not in told.text
        (shown,) = deliveries.json()["data"]
        assert _names(shown) == {f"{phone.token[:12]}…"}


def test_a_server_of_0_1_and_one_to_come_are_understood(stage: Stage) -> None:
    """Texts without parts, no states, and members that nobody knows yet: all are read."""
    from handbell.remote.answers import read_response, read_session  # noqa: PLC0415
    from handbell.server.api.session_models import session_out  # noqa: PLC0415

    class Nobody:
        """Asks for nothing."""

    old = {"id": "0" * 15, "success": False, "reached": 0, "total": 1, "warnings": ["a"]}
    response = read_response({**old, "errors": ["b", "c"]}, Nobody())  # type: ignore[arg-type]
    assert (response.warnings, response.errors) == (("a",), ("b", "c"))
    assert (response.errors[0].reason, response.states, response.is_running) == ("", {}, False)
    session = stage.register(MAIL, TOKEN)
    told = json.loads(json.dumps(session_out(session), default=str))
    assert read_session({**told, "from_tomorrow": 1}).address == TOKEN
