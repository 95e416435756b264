"""Devices of every push service register over HTTP."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.apps.sample_keys import make_service_account
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.registry.session import Session
from handbell.services.webpush.credential import VapidKey
from handbell.settings import Settings
from handbell.system import System

from .test_service_sessions import subscription

MAIL, OTHER = "user1@example.com", "test@4d.com"
APPLES = "ab" * 32
FCM = "fGc0:APA91b" + "x" * 140
ENDPOINT = "https://push.example/Sub-1"


class Office:
    """An app of every service over HTTP, for a back end and for devices."""

    def __init__(self, server: Server, app: App) -> None:
        self.server, self.app = server, app
        self.path = f"/v1/apps/{app.id}/sessions"
        self.back_end = server.client(server.key("register"))
        self.anybody = server.client()

    def register(self, body: dict[str, Any], client: httpx.Client | None = None) -> httpx.Response:
        """Send a registration."""
        return (client or self.back_end).post(self.path, json=body)

    def device(self, secret: str, method: str, body: object = None) -> httpx.Response:
        """Ask for something as a device; POST repeats its registration."""
        headers = {"Authorization": f"Bearer {secret}"}
        path = self.path if method == "POST" else f"{self.path}/current"
        return self.anybody.request(method, path, headers=headers, json=body)

    def holder(self, token: str) -> str | None:
        """Return whose an address is."""
        held = self.server.system.registry.holders(self.app, [token])
        return held[token].mail if held else None

    def sessions(self) -> list[Session]:
        """Return every session of the app."""
        return self.server.system.registry.sessions(self.app)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Run a server with one app."""
    system = System(Settings.load(home=tmp_path, web_push_hosts="push.example"))
    app = system.apps.add(
        "TEAM123456",
        "com.sample.shop",
        android_package="com.sample.shop",
        web_origin="https://shop.example",
    )
    with start_server(system, has_console=False, with_worker=False) as server:
        made = Office(server, app)
        yield made
        made.back_end.close()
        made.anybody.close()
    system.database.close()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"device_token": APPLES}, ("apns", "device", "ios")),
        ({"device_token": FCM, "platform": "android"}, ("fcm", "device", "android")),
        ({"address": FCM, "platform": "Android"}, ("fcm", "device", "android")),
        ({"device_token": FCM, "service": "fcm"}, ("fcm", "device", "android")),
        ({"device_token": FCM, "service": "fcm", "platform": "ios"}, ("fcm", "device", "ios")),
        ({"device_token": "cAZ09_-" + "a" * 15, "platform": "android"}, ("fcm", "fid", "android")),
        ({"subscription": subscription()}, ("webpush", "subscription", "web")),
        (
            {"subscription": subscription(), "platform": "android", "service": "webpush"},
            ("webpush", "subscription", "android"),
        ),
    ],
    ids=["apns", "fcm", "fcm-address", "fcm-service", "fcm-ios", "fid", "browser", "unifiedpush"],
)
def test_a_device_is_of_the_service_that_reaches_it(
    office: Office, body: dict[str, Any], expected: tuple[str, str, str]
) -> None:
    """Platform, service or subscription tell which; the answer says it, and no key of a browser."""
    answer = office.register({"mail": MAIL, "device_id": "one", **body})
    assert answer.status_code == 201, answer.text
    told = answer.json()["session"]
    assert (told["service"], told["kind"], told["platform"]) == expected
    assert told["device_id"] == "one"
    assert "p256dh" not in answer.text
    listed = office.back_end.get(office.path, params={"service": expected[0]}).json()["data"]
    assert listed == [told]


