"""Our gateway to FCM against the twin and its faults: each push is reported once, and rightly."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from tests.gateway_stage import UNHURRIED, GatewayStage, send
from tests.standing_clock import StandingClock

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.errors import GatewayError
from handbell.gateways.fcm.client import Endpoint, FcmGateway
from handbell.gateways.fcm.compose import compose
from handbell.gateways.gateway import Message, Push
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
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.reasons import REASONS
from handbell.services.reactions import Reaction
from handbell.twin.fcm.codes import CODES
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

PROJECT = "shop-4711"
APP = App(android_package="com.sample.myapp")
PHONES = 40


def message(**fields: Any) -> Message:
    """Compose a notification, of a title unless something else is given."""
    notification = Notification.read(fields or {"title": "Hello"})
    return compose(notification, app=APP, now=time.time(), notification_id="ntf_1")


HELLO = message()


@dataclass
class Stage(GatewayStage):
    """A twin with one project, its service account, and enough phones."""

    twin: RunningTwin
    account: ServiceAccount
    clock: StandingClock
    phones: list[Phone]

    def gateway(self, **options: Any) -> FcmGateway:
        """Open a gateway to the twin, with short timeouts."""
        known: dict[str, Any] = {
            "credential": self.account,
            "endpoint": Endpoint(self.twin.fcm_url, self.twin.ca_file),
            "token_endpoint": Endpoint(self.twin.oauth_url, self.twin.ca_file),
            "connect_timeout": 1.0,
            "request_timeout": 0.5,
            "now": self.clock,
            "seconds": self.clock,
        }
        return FcmGateway(**known | options)

    def pushes(self, phones: Sequence[Phone] | None = None, sent: Message = HELLO) -> list[Push]:
        """Return one push to each phone."""
        return [
            Push(number, phone.token, "twin", str(uuid.uuid4()), sent)
            for number, phone in enumerate(phones or self.phones)
        ]

    def bodies(self) -> list[Any]:
        """Return what was posted to FCM, the newest first."""
        return [json.loads(each.request.body) for each in self.twin.requests if each.side == "fcm"]

    def reached(self) -> list[int]:
        """Return how many cards each phone shows."""
        known = self.twin.phones
        return [len(known[phone.id].cards) for phone in self.phones]


async def until(is_true: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.005)


def _asked(gateway: FcmGateway, tokens: int) -> bool:
    return gateway.token_requests >= tokens


@pytest.fixture(scope="module")
def theatre(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningTwin, StandingClock, ServiceAccount]]:
    """Run one twin for the file, by a clock of its own."""
    clock = StandingClock(float(int(time.time())))
    with start_twin(tmp_path_factory.mktemp("twin"), now=clock) as twin:
        yield twin, clock, ServiceAccount.read(twin.make_service_account(PROJECT))


@pytest.fixture
def stage(theatre: tuple[RunningTwin, StandingClock, ServiceAccount]) -> Iterator[Stage]:
    """Give new phones to each test; faults are forgotten afterwards."""
    twin, clock, account = theatre
    clock.at = float(int(time.time()))
    phones = [twin.add_phone(platform="android", project=PROJECT) for _ in range(PHONES)]
    yield Stage(twin, account, clock, phones)
    twin.clear_faults()
    twin.limit_fcm(messages_per_minute=600_000)
    for phone in phones:
        twin.remove_phone(phone)


CLASS_OF = {
    Reaction.FIX_NOTIFICATION: Refused,
    Reaction.FIX_CONFIGURATION: Refused,
    Reaction.WRONG_APP: Refused,
    Reaction.CLOSE_SESSION: DeviceGone,
    Reaction.SLOW_DOWN_DEVICE: RetryLater,
    Reaction.BACK_OFF: RetryLater,
    Reaction.RENEW_TOKEN: Accepted,
}
"""What one such answer comes to; the last is healed by a new access token."""
LATER = {"INTERNAL", "UNSPECIFIED_ERROR", "UNAVAILABLE", "QUOTA_EXCEEDED"}


def test_every_push_is_accepted_when_nothing_goes_wrong(stage: Stage) -> None:
    """All are accepted under their own ids, over one connection and with one access token."""

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        pushes = stage.pushes()
        assert await send(gateway, pushes) == [Accepted(push.id) for push in pushes]
        assert (gateway.opened, gateway.requests, gateway.token_requests) == (1, PHONES, 1)
        assert gateway.clock_skew is not None
        assert (gateway.topic, gateway.host("twin")) == (PROJECT, stage.twin.fcm_url[8:])
        await gateway.close()

    asyncio.run(story())
    assert stage.reached() == [1] * PHONES


def test_what_is_sent_is_what_was_composed(stage: Stage) -> None:
    """The token stands beside the content, unchanged; an installation id stands as ``fid``."""
    (phone,) = stage.phones[:1]
    sent = message(title="é", user_info={"n": 1}, badge=3, collapse_id="c")
    stage.send(stage.pushes([phone], sent), **UNHURRIED)
    expected = {"message": {"token": phone.token, **json.loads(sent.payload)}}
    assert stage.bodies()[0] == expected
    fid = "dQ1zSLrdTQ2hMTAjvzvv1J"
    stage.send([Push(0, fid, "twin", "", HELLO)], **UNHURRIED)
    assert stage.bodies()[0] == {"message": {"fid": fid, **json.loads(HELLO.payload)}}


def test_a_time_to_live_is_what_is_left_of_it(stage: Stage) -> None:
    """It counts from the request on, so a push that waited lives no longer than it should."""
    sent = message(title="a", ttl=3600)
    other = message(title="b", expires_at=int(stage.clock.at) + 90 * 86_400)
    began = (sent.expires_at or 0) - 3600.0

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        for waited, expected in ((0, 3600), (600, 3000), (3599, 1), (4000, 0)):
            stage.clock.at = began + waited
            await send(gateway, stage.pushes(stage.phones[:2], sent))
            assert stage.bodies()[0]["message"]["android"]["ttl"] == f"{expected}s"
            await send(gateway, stage.pushes(stage.phones[:1], other))
            assert stage.bodies()[0]["message"]["android"]["ttl"] == "2419200s"
        await gateway.close()

    asyncio.run(story())


@pytest.mark.parametrize("after", [0, 7], ids=["first", "later"])
@pytest.mark.parametrize("reason", CODES)
def test_each_code_strikes_its_own_push_alone(stage: Stage, reason: str, after: int) -> None:
    """An answer with a code becomes the outcome of its push; the others are accepted."""
    phone = stage.phones[after]
    stage.twin.add_fault("answer", token=phone.token, reason=reason)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    struck = outcomes.pop(after)
    expected = RetryLater if reason in LATER else CLASS_OF[REASONS[reason].reaction]
    assert type(struck) is expected
    assert isinstance(struck, Accepted) or getattr(struck, "reason", None) == reason
    assert {type(outcome) for outcome in outcomes} == {Accepted}


@pytest.mark.parametrize("reason", CODES)
def test_a_code_that_did_not_arrive_whole_is_no_verdict(stage: Stage, reason: str) -> None:
    """An answer that breaks off decides about its push alone, and judges nothing."""
    status = CODES[reason].status
    phone = stage.phones[3]
    stage.twin.add_fault("cut-answer", token=phone.token, reason=reason)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    struck = outcomes.pop(3)
    assert isinstance(struck, RetryLater if status >= 500 else LostVerdict)
    assert struck.status == status
    assert {type(outcome) for outcome in outcomes} == {Accepted}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "slow", "seconds": 0.2}, Accepted),
        ({"kind": "silence"}, Unknown),
        ({"kind": "silence", "delivers": True}, Unknown),
        ({"kind": "reset"}, Unknown),
        ({"kind": "refuse-stream"}, Accepted),
        ({"kind": "answer", "status": 200}, Accepted),
        ({"kind": "answer", "status": 302, "reason": "<html>"}, LostVerdict),
        ({"kind": "answer", "status": 403, "reason": "<html>"}, LostVerdict),
        ({"kind": "answer", "status": 404, "reason": "<html>"}, Refused),
        ({"kind": "answer", "status": 502, "reason": "<html>"}, RetryLater),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_fault_of_one_stream_strikes_its_own_push_alone(
    stage: Stage, fault: dict[str, Any], expected: type
) -> None:
    """One bad stream decides the end of its push; all others are accepted and delivered once."""
    stage.twin.add_fault(**fault, token=stage.phones[1].token)
    outcomes = stage.send(stage.pushes(), **({} if fault["kind"] == "silence" else UNHURRIED))
    assert type(outcomes.pop(1)) is expected
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    assert [*stage.reached()[:1], *stage.reached()[2:]] == [1] * (PHONES - 1)


def test_a_removed_app_is_gone_since_it_was_sent(stage: Stage) -> None:
    """FCM gives no instant; it is that of the send, so that who registers after it is kept."""
    gone, other = stage.phones[:2]
    stage.twin.remove_phone(gone)
    outcomes = stage.send(stage.pushes([gone, other]), **UNHURRIED)
    assert outcomes[0] == DeviceGone("UNREGISTERED", stage.clock.milliseconds, 404)
    assert isinstance(outcomes[1], Accepted)


def test_a_token_of_another_project_is_refused_alone(stage: Stage) -> None:
    """It says that the token is another app's; no token is gone."""
    stranger = stage.twin.add_phone(platform="android", project="other-1")
    outcomes = stage.send(stage.pushes([stranger, *stage.phones[:2]]), **UNHURRIED)
    assert isinstance(outcomes[0], Refused)
    assert (outcomes[0].reason, outcomes[0].reaction) == ("SENDER_ID_MISMATCH", Reaction.WRONG_APP)
    assert {type(outcome) for outcome in outcomes[1:]} == {Accepted}


