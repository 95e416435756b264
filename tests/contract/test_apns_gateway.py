"""Our gateway against every fault of the twin: each push is reported once, and rightly."""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.gateway_stage import UNHURRIED, GatewayStage, send
from tests.standing_clock import StandingClock

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.errors import GatewayError
from handbell.gateways.apns.client import ApnsGateway, Endpoint
from handbell.gateways.apns.compose import compose
from handbell.gateways.gateway import Push
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
    Withdrawn,
)
from handbell.services.apns.credential import AuthKey, read_certificate
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import Reaction
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

TEAM, BUNDLE = "TEAM123456", "com.sample.myapp"
APP = App(team_id=TEAM, bundle_id=BUNDLE)
MESSAGE = compose(Notification(title="Hello"), app=APP, now=time.time())
PHONES = 60
SLOT_START = 2100 * 857_143
"""An instant at which a provider token has just been renewed, so that the former is valid."""


@dataclass
class Stage(GatewayStage):
    """A twin with one app, its key, and enough phones."""

    twin: RunningTwin
    key: AuthKey
    clock: StandingClock
    phones: list[Phone]
    told: list[tuple[Push, Outcome]] = field(default_factory=list)

    def gateway(self, **options: Any) -> ApnsGateway:
        """Open a gateway to both sides of the twin, with short timeouts."""
        known: dict[str, Any] = {
            "credential": self.key,
            "endpoints": {
                "production": Endpoint(self.twin.production_url, self.twin.ca_file),
                "development": Endpoint(self.twin.development_url, self.twin.ca_file),
            },
            "connect_timeout": 1.0,
            "request_timeout": 0.5,
            "now": self.clock,
        }
        return ApnsGateway(**known | options)

    def pushes(self, phones: Sequence[Phone] | None = None) -> list[Push]:
        """Return one push to each phone."""
        return [
            Push(number, phone.token, phone.side, str(uuid.uuid4()), MESSAGE)
            for number, phone in enumerate(phones or self.phones)
        ]

    def delivered(self) -> Counter[int]:
        """Return how many phones got how many pushes."""
        counts = [sum(self.twin.accepted_of(phone.token).values()) for phone in self.phones]
        return Counter(counts)


@pytest.fixture(scope="module")
def theatre(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningTwin, StandingClock]]:
    """Run one twin for the file, by a clock of its own."""
    clock = StandingClock(float(SLOT_START + 60))
    with start_twin(tmp_path_factory.mktemp("twin"), now=clock) as twin:
        yield twin, clock


@pytest.fixture
def stage(theatre: tuple[RunningTwin, StandingClock]) -> Iterator[Stage]:
    """Give new phones and a new key to each test; faults are forgotten afterwards."""
    twin, clock = theatre
    clock.at = float(SLOT_START + 60)
    key = make_key(TEAM)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    phones = [twin.add_phone(app=f"{TEAM}.{BUNDLE}") for _ in range(PHONES)]
    yield Stage(twin, key, clock, phones)
    twin.clear_faults()
    for phone in phones:
        twin.remove_phone(phone)


CLASS_OF = {
    Reaction.FIX_NOTIFICATION: Refused,
    Reaction.FIX_CONFIGURATION: Refused,
    Reaction.TRY_OTHER_ENVIRONMENT: Refused,
    Reaction.WRONG_APP: Refused,
    Reaction.CLOSE_SESSION: DeviceGone,
    Reaction.SLOW_DOWN_DEVICE: RetryLater,
    Reaction.BACK_OFF: RetryLater,
    Reaction.RENEW_TOKEN: Accepted,
    Reaction.RECONNECT: Accepted,
    Reaction.KEEP_FORMER_TOKEN: Accepted,
}
"""What one such answer comes to; the last three are healed by sending once more."""


def test_every_push_is_accepted_when_nothing_goes_wrong(stage: Stage) -> None:
    """Without faults all pushes are accepted, under their own ids, over one connection."""

    async def story() -> None:
        gateway = stage.gateway()
        pushes = stage.pushes()
        outcomes = await send(gateway, pushes)
        assert outcomes == [Accepted(push.id) for push in pushes]
        assert (gateway.opened, gateway.requests, gateway.resent) == (1, PHONES, 0)
        assert gateway.clock_skew is not None
        await gateway.close()

    asyncio.run(story())
    assert stage.delivered() == {1: PHONES}


