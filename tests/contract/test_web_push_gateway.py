"""Our gateway of Web Push against the twin and its faults: each message ends once, and rightly."""

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway_stage import UNHURRIED, GatewayStage
from tests.standing_clock import StandingClock

from handbell._proxy import Proxies
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.gateways.gateway import Message, Push
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Refused,
    RetryLater,
    Unknown,
)
from handbell.gateways.webpush.client import WebPushGateway
from handbell.gateways.webpush.compose import compose
from handbell.services.reactions import Reaction
from handbell.services.webpush.address import read_address
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.hosts import PushHosts
from handbell.services.webpush.protocol import MAX_PLAINTEXT_BYTES
from handbell.services.webpush.reasons import BY_STATUS
from handbell.twin.hooks import TwinHooks
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

APP = App(name="Shop", web_origin="https://shop.example")
KEY = VapidKey.make()
BROWSERS = 20


def message(**fields: Any) -> Message:
    """Compose a notification, of a title unless something else is given."""
    notification = Notification.read({"title": "Hello", **fields})
    return compose(notification, app=APP, now=time.time(), notification_id="ntf_1")


HELLO = message()


@dataclass
class Stage(GatewayStage):
    """A twin whose browsers subscribed with one key, and enough of them."""

    twin: RunningTwin
    clock: StandingClock
    browsers: list[Phone]

    def gateway(self, **options: Any) -> WebPushGateway:
        """Open a gateway to the twin, with short timeouts."""
        known: dict[str, Any] = {
            "credential": KEY,
            "subject": "mailto:push@example.com",
            "hosts": PushHosts.read("", twin=self.twin.webpush_url),
            "ca_file": self.twin.ca_file,
            "connect_timeout": 1.0,
            "request_timeout": 0.5,
            "now": self.clock,
            "seconds": self.clock,
        }
        return WebPushGateway(**known | options)

    def pushes(self, browsers: Sequence[Phone] | None = None, sent: Message = HELLO) -> list[Push]:
        """Return one message to each browser."""
        return [
            Push(number, each.token, "twin", str(uuid.uuid4()), sent, details=each.details)
            for number, each in enumerate(browsers or self.browsers)
        ]

    def cards(self, browser: Phone) -> list[Any]:
        """Return what a browser shows."""
        return list(self.twin.phones[browser.id].cards)


@pytest.fixture(scope="module")
def theatre(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[RunningTwin, StandingClock]]:
    """Run one twin for the file, by a clock of its own; its pages subscribe with our key."""
    clock = StandingClock(float(int(time.time())))
    hooks = TwinHooks(web_push_key=lambda _: KEY.public_key)
    with start_twin(tmp_path_factory.mktemp("twin"), now=clock, hooks=hooks) as twin:
        yield twin, clock


@pytest.fixture
def stage(theatre: tuple[RunningTwin, StandingClock]) -> Iterator[Stage]:
    """Give new browsers to each test; faults are forgotten afterwards."""
    twin, clock = theatre
    clock.at = float(int(time.time()))
    browsers = [twin.add_browser() for _ in range(BROWSERS)]
    yield Stage(twin, clock, browsers)
    twin.clear_faults()
    for browser in browsers:
        twin.remove_phone(browser)


def test_every_message_is_accepted_decrypted_and_shown(stage: Stage) -> None:
    """Each browser shows what was sent, with the picture, the link and the badge."""
    sent = message(
        title="Order shipped",
        body="Arrives Friday",
        url="/orders/42",
        image_url="https://shop.example/42.jpg",
        badge=3,
        web={"icon": "/i.png", "actions": [{"action": "track", "title": "Track"}]},
    )
    pushes = stage.pushes(sent=sent)
    assert stage.send(pushes, **UNHURRIED) == [Accepted(push.id) for push in pushes]
    for browser in stage.browsers:
        (card,) = stage.cards(browser)
        assert (card.title, card.body, card.push_id) == ("Order shipped", "Arrives Friday", "ntf_1")
        assert card.url == "https://shop.example/orders/42"
        assert card.image_url == "https://shop.example/42.jpg"
        assert card.icon == "https://shop.example/i.png"
        assert (card.badge, card.actions) == (3, ("Track",))


