"""The check-up of an app that is on Android phones and in browsers too."""

import asyncio
from dataclasses import replace

import pytest
from tests.conftest import Stage

from handbell.apps.app import App
from handbell.apps.checkup import Finding, check_credentials, check_web_push
from handbell.apps.credential_store import StoredCredential
from handbell.apps.sample_keys import make_service_account
from handbell.delivery.doctor import judge_probe
from handbell.gateways.outcomes import Accepted, DeviceGone, Outcome, Refused, RetryLater
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.reasons import REASONS
from handbell.services.reactions import Reaction
from handbell.twin.threaded import start_twin

FCM = "fcm.googleapis.com"


def _check_up(stage: Stage) -> dict[str, Finding]:
    async def run() -> list[Finding]:
        try:
            return await stage.system.doctor.check_up(stage.app)
        finally:
            await stage.system.close_gateways()

    return {finding.check: finding for finding in asyncio.run(run())}


def test_google_takes_a_service_account(stage: Stage) -> None:
    """One that is known is right, and nobody is notified; one that is not is named, with a fix."""
    apps = stage.system.apps
    with start_twin(stage.system.twin_folder) as twin:
        account = ServiceAccount.read(twin.make_service_account("sample"))
        apps.add_credential(stage.app, account, environment="twin")
        found = _check_up(stage)["fcm twin"]
        assert found.verdict == "right", found
        assert f"accepts the service account {account.key_id} and the project" in found.sentence
        other = make_service_account(stage.app)
        apps.add_credential(stage.app, other, environment="twin")
        apps.remove_credential(stage.app, account.key_id)
        found = _check_up(stage)["fcm twin"]
        assert found.verdict == "wrong"
        assert other.key_id in found.sentence
        assert found.fix
    assert _check_up(stage)["fcm twin"].sentence == "The twin is not running."


def _refused(reason: str) -> Refused:
    return Refused(reason, REASONS[reason].reaction, REASONS[reason].status)


@pytest.mark.parametrize(
    ("outcome", "verdict", "words"),
    [
        (_refused("INVALID_REGISTRATION_TOKEN"), "right", "accepts the service account A"),
        (DeviceGone("UNREGISTERED", 0), "right", "accepts the service account A"),
        (_refused("invalid_grant"), "wrong", "Google gives no access token"),
        (_refused("PERMISSION_DENIED"), "wrong", "may not send for this project"),
        (_refused("NOT_FOUND"), "wrong", "no such project"),
        (RetryLater("UNAVAILABLE", Reaction.BACK_OFF, status=503), "doubtful", "not be asked"),
        (Accepted("id"), "doubtful", "a token of nobody"),
    ],
    ids=["token", "gone", "no grant", "no permission", "no project", "busy", "taken"],
)
def test_what_google_answers_to_the_check_up(outcome: Outcome, verdict: str, words: str) -> None:
    """A refusal of the impossible token proves the service account; any other has its words."""
    found = judge_probe("production", outcome, "the service account A", host=FCM, service="fcm")
    assert (found.check, found.verdict) == ("fcm production", verdict)
    assert words in found.sentence
    assert "Apple" not in found.sentence
    assert found.fix or verdict != "wrong"


def _stored(service: str, kind: str, environment: str | None = None) -> StoredCredential:
    return StoredCredential(
        id=1,
        kind=kind,
        key_id="ABC",
        environment=environment,
        fingerprint="00",
        expires_at=None,
        created_at=0,
        service=service,
    )


DROID = App(android_package="com.sample.droid", web_origin="https://droid.example.com")


def test_a_service_without_a_credential_is_told() -> None:
    """Whom nothing can be sent to stands there, with how to get what is missing."""
    found = {one.check: one for one in check_credentials(DROID, [], now=0)}
    assert {name: one.verdict for name, one in found.items()} == {
        "service-account": "wrong",
        "web-push-key": "wrong",
    }
    held = [_stored("webpush", "vapid")]
    some = {one.check: one for one in check_credentials(DROID, held, now=0)}
    assert some["service-account"].verdict == "doubtful"
    assert "nothing is sent to Android phones" in some["service-account"].sentence
    assert "used for production" in some["key"].sentence


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("known", "goes to the push services of the browsers' vendors."),
        ("known, push.example.com", "vendors and to push.example.com."),
        ("any", "any public host"),
    ],
)
def test_web_push_says_what_it_needs(hosts: str, words: str) -> None:
    """Somebody to write to, which services are used, and pages that may register."""
    held = [_stored("webpush", "vapid")]
    right = list(check_web_push(DROID, held, contact="mailto:push@example.com", hosts=hosts))
    assert [one.verdict for one in right] == ["right", "right"]
    assert words in right[1].sentence
    bare = replace(DROID, web_origin=None)
    wrong = {one.check: one for one in check_web_push(bare, held, contact=None, hosts=hosts)}
    assert wrong["web-push-contact"].verdict == "wrong"
    assert "HANDBELL_VAPID_SUBJECT" in wrong["web-push-contact"].fix
    assert wrong["web-origin"].verdict == "doubtful"
    assert list(check_web_push(bare, [], contact=None, hosts=hosts)) == []


def test_the_twin_asks_for_nobody_to_write_to() -> None:
    """A key for the twin alone needs neither a contact nor a choice of services."""
    held = [_stored("webpush", "vapid", "twin")]
    assert list(check_web_push(DROID, held, contact=None, hosts="known")) == []
