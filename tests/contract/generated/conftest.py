"""Clients generated from the API's description; the tier ``make test-clients`` fetches for them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

_HERE = Path(__file__).parent
_SECONDS = 500
_COMMAND = Path(sys.executable).with_name("handbell")
_APP, _MAIL = "TEAM123456.com.sample.myapp", "test@4d.com"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and let them take the time that fetching takes."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.timeout(_SECONDS))


@dataclass(frozen=True, kw_only=True)
class Served:
    """A running ``handbell serve --twin``. ``document`` is the file of its description.

    ``arguments`` are its address, an app, a key that may send, and a person with a phone.
    """

    document: Path
    arguments: tuple[str, str, str, str]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Run a server with a twin for the tests of the folder."""
    folder = tmp_path_factory.mktemp("served")
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    env = {**kept, "HANDBELL_HOME": str(folder / "home")}
    with subprocess.Popen(
        [_COMMAND, "serve", "--twin", "--listen", "127.0.0.1:0"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        told: dict[str, str] = {}
        assert process.stdout is not None
        for line in process.stdout:
            name, _, value = line.strip().partition(" ")
            told[name] = value.strip()
            if name == "Ctrl-C":
                break
        try:
            url = f"http://{told['Listening']}"
            document = folder / "openapi.json"
            document.write_bytes(httpx.get(f"{url}/openapi.json", trust_env=False).content)
            made = subprocess.run(
                [_COMMAND, "api-key", "add", "generated", "--scope", "send", "--json"],
                env=env,
                check=True,
                capture_output=True,
            )
            key = json.loads(made.stdout)["key"]
            yield Served(document=document, arguments=(url, _APP, key, _MAIL))
        finally:
            process.terminate()
            process.communicate(timeout=30)
