"""Sessions, users, receipts and universal links over HTTP."""

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import func, insert, select
from tests.conftest import Stage, open_system
from tests.serving import Server, start_server

from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.ids import apns_id
from handbell.delivery.response import Response
from handbell.registry.secret import digest_of
from handbell.settings import Settings
from handbell.storage.tables import deliveries, notifications, sessions, webhook_calls, webhooks
from handbell.system import System
from handbell.twin.threaded import RunningTwin

MAIL, OTHER = "user1@example.com", "test@4d.com"
TOKEN, ANOTHER = "ab" * 32, "cd" * 32
LEAVING = "leaving@example.com"
NOBODY = "removed@removed.invalid"


class Desk:
    """The stage's app over HTTP, by a key that may register and by devices."""

    def __init__(self, stage: Stage, server: Server) -> None:
        self.stage, self.server = stage, server
        self.path = f"/v1/apps/{stage.app.id}"
        self.office = server.client(server.key("register"))
        self.client = server.client()

    def register(self, token: str = TOKEN, mail: str = MAIL, **more: Any) -> dict[str, Any]:
        """Register a device by the key and return the answer."""
        body = {"mail": mail, "device_token": token, **more}
        answer = self.office.post(f"{self.path}/sessions", json=body)
        assert answer.status_code == 201, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def device(self, secret: str, method: str, path: str, **how: Any) -> httpx.Response:
        """Ask for something as the device of a session; ``path`` is below the app's sessions."""
        headers = {"Authorization": f"Bearer {secret}"}
        return self.client.request(method, f"{self.path}/sessions{path}", headers=headers, **how)

    def send(self, to: object = MAIL, **content: Any) -> Response:
        """Send through the server's engine."""
        said = Notification.read({"title": "Hello", **content})
        engine = self.stage.system.engine
        return self.server.run(engine.send(self.stage.app, said, Recipients.read(to)))


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, RunningTwin]]:
    """Run one server and one twin for all tests: each has an app of its own."""
    with (
        open_system(tmp_path_factory.mktemp("hall")) as (system, twin),
        start_server(system, has_console=False) as server,
    ):
        yield server, twin


_NUMBERS = count()


@pytest.fixture
def desk(hall: tuple[Server, RunningTwin]) -> Iterator[Desk]:
    """Give a new app over HTTP, with a key that the twin knows."""
    server, twin = hall
    app = server.system.apps.add("TEAM123456", f"com.sample.app{next(_NUMBERS)}")
    key = make_key(app.apple.team_id)
    server.system.apps.add_credential(app, key)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    desk = Desk(Stage(server.system, twin, app), server)
    yield desk
    desk.office.close()
    desk.client.close()


