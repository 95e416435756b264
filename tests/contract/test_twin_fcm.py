"""FCM on the twin, asked by plain HTTP clients: what Google publishes, and no word of ours."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import httpx
import pytest
from tests.fcm import HELLO, FcmClient, code_of, fields_of

from handbell.twin.fcm.codes import CODES, OAUTH_ERRORS
from handbell.twin.phone import Phone
from handbell.twin.threaded import start_twin

PROJECT = "shop-4711"


class Stand(FcmClient):
    """A client of one project, and the clock that it shares with the twin."""

    ahead: ClassVar[list[float]] = [0.0]

    def phone(self, **details: Any) -> Phone:
        """Return a new Android phone."""
        return self.twin.add_phone(platform="android", project=PROJECT, **details)


@pytest.fixture(scope="module", params=[True, False], ids=["http2", "http1"])
def stand(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stand]:
    """Run a twin for the file, whose clock stands until it is set."""
    began, folder = time.time(), tmp_path_factory.mktemp("twin")

    def now() -> float:
        return began + Stand.ahead[0]

    with (
        start_twin(folder, now=now) as twin,
        Stand.of(twin, PROJECT, http2=request.param, now=now) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def _clean(stand: Stand) -> Iterator[None]:
    yield
    stand.ahead[0] = 0.0
    stand.twin.clear_faults()


def test_an_access_token_and_a_message(stand: Stand) -> None:
    """A signed assertion gets a token, a message its name, and the phone shows it."""
    issued = stand.ask_token(stand.assertion())
    assert issued.status_code == 200
    assert issued.json() | {"access_token": ""} == {
        "access_token": "",
        "expires_in": 3600,
        "token_type": "Bearer",
    }
    phone = stand.phone()
    answer = stand.post({"token": phone.token, **HELLO}, access=issued.json()["access_token"])
    assert answer.status_code == 200
    assert list(answer.json()) == ["name"]
    assert answer.json()["name"].startswith(f"projects/{PROJECT}/messages/")
    (card,) = stand.twin.phone(phone.id).cards
    assert (card.title, card.body, card.channel) == ("Hello", "It rings", "Miscellaneous")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "nobody@example.iam.gserviceaccount.com"}, "account not found"),
        ({"iss": None}, "iss field missing"),
        ({"aud": "https://example.com/token"}, "audience"),
        ({"exp": 4_000_000_000}, "short-lived"),
        ({"exp": 1}, "short-lived"),
        ({"iat": None}, "short-lived"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_100}, "short-lived"),
    ],
    ids=["nobody", "no iss", "aud", "too long", "over", "no iat", "not yet"],
)
def test_an_assertion_that_is_no_grant(stand: Stand, changes: dict[str, Any], said: str) -> None:
    """A claim that Google refuses is an invalid_grant with Google's description."""
    answer = stand.ask_token(stand.assertion(**changes))
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    assert said in answer.json()["error_description"]


def test_a_signature_by_another_key_is_no_grant(stand: Stand) -> None:
    """The key of one account signs for no other."""
    other = json.loads(stand.twin.make_service_account("other-project"))
    answer = stand.ask_token(stand.assertion(key=other["private_key"]))
    assert answer.json() == {
        "error": "invalid_grant",
        "error_description": "Invalid JWT Signature.",
    }


def test_a_request_that_is_no_grant_at_all(stand: Stand) -> None:
    """Another grant type, no JSON web token and another body are refused each in its way."""
    assert stand.ask_token(stand.assertion(), "password").json()["error"] == (
        "unsupported_grant_type"
    )
    assert stand.ask_token("nonsense").json()["error"] == "invalid_grant"
    answer = stand.client.post(stand.twin.oauth_url, json={})
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
    assert stand.client.get(stand.twin.oauth_url).status_code == 404


def test_a_deleted_account_is_no_grant(stand: Stand) -> None:
    """Neither its assertions nor its access tokens are taken any more."""
    account = json.loads(stand.twin.make_service_account(PROJECT))
    former, stand.account = stand.account, account
    try:
        access = stand.access_token()
        stand.twin.remove_service_account(account["client_email"])
        assert "not found" in stand.ask_token(stand.assertion()).json()["error_description"]
        assert stand.post({"token": "x", **HELLO}, access=access).status_code == 401
    finally:
        stand.account = former


@pytest.mark.parametrize("access", ["", "ya29.nonsense"], ids=["none", "unknown"])
def test_a_bad_access_token(stand: Stand, access: str) -> None:
    """Without a valid access token the layer in front answers, without a code of FCM's."""
    answer = stand.post({"token": stand.phone().token, **HELLO}, access=access)
    error = answer.json()["error"]
    assert (answer.status_code, error["status"], code_of(answer)) == (401, "UNAUTHENTICATED", None)
    assert "www-authenticate" in answer.headers


