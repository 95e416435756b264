"""The console's pages: publishing, people and settings, form by form, against a twin."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Final

import pytest
from sqlalchemy import delete
from tests.conftest import Stage, open_system
from tests.console import MAIL, PASSWORD, Desk, Visitor, open_console, unhurried

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.server.routes import ROUTES
from handbell.services.apns.credential import AuthKey
from handbell.storage.tables import metadata
from handbell.twin.threaded import RunningTwin

APP: Final = "/console/apps/TEAM123456.com.sample.myapp"
SETTINGS: Final = "/console/settings"
PLANTED: Final = "<img src=x onerror=alert(1)>'\"&"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, RunningTwin]]:
    """One twin and one server for the file; what is in the database is made for each test."""
    with (
        open_system(tmp_path_factory.mktemp("console")) as (system, twin),
        open_console(system, limiter=unhurried()) as desk,
    ):
        yield desk, twin


@pytest.fixture
def stage(ground: tuple[Desk, RunningTwin]) -> Stage:
    """Give an app with its key, and a twin that knows the key; nothing else is there."""
    desk, twin = ground
    system = desk.system
    with system.database.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(delete(table))
    named = App.read_id("TEAM123456.com.sample.myapp")
    app = system.apps.add(named.team_id, named.bundle_id, name="My App")
    key = make_key(app.apple.team_id)
    system.apps.add_credential(app, key)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    return Stage(system, twin, app)


@pytest.fixture
def desk(ground: tuple[Desk, RunningTwin], stage: Stage) -> Desk:
    """Give the console over the stage."""
    assert stage.app.id
    return ground[0]


@pytest.fixture
def visitor(desk: Desk) -> Iterator[Visitor]:
    """Give somebody who has signed in."""
    with desk.signed_in() as one:
        yield one


def file_of(key: AuthKey, name: str = "") -> tuple[str, bytes]:
    """Return a key as a browser uploads it."""
    return name or f"AuthKey_{key.key_id}.p8", key.private_key_pem()


def told(page: str) -> str:
    """Return a page's words."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


# Where it begins


def test_the_console_lands_on_what_is_to_be_done_next(stage: Stage, visitor: Visitor) -> None:
    """No device: how to register. A device: what went out. No key: the key. No app: add one."""
    system, app = stage.system, stage.app

    def lands() -> str:
        return visitor.client.get("/console").headers["location"]

    assert lands() == f"{APP}/people"
    stage.register("test@4d.com", "ab" * 32)
    assert lands() == f"{APP}/activity"
    system.apps.remove_credential(app, system.apps.credentials(app)[0].key_id)
    assert lands() == APP
    system.apps.remove(app)
    assert lands() == "/console/apps"


# Publishing


def test_an_app_is_added_and_removed(stage: Stage, visitor: Visitor) -> None:
    """Its ids are checked at their fields; removing asks first."""
    sent = {"team_id": "team654321", "bundle_id": "com.sample.second", "name": "Second"}
    answer = visitor.post("/console/apps", sent)
    assert "Second is added" in answer.text
    path = "/console/apps/TEAM654321.com.sample.second"
    assert answer.url.path == path
    again = visitor.post("/console/apps", sent)
    assert again.status_code == 422
    assert "already there" in again.text
    for name, text in (("team_id", "short"), ("bundle_id", "not a bundle"), ("name", "x" * 201)):
        wrong = visitor.post("/console/apps", {**sent, name: text})
        assert wrong.status_code == 422
        assert f'href="#{name}"' in wrong.text
        assert f'id="{name}-fault"' in wrong.text
    assert "cannot be undone" in visitor.get(f"{path}/remove").text
    assert len(stage.system.apps.list()) == 2
    visitor.post(f"{path}/remove")
    assert [one.id for one in stage.system.apps.list()] == [stage.app.id]


