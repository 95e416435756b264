"""What the front doors promise, each here and at a send server, for both kinds of callers."""

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Stage
from tests.fronts import Front, front, run
from tests.serving import Server, server

from handbell import (
    AsyncPushNotification,
    AsyncSessions,
    Auth,
    Diagnostic,
    Notification,
    PushNotification,
    Recipients,
    Sessions,
)
from handbell.apps.sample_keys import make_key
from handbell.creation.template import Template
from handbell.delivery.deliveries import PAGE
from handbell.errors import (
    DeliveryError,
    RegistryError,
    SettingsError,
    UnknownNotificationError,
    UnknownSessionError,
)

__all__ = ["front", "server"]

MAIL, OTHER, NOBODY = "test@4d.com", "user1@example.com", "nobody@example.com"
HELLO = {"title": "Hello", "body": "How are you?"}
TOKEN = "ab" * 32


# Accept and return


def test_enqueue_returns_before_it_is_sent(front: Front, stage: Stage) -> None:
    """The answer has the id, the warnings and the counts so far; the outcome is asked for later."""
    phone = stage.add_phone(MAIL)
    stage.twin.add_fault("slow", seconds=1.0)
    push = front(PushNotification)
    response = push.enqueue(HELLO, [MAIL, NOBODY], urgency="urgent", idempotency_key="once")
    assert (response.success, response.is_running, response.errors) == (False, True, ())
    assert response.total == sum(response.states.values()) == 1
    assert set(response.states) <= {"queued", "sending"}
    assert [told.reason for told in response.warnings] == ["NoDevice"]
    again = push.enqueue(HELLO, [MAIL, NOBODY], urgency="urgent", idempotency_key="once")
    assert again.notification_id == response.notification_id
    ended = push.wait(response.notification_id)
    assert (ended.success, ended.is_running, dict(ended.states)) == (True, False, {"sent": 1})
    assert len(stage.twin.accepted_of(phone.token)) == 1
    with pytest.raises(UnknownNotificationError):
        push.wait("0" * 15)


def test_what_is_enqueued_for_later_waits_and_does_not_run(front: Front, stage: Stage) -> None:
    """A time to come is no work that is on its way: the state says that it is held."""
    stage.register(MAIL, TOKEN)
    response = front(PushNotification).enqueue(HELLO, MAIL, send_at="2999-01-01T00:00Z")
    assert (response.is_running, dict(response.states)) == (False, {"held": 1})
    assert [told.reason for told in response.warnings] == ["Scheduled"]


def test_a_timeout_loses_nothing(front: Front, stage: Stage) -> None:
    """When it is over the answer says that sending goes on; and it does, whatever the call was."""
    stage.add_phone(MAIL)
    push = front(PushNotification)
    first = push.send({**HELLO, "collapse_id": "c"}, MAIL)
    template = {"name": "welcome", "notification": {"title": "Hello {{ name }}"}}
    stage.system.templates.put(stage.app, Template.read(template))
    stage.twin.add_fault("slow", seconds=1.5, count=100)
    given_up = [
        push.send(HELLO, MAIL, timeout=0.05),
        push.send_all(HELLO, timeout=0.05),
        push.open("Employee", HELLO, MAIL, timeout=0.05),
        push.replace(first.notification_id, HELLO, timeout=0.05),
        push.wait(push.enqueue(HELLO, MAIL).notification_id, timeout=0.05),
        push.send_each("welcome", {MAIL: {"name": "A"}}, timeout=0.05)[MAIL],
    ]
    for response in given_up:
        assert (response.is_running, response.success, response.errors) == (True, False, ())
        (warning,) = response.warnings
        assert (warning.reason, warning.recipient) == ("StillRunning", None)
        assert warning.startswith("Not everything was sent within 0.05 s; sending continues")
        assert response.notification_id in warning
    for response in given_up:
        ended = push.wait(response.notification_id)
        assert (ended.success, ended.is_running, ended.warnings) == (True, False, ())


