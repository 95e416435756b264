"""Every story of `why` as a table: what is done to a person, and what is told about it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from sqlalchemy import update
from tests.reported import report

from handbell import PushNotification, Sessions
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.engine import Options
from handbell.storage.tables import notifications

if TYPE_CHECKING:
    from tests.conftest import Stage

    from handbell.delivery.ledger.why import Story
    from handbell.delivery.response import Response

MAIL: Final = "test@4d.com"


def _send(stage: "Stage", **content: object) -> "Response":
    response: Response = asyncio.run(stage.send(MAIL, **content))
    return response


def _accept(stage: "Stage", recipients: Recipients, send_at: float | None = None) -> None:
    """Store a send without any worker to take it."""
    accept = stage.system.engine.accept
    options = Options.read(send_at=send_at)
    asyncio.run(accept(stage.app, Notification(title="Hello"), recipients, options))


def _why(stage: "Stage", mail: str = MAIL) -> "Story":
    story: Story = stage.system.why(stage.app, mail)
    return story


def _nobody(stage: "Stage") -> None:
    _send(stage)


def _nothing_sent(stage: "Stage") -> None:
    stage.add_phone(MAIL)


def _pending(stage: "Stage") -> None:
    stage.system.registry.register(stage.app, MAIL, "ab" * 32, status="pending")
    _send(stage)


def _quarantined(stage: "Stage") -> None:
    stage.add_phone("first@example.com")
    asyncio.run(stage.send("first@example.com"))
    stage.register(MAIL, "ab" * 32)
    _send(stage)
    _send(stage)


def _gone(stage: "Stage") -> None:
    phone = stage.add_phone(MAIL)
    time.sleep(0.01)
    stage.twin.remove_phone(phone)
    _send(stage)


def _moved(stage: "Stage") -> None:
    phone = stage.add_phone(MAIL)
    stage.register("next@example.com", phone.token)
    _send(stage)


def _too_early(stage: "Stage") -> None:
    _send(stage)
    time.sleep(0.002)
    stage.add_phone(MAIL)


def _stopped(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=403, reason="InvalidProviderToken", count=10)
    _send(stage)


def _switched_off(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    stage.system.app_control.switch(stage.app, is_enabled=False)
    _send(stage)


def _busy(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=503, reason="ServiceUnavailable", count=10)
    _send(stage)


def _quiet(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(hours=hours):%H:%M}" for hours in (-1, 1))
    stage.system.app_control.set_rules(stage.app, {"quiet_hours": f"{start}-{end}"})
    _send(stage)


def _capped(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    stage.system.app_control.set_rules(stage.app, {"cap": "1/day"})
    _send(stage)
    _send(stage)


def _scheduled(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, Recipients.read(MAIL), send_at=time.time() + 3600)


def _stored(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, Recipients.read(MAIL))


def _ahead(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, EVERYBODY)


def _tomorrow(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, EVERYBODY, send_at=time.time() + 24 * 3600)


def _cancelled(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, EVERYBODY)
    (newest,) = stage.system.reports.newest()
    ledger = stage.system.ledger
    assert ledger.caught(ledger.begin_cancel(stage.app, newest.id)) == 1


def _refused(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=413, reason="PayloadTooLarge")
    _send(stage)


def _accepted(stage: "Stage") -> None:
    stage.add_phone(MAIL, side="development")
    _send(stage, ttl=0, interruption_level="passive")


def _silent(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    asyncio.run(_send_silent(stage))


async def _send_silent(stage: "Stage") -> None:
    content = Notification(silent=True, user_info={"order": 42})
    await stage.system.engine.send(stage.app, content, Recipients.read(MAIL))
    await stage.system.close_gateways()


def _opened(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    delivery = stage.delivery(_send(stage))
    assert report(stage.system, "displayed", delivery.apns_id)
    assert report(stage.system, "opened", delivery.apns_id)


def _unreadable(stage: "Stage") -> None:
    stage.add_phone(MAIL)
    _accept(stage, Recipients.read(MAIL))
    with stage.system.database.write() as connection:
        connection.execute(update(notifications).values(content='{"title": "Hello", "x": 1}'))
    asyncio.run(_work_off(stage))


async def _work_off(stage: "Stage") -> None:
    await stage.system.engine.start()
    await stage.system.engine.worker.idle()
    await stage.system.close_gateways()


STORIES: Final[tuple[tuple[Callable[["Stage"], None], bool, tuple[str, ...]], ...]] = (
    (_nobody, False, ("was not sent to test@4d.com", "no session was ever", "session add")),
    (_nothing_sent, False, ("Nothing was sent to test@4d.com lately", "1 device can be reached")),
    (_pending, False, ("pending, until it is proven", "To do: Let them prove")),
    (_quarantined, False, ("in quarantine, BadDeviceToken", "Let the app register again")),
    (_gone, False, ("answered 410 Unregistered", "was closed", "Let the app register again")),
    (_moved, False, ("registered for somebody else", "no active device then")),
    (_too_early, False, ("They had no device then; the first was registered at",)),
    (
        _stopped,
        False,
        (
            "has not arrived yet",
            "Sending for My App has been stopped since",
            "Apple does not accept the signature",
            "(InvalidProviderToken)",
            "One push is tried at",
            "handbell doctor",
            "handbell app resume TEAM123456.com.sample.myapp",
        ),
    ),
    (_switched_off, False, ("My App is switched off", "app set TEAM123456", "--on")),
    (
        _busy,
        False,
        ("answered 503 ServiceUnavailable", "attempt 1", "is due at", "tried until"),
    ),
    (_quiet, False, ("quiet hours, ", " in UTC, hold it", "It is due at")),
    (_capped, False, ("The cap of 1/day was reached", "Raise the cap")),
    (_scheduled, False, ("It waits for its time", "It is due at", "handbell worker")),
    (_stored, False, ("stored and not sent yet", "No worker is running", "handbell worker")),
    (_ahead, False, ("their turn has not come", "No worker is running")),
    (_tomorrow, False, ("has not arrived yet", "It waits for its time, 2")),
    (_cancelled, False, ("It was cancelled at", "before their turn came")),
    (_refused, False, ("answered 413 PayloadTooLarge: the payload is too large", "--dry-run")),
    (
        _accepted,
        True,
        (
            "was sent to 1 of 1 device. Apple accepted it at",
            "That is not yet shown",
            "It was not stored",
            "It is passive",
            "Apple's delivery log knows it as",
            "Look at the phone",
        ),
    ),
    (_unreadable, False, ("cannot be read", "That was attempt 1", "is due at")),
    (_silent, True, ("it shows nothing, it wakes the app",)),
    (_opened, True, ("the phone showed it at", "and it was opened at")),
)


@pytest.mark.parametrize(
    ("prepare", "is_sent", "words"),
    STORIES,
    ids=lambda value: value.__name__[1:] if callable(value) else None,
)
def test_the_story_tells_what_happened_and_what_to_do(
    stage: "Stage",
    prepare: Callable[["Stage"], None],
    is_sent: bool,  # noqa: FBT001 - a column of the table
    words: tuple[str, ...],
) -> None:
    """The text names the cause, what comes next and the fix; success is told apart."""
    prepare(stage)
    story = _why(stage)
    assert story.is_sent is is_sent
    for word in words:
        assert word in str(story)
    assert "None" not in str(story)
    assert "  " not in str(story).strip().replace("\n  ", "\n")


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (429, "TooManyRequests", "too many requests in a row"),
        (400, "BadPriority", "priority is not valid"),
        (503, "ServiceUnavailable", "service is not available"),
    ],
)
def test_what_a_reason_means_is_told_once(
    stage: "Stage", status: int, reason: str, words: str
) -> None:
    """A reason that Apple documents is put into words once, however the delivery ended."""
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=status, reason=reason, count=10)
    _send(stage)
    assert _why(stage).answer.lower().count(words) == 1


def test_what_stopped_an_app_is_told_with_what_to_do_once(stage: "Stage") -> None:
    """A reason that nobody documents leads to the check-up; no advice repeats another's words."""
    stage.add_phone(MAIL)
    stage.twin.add_fault("answer", status=403, reason="BrandNew", count=10)
    _send(stage)
    mend, go_on, *others = _why(stage).to_do
    assert mend == "Fix what the check-up names: handbell doctor."
    assert go_on.startswith("Then resume without waiting: handbell app resume ")
    assert not any(mend.startswith(other) for other in others)


