"""The front door as a back end uses it: the README's lines, the fixtures, the other names."""

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization

from handbell import (
    AsyncPushNotification,
    Auth,
    Delivery,
    HandbellError,
    PushNotification,
    Record,
    Response,
    Sessions,
)
from handbell.apps.sample_keys import make_key
from handbell.demo_environment import isolated_settings
from handbell.errors import (
    AppError,
    CredentialError,
    RecipientsError,
    SettingsError,
    UnknownAppError,
)

if TYPE_CHECKING:
    from handbell.testing import VirtualPhone
    from handbell.twin.threaded import RunningTwin

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
MAIL = "test@4d.com"


def _snippets() -> list[str]:
    return re.findall(r"```python(?: \w+)?\n(.*?)```", README, re.DOTALL)


def test_the_three_lines_of_the_readme_ring_the_phone(
    handbell_home: Path, handbell_phone: "VirtualPhone"
) -> None:
    """The README's first snippet, run as it stands in a process of its own, is displayed."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", _snippets()[0]],
        env={"HANDBELL_HOME": str(handbell_home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    (card,) = handbell_phone.cards
    assert (run.stdout, run.stderr) == ("", "")
    assert card.title == "This is title"
    assert card.body == "Here is the content of this notification"


def test_what_comes_back_is_what_the_readme_says(
    handbell_push: PushNotification, handbell_phone: "VirtualPhone"
) -> None:
    """The README's snippet about answers runs, and its comments are true."""
    names: dict[str, object] = {"push": handbell_push}
    exec(compile(_snippets()[2], "README", "exec"), names)  # noqa: S102 - our own snippet
    response = handbell_push.send({"title": "Hello"}, ["test@4d.com", "nobody@4d.com"])
    assert isinstance(response, Response)
    assert response.success
    assert response.warnings[0].startswith("nobody@4d.com has no device: no session of this app")
    assert response.errors == ()
    (delivery,) = response.deliveries
    assert isinstance(delivery, Delivery)
    assert (delivery.state, delivery.reason) == ("sent", None)
    assert handbell_phone.cards[0].push_id == delivery.apns_id


def test_the_fixtures_work_as_the_readme_shows(pytester: pytest.Pytester) -> None:
    """The README's test file passes in a user's own suite, with nothing but Handbell installed."""
    pytester.makepyfile(textwrap.dedent(_snippets()[3]))
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=1)


def test_open_asks_the_app_to_open_a_record(
    handbell_push: PushNotification, handbell_twin: "RunningTwin", handbell_phone: "VirtualPhone"
) -> None:
    """``open`` writes the target into the payload, and asks to synchronise for a record."""
    content = {"title": "Your order", "user_info": {"note": 1}}
    assert handbell_push.open(Record("Order", 42), content, MAIL).success
    payload = handbell_twin.requests[0].payload
    assert payload is not None
    assert '"dataClass":"Order"' in payload
    assert '"entity":{"primaryKey":42}' in payload
    assert '"dataSynchro":true' in payload
    assert content == {"title": "Your order", "user_info": {"note": 1}}
    assert handbell_phone.cards[0].title == "Your order"


def test_send_all_and_recipients_set_beforehand(
    handbell_push: PushNotification, handbell_phone: "VirtualPhone"
) -> None:
    """``send_all`` reaches every session, and ``.recipients`` stands in for none named."""
    assert handbell_push.send_all({"title": "All"}).reached == 1
    with pytest.raises(RecipientsError, match="send_all"):
        handbell_push.send({"title": "Nobody"})
    handbell_push.recipients = MAIL
    assert handbell_push.send({"title": "Beforehand"}).success
    assert [card.title for card in handbell_phone.cards] == ["Beforehand", "All"]


def test_what_the_phone_reports_reaches_the_response(
    handbell_push: PushNotification, handbell_phone: "VirtualPhone"
) -> None:
    """A tap on the phone shows as opened in the deliveries of the response."""
    response = handbell_push.send({"title": "Hello"}, MAIL)
    handbell_phone.open(handbell_phone.cards[0])
    for _ in range(1000):
        (delivery,) = response.deliveries
        if delivery.opened_at is not None:
            break
        time.sleep(0.01)
    assert delivery.displayed_at is not None
    assert delivery.opened_at is not None