def test_an_access_token_lives_as_long_as_was_said(stand: Stand) -> None:
    """After expires_in an access token is refused; a new one is taken."""
    access, phone = stand.access_token(), stand.phone()
    stand.ahead[0] = 3599
    assert stand.post({"token": phone.token, **HELLO}, access=access).status_code == 200
    stand.ahead[0] = 3601
    assert stand.post({"token": phone.token, **HELLO}, access=access).status_code == 401
    assert stand.post({"token": phone.token, **HELLO}).status_code == 200


def test_who_may_not_send(stand: Stand) -> None:
    """Another scope, another project, and a missing permission are each PERMISSION_DENIED."""
    token = stand.phone().token
    scope = "https://www.googleapis.com/auth/devstorage.read_only"
    answers = [
        stand.post({"token": token, **HELLO}, access=stand.access_token(scope=scope)),
        stand.post({"token": token, **HELLO}, project="other-project"),
    ]
    former = stand.account
    stand.account = json.loads(stand.twin.make_service_account(PROJECT, may_send=False))
    try:
        answers.append(stand.post({"token": token, **HELLO}))
    finally:
        stand.account = former
    found = [(one.status_code, one.json()["error"]["status"], code_of(one)) for one in answers]
    assert found == [(403, "PERMISSION_DENIED", None)] * 3
    assert "cloudmessaging.messages.create" in answers[2].json()["error"]["message"]


def test_a_path_of_no_api_is_a_page(stand: Stand) -> None:
    """A wrong path, or a method other than POST, is 404 in HTML."""
    for method, path in (
        ("POST", "/fcm/send"),
        ("POST", f"/v1/projects/{PROJECT}/messages:delete"),
        ("GET", f"/v1/projects/{PROJECT}/messages:send"),
    ):
        answer = stand.client.request(method, stand.twin.fcm_url + path)
        assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (
            404,
            "text/html",
        )


REFUSED: dict[str, tuple[dict[str, Any], str | None, list[str]]] = {
    "no target": (HELLO, "INVALID_ARGUMENT", ["message"]),
    "two targets": ({"token": "x", "topic": "news"}, None, ["message"]),
    "an unknown token": ({"token": "a:APA91bx", **HELLO}, "INVALID_ARGUMENT", ["message.token"]),
    "no token": ({"token": "no token", **HELLO}, "INVALID_ARGUMENT", ["message.token"]),
    "an unknown member": ({"token": "T", "titel": "x"}, None, ["message"]),
    "an unknown member below": (
        {"token": "T", "android": {"notification": {"colour": "red"}}},
        None,
        ["message.android.notification"],
    ),
    "a number in data": (
        {"token": "T", "data": {"a": "b", "n": 5}},
        None,
        ["message.data[1].value"],
    ),
    "a reserved key": (
        {"token": "T", "data": {"from": "me"}},
        "INVALID_ARGUMENT",
        ["message.data[0].key"],
    ),
    "a reserved prefix": (
        {"token": "T", "data": {"google.x": "me"}},
        "INVALID_ARGUMENT",
        ["message.data[0].key"],
    ),
    "a reserved key for Android": (
        {"token": "T", "android": {"data": {"gcm.x": "me"}}},
        "INVALID_ARGUMENT",
        ["message.android.data[0].key"],
    ),
    "a ttl of 29 days": (
        {"token": "T", "android": {"ttl": "2505600s"}},
        "INVALID_ARGUMENT",
        ["message.android.ttl"],
    ),
    "a ttl below 0": (
        {"token": "T", "android": {"ttl": "-1s"}},
        "INVALID_ARGUMENT",
        ["message.android.ttl"],
    ),
    "a ttl that is none": (
        {"token": "T", "android": {"ttl": "soon"}},
        None,
        ["message.android.ttl"],
    ),
    "a priority that is none": (
        {"token": "T", "android": {"priority": "urgent"}},
        None,
        ["message.android.priority"],
    ),
    "a color that is none": (
        {"token": "T", "android": {"notification": {"color": "red"}}},
        "INVALID_ARGUMENT",
        ["message.android.notification.color"],
    ),
    "arguments without a key": (
        {"token": "T", "android": {"notification": {"title_loc_args": ["x"]}}},
        "INVALID_ARGUMENT",
        ["message.android.notification.title_loc_args"],
    ),
    "a count below 0": (
        {"token": "T", "android": {"notification": {"notification_count": -1}}},
        "INVALID_ARGUMENT",
        ["message.android.notification.notification_count"],
    ),
    "a label that is none": (
        {"token": "T", "fcm_options": {"analytics_label": "a b"}},
        "INVALID_ARGUMENT",
        ["message.fcm_options.analytics_label"],
    ),
    "a link without https": (
        {"token": "T", "webpush": {"fcm_options": {"link": "http://example.com"}}},
        "INVALID_ARGUMENT",
        ["message.webpush.fcm_options.link"],
    ),
    "a topic that is none": ({"topic": "a b"}, "INVALID_ARGUMENT", ["message.topic"]),
    "another package": (
        {"token": "T", "android": {"restricted_package_name": "com.other"}},
        "INVALID_ARGUMENT",
        ["message.android.restricted_package_name"],
    ),
    "too big": ({"token": "T", "data": {"k": "x" * 4096}}, None, []),
    "too big for a topic": ({"topic": "news", "data": {"k": "x" * 2048}}, None, []),
}
"""Messages to the phone T that are refused: FCM's code, if any, and the fields at fault."""