def test_an_address_of_the_twin_is_one_of_ours(stage: Stage) -> None:
    """What a browser would send us is read as the address that the message goes to."""
    browser = stage.browsers[0]
    address = read_address(browser.token, json.loads(browser.details or ""))
    assert (address.token, address.details) == (browser.token, browser.details)


def test_the_largest_message_arrives(stage: Stage) -> None:
    """3,993 bytes of text are a body of 4,096, which no push service may refuse."""
    room = MAX_PLAINTEXT_BYTES - len(message(body="").payload) - len('"body":"",')
    sent = message(body="x" * room)
    assert len(sent.payload) == MAX_PLAINTEXT_BYTES
    (outcome,) = stage.send(stage.pushes(stage.browsers[:1], sent), **UNHURRIED)
    assert isinstance(outcome, Accepted)
    assert stage.cards(stage.browsers[0])[0].body == "x" * room


def test_a_later_notification_replaces_the_former(stage: Stage) -> None:
    """By its collapse id, on the screen and on its way to a browser that is closed."""
    browser, closed = stage.browsers[:2]
    stage.twin.switch(closed, False)
    for title in ("One", "Two"):
        stage.send(
            stage.pushes([browser, closed], message(title=title, collapse_id="é" * 32)),
            **UNHURRIED,
        )
    (card,) = stage.cards(browser)
    assert (card.title, card.replaced) == ("Two", 1)
    stage.twin.switch(closed, True)
    (late,) = stage.cards(closed)
    assert (late.title, late.replaced) == ("Two", 0)


def test_a_repeat_of_unknown_end_is_shown_once(stage: Stage) -> None:
    """What may have arrived is sent again, and replaces itself."""
    browser = stage.browsers[0]
    stage.twin.add_fault("silence", token=browser.token, delivers=True)
    (push,) = stage.pushes([browser])
    (first,) = stage.send([push])
    assert isinstance(first, Unknown)
    (second,) = stage.send([push._replace(collapse_id="again")], **UNHURRIED)
    assert isinstance(second, Accepted)
    (card,) = stage.cards(browser)
    assert card.replaced == 1


@pytest.mark.parametrize(
    ("expires_in", "is_shown"), [(None, True), (3600, True), (60, False), (0, False)]
)
def test_a_closed_browser_gets_what_has_not_expired(
    stage: Stage,
    expires_in: int | None,
    is_shown: bool,  # noqa: FBT001
) -> None:
    """The TTL is what the push service goes by; 0 is now or never."""
    browser = stage.browsers[0]
    stage.twin.switch(browser, False)
    expiry = expires_in and int(stage.clock.at) + expires_in
    sent = message() if expires_in is None else message(expires_at=expiry or 0)
    (outcome,) = stage.send(stage.pushes([browser], sent), **UNHURRIED)
    assert isinstance(outcome, Accepted)
    stage.clock.at += 600
    stage.twin.switch(browser, True)
    assert bool(stage.cards(browser)) is is_shown


@pytest.mark.parametrize("status", sorted(BY_STATUS))
def test_each_status_strikes_its_own_message_alone(stage: Stage, status: int) -> None:
    """An answer becomes the outcome of its message; the others are accepted."""
    browser = stage.browsers[7]
    stage.twin.add_fault("answer", token=browser.token, side="webpush", status=status)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    struck = outcomes.pop(7)
    assert not isinstance(struck, Accepted | LostVerdict | Unknown)
    assert getattr(struck, "status", None) == status
    assert {type(outcome) for outcome in outcomes} == {Accepted}


