"""What ``make dist`` builds is installed in an empty environment, and does what the README says."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.contract.clients.tools import build, fetch, need, run

from handbell._version import __version__

pytestmark = [pytest.mark.clients, pytest.mark.timeout(500)]

ROOT: Final = Path(__file__).parents[2]
WHEEL: Final = f"handbell-{__version__}-py3-none-any.whl"
_SNIPPET: Final = re.compile(r"^```python first\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HASH: Final = re.compile(r" \\$|^ +--hash=.*$", re.MULTILINE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that ``make dist`` has filled."""
    need("make")
    folder = tmp_path_factory.mktemp("dist")
    # What runs the tests is set up already.
    command = ["make", "--old-file=setup", "dist", f"DIST={folder}"]
    build(command, folder=ROOT, env={"VENV": str(Path(sys.executable).parents[1])})
    return folder


class Installed:
    """An environment of its own, with a home of its own and nothing of this project's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.env = {
            "HANDBELL_HOME": str(folder / "home"),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "PYTHONPATH": "",
            "COLUMNS": "400",
        }
        # Hashes would be asked of the wheel as well, which is new.
        pins = _HASH.sub("", (ROOT / "constraints.txt").read_text("utf-8"))
        (folder / "pins.txt").write_text(pins, "utf-8")
        build([sys.executable, "-m", "venv", folder / "venv"], folder=folder, env={})

    def install(self, what: str, *options: str) -> None:
        """Install something with pip, in the versions that this project pins."""
        pip: list[str | Path] = [
            self.bin / "python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
        ]
        command = [*pip, "--quiet", "-c", "pins.txt", *options, what]
        fetch(command, folder=self.folder, env=self.env)

    def say(self, *command: str) -> str:
        """Return what an installed command says, of whatever kind it is."""
        done = run([self.bin / command[0], *command[1:]], folder=self.folder, env=self.env)
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Install the wheel without any extra."""
    found = Installed(tmp_path_factory.mktemp("installed"))
    found.install(str(built / WHEEL))
    return found


MISSING: Final = {
    "twin": (["handbell", "twin"], "twin"),
    "demo": (["handbell", "demo"], "twin"),
    "serve": (["handbell", "serve"], "server"),
    "operators": (["handbell", "operator", "list"], "server"),
}


def test_a_missing_extra_says_how_it_is_installed(installed: Installed) -> None:
    """The bare wheel runs, and where it needs more it names the command for a clone and a wheel."""
    assert __version__ in installed.say("handbell", "--version")
    for name, (command, extra) in MISSING.items():
        done = run(
            [installed.bin / command[0], *command[1:]], folder=installed.folder, env=installed.env
        )
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode != 0, name
        assert f"pip install '.[{extra}]'" in said, (name, said)
        assert f"pip install '{WHEEL}[{extra}]'" in said, (name, said)


@pytest.fixture
def twin(installed: Installed, built: Path) -> Iterator[None]:
    """Install the extras, and run a twin for the test."""
    installed.install(f"{built / WHEEL}[server,client,twin]")
    ports = ["--port", "0", "--production-port", "0", "--development-port", "0"]
    with subprocess.Popen(
        [installed.bin / "handbell", "twin", *ports],
        cwd=installed.folder,
        env={**os.environ, **installed.env},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert any(line.startswith("Ctrl-C") for line in process.stdout)
            yield
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.mark.usefixtures("twin")
def test_the_three_lines_reach_a_phone(installed: Installed) -> None:
    """The first snippet of the README is accepted and shown, with nothing but the wheel."""
    (snippet,) = _SNIPPET.findall((ROOT / "README.md").read_text("utf-8"))
    (installed.folder / "three.py").write_text(snippet, "utf-8")
    assert installed.say("python", "three.py") == ""
    assert "the phone showed it" in installed.say("handbell", "why", "test@4d.com")


def test_the_sdist_is_installed_too(installed: Installed, built: Path) -> None:
    """A wheel comes out of the sdist, without the clone."""
    (sdist,) = built.glob("*.tar.gz")
    installed.install(str(sdist), "--no-deps", "--force-reinstall")
    assert __version__ in installed.say("handbell", "--version")
    assert "has no device" in installed.say("handbell", "send", "a@example.com", "--title", "x")