def test_a_key_is_sealed_and_checked_at_once(stage: Stage, visitor: Visitor) -> None:
    """A dropped .p8 is told by key id and fingerprint; the check-up says that it works."""
    key = make_key(stage.app.apple.team_id)
    stage.twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    answer = visitor.post(f"{APP}/keys", files={"key_file": file_of(key)})
    words = told(answer.text)
    assert f"The key {key.key_id} is added and works." in words
    assert f"as production host accepts the key {key.key_id}, the team" in words
    assert f"as development host accepts the key {key.key_id}, the team" in words
    assert "Apple's" not in words
    assert "clock is right" not in words
    assert key.fingerprint in answer.text
    assert key.private_key_pem().decode().splitlines()[1] not in answer.text
    assert key.key_id in {one.key_id for one in stage.system.apps.credentials(stage.app)}


def test_a_key_that_apple_does_not_know_is_said_to_be_wrong(stage: Stage, visitor: Visitor) -> None:
    """The check-up names the reason, and how to mend it."""
    key = make_key(stage.app.apple.team_id)
    answer = visitor.post(f"{APP}/keys", files={"key_file": file_of(key)})
    words = told(answer.text)
    assert "The check-up has something to say." in words
    assert f"refused the check-up with the key {key.key_id}: InvalidProviderToken" in words
    assert "handbell doctor" not in words


def test_what_is_no_key_is_refused_in_place(visitor: Visitor) -> None:
    """What is wrong with the file stands at its field, with what to do."""
    file = "AuthKey_ABCDE12345.p8"
    rsa = b"-----BEGIN RSA PRIVATE KEY-----\nAA\n-----END RSA PRIVATE KEY-----\n"
    good = make_key("TEAM123456").private_key_pem()
    for name, content, field, said in (
        (file, b"", "key_file", "is empty"),
        (file, b"hello", "key_file", "not a PEM text"),
        (file, b"x" * 70_000, "key_file", "far too large"),
        (file, rsa, "key_file", "an RSA key"),
        (file, good[:-40], "key_file", "cut short"),
        ("renamed.p8", good, "key_id", "The key id is missing"),
        ("certificate.p12", b"hello", "key_file", "not a certificate"),
    ):
        answer = visitor.post(f"{APP}/keys", files={"key_file": (name, content)})
        assert answer.status_code == 422
        assert said in told(answer.text)
        assert f'id="{field}-fault"' in answer.text


def test_no_file_and_a_given_key_id(stage: Stage, visitor: Visitor) -> None:
    """Without a file the form says so; a renamed file is taken with its key id beside it."""
    assert "No file was chosen" in visitor.post(f"{APP}/keys").text
    key = make_key(stage.app.apple.team_id)
    visitor.post(
        f"{APP}/keys",
        {"key_id": key.key_id.lower(), "environment": "development"},
        files={"key_file": file_of(key, "push.p8")},
    )
    (stored, _) = stage.system.apps.credentials(stage.app)
    assert (stored.key_id, stored.environment) == (key.key_id, "development")


def test_a_key_is_removed_after_asking(stage: Stage, visitor: Visitor) -> None:
    """The question names the key; without a key the page says what to do."""
    (stored,) = stage.system.apps.credentials(stage.app)
    path = f"{APP}/keys/{stored.key_id}/remove"
    assert f"Remove the key {stored.key_id}?" in visitor.get(path).text
    answer = visitor.post(path)
    assert "Drop the .p8 here" in answer.text
    assert stage.system.apps.credentials(stage.app) == []
    assert visitor.post(path).status_code == 404


def test_the_check_up_is_run_as_a_fragment_and_as_a_page(visitor: Visitor) -> None:
    """With the script the section is replaced, without it the page is shown again."""
    piece = visitor.post(f"{APP}/check-up", follow=False, headers={"x-fragment": "1"})
    assert piece.status_code == 200
    assert 'data-said="The check-up is done: everything is right."' in piece.text
    whole = visitor.post(f"{APP}/check-up", follow=False)
    assert whole.headers["location"] == f"{APP}#check-up"