def test_the_asynchronous_door_has_the_same_names(
    handbell_home: Path, handbell_phone: "VirtualPhone"
) -> None:
    """AsyncPushNotification sends from the caller's own loop, many at a time."""

    async def send() -> list[bool]:
        settings = isolated_settings(handbell_home)
        async with AsyncPushNotification(settings=settings) as push:
            sends = [push.send({"title": f"No. {number}"}, MAIL) for number in range(20)]
            return [response.success for response in await asyncio.gather(*sends)]

    assert asyncio.run(send()) == [True] * 20
    assert len(handbell_phone.cards) == 20
    public = {name for name in dir(PushNotification) if name[0] != "_"}
    assert public - {"auth", "recipients"} <= set(dir(AsyncPushNotification))


def test_sessions_tell_who_can_be_reached(
    handbell_home: Path, handbell_phone: "VirtualPhone"
) -> None:
    """``Sessions`` lists tokens, mails, and a person's sessions."""
    sessions = Sessions(settings=isolated_settings(handbell_home))
    assert sessions.all_device_tokens() == [handbell_phone.token]
    assert sessions.all_mail_addresses() == [MAIL]
    assert [session.token for session in sessions.sessions_of("Test@4D.com")] == [
        handbell_phone.token
    ]
    assert sessions.sessions_of("nobody@4d.com") == []


@pytest.mark.parametrize("spelling", ["snake", "camel"])
def test_an_auth_object_needs_no_registry_entry(
    tmp_path: Path, handbell_twin: "RunningTwin", spelling: str
) -> None:
    """Bundle id, team id and key are enough to send to a device token; nothing is registered."""
    key = make_key("OTHER12345")
    handbell_twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    phone = handbell_twin.add_phone(app="OTHER12345.com.other.app", side="development")
    file = tmp_path / f"AuthKey_{key.key_id}.p8"
    file.write_bytes(key.private_key_pem())
    members = ("bundle_id", "team_id", "auth_key")
    if spelling == "camel":
        members = ("bundleId", "teamId", "authKey")
    auth = dict(zip(members, ("com.other.app", "OTHER12345", str(file)), strict=True))
    settings = isolated_settings(tmp_path / "elsewhere").model_copy(
        update={
            "apns_production_url": handbell_twin.production_url,
            "apns_development_url": handbell_twin.development_url,
            "apns_ca_file": handbell_twin.ca_file,
        }
    )
    push = PushNotification(auth, settings=settings)
    push.auth.is_development = True
    response = push.send({"title": "Hello"}, phone.token)
    push.close()
    assert response.success
    assert response.deliveries[0].environment == "development"
    assert response.deliveries[0].attempts == 1
    assert push.auth.key_id == key.key_id


@pytest.mark.parametrize(
    ("app", "error", "words"),
    [
        ("com.nowhere", UnknownAppError, "handbell app add"),
        ({"bundle_id": "a.b"}, AppError, "team_id and auth_key"),
        ({"bundelId": "a.b"}, AppError, "bundle_id"),
        (
            Auth(bundle_id="a.b", team_id="TEAM123456", auth_key="/nowhere.p8"),
            CredentialError,
            "p8",
        ),
    ],
)
def test_an_app_that_cannot_be_told_is_an_error_at_once(
    tmp_path: Path,
    app: str | Auth | dict[str, str],
    error: type[HandbellError],
    words: str,
) -> None:
    """What names no app, or no complete one, is refused by the constructor with what to do."""
    with pytest.raises(error, match=words):
        PushNotification(app, settings=isolated_settings(tmp_path / "home"))


def test_a_setting_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A wrong environment variable is an error that names it."""
    monkeypatch.setenv("HANDBELL_REQUEST_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="HANDBELL_REQUEST_TIMEOUT"):
        PushNotification(home=tmp_path)


def test_no_secret_shows_in_an_auth_object() -> None:
    """The text of an auth object does not hold the key."""
    key = make_key("TEAM123456").private_key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    auth = Auth(bundle_id="a.b", team_id="TEAM123456", auth_key=key.decode())
    assert "PRIVATE" not in repr(auth)