@pytest.mark.parametrize(("message", "code", "fields"), REFUSED.values(), ids=REFUSED)
def test_a_message_that_is_refused(
    stand: Stand, message: dict[str, Any], code: str | None, fields: list[str]
) -> None:
    """A fault of the message is 400, with the field, and FCM's code where FCM itself refuses."""
    phone = stand.phone(package="com.sample.shop")
    if message.get("token") == "T":
        message = {**message, "token": phone.token}
    answer = stand.post(message)
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert (code_of(answer), fields_of(answer)) == (code, fields)
    assert stand.twin.phone(phone.id).cards == ()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"{}", b'{"message": 5}'])
def test_a_body_that_is_no_message(stand: Stand, body: bytes) -> None:
    """What is no JSON of a message is 400."""
    answer = stand.client.post(
        f"{stand.twin.fcm_url}/v1/projects/{PROJECT}/messages:send",
        headers={"authorization": f"Bearer {stand.access_token()}"},
        content=body,
    )
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_sizes_at_the_limit_are_taken(stand: Stand) -> None:
    """4,096 bytes of keys and values go to a device, 2,048 to a topic."""
    token = stand.phone().token
    assert stand.post({"token": token, "data": {"k": "x" * 4095}}).status_code == 200
    assert stand.post({"topic": "news", "data": {"k": "x" * 2047}}).status_code == 200


def test_a_token_of_another_project(stand: Stand) -> None:
    """SENDER_ID_MISMATCH: the token was given out for another project."""
    phone = stand.twin.add_phone(platform="android", project="other-project")
    answer = stand.post({"token": phone.token, **HELLO})
    assert (answer.status_code, code_of(answer)) == (403, "SENDER_ID_MISMATCH")


def test_an_app_that_was_removed(stand: Stand) -> None:
    """UNREGISTERED: its token is gone; opened again, the app has a new one."""
    phone = stand.phone()
    stand.twin.remove_phone(phone)
    answer = stand.post({"token": phone.token, **HELLO})
    assert (answer.status_code, code_of(answer)) == (404, "UNREGISTERED")
    assert answer.json()["error"]["status"] == "NOT_FOUND"


def test_an_installation_id_reaches_the_phone(stand: Stand) -> None:
    """A message may name the installation in front of the token's colon."""
    phone = stand.phone()
    assert stand.post({"fid": phone.token.partition(":")[0], **HELLO}).status_code == 200
    assert len(stand.twin.phone(phone.id).cards) == 1


def test_camel_case_is_read(stand: Stand) -> None:
    """Members may be written as JSON of protocol buffers writes them."""
    phone = stand.phone()
    shown = {"title": "Hello", "channelId": "orders", "notificationCount": 3}
    answer = stand.post({"token": phone.token, "android": {"notification": shown}})
    assert answer.status_code == 200
    state = stand.twin.phone(phone.id)
    assert (state.cards[0].channel, state.badge) == ("orders", 3)


def test_validate_only_delivers_nothing(stand: Stand) -> None:
    """A check finds every fault, and its answer looks like that of a delivery."""
    phone = stand.phone()
    answer = stand.post({"token": phone.token, **HELLO}, validate_only=True)
    assert answer.json() == {"name": f"projects/{PROJECT}/messages/fake_message_id"}
    assert stand.twin.phone(phone.id).cards == ()
    refused = stand.post({"token": "a:b", **HELLO}, validate_only=True)
    assert code_of(refused) == "INVALID_ARGUMENT"


