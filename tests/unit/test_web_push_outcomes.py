"""Every answer of a push service, its outcome, and what becomes of the subscription."""

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.outcomes import DeviceGone, LostVerdict, Outcome, Refused, RetryLater
from handbell.gateways.webpush.verdict import judge
from handbell.services.reactions import Reaction
from handbell.services.webpush import SERVICE
from handbell.services.webpush.reasons import BY_ERRNO, BY_STATUS, BY_WORD

NOW = 1_800_000_000.0
SENT_AT = NOW - 1
KEPT = (Reaction.FIX_NOTIFICATION, Reaction.FIX_CONFIGURATION)


def _judged(
    status: int,
    body: object = None,
    headers: dict[str, str] | None = None,
    *,
    is_whole: bool = True,
) -> Outcome:
    text = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return judge(status, text, headers or {}, is_whole=is_whole, sent_at=SENT_AT, now=NOW)


@pytest.mark.parametrize(
    ("status", "kind", "reason", "reaction"),
    [
        pytest.param(301, Refused, "Redirected", Reaction.FIX_NOTIFICATION, id="301"),
        pytest.param(307, Refused, "Redirected", Reaction.FIX_NOTIFICATION, id="307"),
        pytest.param(400, Refused, "BadRequest", Reaction.FIX_NOTIFICATION, id="400"),
        pytest.param(401, Refused, "Unauthorized", Reaction.WRONG_APP, id="401"),
        pytest.param(403, Refused, "Forbidden", Reaction.WRONG_APP, id="403"),
        pytest.param(404, DeviceGone, "NotFound", None, id="404"),
        pytest.param(405, Refused, "MethodNotAllowed", Reaction.FIX_NOTIFICATION, id="405"),
        pytest.param(406, RetryLater, "NotAcceptable", Reaction.SLOW_DOWN_DEVICE, id="406"),
        pytest.param(408, RetryLater, "RequestTimeout", Reaction.RECONNECT, id="408"),
        pytest.param(410, DeviceGone, "Gone", None, id="410"),
        pytest.param(413, Refused, "PayloadTooLarge", Reaction.FIX_NOTIFICATION, id="413"),
        pytest.param(418, Refused, "HTTP 418", Reaction.FIX_NOTIFICATION, id="418"),
        pytest.param(429, RetryLater, "TooManyRequests", Reaction.SLOW_DOWN_DEVICE, id="429"),
        pytest.param(500, RetryLater, "InternalServerError", Reaction.BACK_OFF, id="500"),
        pytest.param(502, RetryLater, "BadGateway", Reaction.BACK_OFF, id="502"),
        pytest.param(503, RetryLater, "ServiceUnavailable", Reaction.BACK_OFF, id="503"),
        pytest.param(504, RetryLater, "GatewayTimeout", Reaction.BACK_OFF, id="504"),
        pytest.param(520, RetryLater, "HTTP 520", Reaction.BACK_OFF, id="520"),
    ],
)
def test_a_status_is_a_verdict(
    status: int, kind: type, reason: str, reaction: Reaction | None
) -> None:
    """RFC 8030 and RFC 8292 say what each status means, whatever stands in the answer."""
    for body in (None, b"<html>no</html>", b"in words", [1], "text", {"errno": "x", "reason": 7}):
        outcome = _judged(status, body)
        assert type(outcome) is kind
        assert (getattr(outcome, "reason", None), getattr(outcome, "status", None)) == (
            reason,
            status,
        )
        assert getattr(outcome, "reaction", None) == reaction


@pytest.mark.parametrize("errno", sorted(BY_ERRNO))
def test_mozillas_numbers_make_it_exact(errno: int) -> None:
    """An ``errno`` beside its status names the reason."""
    row = BY_ERRNO[errno]
    body = {"code": row.status, "errno": errno, "error": "Bad", "message": "said"}
    outcome = _judged(row.status, body)
    assert getattr(outcome, "reason", None) == row.name
    if row.reaction is Reaction.CLOSE_SESSION:
        assert isinstance(outcome, DeviceGone)
    else:
        assert getattr(outcome, "reaction", None) is row.reaction
        assert getattr(outcome, "detail", None) == f"{row.meaning} (said)"


