"""What an answer of FCM means: every error of Google's table, and everything that is not in it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.fcm.verdict import AccessToken, judge, judge_token
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
)
from handbell.services.fcm.reasons import (
    BACK_OFF,
    FIXES,
    OAUTH_REASONS,
    QUOTA_EXCEEDED,
    REASONS,
    TOKEN_REASONS,
)
from handbell.services.reactions import Reaction

FCM = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
QUOTA = "type.googleapis.com/google.rpc.QuotaFailure"


def error(
    code: int,
    status: str,
    *,
    fcm: str | None = None,
    message: str = "",
    field: str | None = None,
    details: list[Any] | None = None,
) -> bytes:
    """Return an error's body as Google writes it."""
    parts = list(details or [])
    if fcm is not None:
        parts.append({"@type": FCM, "errorCode": fcm})
    if field is not None:
        violation = {"field": field, "description": "Invalid value"}
        parts.append({"@type": BAD_REQUEST, "fieldViolations": [violation]})
    told = {"code": code, "message": message, "status": status, "details": parts}
    return json.dumps({"error": told}).encode()


def said(outcome: Outcome) -> tuple[type, str, Reaction | None]:
    """Return the kind of an outcome, its reason and its reaction."""
    return type(outcome), getattr(outcome, "reason", ""), getattr(outcome, "reaction", None)


