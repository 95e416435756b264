"""What an answer of APNs means: the whole table, and everything that is not in it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.gateways.apns.verdict import judge
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Refused,
    RetryLater,
    Unknown,
)
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import Reaction

LATER = {
    "ExpiredProviderToken",
    "UnrelatedKeyIdInToken",
    "IdleTimeout",
    "TooManyProviderTokenUpdates",
    "TooManyRequests",
    "InternalServerError",
    "ServiceUnavailable",
    "Shutdown",
}
GONE = {"ExpiredToken", "Unregistered"}


def body(**members: Any) -> bytes:
    """Return an answer's body."""
    return json.dumps(members).encode()


def test_accepted_tells_its_ids() -> None:
    """200 is accepted, with the id it was sent under and, in development, Apple's own."""
    headers = {"apns-id": "a-b", "apns-unique-id": "c-d"}
    assert judge(200, b"", headers) == Accepted("a-b", "c-d")
    assert judge(200, b"anything", {"apns-id": "a-b"}) == Accepted("a-b", None)


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_of_the_table(reason: str) -> None:
    """Every reason Apple lists ends as refused, gone or to be sent later, with its reaction."""
    row = REASONS[reason]
    outcome = judge(row.status, body(reason=reason), {})
    if reason in GONE:
        assert outcome == DeviceGone(reason, None, 410)
    elif reason in LATER:
        assert outcome == RetryLater(reason, row.reaction, None, row.status, row.meaning)
    else:
        assert outcome == Refused(reason, row.reaction, row.status, row.meaning)


RUBBISH = [
    pytest.param(b"", id="empty"),
    pytest.param(b"<html>", id="html"),
    pytest.param(b"[]", id="list"),
    pytest.param(b"null", id="null"),
    pytest.param(b"1e999", id="infinite"),
    pytest.param(b'"Unregistered"', id="text"),
    pytest.param(b'{"reason":7}', id="number"),
    pytest.param(b'{"reason":""}', id="no-word"),
    pytest.param(b'{"error":"Unregistered"}', id="another-member"),
    pytest.param(b'{"reason":"Unregistered"', id="unfinished"),
    pytest.param(b"\xff", id="bytes"),
    pytest.param(b"[" * 9999, id="deep"),
]
STATUSES = [301, 400, 401, 403, 404, 405, 407, 410, 413, 418, 429, 451]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_refusal_that_is_not_apples_is_no_verdict(status: int, rubbish: bytes) -> None:
    """Without Apple's reason nothing is concluded about token, key or app, whatever the status."""
    outcome = judge(status, rubbish, {"retry-after": "7"})
    assert isinstance(outcome, LostVerdict)
    assert (outcome.reason, outcome.status, outcome.after) == ("AnswerUnreadable", status, 7.0)
    assert str(status) in outcome.detail


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "begun",
    [b"", b'{"rea', b'{"reason":"BadDeviceToken"}', b'{"reason":"Unregistered","timestamp":1}'],
)
def test_a_refusal_that_broke_off_is_no_verdict(status: int, begun: bytes) -> None:
    """What came of the body does not count, not even where it looks whole."""
    outcome = judge(status, begun, {}, is_whole=False)
    assert isinstance(outcome, LostVerdict)
    assert (outcome.reason, outcome.status, outcome.after) == ("AnswerCut", status, None)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_trouble_without_a_reason_is_sent_later(
    status: int, rubbish: bytes, *, is_whole: bool
) -> None:
    """A 5xx is trouble of the service, or of what stands before it, and names no reason."""
    outcome = judge(status, rubbish, {"retry-after": "7"}, is_whole=is_whole)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.reaction) == (f"HTTP {status}", Reaction.BACK_OFF)
    assert (outcome.status, outcome.after) == (status, 7.0)


@pytest.mark.parametrize("is_whole", [True, False])
def test_only_the_head_of_a_200_counts(*, is_whole: bool) -> None:
    """It is accepted, whatever becomes of the rest; another 2xx may have been."""
    assert judge(200, b"<", {"apns-id": "a-b"}, is_whole=is_whole) == Accepted("a-b", None)
    assert isinstance(judge(202, b"", {}, is_whole=is_whole), Unknown)


@pytest.mark.parametrize(
    ("status", "expected"), [(400, Refused), (403, Refused), (503, RetryLater)]
)
def test_a_reason_that_apple_adds_later_keeps_its_name(status: int, expected: type) -> None:
    """An unknown reason is told as it came, and judged by the class of its status."""
    outcome = judge(status, body(reason="BrandNew"), {})
    assert type(outcome) is expected
    assert isinstance(outcome, Refused | RetryLater)
    assert outcome.reason == "BrandNew"


@pytest.mark.parametrize(
    ("timestamp", "since"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        (0, 0),
        (None, None),
        ("1700000000123", None),
        (1.5, None),
        (True, None),
        (-1, None),
        ([], None),
    ],
)
def test_a_gone_device_tells_since_when(timestamp: object, since: int | None) -> None:
    """The timestamp of a 410 is in milliseconds; anything else is as if there were none."""
    answer = body(reason="Unregistered", timestamp=timestamp)
    assert judge(410, answer, {}) == DeviceGone("Unregistered", since, 410)


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "9" * 400}, 86400.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "²"}, None),
        ({"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT"}, None),
        (
            {
                "retry-after": "Mon, 23 Nov 2026 10:00:30 GMT",
                "date": "Mon, 23 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Mon, 23 Nov 2026 09:00:00 GMT",
                "date": "Mon, 23 Nov 2026 10:00:00 GMT",
            },
            0.0,
        ),
        ({}, None),
    ],
)
def test_retry_after_is_honoured(headers: dict[str, str], after: float | None) -> None:
    """Retry-After is read in seconds or as a date, counted from the answer's own."""
    outcome = judge(503, body(reason="ServiceUnavailable"), headers)
    assert isinstance(outcome, RetryLater)
    assert outcome.after == after


@given(
    st.integers(100, 599),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.dictionaries(
            st.sampled_from(["reason", "timestamp", "other"]), inner | st.lists(inner, max_size=3)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode()),
    st.dictionaries(
        st.sampled_from(["retry-after", "date", "apns-id", "apns-unique-id"]), st.text(max_size=40)
    ),
)
def test_no_answer_raises(status: int, answer: bytes, headers: dict[str, str]) -> None:
    """Whatever comes back is an outcome, and only 200 is accepted."""
    outcome = judge(status, answer, headers)
    assert isinstance(outcome, Accepted) == (status == 200)