def test_a_token_that_is_none_is_refused_alone(stage: Stage) -> None:
    """FCM's code for it is that of a bad message; the field it names makes the difference."""
    nobody = Push(99, "nobody:" + "x" * 140, "twin", "", HELLO)
    outcomes = stage.send([nobody, *stage.pushes()[:2]], **UNHURRIED)
    assert isinstance(outcomes[0], Refused)
    assert outcomes[0].reason == "INVALID_REGISTRATION_TOKEN"
    assert {type(outcome) for outcome in outcomes[1:]} == {Accepted}


@pytest.mark.parametrize(
    ("project", "reason"),
    [("other-1", "PERMISSION_DENIED"), ("shop-4711", None)],
    ids=["wrong-project", "right-project"],
)
def test_a_wrong_project_throws_no_token_away(
    stage: Stage, project: str, reason: str | None
) -> None:
    """Every push is refused for the configuration."""
    members = json.loads(stage.account.pack())
    account = ServiceAccount.read(json.dumps({**members, "project_id": project}))
    outcomes = stage.send(stage.pushes(), credential=account, **UNHURRIED)
    if reason is None:
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        return
    for outcome in outcomes:
        assert isinstance(outcome, Refused)
        assert (outcome.reason, outcome.reaction) == (reason, Reaction.FIX_CONFIGURATION)


