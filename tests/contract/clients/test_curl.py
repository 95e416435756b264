"""curl judges the twin, as Apple's own page uses it."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import jwt
import pytest
from tests.contract.clients.judgements import Judgements, Push, Verdict, stage
from tests.contract.clients.tools import need, run

__all__ = ["stage"]

_HEADERS = {
    "apns-topic": "topic",
    "apns-push-type": "push_type",
    "apns-priority": "priority",
    "apns-expiration": "expiration",
    "apns-collapse-id": "collapse_id",
    "apns-id": "apns_id",
}


@pytest.mark.judge("curl")
class TestCurl(Judgements):
    """curl, on nghttp2: one command, whose pushes follow each other on its connection."""

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Return the command; skip where it does not speak HTTP/2."""
        need("curl")
        if "HTTP2" not in run(["curl", "--version"]).stdout:
            pytest.skip("this curl does not speak HTTP/2")
        return ["curl"]

    def send(self, program: list[str], pushes: list[Push], env: Mapping[str, str]) -> list[Verdict]:
        """Write a configuration of as many transfers, and read what each left behind."""
        key = Path(env["CLIENT_KEY_FILE"]).read_text(encoding="ascii")
        claims = {"iss": env["CLIENT_TEAM_ID"], "iat": int(time.time())}
        proof = jwt.encode(claims, key, "ES256", headers={"kid": env["CLIENT_KEY_ID"]})
        with TemporaryDirectory() as made:
            folder = Path(made)
            transfers = [
                _transfer(push, folder / str(number), env, proof)
                for number, push in enumerate(pushes)
            ]
            (folder / "all").write_text("next\n".join(transfers), encoding="utf-8")
            done = run([*program, "--silent", "--config", str(folder / "all")])
            assert done.returncode == 0, done.stderr
            return [_read(folder / str(number)) for number in range(len(pushes))]


def _transfer(push: Push, place: Path, env: Mapping[str, str], proof: str) -> str:
    said = {name: getattr(push, field) for name, field in _HEADERS.items()}
    headers = [f"{name}: {value}" for name, value in said.items() if value]
    options = [
        ("url", f"{env['CLIENT_URL']}/3/device/{push.token}"),
        ("cacert", env["CLIENT_CA_FILE"]),
        ("dump-header", f"{place}.head"),
        ("output", f"{place}.body"),
        ("data-raw", push.payload),
        *(("header", header) for header in [f"authorization: bearer {proof}", *headers]),
    ]
    return "http2\n" + "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in options
    )


def _read(place: Path) -> Verdict:
    first, *lines = place.with_suffix(".head").read_text(encoding="utf-8").split("\n")
    headers = dict(line.strip().split(": ", 1) for line in lines if ": " in line)
    body = place.with_suffix(".body")
    said = json.loads(body.read_bytes()) if body.exists() and body.stat().st_size else {}
    status = int(first.split()[1])
    return Verdict(status, said.get("reason", ""), said.get("timestamp"), headers["apns-id"])