@pytest.mark.parametrize(
    ("body", "status", "why"),
    [
        ({"device_token": APPLES, "subscription": subscription()}, 422, "and a subscription"),
        ({"subscription": subscription(), "service": "fcm"}, 422, "no address of FCM"),
        (
            {"subscription": {**subscription(), "keys": {"p256dh": "AA", "auth": "AA"}}},
            422,
            "bytes",
        ),
        ({"subscription": subscription(), "environment": "development"}, 422, "no environment"),
        ({"device_token": FCM, "platform": "android", "environment": "development"}, 422, "FCM"),
        ({"device_token": APPLES, "platform": "android"}, 422, "device token of Apple's"),
        ({"device_token": FCM}, 422, "not a device token"),
        ({"device_token": FCM, "platform": "web"}, 422, "endpoint"),
        ({"device_token": APPLES, "service": "pigeon"}, 422, "not a push service"),
        ({"device_token": "x" * 4097, "platform": "android"}, 422, "4096"),
        ({}, 422, "device_token is missing"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_what_cannot_be_reached_is_not_stored(
    office: Office, body: dict[str, Any], status: int, why: str
) -> None:
    """The problem says what is wrong with the address, and nothing is half done."""
    answer = office.register({"mail": MAIL, **body})
    assert (answer.status_code, why in answer.text) == (status, True), answer.text
    assert office.sessions() == []


def test_a_browsers_account_switch_and_log_out(office: Office) -> None:
    """The endpoint goes to who is signed in, and to nobody after the log-out."""
    office.register({"mail": MAIL, "subscription": subscription()})
    secret = office.register({"mail": OTHER, "subscription": subscription()}).json()["secret"]
    assert office.holder(ENDPOINT) == OTHER
    assert office.device(secret, "DELETE").status_code == 204
    assert office.holder(ENDPOINT) is None
    assert office.device(secret, "POST", {"subscription": subscription()}).status_code == 401


def test_a_device_renews_what_reaches_it_with_its_secret(office: Office) -> None:
    """A new subscription, then FCM's token: one session, one owner, whichever service."""
    made = office.register({"mail": MAIL, "subscription": subscription(), "platform": "android"})
    secret = made.json()["secret"]
    fresh = subscription("https://push.example/Sub-2")
    again = office.device(secret, "POST", {"subscription": fresh, "platform": "android"})
    assert (again.status_code, office.holder(ENDPOINT)) == (200, None)
    assert office.holder("https://push.example/Sub-2") == MAIL
    changed = office.device(secret, "PATCH", {"device_token": FCM, "platform": "android"})
    assert (changed.json()["service"], changed.json()["id"]) == ("fcm", made.json()["id"])
    assert office.device(secret, "POST", {}).status_code == 200
    assert [one.token for one in office.sessions()] == [FCM]


def test_a_device_id_that_is_too_long_is_left_out(office: Office) -> None:
    """Cut, it might be another device's; the device is registered all the same."""
    body = {"mail": MAIL, "device_token": APPLES, "device_id": "x" * 129}
    answer = office.register(body).json()
    assert answer["session"]["device_id"] is None
    assert "device_id" in answer["warnings"][0]


def test_an_export_of_every_service_can_be_imported(office: Office) -> None:
    """Keys of browsers come along, so that the copy can send to them."""
    for body in (
        {"device_token": APPLES, "device_id": "phone"},
        {"device_token": FCM, "platform": "android"},
        {"subscription": subscription()},
    ):
        office.register({"mail": MAIL, **body})
    before = {one.token: one for one in office.sessions()}
    lines = office.back_end.get(f"{office.path}/export").content
    assert lines.count(b"p256dh") == 1
    office.server.context.remove_app(office.app)
    office.app = office.server.system.apps.add("TEAM123456", "com.sample.shop")
    answer = office.back_end.post(
        f"{office.path}/import", content=lines, headers={"Content-Type": "application/x-ndjson"}
    )
    assert json.loads(answer.text.splitlines()[-1]) == {"imported": 3, "refused": 0}, answer.text
    for session in office.sessions():
        former = before.pop(session.token)
        for name in ("service", "kind", "details", "device_id", "platform"):
            assert getattr(session, name) == getattr(former, name)
    assert before == {}


def test_pages_read_the_key_that_they_subscribe_with(office: Office) -> None:
    """Anybody may read the public half; without a key it is not found, with the fix."""
    path = f"/v1/apps/{office.app.id}/web-push"
    missing = office.anybody.get(path)
    assert (missing.status_code, "POST" in missing.json()["fix"]) == (404, True)
    assert office.anybody.get("/v1/apps/nothing/web-push").status_code == 404
    key = VapidKey.make()
    office.server.system.apps.add_credential(office.app, key, environment="twin")
    answer = office.anybody.get(path)
    assert answer.json() == {"public_key": key.public_key, "environment": "twin"}


@pytest.fixture
def administrator(office: Office) -> Iterator[httpx.Client]:
    """Yield a client that may administer every app."""
    with office.server.client(office.server.key("administer")) as client:
        yield client


def test_credentials_of_every_service_go_in_and_never_come_out(
    office: Office, administrator: httpx.Client
) -> None:
    """A service account as text or file, a web push key made or imported; no secret is told."""
    path = f"/v1/apps/{office.app.id}"
    account, other = (make_service_account(office.app) for _ in range(2))
    vapid = VapidKey.make()
    answers = [
        administrator.post(f"{path}/credentials", json={"service_account": account.pack()}),
        administrator.post(
            f"{path}/credentials",
            files={"file": ("my-project-firebase.json", other.pack().encode())},
        ),
        administrator.post(f"{path}/credentials", json={"vapid_key": vapid.private_key_text}),
        administrator.post(f"{path}/web-push", json={"environment": "twin"}),
        administrator.get(f"{path}/credentials"),
    ]
    assert [one.status_code for one in answers] == [201] * 4 + [200], answers[-2].text
    kinds = [(one["service"], one["kind"]) for one in answers[-1].json()["data"]]
    assert kinds == [("webpush", "vapid")] * 2 + [("fcm", "service-account")] * 2
    for answer in answers:
        assert "PRIVATE KEY" not in answer.text
        assert vapid.private_key_text not in answer.text
    told = office.anybody.get(f"{path}/web-push").json()
    assert told == {"public_key": vapid.public_key, "environment": "production"}
    assert answers[3].json()["public_key"] != vapid.public_key


def test_a_web_push_key_in_use_is_lost_by_force_alone(
    office: Office, administrator: httpx.Client
) -> None:
    """The problem says how many subscriptions live by it, on each way to lose it."""
    path = f"/v1/apps/{office.app.id}"
    key_id = administrator.post(f"{path}/web-push", json={}).json()["key_id"]
    office.register({"mail": MAIL, "subscription": subscription()})
    for answer in (
        administrator.delete(f"{path}/credentials/{key_id}"),
        administrator.post(f"{path}/web-push", json={}),
        administrator.post(
            f"{path}/credentials", json={"vapid_key": VapidKey.make().private_key_text}
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, "credential-in-use")
        assert "1 subscription" in answer.json()["detail"]
    assert administrator.post(f"{path}/web-push", json={"force": True}).status_code == 201
    assert [one.status for one in office.sessions()] == ["quarantined"]
    (key_id,) = [one["key_id"] for one in administrator.get(f"{path}/credentials").json()["data"]]
    gone = administrator.delete(f"{path}/credentials/{key_id}", params={"force": "true"})
    assert gone.status_code == 204


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
_ENDPOINTS = st.sampled_from(
    [ENDPOINT, "http://push.example/1", "https://user:pass@push.example/", "javascript:alert(1)"]
) | st.text(max_size=60)
_SUBSCRIPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "endpoint": _ENDPOINTS | _JSON,
        "expirationTime": _JSON,
        "keys": st.fixed_dictionaries({}, optional={"p256dh": _JSON, "auth": _JSON}) | _JSON,
    },
)
_HOSTILE = st.fixed_dictionaries(
    {"mail": st.just(MAIL)},
    optional={
        "subscription": _SUBSCRIPTIONS | _JSON,
        "device_token": st.text(min_size=0, max_size=80) | _JSON,
        "platform": st.sampled_from(["ios", "android", "web", "WEB", ""]) | _JSON,
        "service": st.sampled_from(["apns", "fcm", "webpush"]) | _JSON,
        "environment": st.sampled_from(["twin", "development"]) | _JSON,
        "device_id": _JSON,
    },
)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=_HOSTILE)
def test_a_hostile_registration_is_refused_or_whole(office: Office, body: dict[str, Any]) -> None:
    """Whatever is sent: no fault of the server, and what is stored fits its service."""
    answer = office.register(body)
    assert answer.status_code in (201, 400, 409, 422), answer.text
    for session in office.sessions():
        assert (session.service == "webpush") == (session.details is not None)


def test_each_service_stops_for_itself(office: Office, administrator: httpx.Client) -> None:
    """The app tells which service refuses it, and which credential is skipped meanwhile."""
    system, app = office.server.system, office.app
    refused, other = (system.apps.add_credential(app, make_service_account(app)) for _ in range(2))
    stop = CircuitStop(
        reason="PERMISSION_DENIED",
        detail="",
        since=1.8e9,
        probe_at=1.8e9,
        environment="production",
        service="fcm",
    )
    for key in (refused, other):
        place = CircuitScope(app.id, "production", key.fingerprint, "project", "fcm")
        system.rules_store.note(StoredCircuit(place, None, stop))
        told = administrator.get(f"/v1/apps/{app.id}")
        assert told.status_code == 200, told.text
        if key is refused:
            (skipped,) = told.json()["refused_keys"]
            assert (skipped["kind"], skipped["key_id"]) == ("service-account", refused.key_id)
    stops = told.json()["stops"]
    assert {(one["service"], one["reason"]) for one in stops} == {("fcm", "PERMISSION_DENIED")}
    assert told.json()["stopped"] == stops[0]


def test_a_subscription_of_a_former_key_is_noticed(office: Office) -> None:
    """By whoever says the key: without it, and without a key of the app's, all is as before."""
    former, present = VapidKey.make(), VapidKey.make()
    about = {"mail": MAIL, "subscription": subscription(ENDPOINT)}
    named = {**about, "application_server_key": former.public_key}
    assert office.register(named).status_code == 201, "the app has no key yet"
    office.server.system.apps.add_credential(office.app, former)
    padded = {**named, "application_server_key": former.public_key + "="}
    secret = office.register(padded).json()["secret"]
    office.server.system.apps.add_credential(office.app, present, is_forced=True)
    refusals = [
        office.register(named),
        office.device(secret, "POST", {**named, "mail": None}),
        office.device(secret, "PATCH", {**named, "mail": None}),
    ]
    for refused in refusals:
        assert (refused.status_code, refused.json()["code"]) == (409, "web-push-key-changed")
        assert "unsubscribe()" in refused.json()["fix"]
        assert former.public_key not in refused.text
    assert office.register(about).status_code == 201, "a page that does not say it"
    renewed = office.register({**about, "application_server_key": present.public_key})
    assert (renewed.status_code, renewed.json()["status"]) == (201, "active")