def test_a_used_quota_tells_when(stage: Stage) -> None:
    """Beyond the project's quota each push may be sent again, when FCM says."""
    stage.twin.limit_fcm(messages_per_minute=10)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    late = [outcome for outcome in outcomes if isinstance(outcome, RetryLater)]
    assert len(late) == PHONES - sum(isinstance(outcome, Accepted) for outcome in outcomes) > 0
    for outcome in late:
        assert (outcome.reason, outcome.status) == ("RESOURCE_EXHAUSTED", 429)
        assert outcome.after is not None
        assert outcome.after > 0


# -- the access token ----------------------------------------------------------------------------


def test_a_refused_token_is_renewed_once_for_all(stage: Stage) -> None:
    """Pushes whose token was revoked are sent once more, with one new token for all of them."""

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        await send(gateway, stage.pushes())
        stage.twin.revoke_access_tokens()
        outcomes = await send(gateway, stage.pushes())
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert gateway.token_requests == 2
        assert 0 < gateway.healed <= PHONES
        await gateway.close()

    asyncio.run(story())
    assert stage.reached() == [1] * PHONES  # the tag folds the second


def test_a_token_that_is_refused_again_ends_the_push(stage: Stage) -> None:
    """It is sent once more and no more; it may be sent later, and nothing is judged."""
    stage.twin.add_fault("answer", reason="UNAUTHENTICATED", count=20)
    (outcome,) = stage.send(stage.pushes(stage.phones[:1]), **UNHURRIED)
    assert isinstance(outcome, RetryLater)
    assert (outcome.reason, outcome.reaction) == ("UNAUTHENTICATED", Reaction.RENEW_TOKEN)
    assert [fault.left for fault in stage.twin.faults] == [18]


