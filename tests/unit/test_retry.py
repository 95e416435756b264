"""When a push is sent again, as a table and as promises that hold for every decision."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell._back_off import JITTER
from handbell.delivery.policy.decision import Decision, decide
from handbell.delivery.policy.retry import (
    DEFAULT_LIFETIME_SECONDS,
    LONGEST_LIFETIME_SECONDS,
    MENDED_BY_HAND,
    MOST_ATTEMPTS,
    NOW_OR_NEVER_SECONDS,
    SERVICE_DOWN,
    GiveUp,
    RetryAt,
    base_delay,
    next_attempt,
    probe_at,
    retry_deadline,
    while_down,
    while_stopped,
)
from handbell.gateways.outcomes import DeviceGone, LostVerdict, Outcome, RetryLater, Unknown
from handbell.services.apns.protocol import RETRY_SERVER_ERROR_SECONDS
from handbell.services.apns.reasons import BACK_OFF, REASONS
from handbell.services.reactions import Reaction

NOW = 1_800_000_000.0
MINUTE = 60
HOUR = 3600
RETRIED = [row for row in REASONS.values() if row.reaction in BACK_OFF]


class Least(Random):
    """Chance that adds nothing."""

    def random(self) -> float:
        """Return the least that chance can give."""
        return 0.0


class Most(Random):
    """Chance that adds all it can."""

    def random(self) -> float:
        """Return the most that chance can give."""
        return math.nextafter(1.0, 0.0)


def _answer(reason: str, after: float | None = None) -> Decision:
    row = REASONS[reason]
    return _held(RetryLater(reason, row.reaction, after, row.status))


def _held(outcome: Outcome) -> Decision:
    decision = decide(outcome, "production")
    assert decision.state == "held"
    return decision


def _not_sent(reason: str) -> Decision:
    return _held(RetryLater(reason, Reaction.RECONNECT))


def _next(
    decision: Decision,
    *,
    attempts: int = 1,
    age: float = 0,
    expires_in: float | None = None,
    rng: Random | None = None,
) -> RetryAt | GiveUp:
    return next_attempt(
        decision,
        attempts=attempts,
        created_at=NOW - age,
        expires_at=None if expires_in is None else NOW + expires_in,
        now=NOW,
        rng=rng or Least(),
    )


def _delay(decision: Decision, attempts: int = 1, rng: Random | None = None) -> float:
    following = _next(decision, attempts=attempts, rng=rng)
    assert isinstance(following, RetryAt)
    return following.at - NOW


TABLE = [
    (_answer("TooManyRequests"), [30, 60, 120, 240, 480], HOUR),
    (_answer("TooManyProviderTokenUpdates"), [120, 240, 480, 960], 20 * MINUTE),
    (_answer("ExpiredProviderToken"), [5, 20, 80, 320, 1280], HOUR),
    (_answer("IdleTimeout"), [1, 4, 16, 64, 256], 15 * MINUTE),
    (_answer("UnrelatedKeyIdInToken"), [1, 4, 16, 64, 256], 15 * MINUTE),
    (_answer("Shutdown"), [15, 900, 3600], HOUR),
    (_answer("InternalServerError"), [900, 1800, 3600, 7200], 4 * HOUR),
    (_answer("ServiceUnavailable"), [900, 1800, 3600, 7200], 4 * HOUR),
    (_held(RetryLater("HTTP 502", Reaction.BACK_OFF, None, 502)), [5, 15, 45], 15 * MINUTE),
    (_held(RetryLater("HTTP 500", Reaction.BACK_OFF, None, 500)), [5, 15, 45], 15 * MINUTE),
    (_held(RetryLater("upstream down", Reaction.BACK_OFF, None, 503)), [5, 15], 15 * MINUTE),
    (_held(RetryLater("HTTP 429", Reaction.BACK_OFF, None, 429)), [900, 1800], 4 * HOUR),
    (_held(LostVerdict(403)), [5, 15, 45], 15 * MINUTE),
    (_held(LostVerdict(410)), [5, 15, 45], 15 * MINUTE),
    (_held(DeviceGone("HTTP 410", None)), [5, 15, 45], 15 * MINUTE),
    (_held(RetryLater("ServiceUnavailable", Reaction.BACK_OFF)), [900, 1800], 4 * HOUR),
    (_not_sent("CannotConnect"), [2, 4, 8, 16, 32, 64], 15 * MINUTE),
    (_not_sent("HostNotFound"), [2, 4, 8], 15 * MINUTE),
    (_not_sent("TimedOut"), [2, 4, 8], 15 * MINUTE),
    (_not_sent("RefusedStream"), [2, 4, 8], 15 * MINUTE),
    (_not_sent("Stalled"), [2, 4, 8], 15 * MINUTE),
    (_held(Unknown("ConnectionLost")), [5, 15, 45, 135, 405], 15 * MINUTE),
    (_held(Unknown("TimedOut")), [5, 15, 45, 135, 405], 15 * MINUTE),
    (_held(Unknown("StreamReset")), [5, 15, 45, 135, 405], 15 * MINUTE),
    (Decision("held", "CircuitOpen"), [60, 120, 240, 480], 15 * MINUTE),
    (Decision("held", "NoCredential"), [60, 120], 15 * MINUTE),
    (Decision("held", "TwinNotRunning"), [60, 120], 15 * MINUTE),
]


@pytest.mark.parametrize(
    ("decision", "delays", "longest"), TABLE, ids=[str(row[0].reason) for row in TABLE]
)
def test_each_reason_has_its_delays(
    decision: Decision, delays: list[float], longest: float
) -> None:
    """The delays of a row grow by its factor up to its longest; chance adds at most a quarter."""
    numbered = list(enumerate(delays, start=1))
    assert [_delay(decision, attempts) for attempts, _ in numbered] == delays
    assert [_delay(decision, attempts, Most()) for attempts, _ in numbered] == pytest.approx(
        [delay * 1.25 for delay in delays]
    )
    assert _delay(decision, attempts=MOST_ATTEMPTS - 1) == longest


def test_every_reason_that_may_be_sent_again_is_in_the_table() -> None:
    """Each reason of Apple's whose reaction allows another attempt is tested above."""
    assert {row.name for row in RETRIED} <= {row[0].reason for row in TABLE}


