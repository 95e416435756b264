"""One person, all devices: sends by several push services at once, and what each may spoil."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.services_stage import (
    FIRST_ORIGIN,
    SECOND_ORIGIN,
    AnsweringGateway,
    ServicesStage,
    open_services,
    subscription,
)

from handbell.apps.sample_keys import make_credentials
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.record.hourly_counts import HOUR
from handbell.delivery.work.app_state import FIRST_BATCH
from handbell.diagnostic import Diagnostic
from handbell.errors import NotForServiceError, PayloadTooLargeError
from handbell.gateways.gateway import Push
from handbell.gateways.outcomes import DeviceGone, Outcome, Refused, RetryLater
from handbell.services.reactions import Reaction

pytestmark = pytest.mark.databases

MAIL = "test@4d.com"
EVERYBODY = {"everybody": True}
WRONG_PROJECT = Refused("SENDER_ID_MISMATCH", Reaction.WRONG_APP, 403)
NO_PERMISSION = Refused("PERMISSION_DENIED", Reaction.FIX_CONFIGURATION, 403)
UNAVAILABLE = RetryLater("ServiceUnavailable", Reaction.BACK_OFF, status=503)


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[ServicesStage]:
    """Give an app of every push service, whose gateways accept everything."""
    with open_services(tmp_path, database_url) as stage:
        yield stage


def _three_devices(stage: ServicesStage, mail: str = MAIL, first: int = 1) -> None:
    for service in ("apns", "fcm", "webpush"):
        stage.register(mail, service, first)


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_one_person_gets_it_on_each_device(stage: ServicesStage, to: object) -> None:
    """Each service gets its own message, and one ledger and one story have all of it."""
    _three_devices(stage)
    response = stage.send(to, title="Hello", url="https://shop.example/1")
    assert response.success
    assert stage.pushed() == {"apns": 1, "fcm": 1, "webpush": 1}
    assert set(stage.states(response.notification_id or "")) == {
        ("apns", "sent"),
        ("fcm", "sent"),
        ("webpush", "sent"),
    }
    apple, google, browser = (stage.gateways[name].pushes[0] for name in stage.gateways)
    assert json.loads(apple.message.payload)["aps"]["alert"] == {"title": "Hello"}
    assert json.loads(google.message.payload)["notification"] == {"title": "Hello"}
    assert json.loads(browser.message.payload)["notification"]["title"] == "Hello"
    assert (apple.details, google.details) == (None, None)
    assert set(json.loads(browser.details or "{}")) == {"auth", "p256dh"}
    assert browser.address == f"{FIRST_ORIGIN}/1"
    told = str(stage.system.why(stage.app, MAIL))
    assert all(f"{vendor} accepted it" in told for vendor in ("Apple", "Google"))


def test_each_service_is_counted_for_itself(stage: ServicesStage) -> None:
    """The hourly counts have a row for each service."""
    _three_devices(stage)
    stage.register(MAIL, "fcm", 2)
    stage.send(MAIL)
    with stage.system.database.read() as connection:
        rows = connection.exec_driver_sql("SELECT service, sent, hour FROM tallies").all()
    assert {service: sent for service, sent, _ in rows} == {"apns": 1, "fcm": 2, "webpush": 1}
    assert {hour % HOUR for *_, hour in rows} == {0}


def test_the_funnel_and_its_reasons_are_by_service(stage: ServicesStage) -> None:
    """Each service has its counts, and each of its reasons its own words."""
    _three_devices(stage)
    stage.register("other@4d.com", "fcm", 2)
    _answers(stage.gateways["webpush"], DeviceGone("Gone", None))
    response = stage.send([MAIL, "other@4d.com"])
    funnel = stage.system.reports.funnel(response.notification_id or "")
    assert [(one.service, one.number, one.sent, one.failed) for one in funnel.services] == [
        ("apns", 1, 1, 0),
        ("fcm", 2, 2, 0),
        ("webpush", 1, 0, 1),
    ]
    (reason,) = funnel.reasons
    assert (reason.service, reason.reason) == ("webpush", "Gone")
    assert reason.meaning == "the subscription has ended"


@pytest.mark.parametrize("to", [[MAIL, "other@4d.com"], EVERYBODY], ids=["named", "everybody"])
def test_a_device_with_two_services_gets_it_once(stage: ServicesStage, to: object) -> None:
    """The first of its services brings it; where that one is closed, the next does."""
    for service in ("webpush", "fcm", "apns"):
        stage.register(MAIL, service, 1, device_id="one")
    stage.register(MAIL, "fcm", 2, device_id="two")
    stage.register(MAIL, "webpush", 2, device_id="two")
    stage.register("other@4d.com", "fcm", 3, device_id="one")
    stage.send(to)
    assert stage.pushed() == {"apns": 1, "fcm": 2}
    told = stage.system.why(stage.app, MAIL)
    assert Counter(one.is_sent_to for one in told.sessions) == {True: 2, False: 3}
    assert "is reached by APNs, which comes first" in str(told)
    (phone,) = [one for one in stage.system.registry.sessions(stage.app) if one.service == "apns"]
    stage.system.registry.close(phone.id, "it was sold")
    stage.send(to)
    assert stage.pushed() == {"apns": 1, "fcm": 5}


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_a_device_does_not_wait_for_a_service_without_a_credential(
    stage: ServicesStage, to: object
) -> None:
    """Another of its services brings it; a device that has that one alone waits for the key."""
    stage.register(MAIL, "apns", 1, device_id="one")
    stage.register(MAIL, "webpush", 1, device_id="one")
    stage.register(MAIL, "apns", 2, device_id="two")
    for key in stage.system.apps.credentials(stage.app, "apns"):
        stage.system.apps.remove_credential(stage.app, key.key_id)
    response = stage.send(to)
    assert response.success
    assert stage.pushed() == {"apns": 1, "webpush": 1}
    assert stage.gateways["apns"].pushes[0].address == f"{2:064x}"
    told = stage.system.why(stage.app, MAIL)
    passed_over = [one for one in told.sessions if not one.is_sent_to]
    assert [(one.session.service, one.session.device_id) for one in passed_over] == [
        ("apns", "one")
    ]
    content = Notification.read({"title": "a"})
    shown = stage.system.previewer.requests(stage.app, content, Recipients.read(MAIL))
    urls = [one.url.split("/")[2] for one in shown if one.warning is None]
    assert sorted(urls) == ["api.push.apple.com", "one.push.example"]


def test_a_replacement_goes_where_the_former_one_went(stage: ServicesStage) -> None:
    """Who got a notification by FCM gets what replaces it there, whatever was added since."""
    stage.register(MAIL, "fcm", 1, device_id="one")

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, MAIL, title="1:0", collapse_id="score")
            await stage.until(engine, lambda: stage.states(sent.id)["fcm", "sent"] == 1)
            stage.register(MAIL, "apns", 1, device_id="one")
            again = Notification.read({"title": "2:0"})
            response = await engine.replace(stage.app, sent.id, again)
            assert response.success, response.errors
            assert stage.states(response.notification_id or "") == {("fcm", "sent"): 1}

    asyncio.run(scenario())
    assert stage.pushed() == {"fcm": 2}


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_what_a_service_cannot_carry_leaves_its_sessions_out(
    stage: ServicesStage, to: object
) -> None:
    """A silent push wakes apps, and no browser: its sessions are left out, with a warning."""
    _three_devices(stage)
    response = stage.send(to, silent=True, user_info={"n": 1})
    assert response.success
    assert stage.pushed() == {"apns": 1, "fcm": 1}
    assert [one.reason for one in response.warnings] == ["NotForService"]
    assert set(stage.states(response.notification_id or "")) == {("apns", "sent"), ("fcm", "sent")}


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_an_iphone_by_fcm_gets_what_apples_devices_take(stage: ServicesStage, to: object) -> None:
    """In Apple's block of the message, also where an Android phone can show none of it."""
    stage.register(MAIL, "fcm", 1)
    stage.register(MAIL, "fcm", 2, platform="ios")
    assert stage.send(to, title="Hello", subtitle="again", badge=3).success
    android, apple = sorted(stage.gateways["fcm"].pushes, key=lambda push: push.address)
    assert json.loads(android.message.payload)["notification"] == {"title": "Hello"}
    assert json.loads(apple.message.payload)["apns"]["payload"]["aps"] == {
        "alert": {"title": "Hello", "subtitle": "again"},
        "badge": 3,
    }
    response = stage.send(to, badge=0)
    assert response.success
    assert [one.reason for one in response.warnings] == ["NotForService"]
    assert stage.gateways["fcm"].pushes[2].address == apple.address
    assert stage.states(response.notification_id or "") == {("fcm", "sent"): 1}
    shown = stage.system.previewer.requests(
        stage.app, Notification.read({"title": "a", "subtitle": "b"}), Recipients.read(MAIL)
    )
    assert [one.warning for one in shown if one.warning] == [
        "FCM: `subtitle` is not shown on Android."
    ]
    messages = [json.loads(one.payload)["message"] for one in shown if one.warning is None]
    assert ["apns" in one for one in messages].count(True) == 1
    notification = Notification.read({"title": "a"})
    forms = [one.form for one in stage.system.previewer.services(stage.app, notification)]
    assert forms == ["apns", "fcm", "fcm_apple", "webpush"]