@pytest.mark.parametrize("wrong", [-1, float("nan"), "5", True])
def test_a_timeout_that_is_none_is_refused_before_anything_is_stored(
    front: Front, stage: Stage, wrong: object
) -> None:
    """It is seconds from 0 on; with anything else nothing is accepted."""
    push = front(PushNotification)
    calls: tuple[Any, ...] = (
        lambda: push.send(HELLO, MAIL, timeout=wrong),
        lambda: push.send_all(HELLO, timeout=wrong),
        lambda: push.send_each("welcome", {MAIL: {}}, timeout=wrong),
        lambda: push.open("Employee", HELLO, MAIL, timeout=wrong),
        lambda: push.replace("0" * 15, HELLO, timeout=wrong),
        lambda: push.wait("0" * 15, timeout=wrong),
    )
    for call in calls:
        with pytest.raises(SettingsError, match="timeout"):
            call()
    assert stage.system.reports.newest() == []


# What comes back


def test_warnings_and_errors_are_texts_with_parts(front: Front, stage: Stage) -> None:
    """As texts they are those of 0.1; each says of itself whom, why, and what to do."""
    stage.register("pending@example.com", "cd" * 32)
    stage.system.registry.quarantine(stage.session("pending@example.com"), reason="BadDeviceToken")
    push = front(PushNotification)
    response = push.send(HELLO, [NOBODY, "pending@example.com", "ef" * 32])
    none, quarantined = response.warnings
    (failed,) = response.errors
    assert (none.recipient, none.reason, none.fix) == (NOBODY, "NoDevice", "")
    assert (
        none == f"{NOBODY} has no device: no session of this app was ever registered for this mail."
    )
    assert quarantined.reason == "SessionQuarantined"
    assert (failed.recipient, failed.reason) == ("ef" * 32, "BadDeviceToken")
    assert failed.fix.startswith("Let the app register again")
    assert failed.endswith(failed.fix)
    assert "\n".join(response.errors) == str(failed)
    assert f"{failed}" == failed[:] == str(failed)
    for twin in (copy.deepcopy(failed), pickle.loads(pickle.dumps(failed))):  # noqa: S301 - ours
        assert isinstance(twin, Diagnostic)
        assert (twin, twin.parts()) == (failed, failed.parts())


def test_errors_are_raised_for_whoever_asks(front: Front, stage: Stage) -> None:
    """``raise_for_errors`` returns what has none, and raises one error of our tree for the rest."""
    stage.add_phone(MAIL)
    push = front(PushNotification)
    good = push.send(HELLO, [MAIL, NOBODY])
    assert good.raise_for_errors() is good
    bad = push.send(HELLO, [MAIL, "ef" * 32])
    with pytest.raises(DeliveryError, match="BadDeviceToken") as caught:
        bad.raise_for_errors()
    assert caught.value.errors == bad.errors
    assert caught.value.notification_id == bad.notification_id


def test_states_are_counted(front: Front, stage: Stage) -> None:
    """Beside ``success`` stand the deliveries by state, and only those states that occur."""
    stage.add_phone(MAIL)
    response = front(PushNotification).send(HELLO, [MAIL, "ef" * 32, "ee" * 32])
    assert dict(response.states) == {"sent": 1, "failed": 2}
    assert (response.total, response.reached) == (3, 1)


def test_deliveries_are_read_page_by_page(front: Front, stage: Stage) -> None:
    """All of them, in their order, though they are more than a page; an index reads up to it."""
    tokens = [f"{number:064x}" for number in range(1, PAGE + 60)]
    response = front(PushNotification).enqueue(HELLO, tokens, send_at="2999-01-01T00:00Z")
    found = response.deliveries
    assert len(found) == response.total == len(tokens)
    assert [one.address for one in found] == tokens
    assert [one.address for one in found[PAGE - 1 : PAGE + 1]] == tokens[PAGE - 1 : PAGE + 1]
    assert (found[0].address, found[-1].address) == (tokens[0], tokens[-1])
    page = stage.system.ledger.deliveries_after(response.notification_id, -1, 40)
    assert [one.address for one in page] == tokens[:40]