@pytest.mark.parametrize("word", sorted(BY_WORD))
def test_apples_reasons_make_it_exact(word: str) -> None:
    """A ``reason`` beside its status names the reason."""
    row = BY_WORD[word]
    outcome = _judged(row.status, {"reason": word})
    assert getattr(outcome, "reason", None) == word
    if row.reaction is not Reaction.CLOSE_SESSION:
        assert getattr(outcome, "reaction", None) is row.reaction


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        pytest.param(429, {"errno": 201}, "TooManyRequests", id="a-bridge-is-slowed-down"),
        pytest.param(503, {"errno": 103}, "ServiceUnavailable", id="number-of-another-class"),
        pytest.param(410, {"errno": 999}, "Gone", id="fault-beside-gone"),
        pytest.param(403, {"reason": "Shutdown"}, "Forbidden", id="word-of-another-class"),
        pytest.param(401, {"errno": True}, "Unauthorized", id="no-number"),
        pytest.param(400, {"reason": ["BadTtl"]}, "BadRequest", id="no-word"),
    ],
)
def test_a_number_that_contradicts_its_status_is_ignored(
    status: int, body: object, reason: str
) -> None:
    """The status is the verdict: what stands beside it closes and stops nothing of another kind."""
    assert getattr(_judged(status, body), "reason", None) == reason


@pytest.mark.parametrize("status", [404, 410])
def test_an_ended_subscription_is_closed_as_of_the_send(status: int) -> None:
    """A page that subscribed again since keeps its session."""
    outcome = _judged(status)
    assert isinstance(outcome, DeviceGone)
    assert outcome.since == SENT_AT * 1000


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        pytest.param({"retry-after": "120"}, 120.0, id="seconds"),
        pytest.param({"retry-after": formatdate(NOW + 90, usegmt=True)}, 90.0, id="date"),
        pytest.param(
            {
                "retry-after": formatdate(NOW + 3690, usegmt=True),
                "date": formatdate(NOW + 3600, usegmt=True),
            },
            90.0,
            id="date-by-their-clock",
        ),
        pytest.param({"retry-after": "soon"}, None, id="nonsense"),
        pytest.param({}, None, id="none"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_is_asked_for_is_kept(
    status: int, headers: dict[str, str], after: float | None
) -> None:
    """``Retry-After`` is read as seconds and as a date."""
    outcome = _judged(status, None, headers)
    assert isinstance(outcome, RetryLater)
    assert outcome.after == after


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 410, 413, 429])
def test_an_answer_that_broke_off_proves_nothing(status: int) -> None:
    """No subscription is closed and no key doubted by half an answer."""
    outcome = _judged(status, b'{"errno": 10', is_whole=False)
    assert outcome == LostVerdict(
        status, "AnswerCut", f"the answer {status} broke off before its reason had come"
    )


def test_a_server_error_is_one_even_if_it_broke_off() -> None:
    """It is sent again."""
    outcome = _judged(503, None, {"retry-after": "7"}, is_whole=False)
    assert outcome == RetryLater(
        "HTTP 503", Reaction.BACK_OFF, 7.0, 503, "the answer 503 broke off"
    )


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(b"the VAPID credentials do not correspond.\n", True, id="google"),
        pytest.param({"message": "VAPID public key mismatch"}, True, id="mozilla"),
        pytest.param(b"<HTML>no</HTML>", False, id="html"),
        pytest.param(b"x" * 300, False, id="long"),
        pytest.param(b"a\x1b[31mb", False, id="control-characters"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_what_a_service_says_is_told(body: object, words: bool) -> None:  # noqa: FBT001
    """Few legible words of the answer help whoever looks for the cause; others are left out."""
    outcome = _judged(403, body)
    assert isinstance(outcome, Refused)
    assert ("(" in outcome.detail) is words
    assert outcome.detail.isprintable()


@given(
    st.integers(100, 999).filter(lambda status: not 200 <= status < 300),
    st.binary(max_size=60) | st.sampled_from([b'{"errno":1e9}', b"[" * 99_999, b"NaN"]),
    st.dictionaries(st.sampled_from(["retry-after", "date"]), st.text(max_size=20)),
    st.booleans(),
)
def test_no_answer_raises(
    status: int,
    body: bytes,
    headers: dict[str, str],
    is_whole: bool,  # noqa: FBT001
) -> None:
    """Whatever a stranger's server says is an outcome."""
    outcome = judge(status, body, headers, is_whole=is_whole, sent_at=SENT_AT, now=NOW)
    assert isinstance(outcome, Refused | RetryLater | DeviceGone | LostVerdict)


def test_every_reason_has_its_words() -> None:
    """Each row says what happened and what to do."""
    for row in SERVICE.reasons.values():
        assert row.meaning
        assert SERVICE.fix(row), row.name
    assert {row.status for row in BY_STATUS.values()} == set(BY_STATUS)