@pytest.mark.databases
def test_the_answer_comes_first_and_the_newest_notification_leads(stage: "Stage") -> None:
    """Five notifications are told, the newest first, and the answer is about that one."""
    stage.add_phone(MAIL)
    for number in range(6):
        _send(stage, body=f"Number {number}", title=f"Title {number}")
    story = _why(stage)
    assert str(story).startswith(story.answer)
    assert [one.title for one in story.notifications] == [
        f"Title {number}" for number in (5, 4, 3, 2, 1)
    ]
    assert "'Title 5'" in story.answer


@pytest.mark.databases
def test_one_device_of_two_is_enough_and_the_other_is_told(stage: "Stage") -> None:
    """A person with a good and a dead device was reached; both deliveries are in the story."""
    stage.add_phone(MAIL)
    gone = stage.add_phone(MAIL)
    time.sleep(0.01)
    stage.twin.remove_phone(gone)
    _send(stage)
    story = _why(stage)
    assert story.is_sent
    assert "was sent to 1 of 2 devices" in story.answer
    assert "410 Unregistered" in str(story)


@pytest.mark.databases
def test_what_went_to_a_device_by_its_token_is_told_of_its_person(stage: "Stage") -> None:
    """Whoever is named by no mail is found by what their session got."""
    phone = stage.add_phone(MAIL)
    asyncio.run(stage.send(phone.token))
    assert _why(stage).is_sent


