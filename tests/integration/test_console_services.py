"""Publishing of an app that is on several push services: what is set, dropped, made and lost."""

import json
import re
from collections.abc import Iterator
from html import unescape
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.conftest import Stage
from tests.console import Desk, Visitor, open_console, unhurried

from handbell.apps.sample_keys import make_service_account
from handbell.registry.registration import Registration
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey

APP: Final = "/console/apps/TEAM123456.com.sample.myapp"
PRINT: Final = ":".join(["AB"] * 32)
BROWSER: Final = {
    "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/abcdefgh",
    "keys": {
        "p256dh": VapidKey.make().public_key,
        "auth": "tBHItJI5svbpez7KI4CCXg",
    },
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Give one system for the file."""
    from tests.conftest import open_stage  # noqa: PLC0415 - needed once

    with open_stage(tmp_path_factory.mktemp("services")) as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(ground: Stage) -> Iterator[Desk]:
    """Give its console."""
    with open_console(ground.system, limiter=unhurried()) as running:
        yield running


@pytest.fixture
def stage(ground: Stage) -> Stage:
    """Give the system with the app as it was added, and only Apple's key."""
    apps = ground.system.apps
    for stored in apps.credentials(ground.app):
        if stored.service != "apns":
            apps.remove_credential(ground.app, stored.key_id, is_forced=True)
    none = {"android_package": None, "android_fingerprints": (), "web_origin": None}
    apps.set_ids(apps.find(ground.app.id), none)
    return ground


@pytest.fixture
def visitor(desk: Desk) -> Iterator[Visitor]:
    """Give somebody who has signed in."""
    with desk.signed_in() as one:
        yield one


def told(page: str) -> str:
    """Return a page's words."""
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)))


def file_of(account: ServiceAccount) -> tuple[str, bytes]:
    """Return a service account as Google's console lets it be downloaded."""
    key = account.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    members = {
        "type": "service_account",
        "project_id": account.project_id,
        "private_key_id": account.private_key_id,
        "private_key": key.decode(),
        "client_email": account.client_email,
        "token_uri": account.token_uri,
    }
    return "service-account.json", json.dumps(members).encode()


def test_services_that_an_app_does_not_use_are_folded_up(stage: Stage, visitor: Visitor) -> None:
    """An app of Apple's alone says of the others that they are not set up."""
    assert stage.app.android_package is None
    page = visitor.get(APP).text
    assert page.count("Not set up") == 2
    assert "Push is on" in page


def test_an_app_needs_nothing_of_apples(stage: Stage, visitor: Visitor) -> None:
    """One with a package, or with a web origin, is added by itself; Apple's ids may follow."""
    sent = {"android_package": "com.sample.droid", "web_origin": "https://droid.example.com"}
    page = visitor.post("/console/apps", sent)
    assert "droid is added" in told(page.text)
    path = "/console/apps/com.sample.droid"
    assert page.url.path == path
    assert "Set Apple's ids" in told(page.text)
    wrong = visitor.post(f"{path}/apple", {"team_id": "X", "bundle_id": "com.sample.droid"})
    assert 'id="team_id-fault"' in wrong.text
    visitor.post(f"{path}/apple", {"team_id": "TEAM333333", "bundle_id": "com.sample.droid"})
    app = stage.system.apps.find("com.sample.droid")
    assert app.apple_id == "TEAM333333.com.sample.droid"
    assert "Drop the .p8 here" in visitor.get(path).text
    stage.system.apps.remove(app)
    for name, text in (("android_package", "no package"), ("web_origin", "http://example.com")):
        answer = visitor.post("/console/apps", {name: text})
        assert answer.status_code == 422
        assert f'id="{name}-fault"' in answer.text