def test_deliveries_can_be_read_after_the_sender_is_closed(front: Front, stage: Stage) -> None:
    """A response outlives the ``with`` in which it was given."""
    stage.add_phone(MAIL)
    with front(PushNotification) as push:
        response = push.send(HELLO, MAIL)
    (delivery,) = response.deliveries
    assert (len(response.deliveries), delivery.state) == (1, "sent")


def test_deliveries_are_read_without_holding_up_the_loop(front: Front, stage: Stage) -> None:
    """``async for`` goes through them; by index they are those that a loop brings."""
    for number in range(3):
        stage.add_phone(f"user{number}@example.com")

    async def send() -> Any:
        async with front(AsyncPushNotification) as push:
            response = await push.send_all(HELLO)
            return [delivery async for delivery in response.deliveries]

    found = run(send())
    assert len(found) == 3
    assert all(one.id == one.apns_id and one.state == "sent" for one in found)


# Who can be reached


def test_a_device_is_registered_and_logged_out(front: Front, stage: Stage) -> None:
    """The address moves to whom it is registered for; after ``close`` nothing is sent to it."""
    first = stage.add_phone(OTHER)
    with front(Sessions) as sessions:
        mine = sessions.register(
            "Test@4D.com", first.token.upper(), locale="fr-CH", time_zone="Mars/Olympus"
        )
        assert (mine.mail, mine.address, mine.token) == (MAIL, first.token, first.token)
        assert (mine.status, mine.platform, mine.environment) == ("active", "ios", "production")
        assert (mine.locale, mine.time_zone) == ("fr-CH", None)
        assert ["time zone" in told for told in mine.warnings] == [True]
        assert mine.secret.startswith("hbs_")
        assert mine.secret not in repr(mine)
        assert sessions.all_addresses() == sessions.all_device_tokens() == [first.token]
        assert sessions.sessions_of(OTHER)[0].reason == "moved"
        push = front(PushNotification)
        assert push.send(HELLO, MAIL).success
        again = sessions.register(MAIL, first.token, device="Phone")
        assert (again.id, again.locale, again.device) == (mine.id, "fr-CH", "Phone")
        sessions.close(again)
        assert sessions.sessions_of(MAIL)[0].reason == "closed by operator"
        assert push.send(HELLO, MAIL).total == 0
        sessions.close(mine.id)
        with pytest.raises(UnknownSessionError):
            sessions.close(mine.id + 1000)


def test_the_secret_is_the_devices(front: Front, server: Server, stage: Stage) -> None:
    """By it the device speaks for its session at the server, wherever it was registered."""
    import httpx  # noqa: PLC0415

    session = front(Sessions).register(MAIL, TOKEN)
    where = f"{server.url}/v1/apps/{stage.app.id}/sessions/current"
    told = httpx.get(where, headers={"Authorization": f"Bearer {session.secret}"})
    assert (told.status_code, told.json()["id"]) == (200, session.id)
    assert told.json()["address"] == told.json()["device_token"] == TOKEN


@pytest.mark.parametrize(
    ("mail", "address", "about"),
    [
        ("nobody", TOKEN, {}),
        (MAIL, "abc", {}),
        (MAIL, "", {}),
        (MAIL, TOKEN, {"platform": "symbian"}),
        (MAIL, TOKEN, {"environment": "sandbox"}),
    ],
)
def test_what_cannot_be_registered_is_the_same_error(
    front: Front, stage: Stage, mail: str, address: str, about: dict[str, Any]
) -> None:
    """A RegistryError that says what it must be, here and there; nothing is written."""
    with pytest.raises(RegistryError) as caught:
        front(Sessions).register(mail, address, **about)
    assert type(caught.value) is RegistryError
    assert caught.value.fix
    assert stage.system.registry.sessions(stage.app) == []