def test_what_a_device_gets_by_another_service_does_not_matter(stage: ServicesStage) -> None:
    """A device's second service neither refuses a send, nor is a warning about it given."""
    stage.register(MAIL, "apns", 1, device_id="one")
    stage.register(MAIL, "webpush", 1, device_id="one")
    body = "x" * 4010  # fits Apple's limit, and not that of browsers
    response = stage.send(MAIL, title="t", body=body)
    assert (response.success, list(response.warnings)) == (True, [])
    assert not stage.send(MAIL, push_type="voip", payload={"call": 1}).warnings
    assert stage.pushed() == {"apns": 2}
    content = Notification.read({"title": "t", "subtitle": "s", "color": "#112233"})
    (shown,) = stage.system.previewer.requests(stage.app, content, Recipients.read(MAIL))
    assert (shown.warning, "api.push.apple.com" in shown.url) == (None, True)
    stage.register(MAIL, "webpush", 2)
    with pytest.raises(PayloadTooLargeError, match="push services take"):
        stage.send(MAIL, title="t", body=body)


@pytest.mark.parametrize("to", [MAIL, EVERYBODY], ids=["named", "everybody"])
def test_an_app_without_apples_ids_and_without_a_device_is_no_fault(
    stage: ServicesStage, to: object
) -> None:
    """Where nobody has a device it is a warning, whichever push services an app is for."""
    shop = stage.system.apps.add(app_id="other", name="Other", android_package="com.example.other")
    (credential,) = make_credentials(shop)
    stage.system.apps.add_credential(shop, credential)
    content, recipients = Notification.read({"title": "t"}), Recipients.read(to)
    stage.system.previewer.requests(shop, content, recipients)
    acceptance, _ = asyncio.run(stage.system.engine.accept(shop, content, recipients))
    (warning,) = acceptance.warnings
    assert isinstance(warning, Diagnostic)
    assert warning.reason == "NoDevice"


