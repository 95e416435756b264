"""The curl command line, as Apple's own page uses it, talks to the twin."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handbell.twin.threaded import RunningTwin, start_twin

TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.sample.myapp"
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
CURL = shutil.which("curl")


def _speaks_http2(command: str) -> bool:
    said = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    return "HTTP2" in said.stdout


HAS_HTTP2 = CURL is not None and _speaks_http2(CURL)
pytestmark = [
    pytest.mark.judge("curl"),
    pytest.mark.skipif(not HAS_HTTP2, reason="needs a curl command that speaks HTTP/2"),
]


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """One twin for the file, which knows the public key."""
    with start_twin(tmp_path_factory.mktemp("twin")) as running:
        running.add_key(TEAM, KEY_ID, PUBLIC)
        yield running


def bearer() -> str:
    """Return a provider token."""
    claims = {"iss": TEAM, "iat": int(time.time())}
    return jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": KEY_ID})


def curl(url: str, *options: str | Path) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body; status 0 when curl could not speak with the twin."""
    command = [CURL or "curl", "--silent", "--max-time", "10", "--dump-header", "-", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return 0, {}, ""
    head, _, body = done.stdout.partition("\n\n")
    first, *lines = head.splitlines()
    pairs = (line.split(": ", 1) for line in lines)
    return int(first.split()[1]), dict(pairs), body


def push(twin: RunningTwin, path: str, *options: Any, token: str | None = None) -> Any:
    """Push to the production side as Apple's page shows it."""
    return curl(
        f"{twin.production_url}{path}",
        *("--http2", "--cacert", twin.ca_file),
        *("--header", f"apns-topic: {BUNDLE}", "--header", "apns-push-type: alert"),
        *("--header", f"authorization: bearer {token or bearer()}"),
        *("--data", '{"aps":{"alert":"It rings"}}', *options),
    )


def test_a_push_by_curl_arrives(twin: RunningTwin) -> None:
    """Curl verifies the twin's certificate, negotiates h2, and gets 200 with the apns-id."""
    phone = twin.add_phone(app=f"{TEAM}.{BUNDLE}")
    given = "0e0c1ff4-6b0c-4d8a-8c43-2d9e2f2f8a11"
    status, headers, body = push(twin, f"/3/device/{phone.token}", "--header", f"apns-id: {given}")
    assert (status, headers["apns-id"], body) == (200, given, "")
    assert twin.phone(phone.id).cards[0].body == "It rings"


@pytest.mark.parametrize(
    ("path", "options", "status", "reason"),
    [
        ("/3/device/" + "99" * 32, (), 400, "BadDeviceToken"),
        ("/3/device/", (), 400, "MissingDeviceToken"),
        ("/3/devices/99", (), 404, "BadPath"),
        ("/3/device/" + "99" * 32, ("--request", "GET"), 405, "MethodNotAllowed"),
        ("/3/device/" + "99" * 32, ("--header", "apns-priority: 3"), 400, "BadPriority"),
        (
            "/3/device/" + "99" * 32,
            ("--header", "apns-topic: com.sample.again"),
            400,
            "DuplicateHeaders",
        ),
    ],
)
def test_refusals_carry_their_reason(
    twin: RunningTwin, path: str, options: tuple[str, ...], status: int, reason: str
) -> None:
    """A refusal is JSON with nothing but the reason."""
    answered, headers, body = push(twin, path, *options)
    assert (answered, json.loads(body)) == (status, {"reason": reason})
    assert headers["content-type"] == "application/json"


def test_without_a_valid_token(twin: RunningTwin) -> None:
    """A token that is none is an InvalidProviderToken."""
    answered, _, body = push(twin, "/3/device/" + "99" * 32, token="nonsense")
    assert (answered, json.loads(body)) == (403, {"reason": "InvalidProviderToken"})


def test_http_1_1_gets_no_answer(twin: RunningTwin) -> None:
    """A curl told to speak HTTP/1.1 is cut off."""
    phone = twin.add_phone(app=f"{TEAM}.{BUNDLE}")
    assert push(twin, f"/3/device/{phone.token}", "--http1.1")[0] == 0
    assert twin.phone(phone.id).cards == ()


def test_an_untrusted_authority_is_noticed(twin: RunningTwin) -> None:
    """Without the twin's authority curl refuses the connection."""
    assert curl(f"{twin.production_url}/3/device/", "--http2")[0] == 0
