"""``handbell twin`` as a user of other clients runs it: a proxy, and Google's key files."""

import json
import os
import ssl
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from tests.preloaded import COMMAND, preloaded

FREE = ("--port", "0", "--production-port", "0", "--development-port", "0")


@contextmanager
def running(home: Path, *options: str) -> Iterator[dict[str, str]]:
    """Run the command on free ports while the block runs; yield what it printed, by name."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    process = subprocess.Popen(
        [COMMAND, "twin", *FREE, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "HANDBELL_HOME": str(home)},
    )
    with process:
        assert process.stdout is not None
        said = {}
        while "stops it" not in (line := process.stdout.readline()):
            assert line, process.communicate()[1]
            said[line[:14].strip()] = line[14:].strip()
        try:
            yield said
        finally:
            process.terminate()
            _, complaints = process.communicate(timeout=10)
        assert (process.returncode, complaints) == (0, "")


def test_a_proxy_and_a_key_file(tmp_path: Path) -> None:
    """A key file that is missing is made for its owner alone, and the next twin accepts it."""
    file = tmp_path / "shop.json"
    options = ("--proxy", "--proxy-port", "0", "--service-account", str(file))
    with running(tmp_path / "home", *options, "--project", "shop-4711") as said:
        tls = ssl.create_default_context(cafile=said["Its authority"])
        with httpx.Client(proxy=said["Proxy"], verify=tls, trust_env=False) as client:
            assert client.post("https://fcm.googleapis.com/none").status_code == 404
    made = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(made)["project_id"] == "shop-4711"
    people = ("--android", "test@4d.com", "--browser", "test@4d.com")
    with running(tmp_path / "home", "--service-account", str(file), *people) as said:
        assert "Proxy" not in said
        state = httpx.get(f"{said['Phones']}/api/state", trust_env=False).json()
    phones = [(phone["platform"], phone["mail"]) for phone in state["phones"]]
    assert phones == [
        ("ios", "test@4d.com"),
        ("android", "test@4d.com"),
        ("web", "test@4d.com"),
    ]
    assert file.read_bytes() == made
    assert "shop-4711" in [account["project"] for account in state["service_accounts"]]


def test_a_key_file_that_is_none(tmp_path: Path) -> None:
    """Another file is refused with exit code 2, and is left as it was."""
    file = tmp_path / "notes.txt"
    file.write_text("not a key")
    ended = subprocess.run(
        [preloaded(), "twin", *FREE, "--service-account", str(file)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "HANDBELL_HOME": str(tmp_path / "home")},
    )
    assert (ended.returncode, file.read_text()) == (2, "not a key")
    assert "client_email" in ended.stderr
    assert "Traceback" not in ended.stderr