@pytest.mark.parametrize("after", [0, 7], ids=["first", "later"])
@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_strikes_its_own_push_alone(stage: Stage, reason: str, after: int) -> None:
    """An answer with a reason becomes the outcome of its push; the others are accepted."""
    phone = stage.phones[after]
    stage.twin.add_fault("answer", token=phone.token, reason=reason)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    struck = outcomes.pop(after)
    assert type(struck) is CLASS_OF[REASONS[reason].reaction]
    assert isinstance(struck, Accepted) or getattr(struck, "reason", None) == reason
    assert {type(outcome) for outcome in outcomes} == {Accepted}


@pytest.mark.parametrize("reason", [row.name for row in REASONS.values() if row.status != 410])
def test_a_reason_that_stays_is_reported(stage: Stage, reason: str) -> None:
    """A reason that strikes the second try too ends as what it says, with its reaction."""
    stage.twin.add_fault("answer", reason=reason, count=20)
    (outcome,) = stage.send(stage.pushes(stage.phones[:1]), **UNHURRIED)
    row = REASONS[reason]
    assert isinstance(outcome, RetryLater | Refused)
    assert (outcome.reason, outcome.reaction, outcome.status) == (reason, row.reaction, row.status)


@pytest.mark.parametrize("reason", REASONS)
def test_a_reason_that_did_not_arrive_whole_is_no_verdict(stage: Stage, reason: str) -> None:
    """Whatever it would have said, an answer that breaks off decides about its push alone.

    Nothing is healed by it, as nobody knows what is wrong; the status tells whether it is trouble.
    """
    status = REASONS[reason].status
    phone = stage.phones[3]
    stage.twin.add_fault("cut-answer", token=phone.token, reason=reason, count=5)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    struck = outcomes.pop(3)
    if status < 500:
        assert isinstance(struck, LostVerdict)
        assert (struck.status, struck.reason) == (status, "AnswerCut")
    else:
        assert isinstance(struck, RetryLater)
        assert (struck.status, struck.reason) == (status, f"HTTP {status}")
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    assert [fault.left for fault in stage.twin.faults] == [4]


def test_a_200_that_breaks_off_was_said(stage: Stage) -> None:
    """It counts from its head on."""
    stage.twin.add_fault("cut-answer", token=stage.phones[3].token, status=200, reason="nothing")
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    assert {type(outcome) for outcome in outcomes} == {Accepted}


@pytest.mark.parametrize("after", [0, 1, 20], ids=["first", "second", "midway"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "slow", "seconds": 0.2}, Accepted),
        ({"kind": "silence"}, Unknown),
        ({"kind": "silence", "delivers": True}, Unknown),
        ({"kind": "reset"}, Unknown),
        ({"kind": "reset", "delivers": True}, Unknown),
        ({"kind": "refuse-stream"}, Accepted),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_fault_of_one_stream_strikes_its_own_push_alone(
    stage: Stage, fault: dict[str, Any], expected: type, after: int
) -> None:
    """One bad stream decides the end of its push; all others are accepted and delivered once."""
    stage.twin.add_fault(**fault, token=stage.phones[after].token)
    outcomes = stage.send(stage.pushes(), **({} if fault["kind"] == "silence" else UNHURRIED))
    assert type(outcomes.pop(after)) is expected
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    reaches = expected is Accepted or bool(fault.get("delivers"))
    assert stage.delivered() == Counter([1] * (PHONES - 1) + [int(reaches)])