def test_a_service_account_is_told_by_its_project(stage: Stage, visitor: Visitor) -> None:
    """Its project, account, key id and fingerprint are shown, and never its key."""
    account = make_service_account(stage.app)
    name, content = file_of(account)
    page = visitor.post(f"{APP}/service-accounts", files={"account_file": (name, content)})
    words = told(page.text)
    for text in (account.project_id, account.client_email, account.key_id, account.fingerprint):
        assert text in words
    assert "The service account " in words
    assert "PRIVATE KEY" not in page.text
    question = visitor.get(f"{APP}/keys/{account.key_id}/remove")
    assert "Remove the service account" in question.text
    visitor.post(f"{APP}/keys/{account.key_id}/remove")
    assert stage.system.apps.credentials(stage.app, "fcm") == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b'{"project_info": {}, "client": []}', "google-services.json"),
        (b"hello", "JSON"),
        (None, "No file was chosen"),
    ],
    ids=["empty", "the app's configuration", "no JSON", "no file"],
)
def test_what_is_no_service_account_is_refused(
    stage: Stage, visitor: Visitor, content: bytes | None, said: str
) -> None:
    """What is wrong stands at the field, with where to get the right file."""
    assert stage.app.row is not None
    files = {} if content is None else {"account_file": ("a.json", content)}
    answer = visitor.post(f"{APP}/service-accounts", files=files)
    assert answer.status_code == 422
    assert said in told(answer.text)
    assert 'id="account_file-fault"' in answer.text


def test_an_android_app_is_set_and_taken_away(stage: Stage, visitor: Visitor) -> None:
    """Package and certificates are kept as links need them; an invalid one changes nothing."""
    sent = {"android_package": "com.sample.myapp", "android_fingerprints": PRINT.lower()}
    visitor.post(f"{APP}/android", sent)
    app = stage.system.apps.find(stage.app.id)
    assert (app.android_package, app.android_fingerprints) == ("com.sample.myapp", (PRINT,))
    for name in sent:
        answer = visitor.post(f"{APP}/android", {**sent, name: "no such"})
        assert answer.status_code == 422
        assert f'id="{name}-fault"' in answer.text
    visitor.post(f"{APP}/android", dict.fromkeys(sent, ""))
    assert stage.system.apps.find(stage.app.id).android_package is None


def test_web_push_keys_are_made_and_their_public_half_is_told(
    stage: Stage, visitor: Visitor
) -> None:
    """The public key can be copied; the origin of the pages stands beside it."""
    page = visitor.post(f"{APP}/web-push-keys", {"do": "make"}).text
    assert stage.system.apps.web_push_key(stage.app).public_key in page
    wrong = visitor.post(f"{APP}/web", {"web_origin": "shop"})
    assert 'id="web_origin-fault"' in wrong.text
    visitor.post(f"{APP}/web", {"web_origin": "https://shop.example.com/"})
    assert stage.system.apps.find(stage.app.id).web_origin == "https://shop.example.com"


def test_a_key_of_another_program_is_taken_over(stage: Stage, visitor: Visitor) -> None:
    """Its subscriptions can be reached from here; what is no key is refused, and not repeated."""
    assert stage.app.web_origin is None
    key = VapidKey.make()
    page = visitor.post(
        f"{APP}/web-push-keys", {"do": "import", "vapid_key": key.private_key_text}
    ).text
    assert key.public_key in page
    assert key.private_key_text not in page
    for text in ("", "a secret that is no key"):
        answer = visitor.post(f"{APP}/web-push-keys", {"do": "import", "vapid_key": text})
        assert answer.status_code == 422
        assert 'id="vapid_key-fault"' in answer.text
        assert "a secret that" not in answer.text


def test_keys_with_subscriptions_are_replaced_only_knowingly(
    stage: Stage, visitor: Visitor
) -> None:
    """The page says how many browsers are lost, and asks for a tick before they are."""
    visitor.post(f"{APP}/web-push-keys", {"do": "make"})
    (former,) = stage.system.apps.credentials(stage.app, "webpush")
    registration = Registration.read(
        "web@4d.com", BROWSER, status="active", at=1, secret_digest="d", platform="web"
    )
    stage.system.registry.admit(stage.app, registration)
    assert "1 browser can be reached by it" in told(visitor.get(APP).text)
    refused = visitor.post(f"{APP}/web-push-keys", {"do": "make"})
    assert refused.status_code == 422
    assert "1 subscription of" in told(refused.text)
    assert stage.system.apps.credentials(stage.app, "webpush") == [former]
    question = visitor.get(f"{APP}/keys/{former.key_id}/remove")
    assert "1 browser subscribed with it" in told(question.text)
    visitor.post(f"{APP}/web-push-keys", {"do": "make", "is_replaced": "1"})
    (now,) = stage.system.apps.credentials(stage.app, "webpush")
    assert now.fingerprint != former.fingerprint