def test_the_preview_names_an_installation_id_as_one(stage: ServicesStage) -> None:
    """FCM takes an installation id in a member of its own, and the preview shows that."""
    installation = "c" + "A" * 21
    to = Recipients.read({"addresses": [{"service": "fcm", "token": installation}]})
    (shown,) = stage.system.previewer.requests(stage.app, Notification.read({"title": "t"}), to)
    message = json.loads(shown.payload)["message"]
    assert (message["fid"], "token" in message) == (installation, False)


def test_what_no_device_can_get_is_refused(stage: ServicesStage) -> None:
    """A send of which nothing could arrive anywhere is an error, and stores nothing."""
    stage.register(MAIL, "webpush", 1)
    with pytest.raises(NotForServiceError):
        stage.send(MAIL, silent=True, user_info={"n": 1})
    with pytest.raises(NotForServiceError):
        stage.send(MAIL, event="end", content_state={"n": 1})


def test_a_device_without_the_first_service_that_can_is_reached(stage: ServicesStage) -> None:
    """Of one device's services, the first that can carry the notification counts."""
    stage.register(MAIL, "fcm", 1, device_id="one")
    stage.register(MAIL, "apns", 1)
    stage.register(MAIL, "webpush", 1, device_id="one")
    stage.send(EVERYBODY, subtitle="Only Apple has one", badge=1)
    assert stage.pushed() == {"apns": 1}


def _answers(gateway: AnsweringGateway, outcome: Outcome | None) -> None:
    gateway.answer = lambda _: outcome


@pytest.mark.parametrize("outcome", [WRONG_PROJECT, NO_PERMISSION], ids=lambda one: one.reason)
@pytest.mark.parametrize("is_everybody", [False, True], ids=["named", "everybody"])
def test_a_wrong_project_stops_its_service_alone_and_keeps_every_token(
    stage: ServicesStage, outcome: Refused, *, is_everybody: bool
) -> None:
    """Google refuses all tokens: FCM stops, iPhones get theirs; once it is mended, it goes on."""
    people = [f"user{one}@4d.com" for one in range(60)]
    for number, mail in enumerate(people):
        stage.register(mail, "fcm", number)
    for number, mail in enumerate(people):
        stage.register(mail, "apns", number + 1)
    _answers(stage.gateways["fcm"], outcome)

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, EVERYBODY if is_everybody else people)
            await stage.until(engine, lambda: stage.states(sent.id)["apns", "sent"] == 60)
            await stage.until(
                engine, lambda: stage.system.rules_store.stopped_apps() == [stage.app.id]
            )
            (stop,) = stage.system.rules_store.rules_of(stage.app.id).stops
            assert (stop.service, stop.reason) == ("fcm", outcome.reason)
            assert stop.topic == stage.gateways["fcm"].topic
            assert len(stage.gateways["fcm"].pushes) <= FIRST_BATCH
            _answers(stage.gateways["fcm"], None)
            await stage.until(
                engine, _after(stage, lambda: stage.states(sent.id)["fcm", "sent"] == 60)
            )
            assert stage.states(sent.id) == {("apns", "sent"): 60, ("fcm", "sent"): 60}

    asyncio.run(scenario())
    assert stage.statuses() == {("apns", "active"): 60, ("fcm", "active"): 60}