def test_push_is_switched_off_after_asking_and_on_at_once(stage: Stage, visitor: Visitor) -> None:
    """Off asks first; on does not."""
    assert "Switch push off for My App?" in visitor.get(f"{APP}/switch").text
    assert "Push is off" in visitor.post(f"{APP}/switch", {"to": "off"}).text
    assert not stage.system.apps.find(stage.app.id).is_enabled
    assert "Push is on" in visitor.post(f"{APP}/switch", {"to": "on"}).text
    assert stage.system.apps.find(stage.app.id).is_enabled


def test_rules_are_set_and_removed(stage: Stage, visitor: Visitor) -> None:
    """Each by its field; what cannot be read is said there, and then nothing is set."""
    rules = {
        "quiet_from": "22:00",
        "quiet_to": "07:00",
        "cap": "5/day",
        "rate_limit": "500",
        "time_zone": "Europe/Paris",
    }
    assert "The rules are set." in visitor.post(f"{APP}/rules", rules).text
    stands = stage.system.rules_store.rules_of(stage.app.id)
    assert (str(stands.quiet), str(stands.cap), str(stands.rate)) == (
        "22:00-07:00",
        "5/day",
        "500/second burst 500",
    )
    assert 'value="500/second"' in visitor.get(APP).text
    wrong = visitor.post(f"{APP}/rules", {**rules, "cap": "lots", "quiet_to": ""})
    assert wrong.status_code == 422
    assert 'id="cap-fault"' in wrong.text
    assert 'id="quiet_from-fault"' in wrong.text
    assert 'value="lots"' in wrong.text
    assert "Nothing was changed." in visitor.post(f"{APP}/rules", rules).text
    visitor.post(f"{APP}/rules", dict.fromkeys(rules, ""))
    stands = stage.system.rules_store.rules_of(stage.app.id)
    assert (stands.quiet, stands.cap, stands.rate, stands.time_zone) == (None, None, None, "UTC")


def test_the_proof_of_identity_is_set(stage: Stage, visitor: Visitor) -> None:
    """A token needs a key, which is sealed and never shown; links need a mail server."""
    refused = visitor.post(f"{APP}/proof", {"proof": "token"})
    assert refused.status_code == 422
    secret = "a shared secret of thirty-two bytes or more"
    done = visitor.post(f"{APP}/proof", {"proof": "token", "identity_key": secret})
    assert "signed token" in done.text
    assert secret not in done.text
    identity = stage.system.identities.of(stage.app)
    assert (identity.proof, identity.algorithm) == ("token", "HS256")
    assert "mail server" in visitor.post(f"{APP}/proof", {"proof": "link"}).text
    visitor.post(f"{APP}/proof", {"proof": "key"})
    assert stage.system.identities.of(stage.app).proof == "key"
    assert visitor.post(f"{APP}/proof", {"proof": "guess"}).status_code == 422


def test_universal_links_are_set(stage: Stage, visitor: Visitor) -> None:
    """A domain and an address of a store, or neither."""
    visitor.post(f"{APP}/links", {"associated_domain": "links.example.com", "store_url": ""})
    assert stage.system.identities.of(stage.app).associated_domain == "links.example.com"
    wrong = visitor.post(f"{APP}/links", {"store_url": "ftp://x"})
    assert 'id="store_url-fault"' in wrong.text
    visitor.post(f"{APP}/links", {})
    assert stage.system.identities.of(stage.app).associated_domain is None


def test_what_a_circuit_holds_back_is_tried_again(stage: Stage, visitor: Visitor) -> None:
    """The page says that sending has stopped and why; one button lets it go on."""
    now = stage.system.now()
    stop = CircuitStop(reason="InvalidProviderToken", detail="", since=now, probe_at=now + 900)
    (key,) = stage.system.apps.credentials(stage.app)
    place = CircuitScope(stage.app.id, "production", key.fingerprint, stage.app.apple.bundle_id)
    stage.system.rules_store.note(StoredCircuit(place, None, stop))
    page = visitor.get(APP)
    assert "Sending for My App has been stopped" in told(page.text)
    assert "Sending is stopped" in visitor.get("/console/apps").text
    assert "goes on within seconds" in visitor.post(f"{APP}/resume").text
    assert stage.system.rules_store.rules_of(stage.app.id).stop is None
    assert "was not stopped" in visitor.post(f"{APP}/resume").text