def test_a_token_is_renewed_five_minutes_early(stage: Stage) -> None:
    """Until then it is kept; while it is renewed, the old one is used, and nothing waits."""

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        began = stage.clock.at
        for passed, asked in ((0, 1), (3290, 1), (3310, 2), (3310, 2), (6000, 2), (6700, 3)):
            stage.clock.at = began + passed
            outcomes = await send(gateway, stage.pushes(stage.phones[:3]))
            assert {type(outcome) for outcome in outcomes} == {Accepted}
            await until(partial(_asked, gateway, asked))
            assert gateway.token_requests == asked
            assert gateway.healed == 0
        await gateway.close()

    asyncio.run(story())


def test_a_renewal_that_fails_disturbs_nothing_while_the_old_token_lives(stage: Stage) -> None:
    """It is tried again after a pause; when the old one has expired, pushes end and may be sent."""

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        began = stage.clock.at
        await send(gateway, stage.pushes(stage.phones[:3]))
        stage.twin.add_fault("answer", status=503, count=2, side="oauth")
        for passed, asked in ((3310, 2), (3315, 2), (3321, 3)):
            stage.clock.at = began + passed
            outcomes = await send(gateway, stage.pushes(stage.phones[:3]))
            assert {type(outcome) for outcome in outcomes} == {Accepted}
            await until(partial(_asked, gateway, asked))
            assert gateway.token_requests == asked
        await until(lambda: not stage.twin.faults)
        stage.twin.add_fault("answer", status=503, side="oauth")
        stage.clock.at = began + 3600
        outcomes = await send(gateway, stage.pushes(stage.phones[:3]))
        assert {type(outcome) for outcome in outcomes} == {RetryLater}
        await gateway.close()

    asyncio.run(story())


def test_a_deleted_account_is_the_configurations(stage: Stage) -> None:
    """No push is sent; each is refused for the configuration, and Google is asked no more often."""
    key_file = stage.twin.make_service_account(PROJECT)
    account = ServiceAccount.read(key_file)
    stage.twin.remove_service_account(account.client_email)

    async def story() -> None:
        gateway = stage.gateway(credential=account, **UNHURRIED)
        for _ in range(3):
            for outcome in await send(gateway, stage.pushes()):
                assert isinstance(outcome, Refused)
                assert outcome.reaction is Reaction.FIX_CONFIGURATION
                assert outcome.reason.startswith("invalid_")
        assert (gateway.token_requests, gateway.requests) == (1, 0)
        stage.clock.at += 11
        stage.twin.add_service_account(key_file)
        outcomes = await send(gateway, stage.pushes())
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        await gateway.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ({"kind": "answer", "status": 503}, RetryLater),
        ({"kind": "answer", "status": 429, "retry_after": 70}, RetryLater),
        ({"kind": "answer", "status": 400, "reason": "invalid_grant"}, Refused),
        ({"kind": "silence"}, RetryLater),
        ({"kind": "reset"}, RetryLater),
        ({"kind": "cut-answer", "status": 400, "reason": "invalid_grant"}, LostVerdict),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_what_hinders_a_token_ends_the_pushes(
    stage: Stage, fault: dict[str, Any], expected: type
) -> None:
    """None was sent, so each may be sent again: in ten seconds or later, when a token is there."""
    stage.twin.add_fault(**fault, side="oauth")

    async def story() -> None:
        gateway = stage.gateway(**({} if fault["kind"] == "silence" else UNHURRIED))
        for _ in range(2):
            for outcome in await send(gateway, stage.pushes()):
                assert type(outcome) is expected
                after = getattr(outcome, "after", 10.0)
                assert after is not None
                assert after >= fault.get("retry_after", 10)
        assert gateway.requests == 0
        assert gateway.token_requests == 1
        stage.clock.at += fault.get("retry_after", 10)
        outcomes = await send(gateway, stage.pushes())
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        await gateway.close()

    asyncio.run(story())