TABLE: list[Any] = [
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", field="message.android.ttl"),
        (Refused, "INVALID_ARGUMENT", Reaction.FIX_NOTIFICATION),
        id="message-by-field",
    ),
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", fcm="INVALID_ARGUMENT", field="message.data"),
        (Refused, "INVALID_ARGUMENT", Reaction.FIX_NOTIFICATION),
        id="message-in-fcms-words",
    ),
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", message="Message is too big"),
        (Refused, "INVALID_ARGUMENT", Reaction.FIX_NOTIFICATION),
        id="too-big",
    ),
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", fcm="INVALID_ARGUMENT"),
        (Refused, "INVALID_ARGUMENT", Reaction.FIX_NOTIFICATION),
        id="of-unknown-cause",
    ),
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", fcm="INVALID_ARGUMENT", field="message.token"),
        (Refused, "INVALID_REGISTRATION_TOKEN", Reaction.WRONG_APP),
        id="token-by-field",
    ),
    pytest.param(
        400,
        error(
            400,
            "INVALID_ARGUMENT",
            fcm="INVALID_ARGUMENT",
            message="The registration token is not a valid FCM registration token",
        ),
        (Refused, "INVALID_REGISTRATION_TOKEN", Reaction.WRONG_APP),
        id="token-by-sentence",
    ),
    pytest.param(
        400,
        error(
            400,
            "INVALID_ARGUMENT",
            field="message.token",
            message="Invalid value at 'message.token'",
        ),
        (Refused, "INVALID_ARGUMENT", Reaction.FIX_NOTIFICATION),
        id="token-not-in-fcms-words",
    ),
    pytest.param(
        401,
        error(401, "UNAUTHENTICATED", fcm="THIRD_PARTY_AUTH_ERROR"),
        (Refused, "THIRD_PARTY_AUTH_ERROR", Reaction.FIX_NOTIFICATION),
        id="third-party",
    ),
    pytest.param(
        401,
        error(401, "UNAUTHENTICATED", fcm="APNS_AUTH_ERROR"),
        (Refused, "APNS_AUTH_ERROR", Reaction.FIX_NOTIFICATION),
        id="third-party-by-its-older-name",
    ),
    pytest.param(
        401,
        error(401, "UNAUTHENTICATED"),
        (RetryLater, "UNAUTHENTICATED", Reaction.RENEW_TOKEN),
        id="access-token",
    ),
    pytest.param(
        403,
        error(403, "PERMISSION_DENIED", fcm="SENDER_ID_MISMATCH"),
        (Refused, "SENDER_ID_MISMATCH", Reaction.WRONG_APP),
        id="other-project",
    ),
    pytest.param(
        403,
        error(403, "PERMISSION_DENIED"),
        (Refused, "PERMISSION_DENIED", Reaction.FIX_CONFIGURATION),
        id="no-role",
    ),
    pytest.param(
        404,
        error(404, "NOT_FOUND", fcm="UNREGISTERED"),
        (DeviceGone, "UNREGISTERED", None),
        id="unregistered",
    ),
    pytest.param(
        404,
        error(404, "NOT_FOUND"),
        (Refused, "NOT_FOUND", Reaction.FIX_CONFIGURATION),
        id="no-such-project",
    ),
    pytest.param(
        404,
        error(404, "UNREGISTERED"),
        (Refused, "NOT_FOUND", Reaction.FIX_CONFIGURATION),
        id="unregistered-not-in-fcms-words",
    ),
    pytest.param(
        404,
        b"<html>Not Found</html>",
        (Refused, "NOT_FOUND", Reaction.FIX_CONFIGURATION),
        id="page",
    ),
    pytest.param(
        429,
        error(429, "RESOURCE_EXHAUSTED", fcm="QUOTA_EXCEEDED", details=[{"@type": QUOTA}]),
        (RetryLater, "QUOTA_EXCEEDED", Reaction.SLOW_DOWN_DEVICE),
        id="quota-of-a-device",
    ),
    pytest.param(
        429,
        error(429, "RESOURCE_EXHAUSTED"),
        (RetryLater, "RESOURCE_EXHAUSTED", Reaction.SLOW_DOWN_DEVICE),
        id="quota-of-the-project",
    ),
    pytest.param(
        500,
        error(500, "INTERNAL", fcm="INTERNAL"),
        (RetryLater, "INTERNAL", Reaction.BACK_OFF),
        id="internal",
    ),
    pytest.param(
        503,
        error(503, "UNAVAILABLE", fcm="UNAVAILABLE"),
        (RetryLater, "UNAVAILABLE", Reaction.BACK_OFF),
        id="unavailable",
    ),
    pytest.param(
        504,
        error(504, "DEADLINE_EXCEEDED"),
        (RetryLater, "DEADLINE_EXCEEDED", Reaction.BACK_OFF),
        id="deadline",
    ),
    pytest.param(
        400,
        error(400, "INVALID_ARGUMENT", fcm="UNSPECIFIED_ERROR"),
        (Refused, "UNSPECIFIED_ERROR", Reaction.FIX_NOTIFICATION),
        id="unspecified",
    ),
    pytest.param(
        500,
        error(500, "INTERNAL", fcm="UNSPECIFIED_ERROR"),
        (RetryLater, "UNSPECIFIED_ERROR", Reaction.BACK_OFF),
        id="unspecified-trouble",
    ),
    pytest.param(
        500,
        error(500, "INTERNAL", fcm="UNREGISTERED"),
        (RetryLater, "UNREGISTERED", Reaction.BACK_OFF),
        id="unregistered-in-trouble",
    ),
    pytest.param(
        400,
        error(400, "FAILED_PRECONDITION"),
        (Refused, "FAILED_PRECONDITION", Reaction.FIX_CONFIGURATION),
        id="precondition",
    ),
    pytest.param(
        403, error(403, "NEW"), (Refused, "NEW", Reaction.FIX_CONFIGURATION), id="unknown-403"
    ),
    pytest.param(
        400, error(400, "NEW"), (Refused, "NEW", Reaction.FIX_NOTIFICATION), id="unknown-400"
    ),
    pytest.param(
        429, error(429, "NEW"), (RetryLater, "NEW", Reaction.SLOW_DOWN_DEVICE), id="unknown-429"
    ),
    pytest.param(502, error(502, "NEW"), (RetryLater, "NEW", Reaction.BACK_OFF), id="unknown-5xx"),
]


@pytest.mark.parametrize(("status", "body", "expected"), TABLE)
def test_each_error_of_the_table(
    status: int, body: bytes, expected: tuple[type, str, Reaction | None]
) -> None:
    """Each error ends as its row says; a token is gone by UNREGISTERED in FCM's words alone."""
    outcome = judge(status, body, {})
    assert said(outcome) == expected
    assert getattr(outcome, "status", status) == status


