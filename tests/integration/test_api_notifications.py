"""Notifications over HTTP: what one call says and does, against the twin."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from tests.buried import bury
from tests.conftest import Stage
from tests.serving import Server, server

from handbell.creation.notification import Notification
from handbell.server.api.notification_models import (
    NotificationAnswer,
    NotificationContent,
    OutcomeAnswer,
    SendRequest,
    StoryAnswer,
)

__all__ = ["server"]

HELLO = {"title": "Hello", "body": "How are you?"}
FIRST, NOBODY = "test@4d.com", "nobody@example.com"
WAIT = {"Prefer": "wait=10"}


class Sender:
    """A client at an app's notifications."""

    def __init__(self, client: httpx.Client, app: str) -> None:
        self.address = f"/v1/apps/{app}/notifications"
        self.client = client

    def get(self, tail: str = "", **more: Any) -> httpx.Response:
        """Read something."""
        return self.client.get(f"{self.address}{tail}", **more)

    def post(self, tail: str = "", **more: Any) -> httpx.Response:
        """Ask for something."""
        return self.client.post(f"{self.address}{tail}", **more)


@pytest.fixture
def sender(server: Server, stage: Stage) -> Iterator[Sender]:
    """Give a client that may send for the stage's app."""
    with server.client(server.key("send", app=stage.app)) as client:
        yield Sender(client, stage.app.id)


