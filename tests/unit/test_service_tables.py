"""What follows from each reason of each push service: one table for the engine's side of all."""

from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.delivery.policy.circuit import CircuitScope, ServiceCircuit
from handbell.delivery.policy.decision import (
    UNREACHED,
    Decision,
    FirstAnswer,
    HealthSignal,
    Suspect,
    decide,
    health_signal,
)
from handbell.delivery.policy.meanings import meaning
from handbell.delivery.policy.ramp_up import RampUps, TrafficRamp
from handbell.delivery.policy.retry import RetryAt, next_attempt, row_of
from handbell.gateways.outcomes import DeviceGone, Outcome, Refused, RetryLater, Unknown
from handbell.services.reactions import Reaction, Reason
from handbell.services.service import PushService
from handbell.services.table import SERVICES

NOW: Final = 1e9
ROWS: Final = [
    pytest.param(service, row, id=f"{service.name}-{row.name}")
    for service in SERVICES.values()
    for row in service.reasons.values()
]
_LATER: Final = frozenset(
    {
        Reaction.RENEW_TOKEN,
        Reaction.RECONNECT,
        Reaction.SLOW_DOWN_DEVICE,
        Reaction.KEEP_FORMER_TOKEN,
        Reaction.BACK_OFF,
    }
)
FCM, WEB_PUSH = SERVICES["fcm"], SERVICES["webpush"]


def outcome_of(row: Reason, after: float | None = None) -> Outcome:
    """Return the outcome that a gateway reports for a reason."""
    if row.reaction is Reaction.CLOSE_SESSION:
        return DeviceGone(row.name, 1, row.status)
    if row.reaction in _LATER:
        return RetryLater(row.name, row.reaction, after, row.status)
    return Refused(row.name, row.reaction, row.status)


def fate_of(decision: Decision) -> str:
    """Return what a decision does to the session, in a word."""
    if decision.closes:
        return "close"
    return "quarantine" if decision.quarantines else "keep"


FATES: Final = {
    Reaction.FIX_NOTIFICATION: ("failed", "keep", Suspect.NOBODY),
    Reaction.FIX_CONFIGURATION: ("failed", "keep", Suspect.CONFIGURATION),
    Reaction.WRONG_APP: ("failed", "quarantine", Suspect.TOKEN),
    Reaction.CLOSE_SESSION: ("failed", "close", Suspect.NOBODY),
    **dict.fromkeys(_LATER, ("held", "keep", Suspect.NOBODY)),
}


@pytest.mark.parametrize(("service", "row"), ROWS)
def test_a_reason_decides_about_delivery_session_and_app(service: PushService, row: Reason) -> None:
    """The reaction alone says what becomes of them, whichever service it is."""
    decision = decide(outcome_of(row), "production", service=service)
    if row.reaction is Reaction.TRY_OTHER_ENVIRONMENT:
        assert decision.environment == "development"
        return
    assert (decision.state, fate_of(decision), decision.doubt) == FATES[row.reaction]
    assert decision.environment is None


@pytest.mark.parametrize(("service", "row"), ROWS)
def test_a_reason_has_words_and_a_fix(service: PushService, row: Reason) -> None:
    """Nobody is left with a code: each says what it means, and what to do or that nothing is."""
    words, fix = meaning(row.name, gateway=service.name)
    assert words == row.meaning
    assert fix


@pytest.mark.parametrize(("service", "row"), ROWS)
def test_a_complete_answer_shows_that_the_service_works(service: PushService, row: Reason) -> None:
    """A server error is trouble; whatever else the service says, it says something."""
    is_trouble = row.reaction in _LATER and row.status >= 500
    expected = HealthSignal.TROUBLE if is_trouble else HealthSignal.ANSWERED
    assert health_signal(outcome_of(row), service) is expected


@pytest.mark.parametrize("service", [FCM, WEB_PUSH], ids=lambda one: one.name)
def test_there_is_no_other_environment_outside_of_apns(service: PushService) -> None:
    """A token that is refused is tried nowhere else, whatever the reaction is called."""
    outcome = Refused("Unauthorized", Reaction.TRY_OTHER_ENVIRONMENT, 401)
    assert decide(outcome, "production", service=service).environment is None


def test_two_environments_that_refuse_a_token_condemn_it() -> None:
    """At Apple a token is judged only once both have refused the token itself."""
    outcome = Refused("BadDeviceToken", Reaction.TRY_OTHER_ENVIRONMENT, 400)
    second = decide(outcome, "development", FirstAnswer("production", "BadDeviceToken"))
    assert (second.quarantines, second.doubted) == (True, "production")