@pytest.mark.parametrize("name", [row.name for row in REASONS.values() if row.status >= 500])
def test_a_server_error_waits_for_fifteen_minutes(name: str) -> None:
    """After 5xx Apple wants fifteen minutes; only Shutdown, of one server, is tried once before."""
    attempts = 2 if name == "Shutdown" else 1
    assert _delay(_answer(name), attempts) >= RETRY_SERVER_ERROR_SECONDS


@pytest.mark.parametrize(
    ("after", "delay"), [(None, 30), (0.0, 30), (29.5, 30), (31.0, 31), (7200.0, 7200)]
)
def test_a_retry_after_is_honoured(after: float | None, delay: float) -> None:
    """A wait that the service asked for counts if it is longer than ours."""
    assert _delay(_answer("TooManyRequests", after)) == delay


@pytest.mark.parametrize("after", [25 * HOUR, 1e30, math.inf])
def test_a_retry_after_past_the_ceiling_ends_it(after: float) -> None:
    """A wait that is longer than the notification lives ends the delivery."""
    decision = _answer("TooManyRequests", after)
    assert _next(decision) == GiveUp(
        "failed", "TooManyRequests", "no notification is tried for over 24 hours"
    )
    assert _next(decision, expires_in=HOUR) == GiveUp(
        "expired", "TooManyRequests", "it expires before it could be sent again"
    )


@pytest.mark.parametrize(
    ("expires_in", "age", "at", "state"),
    [
        (None, 0, DEFAULT_LIFETIME_SECONDS, "failed"),
        (None, HOUR, DEFAULT_LIFETIME_SECONDS - HOUR, "failed"),
        (5 * MINUTE, 0, 5 * MINUTE, "expired"),
        (3 * 24 * HOUR, 0, 3 * 24 * HOUR, "expired"),
        (LONGEST_LIFETIME_SECONDS, 0, LONGEST_LIFETIME_SECONDS, "expired"),
        (365 * 24 * HOUR, 0, LONGEST_LIFETIME_SECONDS, "failed"),
        (365 * 24 * HOUR, HOUR, LONGEST_LIFETIME_SECONDS - HOUR, "failed"),
        (-NOW, 0, NOW_OR_NEVER_SECONDS, "expired"),
        (-NOW, 10, NOW_OR_NEVER_SECONDS - 10, "expired"),
    ],
)
def test_the_ceiling_is_the_expiry_within_bounds(
    expires_in: float | None, age: float, at: float, state: str
) -> None:
    """It is the expiry, a day without one, thirty days at most, half a minute for now or never."""
    expires_at = None if expires_in is None else NOW + expires_in
    end = retry_deadline(created_at=NOW - age, expires_at=expires_at)
    assert (end.at, end.state) == (NOW + at, state)