def test_a_refused_key_beside_another_one_is_a_caution(stage: Stage, visitor: Visitor) -> None:
    """Push is on, nothing has been stopped, and the key is named with what to do about it."""
    now = stage.system.now()
    (key,) = stage.system.apps.credentials(stage.app)
    stage.system.apps.add_credential(stage.app, make_key(stage.app.apple.team_id))
    stop = CircuitStop(
        reason="InvalidProviderToken",
        detail="",
        since=now,
        probe_at=now + 900,
        environment="production",
    )
    place = CircuitScope(stage.app.id, "production", key.fingerprint, stage.app.apple.bundle_id)
    stage.system.rules_store.note(StoredCircuit(place, None, stop))
    page = told(visitor.get(APP).text)
    assert "Sending is stopped" not in page
    assert "has been stopped" not in page
    assert f"The key {key.key_id} is refused (production)" in page
    assert "Remove the key" in page
    assert "Push is on" in told(visitor.get("/console/apps").text)
    assert "has been stopped" not in visitor.get(f"{APP}/compose").text


def test_the_sample_app_needs_no_apple_account(stage: Stage, visitor: Visitor) -> None:
    """One button makes the app and a key for the virtual phone."""
    stage.system.apps.remove(stage.app)
    assert "Begin with the sample app" in visitor.get("/console/apps").text
    assert visitor.post("/console/apps/sample").url.path == f"{APP}/people"
    (app,) = stage.system.apps.list()
    assert [one.environment for one in stage.system.apps.credentials(app)] == ["twin"]


# People


def test_people_are_found_by_the_beginning_of_their_address(stage: Stage, visitor: Visitor) -> None:
    """Without regard to case, page by page; who is not there is said not to be."""
    for number in range(60):
        stage.register(f"user{number:02}@example.com", f"{number:064x}")
    page = visitor.get(f"{APP}/people").text
    assert page.count("person?mail=") == 50
    (after,) = re.findall(r'rel="next" href="([^"]+)"', page)
    rest = visitor.get(unescape(after)).text
    assert rest.count("person?mail=") == 10
    assert "First page" in rest
    assert visitor.get(f"{APP}/people?q=USER0").text.count("person?mail=") == 10
    nobody = visitor.get(f"{APP}/people?q=zzz@example.com").text
    assert "Nobody's address begins with" in told(nobody)


def test_an_app_without_people_says_how_they_register(visitor: Visitor) -> None:
    """The virtual phone, the app's own code, a back end's call."""
    words = told(visitor.get(f"{APP}/people").text)
    assert "Nobody has registered yet" in words
    assert "handbell twin" in words
    assert "/v1/apps/TEAM123456.com.sample.myapp/sessions" in words


def test_the_story_of_why_is_on_one_page(stage: Stage, desk: Desk, visitor: Visitor) -> None:
    """The answer, what to do, the devices, and what became of the last notifications."""
    stage.add_phone("test@4d.com")
    desk.send(stage.app, "test@4d.com", title="Your order is ready")
    page = visitor.get(f"{APP}/person?mail=TEST@4d.com").text
    answer = page.partition('class="answer-text">')[2].partition("</p>")[0]
    assert answer.count("<time datetime=") == 2, answer
    words = told(page)
    assert "The last notification, 'Your order is ready'" in words
    assert "was sent to 1 of 1 device" in words
    assert "Active" in words
    unknown = told(visitor.get(f"{APP}/person?mail=nobody@example.com").text)
    assert "nobody@example.com has no device" in unknown


