"""A credential is recognized by its file."""

import json
from pathlib import Path

import pytest

from handbell.apps.app import App
from handbell.apps.credential_reader import read_credential
from handbell.apps.sample_keys import make_key, make_service_account
from handbell.errors import AppError, CredentialError
from handbell.services.apns.credential import AuthKey
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey

APP = App(team_id="TEAM123456", bundle_id="com.sample.shop")
KEY = make_key("TEAM123456")
ACCOUNT = make_service_account(APP)
VAPID = VapidKey.make()
AS_WEB_PUSH_PRINTS = json.dumps(
    {"publicKey": VAPID.public_key, "privateKey": VAPID.private_key_text}
)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("AuthKey_ABC123DEFG.p8", KEY.private_key_pem(), AuthKey),
        ("my-project-firebase-adminsdk.json", ACCOUNT.pack().encode(), ServiceAccount),
        ("account", b"\xef\xbb\xbf \n" + ACCOUNT.pack().encode(), ServiceAccount),
        ("vapid.json", AS_WEB_PUSH_PRINTS.encode(), VapidKey),
    ],
    ids=["apple", "google", "no-ending", "web-push"],
)
def test_a_file_is_what_it_holds(tmp_path: Path, name: str, content: bytes, kind: type) -> None:
    """By its contents; only a certificate is known by its ending."""
    file = tmp_path / name
    file.write_bytes(content)
    found = read_credential(file, APP)
    assert isinstance(found, kind)
    assert found.fingerprint in {KEY.fingerprint, ACCOUNT.fingerprint, VAPID.fingerprint}


def test_a_web_push_key_has_to_be_called_one() -> None:
    """In PEM it looks like one of Apple's, which needs a key id."""
    text = KEY.private_key_pem()
    assert isinstance(read_credential(text, APP, is_web_push=True), VapidKey)
    assert read_credential(VAPID.private_key_text.encode(), APP, is_web_push=True) == VAPID
    with pytest.raises(CredentialError, match="key id"):
        read_credential(text, APP)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{"project_info": {}, "client": []}', "google-services.json"),
        (b'{"type": "authorized_user"}', "user's own"),
        (b'{"type": ', "damaged"),
        (b"[1]", "not a PEM"),
    ],
    ids=["configuration", "user", "cut", "list"],
)
def test_what_is_no_credential_says_what_it_is(tmp_path: Path, content: bytes, why: str) -> None:
    """These files are downloaded by hand and easily confused."""
    file = tmp_path / "AuthKey_ABC123DEFG.json"
    file.write_bytes(content)
    with pytest.raises(CredentialError, match=why) as caught:
        read_credential(file, APP)
    assert caught.value.fix


def test_a_key_of_apples_is_not_read_for_an_app_without_apples_ids() -> None:
    """The error says how to add them."""
    with pytest.raises(AppError, match="no team id"):
        read_credential(KEY.private_key_pem(), App(android_package="com.sample.shop"))