def test_the_quota_of_a_device(stand: Stand) -> None:
    """240 messages in a minute, and QUOTA_EXCEEDED for the next; a minute later one more."""
    phone, access = stand.phone(), stand.access_token()
    message = {"token": phone.token, "data": {"a": "b"}}
    answers = [stand.post(message, access=access).status_code for _ in range(240)]
    assert set(answers) == {200}
    answer = stand.post(message, access=access)
    assert (answer.status_code, code_of(answer)) == (429, "QUOTA_EXCEEDED")
    assert any("QuotaFailure" in one["@type"] for one in answer.json()["error"]["details"])
    stand.ahead[0] = 60
    assert stand.post(message, access=access).status_code == 200


def test_the_quota_of_a_project(stand: Stand) -> None:
    """The answer says when to come back, and names the limit as Google's front does."""
    token = stand.phone().token
    stand.twin.limit_fcm(messages_per_minute=3)
    try:
        answers = [stand.post({"token": token, **HELLO}) for _ in range(5)]
    finally:
        stand.twin.limit_fcm(messages_per_minute=600_000)
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
    assert answers[3].json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert int(answers[3].headers["retry-after"]) >= 1


@pytest.mark.parametrize("name", CODES)
def test_each_code_on_demand(stand: Stand, name: str) -> None:
    """A fault answers with the code, its status and its form, and Retry-After where asked for."""
    code, phone = CODES[name], stand.phone()
    stand.twin.add_fault("answer", reason=name, token=phone.token, retry_after=30)
    answer = stand.post({"token": phone.token, **HELLO})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (code.status, code.status)
    assert (error["status"], answer.headers["retry-after"]) == (code.rpc_status, "30")
    assert code_of(answer) == (name if code.is_fcm else None)
    assert stand.twin.phone(phone.id).is_gone == (name == "UNREGISTERED")


@pytest.mark.parametrize("name", OAUTH_ERRORS)
def test_each_error_of_the_token_endpoint_on_demand(stand: Stand, name: str) -> None:
    """A fault of the token endpoint leaves the sends alone."""
    access = stand.access_token()
    stand.twin.add_fault("answer", reason=name)
    assert stand.post({"topic": "news", **HELLO}, access=access).status_code == 200
    answer = stand.ask_token(stand.assertion())
    assert (answer.status_code, answer.json()["error"]) == (OAUTH_ERRORS[name], name)


@pytest.mark.parametrize("kind", ["cut", "reset", "cut-answer"])
def test_answers_that_are_lost(stand: Stand, kind: str) -> None:
    """A cut connection, a reset stream and a cut answer are errors of the transport."""
    phone, access = stand.phone(), stand.access_token()
    details = {"reason": "INTERNAL"} if kind == "cut-answer" else {"delivers": True}
    stand.twin.add_fault(kind, side="fcm", **details)
    with pytest.raises(httpx.TransportError):
        stand.post({"token": phone.token, **HELLO}, access=access)
    shown = len(stand.twin.phone(phone.id).cards)
    assert shown == (0 if kind == "cut-answer" else 1)
    assert stand.post({"token": phone.token, **HELLO}, access=access).status_code == 200


def test_it_says_goodbye(stand: Stand) -> None:
    """After a GOAWAY, or connection: close, the next request goes over a new connection."""
    phone, access = stand.phone(), stand.access_token()
    opened = stand.twin.opened
    stand.twin.add_fault("goaway", side="fcm")
    with contextlib.suppress(httpx.RemoteProtocolError):  # httpx reads nothing behind a GOAWAY
        stand.post({"token": phone.token, **HELLO}, access=access)
    assert stand.post({"token": phone.token, **HELLO}, access=access).status_code == 200
    assert len(stand.twin.phone(phone.id).cards) == 2
    assert stand.twin.opened == opened + 1


def test_nothing_that_proves_is_shown(stand: Stand) -> None:
    """Neither the access token nor the assertion's signature is in the history."""
    assertion = stand.assertion()
    access = stand.ask_token(assertion).json()["access_token"]
    stand.post({"token": stand.phone().token, **HELLO}, access=access)
    shown = json.dumps([request.to_dict() for request in stand.twin.requests])
    assert access not in shown
    assert assertion.rpartition(".")[2] not in shown
    assert "BEGIN" not in shown


def test_too_many_collapsible_messages_are_held_back(stand: Stand) -> None:
    """20 at once are shown; the next is accepted and waits, and a newer one takes its place."""
    phone = stand.phone()
    android = {"collapse_key": "score", "notification": {"tag": "score"}}
    message = {"token": phone.token, **HELLO, "android": android}
    assert {stand.post(message).status_code for _ in range(22)} == {200}
    state = stand.twin.phone(phone.id)
    assert (state.cards[0].replaced, len(state.stored)) == (19, 1)
    assert "held back" in stand.twin.requests[0].verdict
    stand.twin.switch(phone, is_on=False)
    assert stand.twin.switch(phone, is_on=True).cards[0].replaced == 20