@pytest.mark.parametrize("status", [403, 404, 410, 413, 503])
def test_an_answer_that_broke_off_is_no_verdict(stage: Stage, status: int) -> None:
    """It decides about its message alone; no subscription is closed."""
    browser = stage.browsers[3]
    stage.twin.add_fault("cut-answer", token=browser.token, side="webpush", status=status)
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
        ({"kind": "reset"}, Unknown),
        ({"kind": "refuse-stream"}, Accepted),
        ({"kind": "answer", "status": 202}, Accepted),
        ({"kind": "answer", "status": 302}, Refused),
        ({"kind": "answer", "status": 429, "retry_after": 60}, RetryLater),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_a_fault_of_one_stream_strikes_its_own_message_alone(
    stage: Stage, fault: dict[str, Any], expected: type
) -> None:
    """One bad stream decides the end of its message; all others are shown once."""
    browser = stage.browsers[1]
    stage.twin.add_fault(**fault, side="webpush", token=browser.token)
    outcomes = stage.send(stage.pushes(), **({} if fault["kind"] == "silence" else UNHURRIED))
    struck = outcomes.pop(1)
    assert type(struck) is expected
    assert {type(outcome) for outcome in outcomes} == {Accepted}
    others = [each for each in stage.browsers if each is not browser]
    assert [len(stage.cards(each)) for each in others] == [1] * (BROWSERS - 1)
    if isinstance(struck, RetryLater):
        assert struck.after == fault["retry_after"]


@pytest.mark.parametrize("kind", ["cut", "goaway"])
def test_a_lost_connection_loses_few_messages(stage: Stage, kind: str) -> None:
    """Each message ends once, as accepted or as what can be sent again."""
    stage.twin.add_fault(kind, side="webpush", after=5, graceful=False)
    outcomes = stage.send(stage.pushes(), **UNHURRIED)
    assert {type(outcome) for outcome in outcomes} <= {Accepted, Unknown, RetryLater}
    assert any(isinstance(outcome, Accepted) for outcome in outcomes)


def test_an_ended_subscription_is_gone_since_it_was_sent(stage: Stage) -> None:
    """The push service gives no instant; it is that of the send, so who subscribes anew is kept."""
    gone, other = stage.browsers[:2]
    stage.twin.remove_phone(gone)
    outcomes = stage.send(stage.pushes([gone, other]), **UNHURRIED)
    assert outcomes[0] == DeviceGone("errno-106", stage.clock.milliseconds, 410)
    assert isinstance(outcomes[1], Accepted)


def test_an_unknown_subscription_is_gone(stage: Stage) -> None:
    """404 is what the standard calls a subscription that has ended."""
    (push,) = stage.pushes(stage.browsers[:1])
    (outcome,) = stage.send([push._replace(address=f"{push.address}x")], **UNHURRIED)
    assert outcome == DeviceGone("errno-102", stage.clock.milliseconds, 404)


def test_another_key_is_refused_for_each_subscription(stage: Stage) -> None:
    """A wrong key closes nothing: the subscriptions may be right, and the key replaced."""
    outcomes = stage.send(stage.pushes(), credential=VapidKey.make(), **UNHURRIED)
    for outcome in outcomes:
        assert isinstance(outcome, Refused)
        assert outcome.reaction is Reaction.WRONG_APP
        assert outcome.status in (401, 403)


def test_a_vendors_own_name_is_reached_through_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In production: the known host, its certificate's name, and a token for its origin.

    The twin's proxy leads there, and its authority for the services' own names is trusted for it.
    """
    name = "https://updates.push.services.mozilla.com"
    hooks = TwinHooks(web_push_key=lambda _: KEY.public_key)
    with start_twin(tmp_path, proxy_port=0, hooks=hooks) as twin:
        monkeypatch.setenv("SSL_CERT_FILE", str(twin.hosts_ca_file))
        stage = Stage(twin, StandingClock(float(int(time.time()))), [twin.add_browser()])
        (push,) = stage.pushes()
        named = push.address.replace(twin.webpush_url, name)
        (outcome,) = stage.send(
            [push._replace(address=named, environment="production")],
            hosts=PushHosts.read(""),
            ca_file=None,
            proxies=Proxies.read(twin.proxy_url, "", {}),
            **UNHURRIED,
        )
        assert outcome == Accepted(push.id)
        assert len(stage.cards(stage.browsers[0])) == 1


@pytest.mark.parametrize("hours", [-5, 5])
def test_a_clock_that_is_hours_off_makes_valid_tokens(stage: Stage, hours: int) -> None:
    """A VAPID token outlives the doubt."""
    outcomes = stage.send(stage.pushes(), now=lambda: stage.clock.at + 3600 * hours, **UNHURRIED)
    assert {type(outcome) for outcome in outcomes} == {Accepted}