def test_a_session_is_closed_released_and_accepted(stage: Stage, visitor: Visitor) -> None:
    """Each asks first, acts once, and is written down."""
    mail = "test@4d.com"
    session = stage.register(mail, "ab" * 32)
    registry, path = stage.system.registry, f"{APP}/sessions/{session.id}"

    def status() -> str:
        return stage.system.registry.session(session.id).status

    registry.quarantine(session, reason="BadDeviceToken")
    assert "Try it again" in visitor.get(f"{APP}/person?mail={mail}").text
    assert "quarantine ends" in visitor.get(f"{path}/release").text
    assert "is sent to again" in visitor.post(f"{path}/release").text
    assert status() == "active"
    assert "not in quarantine any more" in visitor.post(f"{path}/release").text
    assert "is closed." in visitor.post(f"{path}/close").text
    assert status() == "closed"
    assert "closed already" in visitor.post(f"{path}/close").text
    waiting = registry.register(stage.app, mail, "cd" * 32, status="pending")
    assert "is accepted" in visitor.post(f"{APP}/sessions/{waiting.id}/activate").text
    assert registry.session(waiting.id).status == "active"
    done = [one.action for one in stage.system.audit.list(action="session.")]
    assert done == ["session.activate", "session.close", "session.release"]
    for wrong in (f"{path}/explode", f"{APP}/sessions/0/close", f"{APP}/sessions/x/close"):
        assert visitor.get(wrong).status_code == 404


def test_a_session_of_another_app_is_not_there(stage: Stage, visitor: Visitor) -> None:
    """A session is asked for under its own app only."""
    session = stage.register("test@4d.com", "ab" * 32)
    stage.system.apps.add("TEAM654321", "com.sample.second")
    path = f"/console/apps/TEAM654321.com.sample.second/sessions/{session.id}/close"
    assert visitor.post(path).status_code == 404
    assert stage.session("test@4d.com").status == "active"


def test_a_person_is_forgotten(stage: Stage, visitor: Visitor) -> None:
    """Their devices and their name go, also from the trail of who forgot them."""
    stage.register("test@4d.com", "ab" * 32)
    assert "cannot be undone" in visitor.get(f"{APP}/person/forget?mail=test@4d.com").text
    visitor.post(f"{APP}/person/forget", {"mail": "test@4d.com"})
    assert stage.system.registry.users(stage.app) == []
    assert "test@4d.com" not in str(stage.system.audit.list())
    assert visitor.post(f"{APP}/person/forget", {"mail": "test@4d.com"}).status_code == 404
    assert visitor.post(f"{APP}/person/forget", {"mail": "x" * 100_000}).status_code == 404


def test_what_went_to_a_forgotten_person_can_still_be_looked_at(
    stage: Stage, desk: Desk, visitor: Visitor
) -> None:
    """Its page names no device, and its deliveries say in words that there is none any more."""
    stage.register("test@4d.com", "ab" * 32)
    response = desk.send(stage.app, "test@4d.com", title="Hello")
    visitor.post(f"{APP}/person/forget", {"mail": "test@4d.com"})
    page = visitor.get(f"{APP}/activity/{response.notification_id}")
    assert page.status_code == 200
    assert "a removed device" in page.text
    (delivery,) = stage.system.ledger.deliveries_of(str(response.notification_id))
    assert (delivery.address, delivery.label) == ("", "a device that is not reached there any more")


# Settings


def test_an_invitation_is_shown_once_and_taken_back(
    stage: Stage, desk: Desk, visitor: Visitor
) -> None:
    """Its link stands on one page only, and works; another one is taken back."""
    page = visitor.post(f"{SETTINGS}/operators", {"mail": "new@example.com"})
    (link,) = re.findall(r"http[^<]+/console/invitation/[\w-]+", page.text)
    assert link not in visitor.get(SETTINGS).text
    with desk.client() as client:
        assert "new@example.com" in client.get(link).text
    assert visitor.post(f"{SETTINGS}/operators", {"mail": "nobody"}).status_code == 422
    (invitation,) = stage.system.operators.invitations()
    visitor.post(f"{SETTINGS}/invitations/{invitation.id}/withdraw")
    with desk.client() as client:
        assert client.get(link).status_code == 410