@pytest.mark.parametrize("after", [0, 1, 20], ids=["first", "second", "midway"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "stream-limit", "limit": 1},
        {"kind": "stream-limit", "limit": 3},
        {"kind": "refuse-stream", "count": 3},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_what_was_certainly_not_processed_is_sent_again(
    stage: Stage, fault: dict[str, Any], after: int
) -> None:
    """Refused streams and a lower limit cost time only: every phone gets it exactly once."""
    stage.twin.add_fault(**fault, after=after)
    outcomes = stage.send(stage.pushes())
    assert [outcome for outcome in outcomes if not isinstance(outcome, Accepted)] == []
    assert stage.delivered() == {1: PHONES}


@pytest.mark.parametrize("after", [0, 1, 20], ids=["first", "second", "midway"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "goaway"},
        {"kind": "goaway", "reason": "IdleTimeout"},
        {"kind": "goaway", "graceful": False},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
def test_a_goaway_in_the_middle_is_survived(
    stage: Stage, fault: dict[str, Any], after: int
) -> None:
    """What the GOAWAY left out is sent again, or unknown as the server hangs up; never twice."""
    stage.twin.add_fault(**fault, after=after)
    outcomes = stage.send(stage.pushes())
    ends = Counter(type(outcome) for outcome in outcomes)
    assert set(ends) <= {Accepted, Unknown}
    delivered = stage.delivered()
    assert max(delivered) == 1
    assert ends[Accepted] <= delivered[1]


@pytest.mark.parametrize("after", [0, 1, 20], ids=["first", "second", "midway"])
@pytest.mark.parametrize("delivers", [False, True])
def test_a_cut_connection_leaves_what_was_on_the_wire_unknown(
    stage: Stage, *, after: int, delivers: bool
) -> None:
    """What was in flight at a cut is accepted or unknown, and was delivered at most once."""
    stage.twin.add_fault("cut", after=after, delivers=delivers)
    outcomes = stage.send(stage.pushes(), in_flight=10)
    ends = Counter(type(outcome) for outcome in outcomes)
    assert set(ends) == {Accepted, Unknown}
    assert 1 <= ends[Unknown] <= 10
    delivered = stage.delivered()
    assert max(delivered) == 1
    assert ends[Accepted] <= delivered[1] <= PHONES


def test_a_slow_answer_delays_no_other(stage: Stage) -> None:
    """While one answer takes its time the other pushes are all reported."""
    stage.twin.add_fault("slow", token=stage.phones[5].token, seconds=0.4)
    order: list[int] = []

    async def story() -> None:
        gateway = stage.gateway()
        await gateway.send(stage.pushes(), lambda push, _: order.append(push.key))
        await gateway.close()

    asyncio.run(story())
    assert order[-1] == 5


def test_a_silent_first_push_does_not_hold_up_the_others(stage: Stage) -> None:
    """Even where only one stream is allowed and it stays silent, others do not wait for it."""
    stage.twin.add_fault("silence")
    order: list[int] = []

    async def story() -> None:
        gateway = stage.gateway(request_timeout=1.0)
        await gateway.send(stage.pushes(), lambda push, _: order.append(push.key))
        await gateway.close()

    asyncio.run(story())
    assert order[-1] == 0


@pytest.mark.parametrize(("skew", "expected"), [(0, 1), (3000, 2), (-3000, 2)])
def test_a_wrong_clock_is_followed_and_told(stage: Stage, skew: int, expected: int) -> None:
    """With a clock so wrong that tokens seem expired, tokens are made by the service's clock."""

    async def story() -> None:
        gateway = stage.gateway(now=lambda: stage.clock() + skew)
        outcomes = await send(gateway, stage.pushes())
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert gateway.clock_skew == pytest.approx(skew, abs=2)
        assert gateway.opened <= expected
        await gateway.close()

    asyncio.run(story())


def test_what_waits_is_withdrawn_and_what_is_on_the_wire_ends(stage: Stage) -> None:
    """Taken back, what is not on the wire is reported at once and never sent; others go on."""
    stage.twin.add_fault("slow", seconds=0.3, count=PHONES)
    pushes = stage.pushes()
    gone = {push.key for push in pushes if push.key % 2}

    async def story() -> dict[int, Outcome]:
        gateway = stage.gateway(connections=1, in_flight=2, request_timeout=5.0)
        told: dict[int, Outcome] = {}
        first = asyncio.Event()

        def report(push: Push, outcome: Outcome) -> None:
            assert push.key not in told
            told[push.key] = outcome
            first.set()

        sending = asyncio.create_task(gateway.send(pushes, report))
        await first.wait()
        gateway.withdraw(lambda push: push.key in gone)
        withdrawn = {key for key, outcome in told.items() if outcome == Withdrawn()}
        assert withdrawn < gone
        assert len(gone - withdrawn) <= 2
        await sending
        await gateway.close()
        return told

    told = asyncio.run(story())
    assert sorted(told) == sorted(push.key for push in pushes)
    accepted = {key for key, outcome in told.items() if isinstance(outcome, Accepted)}
    assert accepted >= set(told) - gone
    assert stage.delivered() == {1: len(accepted), 0: PHONES - len(accepted)}


@pytest.mark.parametrize("reason", ["ExpiredProviderToken", "IdleTimeout", "Shutdown"])
def test_what_is_withdrawn_on_the_wire_is_not_sent_again(stage: Stage, reason: str) -> None:
    """An answer that would be healed by a second try ends it: as refused, or as withdrawn."""
    stage.twin.add_fault("answer", reason=reason)
    (push,) = stage.pushes(stage.phones[:1])

    async def story() -> Outcome:
        gateway = stage.gateway(request_timeout=5.0)
        told: list[Outcome] = []
        sending = asyncio.create_task(gateway.send([push], lambda _, end: told.append(end)))
        while not gateway.requests:  # noqa: ASYNC110 - before the answer can be there
            await asyncio.sleep(0)
        gateway.withdraw(lambda _: True)
        await sending
        await gateway.close()
        (outcome,) = told
        return outcome

    assert not isinstance(asyncio.run(story()), Accepted)
    assert stage.delivered() == {0: PHONES}


def test_nothing_is_begun_while_it_may_not(stage: Stage) -> None:
    """Pushes wait for the right to be sent, and go as soon as it is there again."""
    pushes = stage.pushes()
    may = [False]

    async def story() -> None:
        gateway = stage.gateway(connections=1, in_flight=2)
        gateway.require(lambda: may[0])
        sending = asyncio.create_task(send(gateway, pushes))
        for _ in range(20):
            await asyncio.sleep(0.02)
        assert (gateway.requests, gateway.opened) == (0, 0)
        may[0] = True
        assert {type(outcome) for outcome in await sending} == {Accepted}
        await gateway.close()

    asyncio.run(story())


def test_many_expired_answers_open_one_new_connection(stage: Stage) -> None:
    """However many pushes in flight are told that the token is expired, it is replaced once."""
    stage.twin.add_fault("answer", after=3, count=20, reason="ExpiredProviderToken")

    async def story() -> None:
        gateway = stage.gateway()
        await send(gateway, stage.pushes())
        assert gateway.opened <= 2
        await gateway.close()

    asyncio.run(story())


def test_without_a_valid_former_token_a_renewal_too_often_waits(stage: Stage) -> None:
    """Late in a token's time its predecessor is over an hour old: the push is to be sent later."""
    stage.clock.at = SLOT_START + 30 * 60
    stage.twin.add_fault("answer", reason="TooManyProviderTokenUpdates", retry_after=90)
    (outcome,) = stage.send(stage.pushes(stage.phones[:1]))
    assert isinstance(outcome, RetryLater)
    assert (outcome.reaction, outcome.after) == (Reaction.KEEP_FORMER_TOKEN, 90)


def test_the_development_side_tells_unique_ids(stage: Stage) -> None:
    """Accepted on the development side, a push has the key of Apple's delivery log."""
    phone = stage.twin.add_phone(app=f"{TEAM}.{BUNDLE}", side="development")
    (outcome,) = stage.send(stage.pushes([phone]))
    assert isinstance(outcome, Accepted)
    assert outcome.unique_id is not None
    assert str(uuid.UUID(outcome.unique_id)) == outcome.unique_id.lower()


def test_a_token_of_the_other_side_is_refused(stage: Stage) -> None:
    """A push of both sides in one batch goes to each side's own connection."""
    phone = stage.twin.add_phone(app=f"{TEAM}.{BUNDLE}", side="development")
    right, wrong = stage.pushes([phone, phone])
    outcomes = stage.send([right, wrong._replace(environment="production")])
    assert isinstance(outcomes[0], Accepted)
    assert isinstance(outcomes[1], Refused)
    assert outcomes[1].reason == "BadDeviceToken"


def test_a_gone_device_tells_since_when(stage: Stage) -> None:
    """After an app is uninstalled its token is gone, since an instant in milliseconds."""
    pushes = stage.pushes()[:1]
    stage.twin.remove_phone(stage.phones.pop(0))
    (outcome,) = stage.send(pushes)
    assert isinstance(outcome, DeviceGone)
    assert outcome.since == pytest.approx(stage.clock.at * 1000, abs=1000)


def test_a_certificate_proves_the_app(stage: Stage) -> None:
    """With a certificate in place of a key no token is sent, and pushes are accepted."""
    pem = stage.twin.issue_client_certificate([BUNDLE])
    outcomes = stage.send(stage.pushes(), credential=read_certificate(pem))
    assert {type(outcome) for outcome in outcomes} == {Accepted}


def test_an_unknown_key_is_refused(stage: Stage) -> None:
    """A key that the service does not know is a fault of the configuration."""
    outcomes = stage.send(stage.pushes(), credential=make_key(TEAM))
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, Refused)} == {
        "InvalidProviderToken"
    }
    assert len(outcomes) == PHONES


