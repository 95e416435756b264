import base64
import hashlib
import hmac
import json
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from handbell.delivery.events import (
    CircuitOpened,
    DeliveryFailed,
    SessionClosed,
)
from handbell.delivery.webhooks.sender import (
    FIRST_RETRY_SECONDS,
    LIFETIME_SECONDS,
    LONGEST_RETRY_SECONDS,
    next_attempt,
)
from handbell.delivery.webhooks.store import NAMES, call_body, message_id, signature
from handbell.storage.tables import ADDRESSED

PAGE = (Path(__file__).parents[2] / "docs/webhooks.md").read_text(encoding="utf-8")
APP = "TEAM123456.com.sample.myapp"
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of nothing much").decode()
NOW = 1_700_000_000.5


def failed(number: int = 7) -> DeliveryFailed:
    """Return a failure."""
    return DeliveryFailed(
        app=APP,
        at=NOW,
        notification_id="3f9c2a71b04e5d8",
        number=number,
        mail="test@4d.com",
        state="failed",
        reason="PayloadTooLarge",
        status=413,
        attempts=1,
        environment="production",
    )


def test_the_signature_is_the_published_one() -> None:
    """The example that the libraries of Standard Webhooks are tested with comes out the same."""
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("body", [b"", b"{}", "{“é”}".encode(), b"\x00\n."])
def test_the_signature_covers_id_time_and_body(body: bytes) -> None:
    """It is an HMAC-SHA256 over the three, joined with dots, under the decoded secret."""
    key = base64.b64decode(SECRET[6:])
    expected = hmac.new(key, b"msg_1.1700000000." + body, hashlib.sha256).digest()
    made = signature(SECRET, "msg_1", 1700000000, body)
    assert made == "v1," + base64.b64encode(expected).decode()


def verifier() -> Any:
    """Return the function that the page gives to back ends."""
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "webhooks.md", "exec"), names)  # noqa: S102 - our own snippet
    return names["verify"]


def test_the_pages_snippet_verifies_a_call_and_nothing_else() -> None:
    """It takes what was signed, and refuses another body, another secret and an old call."""
    verify, now, body = verifier(), int(time.time()), b'{"type":"test"}'
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,bm90IHRoaXM= {signature(SECRET, 'msg_1', now, body)}",
    }
    assert verify(SECRET, headers, body)
    assert not verify(SECRET, headers, body + b" ")
    assert not verify("whsec_" + base64.b64encode(b"other").decode(), headers, body)
    assert not verify(SECRET, {**headers, "webhook-timestamp": str(now - 301)}, body)
    assert not verify(SECRET, {**headers, "webhook-id": "msg_2"}, body)


def test_a_body_is_what_the_page_shows() -> None:
    """The page's example has the fields of a real body, and no more."""
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    shown, made = json.loads(example), json.loads(call_body(APP, [failed()], now=NOW))
    assert shown["data"]["events"][0]["data"] == made["data"]["events"][0]["data"]
    assert made["data"]["events"][0]["timestamp"] == "2023-11-14T22:13:20.500Z"
    assert [shown.keys(), shown["data"].keys()] == [made.keys(), made["data"].keys()]


def test_an_address_that_no_session_holds_has_no_session_id() -> None:
    """A delivery to a bare device token is told without a session."""
    made = json.loads(call_body(APP, [failed(ADDRESSED + 1)], now=NOW))
    assert made["data"]["events"][0]["data"]["session_id"] is None


def test_events_are_told_in_their_order_with_their_names() -> None:
    """A call tells of several kinds of events in the order in which they happened."""
    events = [
        SessionClosed(app=APP, at=NOW, session_id=7, mail="test@4d.com", reason="Unregistered"),
        CircuitOpened(app=APP, at=NOW, reason="BadTopic", detail="why", probe_at=NOW + 60),
    ]
    told = json.loads(call_body(APP, events, now=NOW))["data"]["events"]
    assert [one["type"] for one in told] == ["session.closed", "circuit.opened"]
    assert told[1]["data"]["probe_at"] == "2023-11-14T22:14:20.500Z"


@pytest.mark.parametrize("name", NAMES.values())
def test_every_event_is_documented(name: str) -> None:
    """The page has a row for each event that a webhook can be called for."""
    assert f"| `{name}` |" in PAGE


def test_a_message_id_is_new_and_holds_no_dot() -> None:
    """The signed text is joined with dots, so the id must not hold one."""
    ids = {message_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"msg_[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize(
    ("attempts", "delay"),
    [(1, 60), (2, 120), (3, 240), (9, 15_360), (10, 21_600), (50, 21_600), (100_000, 21_600)],
)
def test_the_delay_doubles_from_a_minute_to_six_hours(attempts: int, delay: int) -> None:
    """Chance adds up to a quarter and takes nothing away."""
    for seed in range(20):
        rng = random.Random(seed)  # noqa: S311 - no secret
        at = next_attempt(attempts, created_at=NOW, now=NOW, rng=rng)
        assert at is not None
        assert delay <= at - NOW < 1.25 * delay


@pytest.mark.parametrize(
    ("retry_after", "least"), [(None, 60), (5, 60), (600, 600), (10**9, LONGEST_RETRY_SECONDS)]
)
def test_a_receivers_wish_is_heard_within_bounds(retry_after: float | None, least: float) -> None:
    """Retry-After is honoured up to six hours, and never shortens the delay."""
    rng = random.Random(1)  # noqa: S311 - no secret
    at = next_attempt(1, created_at=NOW, now=NOW, rng=rng, retry_after=retry_after)
    assert at is not None
    assert least <= at - NOW <= least + FIRST_RETRY_SECONDS / 4


def test_after_three_days_it_is_over() -> None:
    """A call that no receiver took is tried 18 to 20 times within three days, and then no more."""
    rng = random.Random(7)  # noqa: S311 - no secret
    now, attempts = NOW, 0
    at: float | None = NOW
    while at is not None:
        now, attempts = at, attempts + 1
        at = next_attempt(attempts, created_at=NOW, now=now, rng=rng)
    assert now <= NOW + LIFETIME_SECONDS
    assert 18 <= attempts <= 20