def test_another_operator_gets_a_link_for_a_new_password(desk: Desk, visitor: Visitor) -> None:
    """Whoever forgot theirs sets another one by it; they are told what it is for."""
    with desk.signed_in("second@example.com") as second:
        page = visitor.post(f"{SETTINGS}/operators/reset", {"mail": "second@example.com"})
        (link,) = re.findall(r"http[^<]+/console/invitation/[\w-]+", page.text)
        assert second.client.get(SETTINGS).status_code == 200
        with desk.client() as client:
            assert "Set another password" in client.get(link).text
            sent = {"password": "two bells ring once", "again": "two bells ring once"}
            assert client.post(link, data=sent).status_code == 303
        assert second.client.get(SETTINGS).status_code == 303
    assert desk.system.operators.check("second@example.com", "two bells ring once") is not None
    assert visitor.post(f"{SETTINGS}/operators/reset", {"mail": "nobody"}).status_code == 404


def test_another_operator_is_removed_but_nobody_removes_themselves(
    stage: Stage, desk: Desk, visitor: Visitor
) -> None:
    """Whoever is removed is out with their next click."""
    with desk.signed_in("second@example.com") as second:
        assert second.get(SETTINGS).status_code == 200
        assert "Remove second@example.com?" in visitor.get(
            f"{SETTINGS}/operators/remove?mail=second@example.com"
        ).text.replace("&#39;", "'")
        visitor.post(f"{SETTINGS}/operators/remove", {"mail": "second@example.com"})
        assert second.client.get(SETTINGS).status_code == 303
    kept = visitor.post(f"{SETTINGS}/operators/remove", {"mail": MAIL})
    assert "cannot remove yourself" in kept.text
    assert [one.mail for one in stage.system.operators.list()] == [MAIL]


def test_a_password_is_changed_and_other_sign_ins_end(desk: Desk, visitor: Visitor) -> None:
    """The former one is asked for; this browser stays in, all others are out."""
    path, new = f"{SETTINGS}/account/password", "two bells ring once"
    sent = {"current": "wrong", "password": new, "again": new}
    assert 'id="current-fault"' in visitor.post(path, sent).text
    sent["current"] = PASSWORD
    assert 'id="again-fault"' in visitor.post(path, {**sent, "again": "x"}).text
    assert (
        'id="password-fault"'
        in visitor.post(path, {**sent, "password": "short", "again": "short"}).text
    )
    with desk.signed_in() as other:
        assert "is changed" in visitor.post(path, sent).text
        assert other.client.get(SETTINGS).status_code == 303
    assert visitor.client.get(SETTINGS).status_code == 200
    assert desk.system.operators.check(MAIL, new) is not None


def test_signing_out_everywhere_leaves_this_browser_in(desk: Desk, visitor: Visitor) -> None:
    """Every other sign-in of the operator ends."""
    with desk.signed_in() as other:
        answer = visitor.post(f"{SETTINGS}/account/sign-out-everywhere")
        assert "1 sign-in ended." in answer.text
        assert other.client.get(SETTINGS).status_code == 303
    assert "nowhere else" in visitor.post(f"{SETTINGS}/account/sign-out-everywhere").text


def test_an_api_key_is_shown_once_and_revoked(stage: Stage, visitor: Visitor) -> None:
    """It works from the moment it is made until it is revoked, and stands on one page only."""
    sent = {"name": "The shop", "scope": "send", "app": stage.app.id}
    page = visitor.post(f"{SETTINGS}/api-keys", sent).text
    (key,) = set(re.findall(r"hbk_[a-z0-9]{8}_[A-Za-z0-9]{32}", page))
    found = stage.system.api_keys.check(key)
    assert found is not None
    assert sorted(found.scopes) == ["send"]
    assert found.app == stage.app.id
    assert key not in visitor.get(f"{SETTINGS}/api-keys").text
    assert key not in visitor.get(f"{SETTINGS}/audit").text
    assert 'id="scopes-fault"' in visitor.post(f"{SETTINGS}/api-keys", {"name": "x"}).text
    assert 'id="name-fault"' in visitor.post(f"{SETTINGS}/api-keys", {"scope": "send"}).text
    assert visitor.post(f"{SETTINGS}/api-keys", {**sent, "app": "T.x"}).status_code == 404
    path = f"{SETTINGS}/api-keys/{found.prefix}/revoke"
    assert "Revoke the key The shop?" in visitor.get(path).text
    visitor.post(path)
    assert stage.system.api_keys.check(key) is None