def _send(sender: Sender, to: Any = FIRST, **more: Any) -> dict[str, Any]:
    """Send, wait for the outcome and return it."""
    body = {"notification": HELLO, "recipients": to, **more}
    answer = sender.post("", json=body, headers=WAIT)
    assert answer.status_code == 200, answer.text
    outcome: dict[str, Any] = answer.json()
    OutcomeAnswer.model_validate(outcome)
    return outcome


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def _code(answer: httpx.Response, status: int) -> str:
    """Return the code of a problem with this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["detail"]
    return str(problem["code"])


def test_a_send_is_accepted_at_once_and_then_shown(sender: Sender, stage: Stage) -> None:
    """202 names the notification and where it is read; its funnel tells how it went on."""
    phone = stage.add_phone(FIRST)
    answer = sender.post("", json={"notification": HELLO, "recipients": [FIRST, NOBODY]})
    assert answer.status_code == 202
    accepted = answer.json()
    assert [warning.split()[0] for warning in accepted["warnings"]] == [NOBODY]
    _until(lambda: len(stage.twin.shown(phone.token)) == 1)
    told = sender.client.get(answer.headers["location"])
    funnel = told.json()
    NotificationAnswer.model_validate(funnel)
    assert (funnel["id"], funnel["accepted"], funnel["title"]) == (accepted["id"], 1, "Hello")
    assert funnel["named"] == {"mails": [FIRST, NOBODY]}
    assert funnel["created_at"].endswith("Z")


def test_who_prefers_to_wait_gets_the_outcome(sender: Sender, stage: Stage) -> None:
    """Each kind of recipient has its delivery, with the state in which it ended."""
    stage.add_phone(FIRST)
    other = stage.twin.add_phone(mail=None, app=stage.app.id)
    outcome = _send(sender, {"mails": FIRST, "device_tokens": [other.token]})
    assert (outcome["success"], outcome["reached"], outcome["total"]) == (True, 2, 2)
    assert [one["state"] for one in outcome["deliveries"]] == ["sent", "sent"]
    assert [one["mail"] for one in outcome["deliveries"]] == [FIRST, None]
    failed = _send(sender, "00" * 32)
    assert (failed["success"], failed["reached"]) == (False, 0)


def test_everybody_is_a_recipient(sender: Sender, stage: Stage) -> None:
    """The text `everybody` reaches each active session."""
    for name in ("user1", "user2", "user3"):
        stage.add_phone(f"{name}@example.com")
    assert _send(sender, "everybody")["reached"] == 3


def test_a_wait_that_is_too_short_is_answered_with_202(sender: Sender, stage: Stage) -> None:
    """What is not over in time is accepted all the same, and so is what shall not wait."""
    phone = stage.add_phone(FIRST)
    body = {"notification": HELLO, "recipients": FIRST}
    stage.twin.add_fault("slow", seconds=1.5)
    for preference in ("wait=1", "respond-async, wait=0", "wait=x"):
        answer = sender.post("", json=body, headers={"Prefer": preference})
        assert answer.status_code == 202
        assert "preference-applied" not in answer.headers
    _until(lambda: len(stage.twin.shown(phone.token)) == 3)


def test_a_key_repeats_the_answer_and_refuses_other_content(sender: Sender, stage: Stage) -> None:
    """By header or by member, the same key is the same send."""
    stage.add_phone(FIRST)
    body = {"notification": HELLO, "recipients": FIRST}
    first = sender.post("", json=body, headers={"Idempotency-Key": "a"}).json()["id"]
    assert sender.post("", json={**body, "idempotency_key": "a"}).json()["id"] == first
    other = {"notification": {"title": "Other"}, "recipients": FIRST}
    refused = sender.post("", json=other, headers={"Idempotency-Key": "a"})
    assert _code(refused, 409) == "idempotency-conflict"
    both = sender.post("", json={**body, "idempotency_key": "b"}, headers={"Idempotency-Key": "a"})
    assert _code(both, 422) == "request-invalid"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "request-invalid"),
        ([1], 200, ""),
        ("text", 422, "request-invalid"),
        ({"notification": HELLO}, 422, "request-invalid"),
        ({"recipients": FIRST}, 422, "request-invalid"),
        ({"notification": HELLO, "recipients": []}, 422, "recipients-invalid"),
        ({"notification": HELLO, "recipients": "somebody"}, 422, "recipients-invalid"),
        ({"notification": {}, "recipients": FIRST}, 422, "notification-invalid"),
        ({"notification": {"titel": "x"}, "recipients": FIRST}, 422, "notification-invalid"),
        ({"notification": {"title": "x" * 5000}, "recipients": FIRST}, 413, "payload-too-large"),
        ({"notification": HELLO, "recipients": FIRST, "to": 1}, 422, "request-invalid"),
        ({"notification": HELLO, "recipients": FIRST, "urgency": []}, 422, "request-invalid"),
        ({"notification": HELLO, "recipients": FIRST, "urgency": "x"}, 422, "notification-invalid"),
        ({"notification": HELLO, "recipients": FIRST, "send_at": "x"}, 422, "notification-invalid"),
        ({"notification": HELLO, "recipients": FIRST, "send_at": {}}, 422, "notification-invalid"),
        (
            {"notification": HELLO, "recipients": FIRST, "idempotency_key": 1},
            422,
            "request-invalid",
        ),
        (
            {"notification": HELLO, "recipients": FIRST, "idempotency_key": ""},
            422,
            "notification-invalid",
        ),
        ({"notification": HELLO, "recipients": FIRST, "is_development": 1}, 422, "request-invalid"),
    ],
)
def test_what_cannot_be_sent_is_a_problem(
    sender: Sender, body: Any, status: int, code: str
) -> None:
    """Each fault has its status and a stable code; of a list it is the answer of its item."""
    answer = sender.post("", json=body)
    if code:
        assert _code(answer, status) == code
    else:
        assert answer.status_code == status
        assert [one["error"]["code"] for one in answer.json()] == ["request-invalid"]


@pytest.mark.parametrize(
    ("content", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "request-malformed"),
        (b"\xff\xfe", "application/json", 400, "request-malformed"),
        (b"[" * 150_000, "application/json", 400, "request-malformed"),
        (b"title=x", "application/x-www-form-urlencoded", 415, "media-type-unsupported"),
    ],
)
def test_what_cannot_be_read_is_a_problem(
    sender: Sender, content: bytes, kind: str, status: int, code: str
) -> None:
    """A body that is no JSON, or says that it is none."""
    answer = sender.post("", content=content, headers={"Content-Type": kind})
    assert _code(answer, status) == code


def test_a_list_has_an_answer_for_each_in_its_order(sender: Sender, stage: Stage) -> None:
    """One that is refused is no matter to the others, and a header's key is each one's own."""
    stage.add_phone(FIRST)
    good = {"notification": HELLO, "recipients": FIRST}
    sends = [good, {"notification": {}, "recipients": FIRST}, good]
    answer = sender.post("", json=sends, headers={"Idempotency-Key": "list"})
    assert answer.status_code == 200
    first, second, third = answer.json()
    assert first["id"] != third["id"]
    assert second["error"]["code"] == "notification-invalid"
    again = sender.post("", json=sends, headers={"Idempotency-Key": "list"}).json()
    assert [one.get("id") for one in again] == [first["id"], None, third["id"]]


def test_cancel_says_what_it_caught(sender: Sender, server: Server, stage: Stage) -> None:
    """What waits for its time is taken back, and the audit trail says by whom."""
    stage.add_phone(FIRST)
    outcome = _send(sender, send_at="2999-01-01T00:00Z")
    assert outcome["deliveries"][0]["state"] == "held"
    address = f"/{outcome['id']}"
    assert sender.post(f"{address}/cancel").json() == {"cancelled": 1}
    assert sender.post(f"{address}/cancel").json() == {"cancelled": 0}
    funnel = sender.get(address).json()
    assert funnel["states"] == {"cancelled": 1}
    assert funnel["reasons"][0]["reason"] == "Cancelled"
    noted = [one for one in server.system.audit.list() if one.action == "notification.cancel"]
    assert {one.subject for one in noted} == {outcome["id"]}
    assert all(one.actor.startswith("key hbk_") for one in noted)


def test_dead_letters_are_found_and_sent_again(
    sender: Sender, server: Server, stage: Stage
) -> None:
    """They are in the list, the funnel and the status; sent again they wait as they did before."""
    stage.add_phone(FIRST)
    sent = _send(sender, send_at="2999-01-01T00:00Z")["id"]
    _send(sender)
    bury(server.system, stage.app, sent)
    assert [one["id"] for one in sender.get("?state=dead_letter").json()["data"]] == [sent]
    funnel = sender.get(f"/{sent}").json()
    assert (funnel["states"], funnel["success"]) == ({"dead_letter": 1}, False)
    assert funnel["reasons"][0]["fix"].endswith(
        f"POST /v1/apps/{stage.app.id}/notifications/{sent}/resend"
    )
    assert server.system.status.read().dead_letters == 1
    assert sender.post(f"/{sent}/resend").json() == {"resent": 1}
    assert sender.post(f"/{sent}/resend").json() == {"resent": 0}
    assert server.system.status.read().dead_letters == 0
    deadline = time.monotonic() + 10
    while sender.get(f"/{sent}").json()["states"] != {"held": 1}:
        assert time.monotonic() < deadline
    assert "notification.resend" in {one.action for one in server.system.audit.list()}


def test_replace_shows_new_content_in_its_place(sender: Sender, stage: Stage) -> None:
    """Those who got the first get the new one under its collapse id, and the phone shows one."""
    phone = stage.add_phone(FIRST)
    first = _send(sender, notification={"title": "At five", "collapse_id": "meeting"})
    content = {"notification": {"title": "At six"}}
    answer = sender.post(f"/{first['id']}/replace", json=content, headers=WAIT)
    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=10"
    assert answer.json()["reached"] == 1
    assert len(stage.twin.accepted_of(phone.token)) == 2
    funnel = sender.get(f"/{answer.json()['id']}").json()
    assert (funnel["replaces"], funnel["notification"]["collapse_id"]) == (first["id"], "meeting")
    plain = _send(sender)
    refused = sender.post(f"/{plain['id']}/replace", json=content)
    assert _code(refused, 422) == "notification-invalid"


def test_preview_shows_the_exact_bytes(sender: Sender, stage: Stage) -> None:
    """The request for each target with its payload and size, and a warning for whoever has none."""
    phone = stage.add_phone(FIRST)
    body = {"notification": HELLO, "recipients": [FIRST, NOBODY]}
    warning, request = sender.post("/preview", json=body).json()
    assert NOBODY in warning["warning"]
    assert request["url"].endswith(f"/{phone.token[:12]}…")
    bare = {"notification": HELLO, "recipients": phone.token}
    assert sender.post("/preview", json=bare).json()[0]["url"].endswith(phone.token)
    assert request["size"] == len(request["payload"].encode())
    assert "hidden" in dict(request["headers"])["authorization"]
    assert sender.get("").json()["data"] == []


def test_lists_are_filtered_and_paged(sender: Sender, stage: Stage) -> None:
    """Pages meet without a gap or a repeat, also while new notifications come in."""
    stage.add_phone(FIRST)
    sent = [
        _send(sender, notification={"title": f"Number {number}"}, urgency=urgency)["id"]
        for number, urgency in enumerate(["normal", "urgent", "normal", "bulk", "normal"])
    ]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        asked = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = sender.get("", params=asked).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next"]
        if cursor is None:
            break
        _send(sender, notification={"title": "Meanwhile"})
    assert seen == sent[::-1]
    found = sender.get("", params={"urgency": "urgent"}).json()["data"]
    assert [one["id"] for one in found] == [sent[1]]
    found = sender.get("", params={"text": "NUMBER 3"}).json()["data"]
    assert [one["id"] for one in found] == [sent[3]]
    assert sender.get("", params={"since": "2999-01-01T00:00:00Z"}).json()["data"] == []
    assert sender.get("", params={"until": "2000-01-01T00:00:00+01:00"}).json()["data"] == []
    assert _code(sender.get("", params={"cursor": "x"}), 400) == "cursor-invalid"
    assert _code(sender.get("", params={"state": "x"}), 422) == "request-invalid"


def test_deliveries_are_filtered_and_paged(sender: Sender, stage: Stage) -> None:
    """By state, reason and mail; the pages hold each delivery once."""
    names = [f"user{number}@example.com" for number in range(5)]
    for name in names:
        stage.add_phone(name)
    outcome = _send(sender, [*names, "00" * 32])
    address = f"/{outcome['id']}/deliveries"
    seen: list[str] = []
    cursor: str | None = None
    while cursor is not None or not seen:
        asked = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = sender.get(address, params=asked).json()
        seen += [one["device_token"] for one in page["data"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) == 6
    of_one = sender.get(address, params={"mail": "USER3@example.com"}).json()["data"]
    assert [one["mail"] for one in of_one] == ["user3@example.com"]
    failed = sender.get(address, params={"state": "failed"}).json()["data"]
    assert [one["device_token"] for one in failed] == ["00" * 32]
    reason = failed[0]["reason"]
    assert len(sender.get(address, params={"reason": reason}).json()["data"]) == 1
    assert sender.get(address, params={"reason": "Unregistered"}).json()["data"] == []


@pytest.mark.parametrize("tail", ["", "/deliveries"])
def test_what_another_app_sent_is_not_there(
    sender: Sender, server: Server, stage: Stage, tail: str
) -> None:
    """A notification's id opens nothing to the key of another app."""
    stage.add_phone(FIRST)
    sent = _send(sender)["id"]
    second = stage.system.apps.add("TEAM654321", "com.sample.second")
    with server.client(server.key("send", app=second)) as stranger:
        address = f"/v1/apps/{second.id}/notifications/{sent}"
        assert _code(stranger.get(f"{address}{tail}"), 404) == "notification-unknown"
        assert _code(stranger.post(f"{address}/cancel"), 404) == "notification-unknown"
    assert _code(sender.get(f"/unknown{tail}"), 404) == "notification-unknown"


def test_why_tells_the_story(server: Server, sender: Sender, stage: Stage) -> None:
    """The sentences and the facts behind them, for somebody known and for nobody."""
    stage.add_phone(FIRST)
    _send(sender)
    address = f"/v1/apps/{stage.app.id}/users"
    with server.client(server.key("send")) as client:
        told = client.get(f"{address}/{FIRST}/why").json()
        nobody = client.get(f"{address}/{NOBODY}/why").json()
    StoryAnswer.model_validate(told)
    assert told["is_sent"]
    assert told["notifications"][0]["deliveries"][0]["delivery"]["state"] == "sent"
    assert told["text"].startswith(told["answer"])
    assert "secret" not in told["sessions"][0]["session"]
    assert not nobody["is_sent"]


def test_the_description_names_what_the_core_reads() -> None:
    """Each field of a notification is in the API's description, and nothing else is."""
    described = set(NotificationContent.model_fields) - {"template", "variables"}
    assert described == set(Notification.__dataclass_fields__)
    assert set(SendRequest.model_fields) == {
        "notification",
        "recipients",
        "send_at",
        "urgency",
        "idempotency_key",
        "is_development",
    }
