"""docs/api.md is run as it stands: ``handbell serve`` with a twin, and nothing but curl."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT = "\n".join(_BLOCK.findall((ROOT / "docs/api.md").read_text("utf-8")))


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Run ``handbell serve --twin`` and give the environment in which a reader would be."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    home = {**kept, "HANDBELL_HOME": str(tmp_path / "home"), "PATH": f"{BIN}:{os.environ['PATH']}"}
    with subprocess.Popen(
        [BIN / "handbell", "serve", "--twin", "--listen", "127.0.0.1:0"],
        env=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        told: dict[str, str] = {}
        assert process.stdout is not None
        while "Phones" not in told:
            line = process.stdout.readline()
            assert line, "the server ended before it listened"
            name, _, value = line.strip().partition(" ")
            told[name] = value.strip()
        try:
            yield {**home, "SERVER": told["API"].removesuffix("/docs"), "PHONES": told["Phones"]}
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_walk_with_curl_works_as_it_is_written(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """From a device's registration to a notification displayed and opened, and the log-out."""
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", SCRIPT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
