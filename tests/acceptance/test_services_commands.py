"""Apps, keys and sessions of every push service on the command line."""

import json
from pathlib import Path

import pytest

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key, make_service_account
from handbell.services.webpush.credential import VapidKey

from .test_command_line import Shell

APPLES, FCM = "ab" * 32, "fGc0:APA91b" + "x" * 140
FINGERPRINT = ":".join(["AB"] * 32)
SUBSCRIPTION = {
    "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAA",
    "expirationTime": None,
    "keys": {
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6S"
        "RpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    },
}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Give a shell with an empty home."""
    return Shell(tmp_path / "home")


def test_one_app_is_known_to_every_service(shell: Shell, tmp_path: Path) -> None:
    """An own id, what each service knows it by, a credential of each, and none of them shown."""
    added = shell.run("app", "add", "shop", "--android-package", "com.sample.shop")
    assert (added.code, "service-account.json" in added.out) == (0, True), added.err
    ids = ("--team", "TEAM123456", "--bundle", "com.sample.shop")
    origin = ("--web-origin", "https://Shop.Example/", "--android-fingerprint", FINGERPRINT)
    changed = shell.run("app", "set", "shop", *ids, *origin)
    assert (changed.code, "https://shop.example" in changed.out) == (0, True), changed.err
    account = tmp_path / "my-project-firebase-adminsdk.json"
    account.write_text(make_service_account(App(android_package="com.sample.shop")).pack())
    key = tmp_path / "AuthKey_ABC123DEFG.p8"
    key.write_bytes(make_key("TEAM123456").private_key_pem())
    for file in (account, key):
        ended = shell.run("key", "add", str(file))
        assert ended.code == 0, ended.err
    made = json.loads(shell.run("key", "make", "web-push", "--json").out)
    shown = shell.run("app", "show", "com.sample.shop")
    for word in ("TEAM123456.com.sample.shop", "https://shop.example", FINGERPRINT):
        assert word in shown.out
    for word in ("service account ", "key ABC123DEFG", f"web push key {made['key_id']}"):
        assert word in shown.out
    assert "no key yet" not in shown.out
    listed = shell.run("key", "list")
    assert "BEGIN" not in listed.out + shown.out
    told = json.loads(shell.run("app", "list", "--json").out)
    assert (told[0]["id"], told[0]["web_origin"]) == ("shop", "https://shop.example")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("shop",), "not an app id"),
        (("shop", "--web-origin", "http://shop.example"), "no push to pages"),
        (("com.sample.shop",), "--android-package com.sample.shop"),
        (("Shop!", "--web-origin", "https://shop.example"), "not an app id"),
        (("--team", "TEAM123456"), "both of Apple's ids"),
        ((), "has no id"),
    ],
)
def test_an_app_that_cannot_be_is_not_added(
    shell: Shell, arguments: tuple[str, ...], why: str
) -> None:
    """Exit code 2, and what to write instead."""
    ended = shell.run("app", "add", *arguments)
    assert (ended.code, why in ended.err) == (2, True), ended.err


def test_a_web_push_key_is_not_lost_by_mistake(shell: Shell, tmp_path: Path) -> None:
    """Where nobody can be asked, losing subscriptions needs --force; a key is taken over."""
    shell.run("app", "add", "shop", "--web-origin", "https://shop.example")
    file = tmp_path / "vapid.txt"
    file.write_text(VapidKey.make().private_key_text)
    key_id = json.loads(shell.run("key", "add", str(file), "--web-push", "--json").out)["key_id"]
    added = shell.run("session", "add", "a@4d.com", json.dumps(SUBSCRIPTION))
    assert added.code == 0, added.err
    for command in (("make", "web-push"), ("remove", key_id)):
        refused = shell.run("key", *command)
        assert (refused.code, "1 subscription" in refused.err) == (2, True), refused.err
        assert "--force" in refused.err
    assert shell.run("key", "make", "web-push", "--force").code == 0
    listed = json.loads(shell.run("session", "list", "--json").out)
    assert [one["status"] for one in listed] == ["quarantined"]


def test_sessions_of_another_system_are_imported(shell: Shell, tmp_path: Path) -> None:
    """From CSV and from standard input; a bad line ends with 1, and the others are there."""
    shell.run("app", "add", "shop", "--android-package", "com.sample.shop")
    file = tmp_path / "tokens.csv"
    file.write_text(
        f"mail,token,platform\na@4d.com,{APPLES},ios\nb@4d.com,{FCM},android\nc,d,ios\n"
    )
    trial = shell.run("session", "import", str(file), "--dry-run")
    assert (trial.code, "line 4: " in trial.err) == (1, True)
    assert shell.run("session", "list", "--json").out.strip() == "[]"
    ended = shell.run("session", "import", str(file))
    assert (ended.code, ended.out) == (1, "2 sessions imported, 1 refused\n"), ended.err
    lines = json.dumps({"mail": "d@4d.com", "subscription": SUBSCRIPTION})
    piped = shell.run("session", "import", "-", "--json", stdin=lines)
    assert (piped.code, json.loads(piped.out)["imported"]) == (0, 1), piped.err
    browsers = shell.run("session", "list", "--service", "webpush", "--json")
    (session,) = json.loads(browsers.out)
    assert (session["mail"], session["platform"]) == ("d@4d.com", "web")
    assert "BTBZMqHH6r4Tts7J_aSIgg" not in browsers.out
    missing = shell.run("session", "import", str(tmp_path / "nothing.csv"))
    assert (missing.code, "cannot be read" in missing.err) == (2, True)


def test_members_for_android_alone_are_shown_where_they_go(shell: Shell) -> None:
    """``--android`` is in the request to FCM and in no other; a wrong member is told, with 2."""
    shell.run(*("app", "add", "TEAM123456.com.sample.shop", "--android-package", "com.sample.shop"))
    shell.run("session", "add", "a@4d.com", FCM, "--platform", "android")
    shell.run("session", "add", "a@4d.com", APPLES, "--platform", "ios")
    send = ("send", "a@4d.com", "--title", "Hello", "--subtitle", "There", "--dry-run", "--json")
    members = {"notification": {"channelId": "orders"}}
    ended = shell.run(*send, "--android", json.dumps(members))
    assert ended.code == 0, ended.err
    shown = json.loads(ended.out)
    (fcm,) = [one for one in shown if "messages:send" in one.get("url", "")]
    message = json.loads(fcm["payload"])["message"]
    assert message["token"] == FCM
    assert message["android"]["notification"]["channel_id"] == "orders"
    assert ended.out.count("orders") == 1
    assert "is not shown on Android" in ended.out + ended.err
    wrong = shell.run(*send, "--android", '{"notification": {"chanel_id": "x"}}')
    assert (wrong.code, "`channel_id`" in wrong.out + wrong.err) == (2, True)