@pytest.mark.parametrize("skew", [-7200, 7200], ids=["behind", "ahead"])
def test_a_wrong_clock_is_followed(stage: Stage, skew: int) -> None:
    """Google refuses a request from two hours away; it is made anew by the clock of its answer."""
    ours = StandingClock(float(int(time.time())))
    ours.at = stage.clock.at + skew

    async def story() -> None:
        gateway = stage.gateway(now=ours, **UNHURRIED)
        outcomes = await send(gateway, stage.pushes())
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert gateway.token_requests == 2
        assert gateway.clock_skew == pytest.approx(skew, abs=2)
        await gateway.close()

    asyncio.run(story())


# -- withdrawing, closing, probing ---------------------------------------------------------------


def test_what_waits_for_a_token_can_be_withdrawn(stage: Stage) -> None:
    """It is reported at once and never sent; the others go out when the token has come."""
    stage.twin.add_fault("slow", seconds=0.3, side="oauth")

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        told: dict[int, Outcome] = {}
        pushes = stage.pushes()
        sending = asyncio.ensure_future(
            gateway.send(pushes, lambda push, outcome: told.update({push.key: outcome}))
        )
        await until(lambda: gateway.token_requests > 0)
        gateway.withdraw(lambda push: push.key < 10)
        await asyncio.wait_for(sending, 10)
        assert {type(told[key]) for key in range(10)} == {Withdrawn}
        assert {type(told[key]) for key in range(10, PHONES)} == {Accepted}
        await gateway.close()

    asyncio.run(story())
    assert stage.reached() == [0] * 10 + [1] * (PHONES - 10)


def test_closing_waits_for_the_token(stage: Stage) -> None:
    """What was taken is finished; afterwards nothing is taken."""
    stage.twin.add_fault("slow", seconds=0.3, side="oauth")

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        told: list[Outcome] = []
        sending = asyncio.ensure_future(
            gateway.send(stage.pushes(), lambda _, outcome: told.append(outcome))
        )
        await asyncio.sleep(0)
        await asyncio.wait_for(gateway.close(), 10)
        await asyncio.wait_for(sending, 10)
        assert {type(outcome) for outcome in told} == {Accepted}
        assert gateway.connections == 0
        with pytest.raises(GatewayError, match="closed"):
            await gateway.send(stage.pushes(), lambda *_: None)

    asyncio.run(story())


def test_a_cancelled_send_is_not_sent(stage: Stage) -> None:
    """What waits for the token when the caller gives up never goes out."""
    stage.twin.add_fault("slow", seconds=0.3, side="oauth")

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        told: list[Outcome] = []
        sending = asyncio.ensure_future(
            gateway.send(stage.pushes(), lambda _, outcome: told.append(outcome))
        )
        await until(lambda: gateway.token_requests > 0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await asyncio.wait_for(gateway.close(), 10)
        assert told == []

    asyncio.run(story())
    assert stage.reached() == [0] * PHONES


def test_a_probe_notifies_nobody(stage: Stage) -> None:
    """FCM only checks it; the refusal of the token means that account and project are right."""

    async def story() -> None:
        gateway = stage.gateway(**UNHURRIED)
        outcome = await gateway.probe("twin", HELLO)
        assert isinstance(outcome, Refused)
        assert outcome.reason == "INVALID_REGISTRATION_TOKEN"
        assert stage.bodies()[0]["validate_only"] is True
        outcomes = await send(gateway, stage.pushes(stage.phones[:1]))
        assert {type(outcome) for outcome in outcomes} == {Accepted}
        assert "validate_only" not in stage.bodies()[0]
        await gateway.close()

    asyncio.run(story())


def test_nobody_there_may_be_sent_later(stage: Stage) -> None:
    """Where the token endpoint cannot be reached, the pushes may be sent again."""
    nowhere = Endpoint("https://127.0.0.1:1/token", stage.twin.ca_file)
    for outcome in stage.send(stage.pushes(), token_endpoint=nowhere):
        assert isinstance(outcome, RetryLater)
        assert outcome.reason == "CannotConnect"
        assert outcome.detail.startswith("no access token")
        assert outcome.after is not None
        assert outcome.after >= 10