def test_a_webhook_is_added_switched_and_removed(stage: Stage, visitor: Visitor) -> None:
    """Its secret is shown once; an address that may not be called is refused at its field."""
    path = f"{SETTINGS}/webhooks"
    sent = {
        "app": stage.app.id,
        "url": "https://shop.example.com/x",
        "event": ["delivery.failed", "circuit.opened"],
    }
    page = visitor.post(path, sent).text
    (secret,) = set(re.findall(r"whsec_[A-Za-z0-9+/=]+", unescape(page)))
    assert secret not in unescape(visitor.get(path).text)
    (webhook,) = stage.system.webhooks.list()
    assert webhook.events == ("delivery.failed", "circuit.opened")
    wrong = visitor.post(path, {**sent, "url": "http://127.0.0.1/x"})
    assert 'id="url-fault"' in wrong.text
    empty = visitor.post(path, {"url": "https://a.example.com"})
    assert 'id="events-fault"' in empty.text
    assert 'id="app-fault"' in empty.text
    visitor.post(f"{path}/{webhook.id}/switch", {"to": "off"})
    assert not stage.system.webhooks.find(webhook.id).is_enabled
    assert webhook.url in visitor.get(f"{path}/{webhook.id}/remove").text
    visitor.post(f"{path}/{webhook.id}/remove")
    assert stage.system.webhooks.list() == []
    trail = stage.system.audit.list(action="webhook.")
    noted = [(one.action, one.subject, one.app, one.detail) for one in trail]
    of = (str(webhook.id), stage.app.id)
    assert noted == [
        ("webhook.remove", *of, None),
        ("webhook.set", *of, "off"),
        ("webhook.add", *of, None),
    ]
    assert "There is no webhook" in visitor.get(f"{path}/{webhook.id}/remove").text


def test_the_audit_trail_is_filtered_and_paged(stage: Stage, visitor: Visitor) -> None:
    """By kind, app and actor; the newest first, fifty at once."""
    for number in range(60):
        stage.system.audit.note("key hbk_1a2b3c4d", "session.close", f"session {number}")
    path = f"{SETTINGS}/audit"
    page = visitor.get(f"{path}?kind=session.").text
    assert "session 59" in page
    assert "session 9<" not in page
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page)
    assert "session 9<" in visitor.get(unescape(older)).text
    assert "operator.sign-in" in visitor.get(f"{path}?actor={MAIL}").text
    assert "Nothing was changed that fits" in visitor.get(f"{path}?app=T.x").text
    assert visitor.get(f"{path}?before=x&kind=nonsense").status_code == 200


# What holds on every page


def test_planted_markup_is_shown_as_text(stage: Stage, desk: Desk, visitor: Visitor) -> None:
    """Whatever a name, an address, a device or a query says, no page takes it for markup."""
    system = stage.system
    evil = system.apps.add("TEAM654321", "com.evil.app", name=PLANTED)
    session = system.registry.register(
        evil, "test@4d.com", "ab" * 32, device=PLANTED, locale=PLANTED[:20]
    )
    system.registry.quarantine(session, reason=PLANTED)
    system.api_keys.add(PLANTED, ["send"])
    system.audit.note(PLANTED, PLANTED, PLANTED, app=PLANTED, detail=PLANTED)
    stage.add_phone("victim@example.com")
    desk.send(stage.app, "victim@example.com", title=PLANTED, body=PLANTED)
    base = "/console/apps/TEAM654321.com.evil.app"
    pages = [
        "/console/apps",
        base,
        f"{base}/switch",
        f"{base}/remove",
        f"{base}/people",
        f"{base}/person?mail=test@4d.com",
        f"{base}/sessions/{session.id}/close",
        f"{APP}/person?mail=victim@example.com",
        f"{SETTINGS}/api-keys",
        f"{SETTINGS}/audit",
    ]
    for path in pages:
        page = visitor.get(path)
        assert page.status_code == 200, path
        assert "<img" not in page.text, path
        assert "onerror=alert" in page.text, path
    for path in (f"{base}/people?q=", f"{base}/person?mail=", f"{SETTINGS}/audit?actor="):
        assert "<img" not in visitor.client.get(path, params=None).text
        assert "<img" not in visitor.get(path + "%3Cimg%20src%3Dx%3E%22%27").text
    sent = {"team_id": PLANTED, "bundle_id": PLANTED, "name": PLANTED}
    assert "<img" not in visitor.post("/console/apps", sent).text