@pytest.mark.parametrize("name", sorted(REASONS.keys() - OAUTH_REASONS))
def test_every_reason_of_the_table_can_come(name: str) -> None:
    """Each reason is the answer to some request of the table above."""
    reasons = {judge(*each.values[:2], {}).reason for each in TABLE}  # type: ignore[call-arg, arg-type, union-attr]
    assert name in reasons


def test_the_rows_keep_googles_pace() -> None:
    """Nothing is sent again sooner than in 10 seconds, a used quota in 60; a new token at once."""
    for reaction, row in BACK_OFF.items():
        assert row.first >= 10 or reaction is Reaction.RENEW_TOKEN
    assert BACK_OFF[REASONS[QUOTA_EXCEEDED].reaction].first == 60
    assert all(REASONS[name].reaction is Reaction.WRONG_APP for name in TOKEN_REASONS)
    assert {row.reaction for row in REASONS.values()} <= FIXES.keys()


def test_retry_after_is_heard() -> None:
    """What FCM asks for is handed on."""
    body = error(429, "RESOURCE_EXHAUSTED", fcm="QUOTA_EXCEEDED")
    outcome = judge(429, body, {"retry-after": "90"})
    assert isinstance(outcome, RetryLater)
    assert outcome.after == 90
    assert judge(503, b"", {"retry-after": "7"}) == RetryLater(
        "HTTP 503",
        Reaction.BACK_OFF,
        7,
        503,
        "the answer 503 is not one of FCM's; a proxy may have given it",
    )


def test_what_google_says_is_told() -> None:
    """The detail names the field, on one line and not without end."""
    outcome = judge(400, error(400, "INVALID_ARGUMENT", field="message.android.ttl"), {})
    assert isinstance(outcome, Refused)
    assert "message.android.ttl: Invalid value" in outcome.detail
    long = judge(400, error(400, "INVALID_ARGUMENT", message="a\nb" * 4000), {})
    assert isinstance(long, Refused)
    assert "\n" not in long.detail
    assert len(long.detail) <= 300


RUBBISH = [
    pytest.param(b"", id="empty"),
    pytest.param(b"<html>", id="html"),
    pytest.param(b"[]", id="list"),
    pytest.param(b'"UNREGISTERED"', id="text"),
    pytest.param(b'{"error":"UNREGISTERED"}', id="error-is-text"),
    pytest.param(b'{"error":{}}', id="error-is-empty"),
    pytest.param(b'{"error":{"status":7}}', id="status-is-number"),
    pytest.param(b'{"error":{"details":[{"errorCode":"UNREGISTERED"}]}}', id="without-type"),
    pytest.param(b'{"reason":"Unregistered"}', id="apples"),
    pytest.param(error(404, "NOT_FOUND", fcm="UNREGISTERED")[:-1], id="unfinished"),
    pytest.param(b"\xff", id="bytes"),
    pytest.param(b"[" * 9999, id="deep"),
]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 407, 410, 413, 429])
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_refusal_that_is_not_googles_is_no_verdict(status: int, rubbish: bytes) -> None:
    """Without Google's error nothing is concluded about token, key or app."""
    outcome = judge(status, rubbish, {"retry-after": "7"})
    assert isinstance(outcome, LostVerdict)
    assert (outcome.status, outcome.reason, outcome.after) == (status, "AnswerUnreadable", 7)


@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_404_that_is_not_fcms_is_the_configurations(rubbish: bytes) -> None:
    """A wrong address or project throws no token away."""
    assert said(judge(404, rubbish, {})) == (Refused, "NOT_FOUND", Reaction.FIX_CONFIGURATION)


@pytest.mark.parametrize(("status", "body", "expected"), TABLE)
def test_an_answer_that_broke_off_is_no_verdict(
    status: int, body: bytes, expected: tuple[type, str, Reaction | None]
) -> None:
    """Whatever it would have said: it is trouble or a lost verdict, and judges nothing."""
    outcome = judge(status, body, {}, is_whole=False)
    assert type(outcome) is (RetryLater if status >= 500 else LostVerdict), expected


