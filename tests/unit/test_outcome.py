"""What follows from each end of a push, as a table."""

import random

import pytest

from handbell.apps.app import App
from handbell.delivery.lane import FEWEST_ANSWERS, Lane
from handbell.delivery.outcome import Decision, Doubt, Tried, decide, meaning
from handbell.gateways.apns.protocol import REASONS, Reaction
from handbell.gateways.gateway import (
    Accepted,
    DeviceGone,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
)


def _refused(reason: str) -> Refused:
    row = REASONS[reason]
    return Refused(reason, row.reaction, row.status)


BAD_TOKEN = _refused("BadDeviceToken")
BAD_KEY = _refused("BadEnvironmentKeyIdInToken")
AFTER_BAD_TOKEN = Tried("production", "BadDeviceToken")
AFTER_BAD_KEY = Tried("production", "BadEnvironmentKeyIdInToken")


@pytest.mark.parametrize(
    ("outcome", "environment", "tried", "expected"),
    [
        (Accepted("id", "unique"), "production", None, {"state": "sent", "unique_id": "unique"}),
        (
            Accepted("id"),
            "development",
            AFTER_BAD_TOKEN,
            {"state": "sent", "moves_to": "development"},
        ),
        (
            BAD_TOKEN,
            "production",
            None,
            {"environment": "development", "quarantines": False, "doubt": Doubt.NOBODY},
        ),
        (BAD_TOKEN, "development", None, {"environment": "production"}),
        (
            BAD_TOKEN,
            "development",
            AFTER_BAD_TOKEN,
            {"state": "failed", "environment": None, "quarantines": True, "doubt": Doubt.TOKEN},
        ),
        (BAD_TOKEN, "twin", None, {"quarantines": True, "doubt": Doubt.TOKEN}),
        (BAD_KEY, "production", None, {"environment": "development", "quarantines": False}),
        (
            BAD_TOKEN,
            "development",
            AFTER_BAD_KEY,
            {
                "quarantines": False,
                "doubt": Doubt.CONFIGURATION,
                "reason": "BadEnvironmentKeyIdInToken",
            },
        ),
        (
            BAD_KEY,
            "development",
            AFTER_BAD_TOKEN,
            {"quarantines": False, "doubt": Doubt.CONFIGURATION},
        ),
        (
            DeviceGone("Unregistered", 1_700_000_000_000),
            "production",
            None,
            {"state": "failed", "closes": True, "gone_since": 1_700_000_000_000},
        ),
        (
            RetryLater("TooManyRequests", Reaction.SLOW_DOWN_DEVICE, after=7, status=429),
            "production",
            None,
            {"state": "held", "after": 7, "reaction": Reaction.SLOW_DOWN_DEVICE},
        ),
        (Unknown("NoAnswer"), "production", None, {"state": "held", "is_unknown": True}),
        (
            _refused("InvalidProviderToken"),
            "production",
            None,
            {"state": "failed", "doubt": Doubt.CONFIGURATION, "quarantines": False},
        ),
        (
            _refused("PayloadTooLarge"),
            "production",
            None,
            {"state": "failed", "doubt": Doubt.NOBODY, "quarantines": False, "closes": False},
        ),
        (
            _refused("DeviceTokenNotForTopic"),
            "production",
            None,
            {"state": "failed", "doubt": Doubt.TOKEN, "quarantines": True},
        ),
    ],
)
def test_an_outcome_leads_to_its_decision(
    outcome: Outcome, environment: str, tried: Tried | None, expected: dict[str, object]
) -> None:
    """Each outcome leads to the state, the reaction and the judgement that the design lays down."""
    decision = decide(outcome, environment, tried)
    assert {name: getattr(decision, name) for name in expected} == expected


@pytest.mark.parametrize("reason", REASONS)
def test_only_a_refused_token_is_ever_put_in_quarantine(reason: str) -> None:
    """Whatever Apple answers, a session is judged only for what concerns its own token."""
    tried = AFTER_BAD_TOKEN if reason == "BadDeviceToken" else None
    decision = decide(_refused(reason), "development", tried)
    assert decision.quarantines == (reason in {"BadDeviceToken", "DeviceTokenNotForTopic"})


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_words_and_a_fix(reason: str) -> None:
    """No reason of Apple's leaves the reader without its meaning and what to do."""
    words, fix = meaning(reason)
    assert words
    assert fix


RNG = random.Random(1)  # noqa: S311 - jitter


def _lane() -> Lane:
    return Lane(App(team_id="TEAM123456", bundle_id="com.sample.myapp"))


def _note(lane: Lane, accepted: int, refused: int) -> None:
    lane.note_accepted(accepted)
    for _ in range(refused):
        lane.note(Decision("failed", reason="BadDeviceToken", doubt=Doubt.TOKEN), 1000, RNG)


@pytest.mark.parametrize(
    ("accepted", "refused", "is_open"),
    [
        (0, FEWEST_ANSWERS - 1, False),
        (0, FEWEST_ANSWERS, True),
        (5, 5, False),
        (5, 6, True),
        (1000, 100, False),
    ],
)
def test_most_tokens_refused_opens_the_circuit(
    *, accepted: int, refused: int, is_open: bool
) -> None:
    """More than half of at least ten answers must refuse the token before sending stops."""
    lane = _lane()
    _note(lane, accepted, refused)
    assert (lane.stop is not None) is is_open


def test_a_configuration_that_breaks_later_is_seen() -> None:
    """Only the last answers count, so a million accepted ones do not hide that it broke."""
    lane = _lane()
    lane.note_accepted(1_000_000)
    for _ in range(2000):
        lane.note_accepted(1)
    _note(lane, 0, 1000)
    assert lane.stop is not None


@pytest.mark.parametrize("reason", ["BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken"])
def test_a_key_of_the_other_environment_is_mended_by_another_key(reason: str) -> None:
    """The token is not at fault, so nobody is told to register it again."""
    assert "handbell key add" in meaning(reason)[1]
    assert "register" not in meaning(reason)[1]


def test_a_refused_key_opens_the_circuit_at_once() -> None:
    """One refusal of the configuration stops the app's sending; the first reason is kept."""
    lane = _lane()
    _note(lane, 3, 0)
    lane.note(decide(_refused("InvalidProviderToken"), "production"), 1000, RNG)
    lane.note(decide(_refused("TopicDisallowed"), "production"), 1001, RNG)
    assert lane.stop is not None
    assert (lane.stop.reason, lane.stop.since) == ("InvalidProviderToken", 1000)


def test_an_open_circuit_lets_one_push_through_when_it_is_time() -> None:
    """Nothing goes until the probe; then one push; a refusal doubles the wait, a success closes."""
    lane = _lane()
    lane.note(decide(_refused("InvalidProviderToken"), "production"), 1000, RNG)
    assert lane.stop is not None
    first = lane.stop.probe_at
    assert lane.acquire(first - 1) is None
    assert lane.acquire(first) is not None
    assert lane.acquire(first) is None
    lane.note(decide(_refused("InvalidProviderToken"), "production"), first, RNG)
    assert lane.stop.probe_at - first > first - 1000
    assert lane.acquire(lane.stop.probe_at) is not None
    assert lane.note_accepted(1)
    assert lane.stop is None
    assert not lane.is_probing


def test_a_token_on_its_way_to_the_other_environment_is_not_counted() -> None:
    """The first BadDeviceToken says nothing yet, so it cannot open the circuit."""
    lane = _lane()
    for _ in range(100):
        lane.note(decide(BAD_TOKEN, "production"), 1000, RNG)
    assert lane.stop is None
