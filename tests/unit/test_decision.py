"""What follows from each end of a push, as a table."""

import pytest

from handbell.delivery.policy.decision import (
    Decision,
    FirstAnswer,
    HealthSignal,
    Suspect,
    decide,
    health_signal,
)
from handbell.delivery.policy.meanings import meaning
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
)
from handbell.registry.session import Environment
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import Reaction


def _refused(reason: str) -> Refused:
    row = REASONS[reason]
    return Refused(reason, row.reaction, row.status)


BAD_TOKEN = _refused("BadDeviceToken")
BAD_KEY = _refused("BadEnvironmentKeyIdInToken")
AFTER_BAD_TOKEN = FirstAnswer("production", "BadDeviceToken")
AFTER_BAD_KEY = FirstAnswer("production", "BadEnvironmentKeyIdInToken")


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
            {"environment": "development", "quarantines": False, "doubt": Suspect.NOBODY},
        ),
        (BAD_TOKEN, "development", None, {"environment": "production"}),
        (
            BAD_TOKEN,
            "development",
            AFTER_BAD_TOKEN,
            {"state": "failed", "environment": None, "quarantines": True, "doubt": Suspect.TOKEN},
        ),
        (BAD_TOKEN, "twin", None, {"quarantines": True, "doubt": Suspect.TOKEN}),
        (BAD_KEY, "production", None, {"environment": "development", "quarantines": False}),
        (
            BAD_TOKEN,
            "development",
            AFTER_BAD_KEY,
            {
                "quarantines": False,
                "doubt": Suspect.CONFIGURATION,
                "doubted": "production",
                "reason": "BadEnvironmentKeyIdInToken",
            },
        ),
        (
            BAD_KEY,
            "development",
            AFTER_BAD_TOKEN,
            {"quarantines": False, "doubt": Suspect.CONFIGURATION, "doubted": "development"},
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
            DeviceGone("HTTP 410", None),
            "production",
            None,
            {"state": "held", "closes": False, "is_lost": True},
        ),
        (
            _refused("InvalidProviderToken"),
            "production",
            None,
            {"state": "failed", "doubt": Suspect.CONFIGURATION, "quarantines": False},
        ),
        (
            _refused("PayloadTooLarge"),
            "production",
            None,
            {"state": "failed", "doubt": Suspect.NOBODY, "quarantines": False, "closes": False},
        ),
        (
            _refused("DeviceTokenNotForTopic"),
            "production",
            None,
            {"state": "failed", "doubt": Suspect.TOKEN, "quarantines": True},
        ),
    ],
)
def test_an_outcome_leads_to_its_decision(
    outcome: Outcome,
    environment: Environment,
    tried: FirstAnswer | None,
    expected: dict[str, object],
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


@pytest.mark.parametrize("reason", ["BadEnvironmentKeyIdInToken", "BadEnvironmentKeyInToken"])
def test_a_key_of_the_other_environment_is_mended_by_another_key(reason: str) -> None:
    """The token is not at fault, so nobody is told to register it again."""
    assert "handbell key add" in meaning(reason)[1]
    assert "register" not in meaning(reason)[1]


EVERY_REFUSAL = [
    DeviceGone(row.name, 1_700_000_000_000, row.status)
    if row.reaction is Reaction.CLOSE_SESSION
    else RetryLater(row.name, row.reaction, None, row.status)
    if row.status >= 500 or row.status == 429
    else Refused(row.name, row.reaction, row.status)
    for row in REASONS.values()
]


def _name(value: object) -> str:
    return getattr(value, "reason", type(value).__name__)


@pytest.mark.parametrize("tried", [None, AFTER_BAD_TOKEN, AFTER_BAD_KEY])
@pytest.mark.parametrize("outcome", [*EVERY_REFUSAL, Accepted("id"), LostVerdict(410)], ids=_name)
def test_a_push_of_another_kind_says_nothing_of_the_session(
    outcome: Outcome, tried: FirstAnswer | None
) -> None:
    """Whatever the service says of a VoIP push, the token for alerts stays as it is."""
    decision = decide(outcome, "development", tried, is_of_its_kind=False)
    own = decide(outcome, "development", tried)
    assert (decision.state, decision.reason) == (own.state, own.reason)
    assert (decision.closes, decision.quarantines, decision.moves_to) == (False, False, None)
    assert decision.doubt is not Suspect.TOKEN


@pytest.mark.parametrize("tried", [None, AFTER_BAD_TOKEN, AFTER_BAD_KEY])
@pytest.mark.parametrize("status", [301, 400, 403, 404, 410, 413, 429, 500, 503])
def test_a_verdict_that_broke_off_is_none(status: int, tried: FirstAnswer | None) -> None:
    """Nobody is closed, moved, doubted or asked at the other host; it is sent again."""
    assert decide(LostVerdict(status), "production", tried) == Decision(
        "held", reason="AnswerCut", status=status, is_lost=True
    )


@pytest.mark.parametrize(
    ("outcome", "sign"),
    [
        (Accepted("id"), HealthSignal.ANSWERED),
        (BAD_TOKEN, HealthSignal.ANSWERED),
        (DeviceGone("Unregistered", None), HealthSignal.ANSWERED),
        (DeviceGone("HTTP 410", None), HealthSignal.NOTHING),
        (Refused("HTTP 403", Reaction.FIX_CONFIGURATION, 403), HealthSignal.NOTHING),
        (
            RetryLater("TooManyRequests", Reaction.SLOW_DOWN_DEVICE, None, 429),
            HealthSignal.ANSWERED,
        ),
        (RetryLater("HTTP 429", Reaction.BACK_OFF, None, 429), HealthSignal.NOTHING),
        (RetryLater("ServiceUnavailable", Reaction.BACK_OFF, None, 503), HealthSignal.TROUBLE),
        (RetryLater("HTTP 502", Reaction.BACK_OFF, None, 502), HealthSignal.TROUBLE),
        (RetryLater("Shutdown", Reaction.RECONNECT, None, 503), HealthSignal.TROUBLE),
        (RetryLater("RefusedStream", Reaction.RECONNECT), HealthSignal.TROUBLE),
        (RetryLater("Stalled", Reaction.RECONNECT), HealthSignal.TROUBLE),
        (RetryLater("CannotConnect", Reaction.RECONNECT), HealthSignal.UNREACHED),
        (RetryLater("HostNotFound", Reaction.RECONNECT), HealthSignal.UNREACHED),
        (RetryLater("RequestUnusable", Reaction.RECONNECT), HealthSignal.NOTHING),
        (Unknown("TimedOut"), HealthSignal.TROUBLE),
        (Unknown("ConnectionLost"), HealthSignal.TROUBLE),
        (LostVerdict(403), HealthSignal.NOTHING),
        (LostVerdict(403, "AnswerUnreadable"), HealthSignal.TROUBLE),
        (LostVerdict(503), HealthSignal.TROUBLE),
    ],
)
def test_what_an_end_says_of_the_service(outcome: Outcome, sign: HealthSignal) -> None:
    """Only the service's own full answer shows that it works; errors and silence are trouble."""
    assert health_signal(outcome) is sign