@pytest.fixture
def lone_desk(tmp_path: Path) -> Iterator[Desk]:
    """Give the only app of a server, without a way to any phone."""
    system = System(Settings.load(home=tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp", name="My App")
    with start_server(system, has_console=False, with_worker=False) as server:
        desk = Desk(Stage(system, cast("RunningTwin", None), app), server)
        yield desk
        desk.office.close()
        desk.client.close()
    system.database.close()


# Registration


def test_a_back_end_registers_a_device(desk: Desk) -> None:
    """It is active at once, and the device is handed the secret by which it speaks."""
    answer = desk.register(
        platform="ipados",
        environment="development",
        locale="fr-CH",
        time_zone="Europe/Zurich",
        device="iPad14,3",
        app_version="2.1",
        os_version="18.2",
        external_id="7023",
    )
    told = answer["session"]
    assert (answer["status"], told["mail"], told["device_token"]) == ("active", MAIL, TOKEN)
    assert (told["platform"], told["environment"]) == ("ipados", "development")
    assert (told["app_version"], told["os_version"], told["device"]) == ("2.1", "18.2", "iPad14,3")
    assert told["registered_at"].endswith("Z")
    assert answer["secret"].startswith("hbs_")
    assert len(answer["secret"]) == 36
    for path in ("/current", f"/{answer['id']}"):
        assert desk.device(answer["secret"], "GET", path).json() == told


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"mail": MAIL}, 422),
        ({"device_token": TOKEN}, 422),
        ({"mail": "nobody", "device_token": TOKEN}, 422),
        ({"mail": MAIL, "device_token": "not hex"}, 422),
        ({"mail": MAIL, "device_token": TOKEN, "platform": "android"}, 422),
        ({"mail": MAIL, "device_token": TOKEN, "environment": "moon"}, 422),
        ({"mail": MAIL, "device_token": TOKEN, "identity_token": "a.b.c"}, 422),
        ([], 422),
    ],
)
def test_what_cannot_be_registered_is_refused(desk: Desk, body: Any, status: int) -> None:
    """The answer is a problem, and nothing is stored."""
    answer = desk.office.post(f"{desk.path}/sessions", json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert desk.stage.system.registry.sessions(desk.stage.app) == []


def test_without_a_proof_no_device_registers(desk: Desk) -> None:
    """Where only the back end registers, a device is told so."""
    body = {"mail": MAIL, "device_token": TOKEN}
    answer = desk.client.post(f"{desk.path}/sessions", json=body)
    assert (answer.status_code, answer.json()["code"]) == (403, "proof-required")
    assert "API key" in answer.json()["fix"]
    body = {"identity_token": "a.b.c", "device_token": TOKEN}
    assert desk.client.post(f"{desk.path}/sessions", json=body).status_code == 403
    sender = desk.server.client(desk.server.key("send"))
    assert sender.post(f"{desk.path}/sessions", json=body).json()["code"] == "forbidden"
    sender.close()


def test_a_device_repeats_itself_at_each_start(desk: Desk) -> None:
    """With its secret it needs no proof, and may bring a new token and what has changed."""
    first = desk.register(locale="fr", device="iPhone")
    phone = desk.stage.twin.add_phone(mail=MAIL, app=desk.stage.app.id)
    body = {"device_token": phone.token, "locale": "de"}
    again = desk.device(first["secret"], "POST", "", json=body)
    assert again.status_code == 200
    told = again.json()
    assert (told["id"], told["status"], told["secret"]) == (first["id"], "active", None)
    assert told["session"]["device_token"] == phone.token
    assert (told["session"]["locale"], told["session"]["device"]) == ("de", "iPhone")
    assert told["session"]["registered_at"] >= first["session"]["registered_at"]
    assert desk.send().success
    assert len(desk.stage.twin.phone(phone.id).cards) == 1
    patched = desk.device(first["secret"], "PATCH", f"/{told['id']}", json={"os_version": "19"})
    assert (patched.json()["os_version"], patched.json()["locale"]) == ("19", "de")


def test_a_new_registration_voids_the_former_secret(desk: Desk) -> None:
    """Whoever was handed the last secret speaks for the session."""
    first, second = desk.register(), desk.register()
    assert first["id"] == second["id"]
    assert desk.device(first["secret"], "POST", "", json={}).status_code == 401
    assert desk.device(second["secret"], "POST", "", json={}).status_code == 200


def test_a_device_speaks_for_its_own_session_only(desk: Desk) -> None:
    """Another session's address is answered as if it were not there."""
    mine, theirs = desk.register(), desk.register(ANOTHER, OTHER)
    for method, path, how in (
        ("GET", "", {}),
        ("PATCH", "", {"json": {"locale": "de"}}),
        ("DELETE", "", {}),
        ("POST", "/receipts", {"json": {"event": "opened", "notification_id": "0" * 15}}),
    ):
        for name in (str(theirs["id"]), "999999", "x", "9" * 40):
            answer = desk.device(mine["secret"], method, f"/{name}{path}", **how)
            assert (answer.status_code, answer.json()["code"]) == (404, "session-unknown")
        assert desk.device("hbs_" + "x" * 32, method, f"/current{path}", **how).status_code == 401
    assert desk.stage.session(OTHER).status == "active"


def test_after_a_logout_nothing_is_shown(desk: Desk) -> None:
    """The session is closed, its secret is void, and what is sent afterwards goes nowhere."""
    phone = desk.stage.twin.add_phone(mail=MAIL, app=desk.stage.app.id)
    secret = desk.register(phone.token)["secret"]
    assert desk.device(secret, "DELETE", "/current").status_code == 204
    assert not desk.send().success
    assert desk.stage.twin.phone(phone.id).cards == ()
    for method in ("POST", "DELETE"):
        path = "" if method == "POST" else "/current"
        assert desk.device(secret, method, path, json={}).status_code == 401
    assert (desk.stage.session(MAIL).status, desk.stage.session(MAIL).reason) == (
        "closed",
        "closed",
    )


def test_an_operator_closes_and_corrects_a_session(desk: Desk) -> None:
    """By key; closing is noted in the audit trail, without the device token."""
    session = desk.register()
    path = f"{desk.path}/sessions/{session['id']}"
    changed = desk.office.patch(path, json={"environment": "development"})
    assert changed.json()["environment"] == "development"
    assert desk.office.delete(path).status_code == 204
    assert desk.office.delete(path).status_code == 204
    assert desk.office.get(path).json()["status"] == "closed"
    closed = desk.office.patch(path, json={"device_token": ANOTHER})
    assert (closed.status_code, closed.json()["code"]) == (422, "registry-invalid")
    noted = desk.stage.system.audit.list(app=desk.stage.app.id, action="session.close")
    assert [(one.subject, one.app) for one in noted] == [
        (f"session {session['id']}", desk.stage.app.id)
    ]
    for name in ("999", "current", "x"):
        assert desk.office.get(f"{desk.path}/sessions/{name}").status_code == 404


def test_one_token_has_one_owner_under_concurrency(desk: Desk) -> None:
    """Users register and devices renew with the same tokens at once: none has two owners."""
    secrets = [desk.register(f"{one:08x}", f"u{one}@example.com")["secret"] for one in range(4)]

    def work(number: int) -> None:
        with desk.server.client(desk.office.headers["Authorization"].split()[1]) as client:
            for turn in range(6):
                token = f"{(number + turn) % 2:064x}"
                if number % 2:
                    desk.device(secrets[number], "POST", "", json={"device_token": token})
                else:
                    body = {"mail": f"u{number}@example.com", "device_token": token}
                    client.post(f"{desk.path}/sessions", json=body)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    held = (
        select(sessions.c.token, func.count())
        .where(sessions.c.status == "active", sessions.c.app_id == desk.stage.app.row)
        .group_by(sessions.c.token)
    )
    with desk.stage.system.database.read() as connection:
        owners = {row[0]: row[1] for row in connection.execute(held)}
    # A token that its last device has left for another is nobody's.
    assert {f"{0:064x}", f"{1:064x}"} & set(owners)
    assert set(owners.values()) == {1}


# Lists


def test_sessions_are_listed_in_pages(desk: Desk) -> None:
    """The last made first, each once, whatever its status; and those that a filter means."""
    ids = [
        desk.register(f"{one:08x}", MAIL if one % 2 else OTHER, platform="ios")["id"]
        for one in range(7)
    ]
    desk.office.delete(f"{desk.path}/sessions/{ids[3]}")
    desk.register("ff" * 8, OTHER, platform="macos")
    seen: list[int] = []
    cursor: str | None = None
    while True:
        params = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = desk.office.get(f"{desk.path}/sessions", params=params).json()
        seen += [one["id"] for one in page["data"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == sorted(seen, reverse=True)
    assert len(seen) == 8
    for params, number in (
        ({"status": "closed"}, 1),
        ({"status": "active"}, 7),
        ({"mail": MAIL}, 3),
        ({"mail": MAIL.upper(), "status": "active"}, 2),
        ({"platform": "macos"}, 1),
        ({"environment": "twin"}, 0),
        ({"mail": "never@example.com"}, 0),
    ):
        found = desk.office.get(f"{desk.path}/sessions", params=params).json()
        assert len(found["data"]) == number, params
    for params in ({"cursor": "x"}, {"cursor": "WyJhIl0"}):
        assert desk.office.get(f"{desk.path}/sessions", params=params).status_code == 400
    assert desk.office.get(f"{desk.path}/sessions", params={"status": "lost"}).status_code == 422


def test_users_are_listed_and_read(desk: Desk) -> None:
    """In the order of their addresses, with how many sessions they have in each status."""
    for one in range(5):
        desk.register(f"{one:08x}", f"u{one}@example.com")
    gone = desk.register("ee" * 8, "u1@example.com")
    desk.office.delete(f"{desk.path}/sessions/{gone['id']}")
    first = desk.office.get(f"{desk.path}/users", params={"limit": "3"}).json()
    rest = desk.office.get(f"{desk.path}/users", params={"cursor": first["next"]}).json()
    mails = [one["mail"] for one in (*first["data"], *rest["data"])]
    assert mails == [f"u{one}@example.com" for one in range(5)]
    assert first["data"][1]["sessions"] == {"active": 1, "closed": 1}
    assert rest["next"] is None
    some = desk.office.get(f"{desk.path}/users", params={"containing": "U3@"}).json()
    assert [one["mail"] for one in some["data"]] == ["u3@example.com"]
    assert desk.office.get(f"{desk.path}/users", params={"containing": "%"}).json()["data"] == []
    user = desk.office.get(f"{desk.path}/users/U1@example.com").json()
    assert [one["status"] for one in user["devices"]] == ["closed", "active"]
    for position in (r'["\ud800"]', '["a", "b"]', "[7]", "{}", "[" * 300):
        cursor = base64.urlsafe_b64encode(position.encode()).decode()
        bad = desk.office.get(f"{desk.path}/users", params={"cursor": cursor})
        assert (bad.status_code, bad.json()["code"]) == (400, "cursor-invalid")
    missing = desk.office.get(f"{desk.path}/users/never@example.com")
    assert (missing.status_code, missing.json()["code"]) == (404, "user-unknown")


def test_a_removed_person_leaves_no_name_behind(desk: Desk) -> None:
    """Sessions, address and names in the ledger go; what was sent to others stays as it was."""
    stage = desk.stage
    mine, theirs = stage.add_phone(LEAVING), stage.add_phone(OTHER)
    loose = stage.twin.add_phone(mail=LEAVING, app=stage.app.id)
    alone = desk.send(LEAVING, body="Your test result is here")
    both = desk.send([LEAVING, OTHER], body="For you two")
    desk.send({"device_tokens": [loose.token]})
    stage.register(LEAVING, loose.token)
    _add_call(desk, LEAVING)
    assert desk.office.delete(f"{desk.path}/users/{LEAVING}").status_code == 204
    assert desk.office.delete(f"{desk.path}/users/{LEAVING}").status_code == 404
    with stage.system.database.read() as connection:
        everything = "".join(
            str(connection.execute(select(table)).all())
            for table in (notifications, deliveries, sessions, webhook_calls)
        )
        kept = dict(
            connection.execute(select(notifications.c.public_id, notifications.c.content)).all()
        )
    for name in (LEAVING, mine.token, loose.token, "Your test result"):
        assert name not in everything
    assert OTHER in everything
    assert theirs.token in everything
    assert NOBODY in everything
    assert "For you two" in kept[both.notification_id or ""]
    assert sum(stage.system.ledger.counts(alone.notification_id or "").values()) == 1
    (noted,) = stage.system.audit.list(app=stage.app.id, action="user.remove")
    assert (noted.detail, LEAVING in str(noted)) == ("2 sessions", False)
    assert desk.send(OTHER).success


def _add_call(desk: Desk, mail: str) -> None:
    with desk.stage.system.database.write() as connection:
        hook = {"app_id": desk.stage.app.row, "url": "https://example.com/", "created_at": 0}
        row = connection.execute(
            insert(webhooks).values(**hook, sealed_secret=b"", events="*", is_enabled=False)
        ).inserted_primary_key
        assert row is not None
        call = {"webhook_id": row[0], "message_id": "m", "state": "sent", "created_at": 0}
        body = f'{{"mail": "{mail}"}}'
        connection.execute(insert(webhook_calls).values(**call, body=body))


# Receipts


def test_a_device_reports_what_it_got(desk: Desk) -> None:
    """By either id; the first report counts, and opened says displayed as well."""
    phone = desk.stage.twin.add_phone(mail=MAIL, app=desk.stage.app.id)
    session = desk.register(phone.token)
    first, second = desk.send(), desk.send()
    report = {"notification_id": first.notification_id, "event": "displayed"}
    for _ in range(2):
        answer = desk.device(session["secret"], "POST", "/current/receipts", json=report)
        assert answer.status_code == 204
    displayed_at = desk.stage.delivery(first).displayed_at
    assert displayed_at is not None
    late = {**report, "at": "2099-01-01T00:00:00Z"}
    assert desk.device(session["secret"], "POST", "/current/receipts", json=late).status_code == 204
    assert desk.stage.delivery(first).displayed_at == displayed_at
    named = apns_id(second.notification_id or "", session["id"])
    early = {"apns_id": named.upper(), "event": "opened", "at": "1999-01-01T00:00:00+01:00"}
    answer = desk.device(session["secret"], "POST", f"/{session['id']}/receipts", json=[early])
    assert (answer.status_code, answer.json()) == (200, {"noted": [True]})
    delivery = desk.stage.delivery(second)
    assert delivery.opened_at == delivery.displayed_at == delivery.sent_at


@pytest.mark.parametrize("path", ["/current/receipts/list", "/{id}/receipts/list"])
def test_many_receipts_are_told_one_by_one(desk: Desk, path: str) -> None:
    """A list is answered in its order; a bad one takes none of the others with it."""
    phone = desk.stage.twin.add_phone(mail=MAIL, app=desk.stage.app.id)
    session, other = desk.register(phone.token), desk.register(ANOTHER, OTHER)
    first, second = desk.send(), desk.send()
    reports = [
        {"notification_id": first.notification_id, "event": "displayed"},
        {"notification_id": "0" * 15, "event": "opened"},
        {"apns_id": "no id", "event": "opened"},
        {"id": apns_id(second.notification_id or "", session["id"]), "event": "opened"},
        {"notification_id": first.notification_id, "event": "displayed"},
    ]
    address = path.format(id=session["id"])
    answer = desk.device(session["secret"], "POST", address, json=reports)
    assert (answer.status_code, answer.json()) == (200, {"noted": [True, False, False, True, True]})
    assert desk.stage.delivery(first).displayed_at is not None
    assert desk.stage.delivery(first).opened_at is None
    assert desk.stage.delivery(second).opened_at is not None
    for bad in ([], reports[0], [*reports, {"event": "opened"}], reports[:1] * 101, "text", None):
        assert desk.device(session["secret"], "POST", address, json=bad).status_code == 422
    theirs = desk.device(other["secret"], "POST", "/current/receipts/list", json=reports)
    assert theirs.json() == {"noted": [False] * len(reports)}
    assert desk.client.post(f"{desk.path}/sessions{address}", json=reports).status_code == 401


def test_a_receipt_is_taken_from_whom_it_concerns_only(desk: Desk) -> None:
    """Another's notification, a foreign id and one of another app are answered alike."""
    phone = desk.stage.twin.add_phone(mail=MAIL, app=desk.stage.app.id)
    owner, other = desk.register(phone.token), desk.register(ANOTHER, OTHER)
    sent = desk.send()
    named = apns_id(sent.notification_id or "", owner["id"])
    elsewhere = desk.stage.system.apps.add("TEAM123456", "com.sample.second")
    wrong = [
        {"notification_id": sent.notification_id, "event": "opened"},
        {"apns_id": named, "event": "opened"},
        {"apns_id": apns_id("0" * 15, other["id"]), "event": "opened"},
        {"apns_id": "not an id", "event": "opened"},
        {"notification_id": "../x", "event": "opened"},
        {"apns_id": apns_id(sent.notification_id or "", 1 << 55), "event": "opened"},
    ]
    answers = [desk.device(other["secret"], "POST", "/current/receipts", json=one) for one in wrong]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    many = desk.device(other["secret"], "POST", "/current/receipts", json=wrong)
    assert many.json() == {"noted": [False] * len(wrong)}
    delivery = desk.stage.delivery(sent)
    assert (delivery.displayed_at, delivery.opened_at) == (None, None)
    for bad in (
        {"id": named, "apns_id": named[:-1] + "0", "event": "opened"},
        {"id": named, "notification_id": sent.notification_id, "event": "opened"},
        {"event": "opened"},
        {"event": "opened", "apns_id": named, "notification_id": "0" * 15},
        {"event": "seen", "apns_id": named},
        [],
        [{"event": "opened", "apns_id": named}] * 101,
    ):
        answer = desk.device(owner["secret"], "POST", "/current/receipts", json=bad)
        assert answer.status_code == 422
    for client in (desk.office, desk.client):
        path = f"{desk.path}/sessions/{owner['id']}/receipts"
        assert client.post(path, json=wrong[1]).status_code in (401, 403)
    headers = {"Authorization": f"Bearer {owner['secret']}"}
    path = f"/v1/apps/{elsewhere.id}/sessions/current/receipts"
    assert desk.client.post(path, json=wrong[1], headers=headers).status_code == 401


def test_a_receipt_may_come_before_the_ledger_is_written(desk: Desk) -> None:
    """A phone that is faster than the batch of outcomes is waited for, a moment."""
    stage = desk.stage
    phone = stage.twin.add_phone(mail=MAIL, app=stage.app.id)
    session = desk.register(phone.token)
    sent = desk.send()
    with stage.system.database.write() as connection:
        mine = deliveries.c.number == session["id"]
        row = connection.execute(select(deliveries).where(mine)).mappings().one()
        connection.execute(deliveries.delete().where(mine))

    async def write_later() -> None:
        await asyncio.sleep(0.2)

        def write() -> None:
            with stage.system.database.write() as connection:
                connection.execute(insert(deliveries).values(**row))

        await asyncio.to_thread(write)

    later = asyncio.run_coroutine_threadsafe(write_later(), desk.server._loop)  # noqa: SLF001
    report = {"notification_id": sent.notification_id, "event": "opened"}
    answer = desk.device(session["secret"], "POST", "/current/receipts", json=report)
    later.result(5)
    assert answer.status_code == 204


# Universal links


def test_a_single_app_gets_every_universal_link(lone_desk: Desk) -> None:
    """In today's form and the older one, as JSON, at both addresses, without a redirect."""
    app = lone_desk.stage.app.id
    for path in ("/.well-known/apple-app-site-association", "/apple-app-site-association"):
        answer = lone_desk.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/json"
        (detail,) = answer.json()["applinks"]["details"]
        assert answer.json()["applinks"]["apps"] == []
        assert (detail["appID"], detail["paths"]) == (app, ["/mobileapp/$/*"])
        assert (detail["appIDs"], detail["components"]) == ([app], [{"/": "/mobileapp/$/*"}])
        assert answer.json()["activitycontinuation"] == {"apps": [app]}


def test_each_host_has_its_own_apps(lone_desk: Desk) -> None:
    """Once an app has a domain, a host tells of those that are its own and of no others."""
    system = lone_desk.stage.system
    second = system.apps.add("TEAM123456", "com.sample.second")
    third = system.apps.add("TEAM123456", "com.sample.third")
    for app in (lone_desk.stage.app, second):
        system.identities.set(app, associated_domain="links.example.com")

    def get(host: str) -> httpx.Response:
        path = "/.well-known/apple-app-site-association"
        return lone_desk.client.get(path, headers={"Host": host})

    details = get("Links.example.com:8443").json()["applinks"]["details"]
    assert {one["appID"]: one["paths"] for one in details} == {
        app.id: [f"/mobileapp/$/{app.id}/*"] for app in (lone_desk.stage.app, second)
    }
    assert get("other.example.com").status_code == 404
    system.identities.set(third, associated_domain="other.example.com")
    (only,) = get("other.example.com").json()["applinks"]["details"]
    assert (only["appID"], only["paths"]) == (third.id, ["/mobileapp/$/*"])


def test_android_learns_which_apps_open_a_hosts_links(lone_desk: Desk) -> None:
    """Package and certificates of each app whose links they are; narrowed to its own paths."""
    path, apps = "/.well-known/assetlinks.json", lone_desk.stage.system.apps
    missing = lone_desk.client.get(path)
    assert (missing.status_code, "--android-fingerprint" in missing.json()["fix"]) == (404, True)
    digits = "0123456789abcdef" * 4
    ids = {"android_package": "com.sample.myapp", "android_fingerprints": (digits,)}
    app = apps.set_ids(lone_desk.stage.app, ids)
    answer = lone_desk.client.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    (statement,) = answer.json()
    (fingerprint,) = app.android_fingerprints
    relation = "delegate_permission/common.handle_all_urls"
    assert statement["relation"] == [relation]
    assert statement["target"] == {
        "namespace": "android_app",
        "package_name": "com.sample.myapp",
        "sha256_cert_fingerprints": [fingerprint],
    }
    narrowed = {"dynamic_app_link_components": [{"/": "/mobileapp/$/*"}]}
    assert statement["relation_extensions"] == {relation: narrowed}
    droid = apps.add(android_package="com.sample.droid", android_fingerprints=[digits])
    packages = {one["target"]["package_name"] for one in lone_desk.client.get(path).json()}
    assert packages == {"com.sample.myapp", "com.sample.droid"}
    site = lone_desk.client.get("/.well-known/apple-app-site-association").json()
    assert [one["appID"] for one in site["applinks"]["details"]] == [app.id]
    assert site["applinks"]["details"][0]["paths"] == [f"/mobileapp/$/{app.id}/*"]
    lone_desk.stage.system.identities.set(droid, associated_domain="links.example.com")
    there = lone_desk.client.get(path, headers={"Host": "links.example.com"}).json()
    assert [one["target"]["package_name"] for one in there] == ["com.sample.droid"]
    host = {"Host": "links.example.com"}
    apples = lone_desk.client.get("/.well-known/apple-app-site-association", headers=host)
    assert apples.status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/mobileapp/$/show?dataClass=Product",
        "/mobileapp/",
        "/mobileapp/$/%3Cscript%3Ealert(1)%3C/script%3E",
        "/mobileapp/$/show?url=https://evil.example",
        "/mobileapp//evil.example",
    ],
)
def test_a_phone_without_the_app_gets_a_page(lone_desk: Desk, path: str) -> None:
    """It names the app and leads to its store; nothing of the address is on it."""
    lone_desk.stage.system.identities.set(
        lone_desk.stage.app, store_url="https://apps.apple.com/app/id1?a=1&b=%22"
    )
    answer = lone_desk.client.get(path)
    assert answer.status_code == 200
    assert "This link opens in My App" in answer.text
    assert 'href="https://apps.apple.com/app/id1?a=1&amp;b=%22"' in answer.text
    assert answer.text.count("href") == 1
    assert "evil" not in answer.text
    assert "script" not in answer.text
    assert "script-src" not in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_the_page_of_a_link_names_the_right_app(lone_desk: Desk) -> None:
    """Of several apps the one whose id is in the path; without one it names none."""
    second = lone_desk.stage.system.apps.add("TEAM123456", "com.sample.second", name="Second")
    page = lone_desk.client.get(f"/mobileapp/$/{second.id}/show")
    assert "This link opens in Second" in page.text
    nobody = lone_desk.client.get("/mobileapp/$/TEAM999999.com.none/show")
    assert "This link opens in an app" in nobody.text
    assert "href" not in nobody.text


def test_secrets_are_stored_as_digests(desk: Desk) -> None:
    """What a device speaks with stands nowhere in the database."""
    secret = desk.register()["secret"]
    with desk.stage.system.database.read() as connection:
        rows = str(connection.execute(select(sessions)).all())
    assert secret not in rows
    assert digest_of(secret) in rows