def test_a_form_beyond_all_measure_is_refused(visitor: Visitor) -> None:
    """Too many fields, or one that is too long, is told as a page."""
    many = visitor.post("/console/apps", {f"field{one}": "x" for one in range(500)})
    assert many.status_code in (400, 413)
    long = visitor.client.post(
        "/console/apps",
        files={"name": (None, "x" * 300_000), "token": (None, visitor.token)},
    )
    assert long.status_code in (400, 413)


@pytest.mark.parametrize(
    "path", sorted({path for method, path in ROUTES if method == "POST" and "/console" in path})
)
def test_the_address_of_a_form_leads_back_to_a_page(visitor: Visitor, path: str) -> None:
    """A browser that is left at the address of a form that was refused can load it again."""
    named = path.replace("{app}", APP.rpartition("/")[2])
    answer = visitor.client.get(re.sub(r"{[a-z_]+}", "1", named), follow_redirects=True)
    assert answer.status_code in (200, 404, 410, 422)
    assert answer.status_code == 200 or "{" in path.replace("{app}", "") or ("GET", path) in ROUTES
    assert 'aria-label="Console"' in answer.text or "/invitation/" in path


def test_what_a_page_brings_up_to_date_is_on_it(stage: Stage, desk: Desk, visitor: Visitor) -> None:
    """Every element that another one takes along stands on the same page, once."""
    stage.add_phone("test@4d.com")
    paths = [APP, f"{APP}/activity", f"{APP}/compose"]
    desk.send(stage.app, "test@4d.com", title="Hello")
    sent = stage.system.reports.newest(stage.app)[0].id
    for path in [*paths, f"{APP}/activity/{sent}"]:
        page = visitor.get(path).text
        named = {one for found in re.findall(r'data-also="([^"]*)"', page) for one in found.split()}
        named |= {one[1:] for one in re.findall(r'data-fragment="([^"]*)"', page)}
        for one in named:
            assert page.count(f'id="{one}"') == 1, (path, one)


def test_without_a_twin_the_phones_are_said_to_be_elsewhere(visitor: Visitor) -> None:
    """The way to them ends at a page that says where they are."""
    assert "while a twin runs there" in told(visitor.get("/console/phones").text)


def test_what_is_not_there_is_told_as_a_page(visitor: Visitor) -> None:
    """An unknown page, app or key is 404 with the navigation around it."""
    for path in ("/console/nowhere", "/console/apps/T.x", "/console/apps/TEAM123456.com.x/people"):
        answer = visitor.get(path)
        assert answer.status_code == 404
        assert "Not found" in answer.text
        assert 'aria-label="Console"' in answer.text


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (f"{APP}/keys/zz/remove", "has no key 'zz'"),
        (f"{APP}/person/forget?mail=nobody@example.com", "has no user 'nobody@example.com'"),
        (f"{APP}/sessions/999999/close", "no session 999999"),
        (f"{APP}/activity/0f3a5c7e9b1d2f4/cancel", "0f3a5c7e9b1d2f4"),
        (f"{SETTINGS}/api-keys/hbk_00000000/revoke", "hbk_00000000"),
        (f"{SETTINGS}/webhooks/999999/remove", "999999"),
        (f"{SETTINGS}/operators/remove?mail=nobody@example.com", "nobody@example.com"),
    ],
)
def test_nobody_is_asked_about_what_is_not_there(visitor: Visitor, path: str, what: str) -> None:
    """A page that asks first is 404 for what does not exist, says so, and so does its form."""
    for answer in (visitor.get(path), visitor.post(path.partition("?")[0])):
        assert answer.status_code == 404, answer.text
    assert what in told(visitor.get(path).text)