def test_a_repeat_carries_its_collapse_id(stage: Stage) -> None:
    """A push that is sent again with a collapse id is shown once."""
    phone = stage.phones[0]
    push = stage.pushes([phone])[0]._replace(collapse_id="again-1")
    assert isinstance(stage.send([push])[0], Accepted)
    assert isinstance(stage.send([push])[0], Accepted)
    assert len(stage.twin.phone(phone.id).cards) == 1


def test_the_probe_notifies_nobody(stage: Stage) -> None:
    """A probe of a right configuration is refused for its token alone."""

    async def story() -> Outcome:
        gateway = stage.gateway()
        outcome = await gateway.probe("production", MESSAGE)
        await gateway.close()
        return outcome

    outcome = asyncio.run(story())
    assert isinstance(outcome, Refused)
    assert outcome.reason == "BadDeviceToken"
    assert stage.delivered() == {0: PHONES}


def test_two_batches_share_the_connection(stage: Stage) -> None:
    """Batches sent at the same time over one gateway are each reported in full."""

    async def story() -> None:
        gateway = stage.gateway()
        pushes = stage.pushes()
        ends = await asyncio.gather(send(gateway, pushes[:30]), send(gateway, pushes[30:]))
        assert [len(outcomes) for outcomes in ends] == [30, 30]
        assert gateway.opened == 1
        await gateway.close()

    asyncio.run(story())
    assert stage.delivered() == {1: PHONES}