@pytest.mark.parametrize(
    ("decision", "age", "expected"),
    [
        (_not_sent("CannotConnect"), 0, RetryAt(NOW + 2, "CannotConnect")),
        (_answer("Shutdown"), 10, RetryAt(NOW + 15, "Shutdown")),
        (
            _answer("Shutdown"),
            20,
            GiveUp("expired", "Shutdown", "it was to arrive at once or not at all"),
        ),
        (
            _answer("ServiceUnavailable"),
            0,
            GiveUp("expired", "ServiceUnavailable", "it was to arrive at once or not at all"),
        ),
        (
            _held(Unknown("ConnectionLost")),
            0,
            GiveUp("failed", "ConnectionLost", "it was to be sent only once"),
        ),
    ],
)
def test_now_or_never_is_tried_for_a_moment(
    decision: Decision, age: float, expected: RetryAt | GiveUp
) -> None:
    """What expires at once is repeated for half a minute, and only if it was surely not taken."""
    assert _next(decision, age=age, expires_in=-NOW) == expected


def test_an_expired_notification_is_not_sent_again() -> None:
    """Once the expiry has passed, the delivery is expired and keeps its last reason."""
    following = _next(_not_sent("CannotConnect"), expires_in=-1)
    assert following == GiveUp(
        "expired", "CannotConnect", "it expires before it could be sent again"
    )


def test_attempts_are_bounded() -> None:
    """After so many attempts a delivery has failed, with its last reason."""
    decision = _answer("IdleTimeout")
    assert isinstance(_next(decision, attempts=MOST_ATTEMPTS - 1), RetryAt)
    assert _next(decision, attempts=MOST_ATTEMPTS) == GiveUp(
        "failed", "IdleTimeout", "it was tried 200 times"
    )


def test_only_a_repeat_after_an_unknown_end_needs_a_collapse_id() -> None:
    """What may have been taken goes out so that the phone shows it once."""
    repeat = _next(_held(Unknown("TimedOut")))
    clear = _next(_answer("TooManyRequests"))
    assert isinstance(repeat, RetryAt)
    assert repeat.needs_collapse_id
    assert isinstance(clear, RetryAt)
    assert not clear.needs_collapse_id


@pytest.mark.parametrize("state", ["sent", "failed", "expired", "cancelled"])
def test_only_a_held_delivery_can_be_sent_again(state: str) -> None:
    """To ask for the next attempt of a delivery that has ended is a mistake of the caller's."""
    with pytest.raises(ValueError, match=f"A delivery that is {state} is not sent again"):
        _next(Decision(state))  # type: ignore[arg-type]


def test_probes_of_an_open_circuit_come_less_and_less_often() -> None:
    """An open circuit is probed after a minute, then after twice as long, up to fifteen minutes."""
    row = MENDED_BY_HAND
    delays = [probe_at(row, probes=probes, now=NOW, rng=Least()) - NOW for probes in range(6)]
    assert delays == [60, 120, 240, 480, 900, 900]
    assert probe_at(MENDED_BY_HAND, probes=10**9, now=NOW, rng=Most()) - NOW == pytest.approx(1125)


@pytest.mark.parametrize(
    ("decision", "attempts", "expires_in", "expected"),
    [
        (_answer("ServiceUnavailable"), 1, None, RetryAt(NOW + 300, SERVICE_DOWN)),
        (_answer("ServiceUnavailable"), 1, 60, RetryAt(NOW + 60, SERVICE_DOWN)),
        (_answer("ServiceUnavailable", 7200), 1, None, RetryAt(NOW + 300, SERVICE_DOWN)),
        (_held(Unknown("TimedOut")), 1, None, RetryAt(NOW + 300, SERVICE_DOWN, True)),
        (_not_sent("CannotConnect"), 1, 0, RetryAt(NOW + NOW_OR_NEVER_SECONDS, SERVICE_DOWN)),
        (_held(Unknown("TimedOut")), 1, 0, ("failed", "TimedOut")),
        (_not_sent("CannotConnect"), MOST_ATTEMPTS, None, ("failed", "CannotConnect")),
        (_not_sent("CannotConnect"), 1, -1, ("expired", "CannotConnect")),
    ],
)
def test_what_an_outage_holds_waits_within_its_bounds(
    decision: Decision, attempts: int, expires_in: int | None, expected: object
) -> None:
    """It waits for the end of the outage, not beyond its time; what may ring twice is given up."""
    expires_at = int(NOW + expires_in) if expires_in else expires_in
    again = while_down(
        decision, attempts=attempts, first_due=NOW, expires_at=expires_at, now=NOW, rng=Least()
    )
    assert (again if isinstance(again, RetryAt) else (again.state, again.reason)) == expected