def _after(stage: ServicesStage, is_so: Callable[[], bool]) -> Callable[[], bool]:
    """Let time pass with each look."""

    def look() -> bool:
        stage.clock.move(5)
        return is_so()

    return look


def test_one_origin_stops_for_itself(stage: ServicesStage) -> None:
    """A push server that refuses the key of all subscriptions stops no other one."""
    for number in range(12):
        origin = FIRST_ORIGIN if number % 2 else SECOND_ORIGIN
        stage.register(f"user{number}@4d.com", "webpush", number, origin=origin)
    refused = Refused("Unauthorized", Reaction.WRONG_APP, 401)
    browsers = stage.gateways["webpush"]
    browsers.answer = lambda push: refused if push.address.startswith(FIRST_ORIGIN) else None
    people = [f"user{number}@4d.com" for number in range(12)]
    response = stage.send(people)
    assert stage.states(response.notification_id or "") == {
        ("webpush", "sent"): 6,
        ("webpush", "held"): 6,
    }
    (stop,) = stage.system.rules_store.rules_of(stage.app.id).stops
    assert (stop.service, stop.topic, stop.reason) == ("webpush", FIRST_ORIGIN, "Unauthorized")
    assert stage.statuses() == {("webpush", "active"): 12}
    again = stage.send(EVERYBODY)
    assert stage.states(again.notification_id or "") == {
        ("webpush", "sent"): 6,
        ("webpush", "held"): 6,
    }
    assert {one.reason for one in again.errors} == {"CircuitOpen"}


def test_an_outage_of_one_origin_is_no_outage_of_another(stage: ServicesStage) -> None:
    """What one push server's trouble holds goes on when it is over; others never waited."""
    for number in range(12):
        origin = FIRST_ORIGIN if number % 2 else SECOND_ORIGIN
        stage.register(f"user{number}@4d.com", "webpush", number, origin=origin)
    people = [f"user{number}@4d.com" for number in range(12)]
    browsers = stage.gateways["webpush"]
    browsers.answer = lambda push: UNAVAILABLE if push.address.startswith(FIRST_ORIGIN) else None

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, people)
            await stage.until(engine, lambda: stage.states(sent.id)["webpush", "held"] == 6)
            held = {None, "ServiceDown"}
            await stage.until(
                engine, lambda: {one.reason for one in stage.deliveries(sent.id)} == held
            )
            await stage.until(engine, lambda: bool(stage.system.rules_store.outages()))
            (outage,) = stage.system.rules_store.outages()
            assert outage.place.topic == FIRST_ORIGIN
            _answers(browsers, None)
            await stage.until(
                engine, _after(stage, lambda: stage.states(sent.id)["webpush", "sent"] == 12)
            )

    asyncio.run(scenario())


@pytest.mark.parametrize("service", ["fcm", "webpush"])
@pytest.mark.parametrize("is_later", [False, True], ids=["before", "since"])
def test_a_device_that_registered_since_is_not_closed(
    stage: ServicesStage, service: str, *, is_later: bool
) -> None:
    """A 404 closes the session only if its device has not registered since the push went out."""
    stage.register(MAIL, service, 1)
    reason = "UNREGISTERED" if service == "fcm" else "NotFound"

    def gone(_: Push) -> Outcome:
        sent_at = int(stage.clock() * 1000) + (-60_000 if is_later else 60_000)
        return DeviceGone(reason, sent_at, 404)

    stage.gateways[service].answer = gone
    response = stage.send(MAIL)
    assert stage.states(response.notification_id or "") == {(service, "failed"): 1}
    assert stage.statuses() == {(service, "active" if is_later else "closed"): 1}
    assert [one.reason for one in response.warnings] == [reason]