# Delays


@pytest.mark.parametrize(
    ("service", "row"),
    [one for one in ROWS if one.values[1].reaction in _LATER],  # type: ignore[union-attr]
)
def test_a_service_is_asked_again_no_sooner_than_it_wants(
    service: PushService, row: Reason
) -> None:
    """The first delay is its own row's, and no shorter than what the answer asks for."""
    decision = decide(outcome_of(row, 300.0), "production", service=service)
    again = next_attempt(
        decision,
        attempts=1,
        created_at=NOW,
        expires_at=None,
        now=NOW,
        rng=Random(1),  # noqa: S311 - jitter
        service=service,
    )
    assert isinstance(again, RetryAt)
    first = row_of(decision, service).first
    assert again.at >= NOW + max(first, 300.0)
    if row.reaction is not Reaction.RENEW_TOKEN:
        assert first >= service.least_seconds


OURS: Final = {
    "no answer": Unknown("ConnectionLost"),
    "a server error of a proxy": RetryLater("HTTP 502", Reaction.BACK_OFF, status=502),
    "no connection": RetryLater("CannotConnect", Reaction.RECONNECT),
}


@pytest.mark.parametrize("outcome", OURS.values(), ids=OURS)
def test_google_is_asked_again_after_ten_seconds(outcome: Outcome) -> None:
    """Also where the delay is ours, nothing goes to FCM again within ten seconds."""
    decision = decide(outcome, "production", service=FCM)
    assert row_of(decision, FCM).first >= 10
    assert row_of(decision).first < 10


@pytest.mark.parametrize("reason", ["RefusedStream", "GoneAway"])
def test_what_was_not_processed_goes_again_at_once(reason: str) -> None:
    """A stream that was refused is no retry: nobody has seen it."""
    decision = decide(RetryLater(reason, Reaction.RECONNECT), "production", service=FCM)
    assert row_of(decision, FCM).first < 10


def test_a_quota_is_left_alone_for_a_minute() -> None:
    """A quota of Google's is asked about again after sixty seconds at the earliest."""
    row = FCM.reasons["QUOTA_EXCEEDED"]
    assert row_of(decide(outcome_of(row), "production", service=FCM), FCM).first >= 60


def test_unreached_is_the_same_for_all() -> None:
    """No service has a reason of its own by the name of one that says that it was not reached."""
    assert not any(UNREACHED & service.reasons.keys() for service in SERVICES.values())


# The ramp


@given(st.lists(st.tuples(st.floats(0.01, 2), st.integers(1, 5000)), min_size=1, max_size=60))
def test_traffic_rises_no_faster_than_the_service_wants(steps: list[tuple[float, int]]) -> None:
    """Up to any instant no more has gone than a rate that rises in proportion allows."""
    ramp = TrafficRamp(FCM)
    began, now, granted = 0.0, 0.0, 0
    peak, seconds = FCM.peak_per_second, FCM.ramp_seconds
    for pause, wanted in steps:
        now += pause
        began = began or now
        granted += ramp.grant(wanted, now)
        passed = now - began
        if passed < seconds:
            assert granted <= peak * (passed**2 / 2 + 1) / seconds


@given(st.integers(1, 300), st.lists(st.floats(0.05, 5), min_size=1, max_size=20))
def test_a_fleet_rises_no_faster_than_one_worker(workers: int, pauses: list[float]) -> None:
    """All workers of a database together keep to the rate of the service's ramp."""
    now = 1.0
    place = CircuitScope("", "production", "key", "shop-project", "fcm")
    fleet = [RampUps(lambda: now) for _ in range(workers)]
    for one in fleet:
        one.divide(workers)
    began, granted = now, 0
    for pause in pauses:
        granted += sum(one.pace(ServiceCircuit(place), 5000) for one in fleet)
        passed = now - began
        if passed < FCM.ramp_seconds:
            assert granted <= FCM.peak_per_second * (passed**2 / 2 + 1) / FCM.ramp_seconds
        now += pause


def test_after_the_ramp_everything_goes() -> None:
    """From then on nothing is held back, until there was no traffic for as long."""
    ramp = TrafficRamp(FCM)
    first = ramp.grant(10**6, 0)
    assert 0 < first < 1000
    now = 0.0
    while now < FCM.ramp_seconds:
        now += 1
        assert ramp.grant(10**6, now) > 0
    assert ramp.grant(10**6, now + 1) == 10**6
    assert ramp.grant(10**6, now + 2 + FCM.ramp_seconds) == first
