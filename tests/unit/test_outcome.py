"""What follows from each end of a push, as a table."""

import pytest

from handbell.delivery.circuit import FEWEST_ANSWERS, Circuit
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
):
    """Each outcome leads to the state, the reaction and the judgement that the design lays down."""
    decision = decide(outcome, environment, tried)
    assert {name: getattr(decision, name) for name in expected} == expected


@pytest.mark.parametrize("reason", REASONS)
def test_only_a_refused_token_is_ever_put_in_quarantine(reason: str):
    """Whatever Apple answers, a session is judged only for what concerns its own token."""
    tried = AFTER_BAD_TOKEN if reason == "BadDeviceToken" else None
    decision = decide(_refused(reason), "development", tried)
    assert decision.quarantines == (reason in {"BadDeviceToken", "DeviceTokenNotForTopic"})


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_has_words_and_a_fix(reason: str):
    """No reason of Apple's leaves the reader without its meaning and what to do."""
    words, fix = meaning(reason)
    assert words
    assert fix


def _note(circuit: Circuit, accepted: int, refused: int) -> None:
    for _ in range(accepted):
        circuit.note(Decision("sent"))
    for _ in range(refused):
        circuit.note(Decision("failed", reason="BadDeviceToken", doubt=Doubt.TOKEN))


@pytest.mark.parametrize(
    ("accepted", "refused", "is_open"),
    [
        (0, FEWEST_ANSWERS - 1, False),
        (0, FEWEST_ANSWERS, True),
        (5, 5, False),
        (5, 6, True),
        (1000, 900, False),
    ],
)
def test_most_tokens_refused_opens_the_circuit(*, accepted: int, refused: int, is_open: bool):
    """More than half of at least ten answers must refuse the token before sending stops."""
    circuit = Circuit()
    _note(circuit, accepted, refused)
    assert circuit.is_open is is_open


def test_a_refused_key_opens_the_circuit_at_once():
    """One refusal of the configuration stops the app's sending; the first reason is kept."""
    circuit = Circuit()
    _note(circuit, 3, 0)
    circuit.note(decide(_refused("InvalidProviderToken"), "production"))
    circuit.note(decide(_refused("TopicDisallowed"), "production"))
    assert (circuit.is_open, circuit.reason) == (True, "InvalidProviderToken")


def test_a_token_on_its_way_to_the_other_environment_is_not_counted():
    """The first BadDeviceToken says nothing yet, so it cannot open the circuit."""
    circuit = Circuit()
    for _ in range(100):
        circuit.note(decide(BAD_TOKEN, "production"))
    assert not circuit.is_open