def test_the_asynchronous_sessions_do_the_same(front: Front, stage: Stage) -> None:
    """Registered, listed, told of and logged out in the caller's own event loop."""

    async def walk() -> None:
        async with front(AsyncSessions) as sessions:
            mine = await sessions.register(MAIL, TOKEN)
            assert await sessions.all_addresses() == [TOKEN]
            assert await sessions.all_mail_addresses() == [MAIL]
            assert [one.id for one in await sessions.sessions_of(MAIL)] == [mine.id]
            assert (await sessions.why(MAIL)).mail == MAIL
            await sessions.close(mine)
            assert await sessions.all_device_tokens() == []

    run(walk())
    assert stage.session(MAIL).status == "closed"


# Nothing that was given is changed


def test_an_auth_object_is_never_changed(tmp_path: Path, stage: Stage) -> None:
    """Senders that are made of one keep copies: neither their switch nor what they find leaks."""
    key = make_key("OTHER12345")
    file = tmp_path / f"AuthKey_{key.key_id}.p8"
    file.write_bytes(key.private_key_pem())
    given = Auth(bundle_id="com.other.app", team_id="OTHER12345", auth_key=file)
    mapping = {"bundleId": "com.other.app", "teamId": "OTHER12345", "authKey": str(file)}
    before = (dataclasses.replace(given), dict(mapping))
    settings = stage.system.settings
    with (
        PushNotification(given, settings=settings, is_development=True) as first,
        PushNotification(given, settings=settings) as second,
        PushNotification(mapping, settings=settings) as third,
    ):
        assert (first.auth.is_development, second.auth.is_development) == (True, False)
        second.auth.is_development = True
        third.auth.is_development = True
        assert first.auth.key_id == key.key_id
        first.send(HELLO, TOKEN)
    assert (given, mapping) == before


def test_the_switch_counts_from_the_next_call_on(stage: Stage) -> None:
    """``push.auth.is_development = True`` is the sender's own, and may be set at any time."""
    phone = stage.twin.add_phone(app=stage.app.id, side="development")
    with PushNotification(settings=stage.system.settings) as push:
        push.auth.is_development = True
        (delivery,) = push.send(HELLO, phone.token).deliveries
    assert (delivery.environment, delivery.attempts) == ("development", 1)


def test_what_is_sent_is_never_changed(front: Front, stage: Stage) -> None:
    """Mappings, notifications and recipients are after every call what they were before."""
    stage.add_phone(MAIL)
    push = front(PushNotification)
    content: dict[str, Any] = {**HELLO, "user_info": {"a": [1]}, "collapse_id": "c"}
    named = {"mails": [MAIL]}
    written = Notification.read(content)
    recipients = Recipients.read(named)
    before = copy.deepcopy((content, named, written.to_dict(), recipients))
    for what in (content, written):
        first = push.send(what, named)
        push.open(("Employee", 1), what, recipients)
        push.enqueue(what, recipients)
        push.replace(first.notification_id, what)
    assert (content, named, written.to_dict(), recipients) == before


# Names that others can live with


def test_addresses_are_read_wherever_device_tokens_are(front: Front, stage: Stage) -> None:
    """A mapping of recipients and ``Recipients`` take either name; both at once are an error."""
    phone = stage.add_phone(MAIL)
    push = front(PushNotification)
    for named in ({"addresses": [phone.token]}, Recipients(addresses=[phone.token])):
        (delivery,) = push.send(HELLO, named).deliveries
        assert delivery.address == phone.token
        assert delivery.id == delivery.apns_id
    assert Recipients(addresses=TOKEN) == Recipients(device_tokens=TOKEN)
    assert Recipients(device_tokens=TOKEN).addresses == (TOKEN,)