decisions = st.one_of(
    st.sampled_from([row[0] for row in TABLE]),
    st.builds(
        _answer,
        st.sampled_from([row.name for row in RETRIED]),
        st.none() | st.floats(min_value=0, allow_nan=False),
    ),
)
lifetimes = st.none() | st.floats(min_value=-NOW, max_value=1e9)


@given(decisions, st.integers(1, MOST_ATTEMPTS - 2))
def test_delays_grow_up_to_the_longest(decision: Decision, attempts: int) -> None:
    """Without chance no delay is shorter than the one before it, and all are above nothing."""
    delay = base_delay(decision, attempts=attempts)
    assert 0 < delay <= base_delay(decision, attempts=attempts + 1)


@given(decisions, st.integers(0, 10**6), lifetimes, st.floats(0, 1e8), st.randoms())
def test_the_next_attempt_is_within_its_bounds(
    decision: Decision, attempts: int, expires_in: float | None, age: float, rng: Random
) -> None:
    """Never before what the row and the service ask for, never after the ceiling."""
    expires_at = None if expires_in is None else NOW + expires_in
    following = _next(decision, attempts=attempts, age=age, expires_in=expires_in, rng=rng)
    if isinstance(following, GiveUp):
        assert following.reason == decision.reason
        return
    base = base_delay(decision, attempts=attempts)
    earliest = NOW + max(base, decision.after or 0)
    assert NOW < earliest <= following.at <= earliest + JITTER * base
    assert following.at <= retry_deadline(created_at=NOW - age, expires_at=expires_at).at


@given(st.lists(decisions, min_size=1, max_size=5), lifetimes, st.randoms())
def test_every_delivery_comes_to_an_end(
    answers: list[Decision], expires_in: float | None, rng: Random
) -> None:
    """Whatever is answered, for ever, a delivery is given up after a bounded number of attempts."""
    now, attempts = NOW, 0
    expires_at = None if expires_in is None else NOW + expires_in
    while True:
        attempts += 1
        following = next_attempt(
            answers[attempts % len(answers)],
            attempts=attempts,
            created_at=NOW,
            expires_at=expires_at,
            now=now,
            rng=rng,
        )
        if isinstance(following, GiveUp):
            break
        assert following.at > now
        now = following.at
    assert attempts <= MOST_ATTEMPTS
    assert now <= NOW + LONGEST_LIFETIME_SECONDS


DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("age", "expires_in", "waits"),
    [
        (0, None, 60),
        (DAY - 30, None, 30),
        (DAY, None, "failed"),
        (40 * HOUR, None, "failed"),
        (0, 30, 30),
        (HOUR, 3 * DAY, 60),
        (3 * DAY, 1, 1),
        (HOUR, 0, "expired"),
        (HOUR, -5, "expired"),
        (31 * DAY, DAY, "failed"),
    ],
)
def test_a_wait_for_an_open_circuit_ends_with_the_notification(
    age: float, expires_in: int | None, waits: float | str
) -> None:
    """It lasts until the next look, but never beyond the expiry or a day after it was first due."""
    again = while_stopped(
        reason="CircuitOpen",
        first_due=NOW - age,
        expires_at=None if expires_in is None else int(NOW + expires_in),
        until=NOW + 60,
        now=NOW,
    )
    if isinstance(waits, str):
        assert isinstance(again, GiveUp)
        assert (again.state, again.reason) == (waits, "CircuitOpen")
    else:
        assert again == RetryAt(NOW + waits, "CircuitOpen")


def test_now_or_never_waits_half_a_minute_for_an_open_circuit() -> None:
    """What was to arrive at once or not at all expires while the app is stopped."""
    for age, is_over in ((0, False), (29, False), (30, True)):
        again = while_stopped(
            reason="CircuitOpen", first_due=NOW - age, expires_at=0, until=NOW + 60, now=NOW
        )
        assert isinstance(again, GiveUp) is is_over