def test_a_cancelled_batch_is_not_sent_on(stage: Stage) -> None:
    """What was not on the wire when the call was cancelled is never sent."""
    stage.twin.add_fault("slow", seconds=0.2, count=PHONES)

    async def story() -> None:
        gateway = stage.gateway(in_flight=5)
        task = asyncio.create_task(gateway.send(stage.pushes(), lambda *_: None))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gateway.close()

    asyncio.run(story())
    assert stage.delivered()[1] <= 5


def test_an_error_of_the_report_is_raised_after_all(stage: Stage) -> None:
    """An error in the caller's report reaches the caller, and costs no other push its report."""
    told: list[int] = []

    def report(push: Push, _: Outcome) -> None:
        told.append(push.key)
        if push.key == 3:
            raise ValueError(push.key)

    async def story() -> None:
        gateway = stage.gateway()
        with pytest.raises(ValueError, match="3"):
            await gateway.send(stage.pushes(), report)
        await gateway.close()

    asyncio.run(story())
    assert len(told) == PHONES


def test_a_closed_gateway_and_a_strange_environment_are_errors(stage: Stage) -> None:
    """Nothing is sent to where the gateway has no endpoint, nor after it was closed."""

    async def story() -> None:
        gateway = stage.gateway()
        with pytest.raises(GatewayError, match="twin"):
            await send(gateway, [stage.pushes()[0]._replace(environment="twin")])
        await gateway.close()
        with pytest.raises(GatewayError, match="closed"):
            await send(gateway, stage.pushes())

    asyncio.run(story())
    assert stage.delivered() == {0: PHONES}
