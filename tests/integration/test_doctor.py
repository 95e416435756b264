"""The check-up before the first real send, against a twin on both sides."""

import asyncio
from typing import TYPE_CHECKING

import pytest

from handbell.apps.app import App
from handbell.apps.checkup import Finding, check_credentials
from handbell.apps.sample_keys import make_key
from handbell.apps.store import StoredCredential
from handbell.delivery.doctor import judge_clock, judge_probe
from handbell.gateways.http2_tls import authority
from handbell.gateways.outcomes import Accepted, LostVerdict, Outcome, Refused, RetryLater, Unknown
from handbell.services.apns.reasons import REASONS
from handbell.services.reactions import Reaction

if TYPE_CHECKING:
    from tests.conftest import Stage

DAY = 86_400


def _check_up(stage: "Stage") -> dict[str, Finding]:
    async def run() -> list[Finding]:
        try:
            return await stage.system.doctor.check_up(stage.app)
        finally:
            await stage.system.close_gateways()

    findings = asyncio.run(run())
    checks = [finding.check for finding in findings]
    assert len(checks) == len(set(checks)), "each thing is told once"
    return {finding.check: finding for finding in findings}


def test_all_is_right_where_all_is_right(stage: "Stage") -> None:
    """A good key is found good in both environments; who was asked is named, as it is not Apple.

    The clock of a twin on this machine proves nothing about this machine's.
    """
    found = _check_up(stage)
    assert set(found) == {"key", "production", "development"}
    for name in ("production", "development"):
        host = authority(stage.system.endpoints.endpoint("apns", name).url)
        assert found[name].sentence.startswith(f"{host} as {name} host accepts")
    assert {finding.verdict for finding in found.values()} == {"right"}


def test_a_key_that_apple_does_not_know_is_named(stage: "Stage") -> None:
    """A key of nobody's is wrong in both environments, with the fix."""
    (stored,) = stage.system.apps.credentials(stage.app)
    stage.twin.remove_key(stage.app.apple.team_id, stored.key_id)
    found = _check_up(stage)
    assert found["production"].verdict == found["development"].verdict == "wrong"
    assert "InvalidProviderToken" in found["production"].sentence
    assert found["production"].fix == "Check team id, key id, bundle id and the key's scope."


def test_a_key_for_one_environment_is_told_as_such(stage: "Stage") -> None:
    """A key limited to one environment is right there, and doubtful in the other."""
    (stored,) = stage.system.apps.credentials(stage.app)
    key = stage.system.apps.auth_key(stage.app.apple.team_id, stored.key_id)
    assert key is not None
    stage.twin.add_key(key.team_id, key.key_id, key.public_key_pem, environment="production")
    found = _check_up(stage)
    assert (found["production"].verdict, found["development"].verdict) == ("right", "doubtful")


def test_a_key_that_cannot_be_opened_is_told_as_such(stage: "Stage") -> None:
    """The secret key is another one than it was sealed with: that is told once, and no more."""
    for opened in ("apps", "vault"):
        del stage.system.__dict__[opened]
    (stage.system.settings.home / "secret.key").unlink()
    found = _check_up(stage)
    assert set(found) == {"key"}
    assert found["key"].verdict == "wrong"
    assert "cannot be opened" in found["key"].sentence
    assert "Bring back the key" in found["key"].fix


def test_an_app_without_a_key_is_told_how_to_add_one(stage: "Stage") -> None:
    """Without a key nothing is asked of Apple, and the fix is the command."""
    (stored,) = stage.system.apps.credentials(stage.app)
    stage.system.apps.remove_credential(stage.app, stored.key_id)
    found = _check_up(stage)
    assert found["key"].verdict == "wrong"
    assert "handbell key add" in found["key"].fix
    assert stage.twin.requests == []


def _refused(reason: str) -> Refused:
    return Refused(reason, REASONS[reason].reaction, REASONS[reason].status)


@pytest.mark.parametrize(
    ("outcome", "verdict", "words"),
    [
        (_refused("BadDeviceToken"), "right", "accepts the key"),
        (_refused("DeviceTokenNotForTopic"), "right", "accepts the key"),
        (_refused("BadEnvironmentKeyIdInToken"), "doubtful", "not meant for"),
        (_refused("InvalidProviderToken"), "wrong", "key id or team id"),
        (_refused("TopicDisallowed"), "wrong", "TopicDisallowed"),
        (
            RetryLater("ServiceUnavailable", Reaction.BACK_OFF, status=503),
            "doubtful",
            "not be asked",
        ),
        (
            RetryLater("CannotConnect", Reaction.RECONNECT, detail="No route."),
            "wrong",
            "No route",
        ),
        (Unknown("ConnectionLost"), "wrong", "not be asked"),
        (LostVerdict(404, "AnswerUnreadable"), "wrong", "it may be a proxy's"),
        (LostVerdict(403), "doubtful", "was lost on the way"),
        (Accepted("id"), "doubtful", "token of zeros"),
    ],
)
def test_a_probe_is_one_sentence_and_a_fix(outcome: Outcome, verdict: str, words: str) -> None:
    """What an answer to an impossible token means is told as a verdict and a sentence.

    A host that cannot be reached fails the check-up, so that a script does not go on.
    """
    finding = judge_probe("production", outcome, host="api.push.apple.com")
    assert finding.verdict == verdict
    assert words in finding.sentence
    assert finding.sentence[-1] == "."
    assert finding.fix or verdict == "right"


@pytest.mark.parametrize(
    ("skew", "verdict", "words"),
    [(0, "right", "is right"), (90, "doubtful", "ahead"), (-4000, "wrong", "behind")],
)
def test_a_clock_that_is_off_is_told(skew: float, verdict: str, words: str) -> None:
    """A minute is tolerated; what would make a provider token look expired is wrong."""
    for host in ("api.push.apple.com", "api.sandbox.push.apple.com", "127.0.0.1:8443"):
        finding = judge_clock(skew, host=host)
        assert finding.verdict == verdict
        assert words in finding.sentence
        assert skew == 0 or ("Apple" if "apple" in host else host) in finding.sentence


@pytest.mark.parametrize(("days", "verdict"), [(-2, "wrong"), (10, "doubtful"), (90, "right")])
def test_a_certificate_is_renewed_in_time(days: int, verdict: str) -> None:
    """A month before a certificate ends the check-up says so."""
    stored = StoredCredential(
        id=1,
        kind="certificate",
        key_id="ABC",
        environment=None,
        fingerprint="00",
        expires_at=(1_700_000_000 + days * DAY) * 1000,
        created_at=0,
    )
    app = App(team_id=make_key("TEAM123456").team_id, bundle_id="a.b")
    found = list(check_credentials(app, [stored], now=1_700_000_000))
    assert found[-1].verdict == verdict