@pytest.mark.databases
def test_another_persons_and_another_apps_notifications_stay_out(stage: "Stage") -> None:
    """Only what concerned the person is told, whatever was sent besides."""
    stage.add_phone(MAIL)
    stage.add_phone("other@example.com")
    asyncio.run(stage.send("other@example.com", title="Secret"))
    other = stage.system.apps.add("TEAM123456", "com.sample.other")
    assert _why(stage).notifications == ()
    assert stage.system.why(other, "other@example.com").notifications == ()


@pytest.mark.databases
def test_a_mail_is_found_in_any_spelling(stage: "Stage") -> None:
    """The person is the same in upper case, and a mail that holds wildcards names one person."""
    _send(stage)
    assert _why(stage, "TEST@4D.com").notifications
    assert not _why(stage, "tes_@4d.com").notifications
    assert not _why(stage, "est@4d.com").notifications


def test_the_front_door_tells_the_same_story(stage: "Stage") -> None:
    """``Sessions.why`` returns the story, ready to be printed."""
    stage.add_phone(MAIL)
    push = PushNotification(settings=stage.system.settings)
    push.send({"title": "Hello"}, MAIL)
    push.close()
    story = Sessions(settings=stage.system.settings).why(MAIL)
    assert story.is_sent
    assert "accepted it at" in str(story)


# Counted


@pytest.mark.databases
def test_the_funnel_counts_what_was_shown_and_why_not(stage: "Stage") -> None:
    """Accepted, sent, displayed and opened are counted, and each reason has words and a fix."""
    phones = [stage.add_phone(f"user{number}@example.com") for number in range(4)]
    time.sleep(0.01)
    stage.twin.remove_phone(phones[0])
    response = asyncio.run(stage.send({"everybody": True}))
    sent = [one for one in response.deliveries if one.state == "sent"]
    report(stage.system, "displayed", sent[0].apns_id)
    report(stage.system, "displayed", sent[1].apns_id)
    report(stage.system, "opened", sent[1].apns_id)
    funnel = stage.system.reports.funnel(response.notification_id or "")
    assert (funnel.accepted, funnel.sent, funnel.displayed, funnel.opened) == (4, 3, 2, 1)
    (reason,) = funnel.reasons
    assert (reason.state, reason.reason, reason.number) == ("failed", "Unregistered", 1)
    assert "no longer on the device" in reason.meaning
    assert funnel.overview.recipients == "everybody"