def test_nothing_of_the_former_user_arrives_after_a_switch(stage: ServicesStage) -> None:
    """Whoever takes over a phone and a browser gets nothing that waits for who had them before."""
    _three_devices(stage)
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stage.clock() + 60))

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, MAIL, {"send_at": later})
            _three_devices(stage, "new@4d.com")
            stage.clock.move(120)
            await stage.until(engine, lambda: len({*stage.states(sent.id)}) == 3)
            await stage.until(
                engine, lambda: {state for _, state in stage.states(sent.id)} == {"cancelled"}
            )
            own = await stage.accept(engine, "new@4d.com")
            await stage.until(
                engine, lambda: {state for _, state in stage.states(own.id)} == {"sent"}
            )

    asyncio.run(scenario())
    assert stage.pushed() == {"apns": 1, "fcm": 1, "webpush": 1}
    assert stage.statuses()["webpush", "closed"] == 1


def test_a_whole_address_waits_with_its_keys(stage: ServicesStage) -> None:
    """A subscription that no session holds is sent to at its time, encrypted for it."""
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stage.clock() + 60))
    browser = subscription(f"{FIRST_ORIGIN}/bare")

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, [browser], {"send_at": later})
            assert [one.address for one in stage.deliveries(sent.id)] == [browser["endpoint"]]
            stage.clock.move(120)
            await stage.until(engine, lambda: stage.states(sent.id)["webpush", "sent"] == 1)

    asyncio.run(scenario())
    (push,) = stage.gateways["webpush"].pushes
    assert (push.address, json.loads(push.details or "")) == (browser["endpoint"], browser["keys"])


def test_who_is_erased_leaves_no_address(stage: ServicesStage) -> None:
    """Also where a person's browser was named by its whole address, nothing of it stays."""
    browser = subscription(f"{FIRST_ORIGIN}/1")
    sent = stage.send([browser]).notification_id or ""
    stage.system.registry.register(stage.app, MAIL, browser, platform="web")
    stage.system.eraser.erase(stage.app, MAIL)
    assert [one.address for one in stage.deliveries(sent)] == ["removed"]


def test_a_session_that_changes_its_service_in_between_goes_the_new_way(
    stage: ServicesStage,
) -> None:
    """A row that was written for Apple goes where its session lives by now."""
    stage.register(MAIL, "apns", 1)
    later = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(stage.clock() + 60))

    async def scenario() -> None:
        async with stage.running() as engine:
            sent = await stage.accept(engine, MAIL, {"send_at": later})
            with stage.system.database.write() as connection:
                connection.exec_driver_sql(
                    "UPDATE sessions SET service = 'fcm', token = 'android:new'"
                )
            stage.clock.move(120)
            await stage.until(
                engine, lambda: {state for _, state in stage.states(sent.id)} == {"sent"}
            )
            (delivery,) = stage.deliveries(sent.id)
            assert (delivery.gateway, delivery.address) == ("fcm", "android:new")
            with stage.system.database.write() as connection:
                connection.exec_driver_sql("UPDATE sessions SET service = 'apns', token = 'ab'")
            (delivery,) = stage.deliveries(sent.id)
            assert (delivery.gateway, delivery.address) == ("fcm", ""), "not the present address"
            assert "not reached there any more" in delivery.label

    asyncio.run(scenario())
    assert [push.address for push in stage.gateways["fcm"].pushes] == ["android:new"]
    assert stage.pushed() == {"fcm": 1}


def test_the_dry_run_shows_the_request_of_each_service(stage: ServicesStage) -> None:
    """With what a service ignores, and without what proves who sends."""
    _three_devices(stage)
    notification = Notification.read({"title": "Hello", "subtitle": "only Apple's"})
    shown = stage.system.previewer.requests(stage.app, notification, Recipients.read(MAIL))
    requests = {one.url.split("/", 3)[2]: one for one in shown if one.warning is None}
    assert set(requests) == {"api.push.apple.com", "fcm.googleapis.com", "one.push.example"}
    assert all(dict(one.headers)["authorization"].endswith("(hidden)") for one in requests.values())
    account = stage.system.apps.credential_for(stage.app, "production", service="fcm")
    assert f"/projects/{account.project_id}/" in requests["fcm.googleapis.com"].url
    message = json.loads(requests["fcm.googleapis.com"].payload)["message"]
    assert message["token"].startswith("android-0001:")
    assert requests["one.push.example"].limit == 3993
    warnings = [one.warning for one in shown if one.warning]
    assert warnings == [
        "FCM: `subtitle` is not shown on Android.",
        "Web Push: `subtitle` is not shown by browsers.",
    ]