def test_a_200_is_accepted_from_its_head() -> None:
    """Whatever follows; another 2xx is not known."""
    assert judge(200, b"", {}, is_whole=False) == Accepted("")
    assert isinstance(judge(202, b"", {}), Unknown)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        "code": JSON,
        "message": JSON,
        "status": st.sampled_from(sorted(REASONS)) | JSON,
        "details": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "@type": st.sampled_from([FCM, BAD_REQUEST, QUOTA]) | JSON,
                    "errorCode": st.sampled_from(sorted(REASONS)) | JSON,
                    "fieldViolations": JSON,
                },
            )
            | JSON,
            max_size=3,
        )
        | JSON,
    },
)


@given(st.integers(201, 599), ERRORS | JSON, st.booleans())
def test_any_answer_has_one_outcome(status: int, told: Any, is_whole: bool) -> None:  # noqa: FBT001
    """Nothing is raised, nothing but 200 is accepted, and no token is gone for a wrong reason."""
    body = json.dumps({"error": told}).encode()
    outcome = judge(status, body, {}, is_whole=is_whole)
    assert not isinstance(outcome, Accepted)
    if isinstance(outcome, DeviceGone):
        assert outcome.reason == "UNREGISTERED"
        assert is_whole
        assert FCM in body.decode()
    judged = judge_token(status, body, {}, is_whole=is_whole)
    assert isinstance(judged, Refused | RetryLater | LostVerdict)


# -- the access token ----------------------------------------------------------------------------


def oauth(**members: Any) -> bytes:
    """Return an answer of the token endpoint."""
    return json.dumps(members).encode()


def test_an_access_token_is_taken() -> None:
    """With the time that it lives, an hour where that is not said; its text is not shown."""
    found = judge_token(200, oauth(access_token="ya29.secret", expires_in=3599), {})
    assert found == AccessToken("ya29.secret", 3599)
    assert "secret" not in repr(found)
    assert judge_token(200, oauth(access_token="a"), {}) == AccessToken("a", 3600)


@pytest.mark.parametrize("name", sorted(OAUTH_REASONS))
def test_a_refused_account_is_the_configurations(name: str) -> None:
    """Each error of OAuth stops the app and keeps the tokens; the cause is told."""
    body = oauth(error=name, error_description="Invalid JWT Signature.")
    outcome = judge_token(400, body, {})
    assert isinstance(outcome, Refused)
    assert (outcome.reason, outcome.reaction) == (name, Reaction.FIX_CONFIGURATION)
    assert outcome.detail.endswith("(Invalid JWT Signature)")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, oauth(error="something_new"), (Refused, "something_new")),
        (403, error(403, "PERMISSION_DENIED"), (Refused, "PERMISSION_DENIED")),
        (400, b"<html>", (LostVerdict, "AnswerUnreadable")),
        (404, b"<html>", (LostVerdict, "AnswerUnreadable")),
        (302, oauth(error="invalid_grant"), (LostVerdict, "AnswerUnreadable")),
        (429, oauth(error="rate_limit"), (RetryLater, "HTTP 429")),
        (500, oauth(error="internal_failure"), (RetryLater, "HTTP 500")),
        (503, b"", (RetryLater, "HTTP 503")),
        (200, b"", (RetryLater, "AnswerUnreadable")),
        (200, oauth(access_token=7), (RetryLater, "AnswerUnreadable")),
        (200, oauth(access_token="a\nb"), (RetryLater, "AnswerUnreadable")),
        (200, oauth(access_token="a", expires_in=-1), (RetryLater, "AnswerUnreadable")),
        (200, oauth(access_token="a", expires_in="x"), (RetryLater, "AnswerUnreadable")),
    ],
    ids=lambda value: None if isinstance(value, tuple | bytes) else str(value),
)
def test_other_answers_for_a_token(status: int, body: bytes, expected: tuple[type, str]) -> None:
    """What is not an error of OAuth may be tried again and judges nothing."""
    outcome = judge_token(status, body, {"retry-after": "3"})
    assert not isinstance(outcome, AccessToken)
    assert (type(outcome), outcome.reason) == expected