@pytest.mark.databases
def test_a_broadcast_that_waits_is_all_ahead_until_it_is_cancelled(stage: "Stage") -> None:
    """Progress counts the sessions to come; cancelling turns them into cancelled ones."""
    for number in range(3):
        stage.add_phone(f"user{number}@example.com")
    _accept(stage, EVERYBODY)
    (newest,) = stage.system.reports.newest(stage.app)
    progress = stage.system.reports.progress(newest.id)
    assert (progress.settled, progress.total, progress.is_running) == (0, 3, True)
    assert newest.ahead == 3
    stage.system.ledger.begin_cancel(stage.app, newest.id)
    funnel = stage.system.reports.funnel(newest.id)
    assert (funnel.accepted, dict(funnel.overview.states)) == (3, {"cancelled": 3})
    assert not stage.system.reports.progress(newest.id).is_running


def test_what_is_for_a_later_time_is_not_under_way(stage: "Stage") -> None:
    """What is for tomorrow is not running, so that nobody watches it all night."""
    stage.add_phone(MAIL)
    _accept(stage, EVERYBODY, send_at=time.time() + 24 * 3600)
    _accept(stage, Recipients.read(MAIL), send_at=time.time() + 24 * 3600)
    for overview in stage.system.reports.newest():
        progress = stage.system.reports.progress(overview.id)
        assert (progress.total, progress.is_running) == (1, False)
        assert stage.system.reports.funnel(overview.id).next_due_at is not None


# Rules


def test_a_switched_off_app_goes_on_when_it_is_on_again(stage: "Stage") -> None:
    """What was held while the app was off falls due within seconds of switching it on."""
    _switched_off(stage)
    stage.system.app_control.switch(stage.app, is_enabled=True)
    due_at = _held(stage)
    assert due_at < time.time() + 10


def test_removed_quiet_hours_let_go_what_they_held(stage: "Stage") -> None:
    """Without quiet hours nothing waits for their end; a cap that changes moves nothing."""
    _quiet(stage)
    before = _held(stage)
    stage.system.app_control.set_rules(stage.app, {"cap": "3/day"})
    assert _held(stage) == before
    stage.system.app_control.set_rules(stage.app, {"quiet_hours": "none"})
    assert _held(stage) < time.time() + 10
    assert stage.system.rules_store.rules_of(stage.app.id).quiet is None


def test_resume_closes_the_circuit_and_lets_go_what_waited(stage: "Stage") -> None:
    """After the operator mended it nothing waits for the next try."""
    _stopped(stage)
    assert stage.system.rules_store.rules_of(stage.app.id).stop is not None
    assert stage.system.app_control.resume(stage.app)
    assert not stage.system.app_control.resume(stage.app)
    assert stage.system.rules_store.rules_of(stage.app.id).stop is None
    assert _held(stage) < time.time() + 10


def _held(stage: "Stage") -> float:
    (delivery,) = _why(stage).notifications[0].deliveries
    assert delivery.delivery.state == "held"
    assert delivery.delivery.due_at is not None
    return delivery.delivery.due_at / 1000


@pytest.mark.databases
def test_a_broadcast_is_the_last_that_was_accepted_too(stage: "Stage") -> None:
    """A device that got nothing but a broadcast has had something accepted."""
    stage.add_phone(MAIL)
    asyncio.run(stage.send(EVERYBODY))
    story = _why(stage)
    (delivery,) = (one.delivery for one in story.notifications[0].deliveries)
    assert story.sessions[0].session.accepted_at == delivery.sent_at
    assert "last accepted at" in story.sessions[0].what
