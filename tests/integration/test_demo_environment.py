"""Virtual phones of every platform register as an app's devices do."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.firefox import wait_for

from handbell.demo_environment import DemoEnvironment, isolated_settings
from handbell.push import PushNotification
from handbell.system import System
from handbell.testing import VirtualPhone
from handbell.twin.threaded import RunningTwin, start_twin
from handbell.twin.webpush.saved import SAVED_FILE, Saved, read_saved

MAIL = "test@4d.com"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[System, DemoEnvironment, RunningTwin]]:
    """Give a system and its twin, connected."""
    system = System(isolated_settings(tmp_path))
    with DemoEnvironment(system) as environment:
        (app,) = environment.prepare()
        with start_twin(system.twin_folder, hooks=environment.hooks()) as twin:
            twin.add_app(app.id, app.name)
            yield system, environment, twin
    system.database.close()


def test_a_phone_of_each_platform_has_a_session(
    place: tuple[System, DemoEnvironment, RunningTwin],
) -> None:
    """All of them on the twin, each with the credential that its service asks for."""
    system, environment, twin = place
    for platform in ("ios", "android", "web"):
        twin.add_phone(f"My {platform}", mail=MAIL, platform=platform)
    (app,) = system.apps.list()
    sessions = {item.service: item for item in system.registry.sessions(app)}
    phones = {phone.service: phone for phone in twin.phones.values()}
    assert set(sessions) == {"apns", "fcm", "webpush"} == set(phones)
    for service, session in sessions.items():
        assert (session.token, session.environment) == (phones[service].token, "twin")
    assert json.loads(sessions["webpush"].details or "") == json.loads(
        phones["webpush"].details or ""
    )
    assert [one.service for one in system.apps.credentials(app)].count("webpush") == 1
    assert {item.service for item in environment.known_sessions(app)} == set(sessions)


def test_a_second_browser_subscribes_with_the_same_key(
    place: tuple[System, DemoEnvironment, RunningTwin],
) -> None:
    """Subscriptions live by the key: it is made once."""
    system, _, twin = place
    (app,) = system.apps.list()
    for _number in range(2):
        twin.add_browser(mail=MAIL)
    key = system.apps.web_push_key(app)
    assert key.environment == "twin"
    endpoints = [phone.token for phone in twin.phones.values()]
    found = twin.call(lambda running: [running._webpush.store.find(one) for one in endpoints])  # noqa: SLF001
    assert [item and item.key for item in found] == [key.public_key] * 2


def test_one_send_reaches_every_device_of_a_person(
    handbell_home: Path,
    handbell_push: PushNotification,
    handbell_phone: VirtualPhone,
    handbell_android: VirtualPhone,
    handbell_browser: VirtualPhone,
) -> None:
    """The fixtures' devices show it, and what is opened on each is in the ledger."""
    response = handbell_push.send({"title": "Hello", "body": "World"}, MAIL)
    devices = (handbell_phone, handbell_android, handbell_browser)
    assert [item.gateway for item in response.deliveries] == ["apns", "fcm", "webpush"]
    for device in devices:
        (card,) = device.cards
        assert (card.title, card.body) == ("Hello", "World")
        device.open(card)
    system = System(isolated_settings(handbell_home))
    found = wait_for(
        lambda: [
            item
            for item in system.ledger.deliveries_of(response.deliveries[0].notification_id)
            if item.displayed_at and item.opened_at
        ][2:]
    )
    assert found[0].gateway == "webpush"
    system.database.close()


@pytest.mark.parametrize("is_taken", [False, True], ids=["its port", "another port"])
def test_the_devices_are_there_again_after_a_restart(tmp_path: Path, is_taken: bool) -> None:  # noqa: FBT001
    """Each with its address and its session, and what is sent to it then is shown."""
    system = System(isolated_settings(tmp_path))
    with DemoEnvironment(system) as environment, contextlib.ExitStack() as undo:
        (app,) = environment.prepare()
        with start_twin(system.twin_folder, hooks=environment.hooks()) as twin:
            twin.add_app(app.id, app.name)
            for platform in ("ios", "android", "web"):
                twin.add_phone(f"My {platform}", mail=MAIL, platform=platform)
            former = {phone.name: phone.token for phone in twin.phones.values()}
            sessions = {one.id: one.token for one in system.registry.sessions(app)}
            port = urlsplit(twin.webpush_url).port
        if is_taken:
            undo.enter_context(socket.create_server(("127.0.0.1", port or 0)))
        with start_twin(system.twin_folder, hooks=environment.hooks()) as twin:
            twin.add_app(app.id, app.name)
            twin.call(lambda running: environment.restore(running, app))
            assert (urlsplit(twin.webpush_url).port == port) is not is_taken
            tokens = {phone.name: phone.token for phone in twin.phones.values()}
            there = twin.webpush_url + urlsplit(former["My web"]).path
            assert tokens == {**former, "My web": there}
            found = {one.id: one.token for one in system.registry.sessions(app)}
            assert found == {row: there if "/" in one else one for row, one in sessions.items()}
            with PushNotification(settings=system.settings) as push:
                assert push.send({"title": "Hello"}, MAIL).success
            phones = list(twin.phones.values())
            wait_for(lambda: all(twin.phones[one.id].cards for one in phones))
    system.database.close()


def test_what_a_twin_saved_is_for_its_user_alone(tmp_path: Path) -> None:
    """It has keys; an unreadable file is as none, and an ended subscription is forgotten."""
    folder = tmp_path / "twin"
    with start_twin(folder) as twin:
        kept, gone = twin.add_browser(), twin.add_browser()
        twin.remove_phone(gone)
    file = folder / SAVED_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    (saved,) = read_saved(folder).subscriptions
    assert (saved.endpoint, saved.browser) == (kept.token, kept.id)
    assert saved.keys is not None
    assert saved.keys.to_dict() == json.loads(kept.details or "")
    for broken in ("", "[]", '{"origin": "https://127.0.0.1:1", "subscriptions": [{}]}'):
        file.write_text(broken)
        assert read_saved(folder) == Saved("", ())
