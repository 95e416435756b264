"""The console of an app whose people have iPhones, Android phones and browsers."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any, Final

import pytest
from tests.console import Desk, Visitor, open_console, open_rehearsal, unhurried

from handbell.apps.app import App
from handbell.twin.threaded import RunningTwin

HOME: Final = "/console/apps/TEAM123456.com.sample.shop"
SERVICES: Final = ["apns", "fcm", "webpush"]
FORM: Final = {"to": "people", "recipients": "test@4d.com", "when": "now", "title": "Hello"}

House = tuple[Desk, Visitor, RunningTwin, App]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Run a console and a twin, with an app that test@4d.com has on three devices."""
    with (
        open_rehearsal(tmp_path_factory.mktemp("house")) as (system, twin, _),
        open_console(system, limiter=unhurried()) as desk,
        desk.signed_in() as visitor,
    ):
        app = system.apps.add(
            "TEAM123456",
            "com.sample.shop",
            android_package="com.sample.shop",
            web_origin="https://shop.example.com",
        )
        twin.add_app(app.id, app.name)
        for service in ("apns", "fcm", "webpush"):
            made = visitor.post(f"{HOME}/phones", {"phone_mail": "test@4d.com", "service": service})
            assert made.status_code == 200, made.text
        yield desk, visitor, twin, app


def told(page: str) -> str:
    """Return a page's words."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def test_one_person_has_all_devices(house: House) -> None:
    """Each session says its platform and its push service; a long address is cut."""
    _, visitor, _, _ = house
    page = visitor.get(f"{HOME}/person?mail=test@4d.com").text
    words = told(page)
    for text in ("iOS · APNs · twin", "Android · FCM · twin", "Browser · Web Push · twin"):
        assert text in words
    assert re.search(r"127\.0\.0\.1:\d+/…\S{6}", words)
    assert "3 devices can be reached" in words


def test_what_became_of_it_is_told_by_push_service(house: House) -> None:
    """The funnel has a line for each service; what one refused has that service's words."""
    desk, visitor, twin, app = house
    (phone,) = [one for one in twin.phones.values() if one.service == "fcm"]
    twin.add_fault("answer", reason="INVALID_ARGUMENT", token=phone.token)
    sent = desk.send(app, "test@4d.com", title="By three ways")
    assert sent.notification_id is not None
    words = told(visitor.get(f"{HOME}/activity/{sent.notification_id}").text)
    assert "By push service" in words
    assert phone.token[:12] in words
    counts = {one.service: one for one in desk.system.reports.funnel(sent.notification_id).services}
    assert list(counts) == SERVICES
    assert [counts[name].number for name in SERVICES] == [1, 1, 1]
    assert [counts[name].sent for name in SERVICES] == [1, 0, 1]
    assert counts["fcm"].failed == 1
    assert "FCM finds a fault in the message" in words


def test_each_service_says_what_it_makes_of_a_draft(house: House) -> None:
    """The script is told bytes, payload and what is left out, by service and language."""
    _, visitor, _, _ = house
    sent = {**FORM, "subtitle": "Bistro", "language-tag-0": "fr", "language-title-0": "Bonjour"}
    said: dict[str, Any] = visitor.post(f"{HOME}/compose/preview", sent).json()
    found = {one["service"]: one for one in said["services"]}
    assert list(found) == SERVICES
    assert found["apns"]["notes"] == []
    for name in ("fcm", "webpush"):
        assert any('"Subtitle"' in note for note in found[name]["notes"])
    for one in found.values():
        assert [wording["language"] for wording in one["languages"]] == [None, "fr"]
        for wording in one["languages"]:
            assert wording["size"] == len(wording["payload"].encode()) <= wording["limit"]
    assert said["faults"] == {}


def test_what_one_service_refuses_is_no_fault_of_the_form(house: House) -> None:
    """A text that only one service has no room for is told beside its preview."""
    _, visitor, _, _ = house
    sent = {**FORM, "body": "x" * 3960}
    said = visitor.post(f"{HOME}/compose/preview", sent).json()
    found = {one["service"]: one for one in said["services"]}
    assert said["faults"] == {}
    assert found["apns"]["notes"] == []
    assert any("bytes" in note for note in found["webpush"]["notes"])


def test_the_page_has_a_preview_of_each_device(house: House) -> None:
    """Tabs, bytes and a virtual device for each; what the chosen one shows is asked by service."""
    _, visitor, _, _ = house
    page = visitor.get(f"{HOME}/compose").text
    for name in SERVICES:
        assert f'id="device-{name}"' in page
        assert f'class="bytes" data-service="{name}"' in page
        piece = visitor.get(f"{HOME}/phones?service={name}", headers={"x-fragment": "1"}).text
        assert f"service={name}" in piece
        assert "test" in told(piece)


def test_who_confirms_reads_what_each_service_makes_of_it(house: House) -> None:
    """Bytes and what is left out stand in the question, by device."""
    _, visitor, _, _ = house
    sent = {"to": "everybody", "when": "now", "title": "Hello", "subtitle": "Bistro", "do": "send"}
    words = told(visitor.post(f"{HOME}/compose", sent).text)
    assert "Yes, everybody: 3 devices" in words
    assert re.search(r"iPhone \d+ of 4,096 bytes Android \d+ of 4,096 bytes", words)
    assert '"Subtitle" is not shown by browsers' in words


def test_an_app_without_apple_has_every_page(house: House) -> None:
    """All pages are there, with the one device that it has; what it cannot say is a fault."""
    desk, visitor, _, _ = house
    app = desk.system.apps.add(android_package="com.sample.droid")
    home = f"/console/apps/{app.id}"
    made = visitor.post(f"{home}/phones", {"phone_mail": "droid@4d.com", "service": "fcm"})
    assert "droid@4d.com has a virtual Android phone" in told(made.text)
    for path in ("", "/compose", "/people", "/person?mail=droid@4d.com", "/activity"):
        assert "None" not in told(visitor.get(f"{home}{path}").text).replace("None is", "")
    page = visitor.get(f"{home}/compose").text
    assert 'data-device="fcm"' in page
    assert 'name="device"' not in page
    only = {"to": "everybody", "when": "now", "badge": "3", "do": "send"}
    refused = visitor.post(f"{home}/compose", only)
    assert refused.status_code == 422
    assert 'id="body-fault"' in refused.text
    sent = desk.send(app, "droid@4d.com")
    assert sent.success
    assert "By push service" not in visitor.get(f"{home}/activity/{sent.notification_id}").text
