"""The tools that other people's clients are built with: found, or skipped by a clear line."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
CACHE: Final = HERE.parents[2] / ".cache" / "clients"
"""Where all that is fetched and built lands; nothing outside the project is changed."""

_GO: Final = {
    "GOMODCACHE": str(CACHE / "go" / "mod"),
    "GOCACHE": str(CACHE / "go" / "build"),
    "GOFLAGS": "-mod=readonly -modcacherw",
}
_FETCH_SECONDS: Final = 300


def need(*commands: str) -> None:
    """Skip the test, saying why, unless the commands are installed."""
    for command in commands:
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed")


def run(
    command: Sequence[str | Path],
    *,
    folder: Path = HERE,
    env: Mapping[str, str] | None = None,
    given: str = "",
    seconds: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Return what became of a command, which is stopped when it takes too long."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **(env or {})},
        input=given,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def fetch(command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str]) -> None:
    """Fetch what others have published; skip the test, saying why, where it cannot be had."""
    done = run(command, folder=folder, env=env, seconds=_FETCH_SECONDS)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        pytest.skip(f"{command[0]} could not fetch it: {said[-1][:200]}")


def build(command: Sequence[str | Path], *, folder: Path, env: Mapping[str, str]) -> None:
    """Build a program of ours; one that does not build is a failure."""
    done = run(command, folder=folder, env=env, seconds=_FETCH_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr


def go_program(name: str, package: str = ".") -> Path:
    """Return the program that a folder here builds, or a package that its go.mod names."""
    need("go")
    folder, program = HERE / name, CACHE / "bin" / name
    fetch(["go", "mod", "download"], folder=folder, env=_GO)
    build(["go", "build", "-o", program, package], folder=folder, env=_GO)
    return program


def rust_program(name: str) -> Path:
    """Return the program that a folder here builds, with the versions that its Cargo.toml names."""
    need("cargo")
    folder = CACHE / name
    shutil.copytree(HERE / name, folder, dirs_exist_ok=True)
    env = {"CARGO_HOME": str(CACHE / "cargo"), "CARGO_TARGET_DIR": str(folder / "target")}
    fetch(["cargo", "fetch", "--quiet"], folder=folder, env=env)
    build(["cargo", "build", "--quiet", "--offline"], folder=folder, env=env)
    return folder / "target" / "debug" / name


def java_classes(name: str) -> str:
    """Return the class path of a folder's Main, with what its pom.xml names."""
    need("java", "javac", "mvn")
    folder, made = HERE / name, CACHE / name
    libraries = made / "lib"
    made.mkdir(parents=True, exist_ok=True)
    if not any(libraries.glob("*.jar")):
        fetch(
            [
                *("mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={CACHE / 'maven'}"),
                *("dependency:copy-dependencies", f"-DoutputDirectory={libraries}"),
            ],
            folder=folder,
            env={},
        )
    classes = f"{made}{os.pathsep}{libraries}/*"
    build(["javac", "-d", made, "-cp", classes, "Main.java"], folder=folder, env={})
    return classes


def node_program(name: str) -> Path:
    """Return a program of the folder ``node``, beside the modules that its lock file names.

    All programs share one folder, which is filled by the first that comes.
    """
    need("node", "npm")
    made = CACHE / "node"
    made.mkdir(parents=True, exist_ok=True)
    wanted, done = HERE / "node" / "package-lock.json", made / ".fetched"
    with (made / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for file in (HERE / "node").iterdir():
            shutil.copy(file, made)
        if not done.exists() or done.read_text() != wanted.read_text():
            quiet = ("--no-audit", "--no-fund", "--omit=optional")
            fetch(["npm", "ci", *quiet], folder=made, env={})
            shutil.copy(wanted, done)
    return made / f"{name}.mjs"


def python_venv(name: str) -> Path:
    """Return the Python of an environment of its own, with what a folder's requirements name.

    Other people's libraries that would bring much into ours are installed there.
    """
    made = CACHE / name
    python = made / "bin" / "python"
    wanted = HERE / name / "requirements.txt"
    done = made / "requirements.txt"
    if not done.exists() or done.read_text() != wanted.read_text():
        build([sys.executable, "-m", "venv", "--clear", made], folder=HERE, env={})
        quiet = ("--quiet", "--disable-pip-version-check")
        fetch(
            [python, "-m", "pip", "install", *quiet, "--require-hashes", "-r", wanted],
            folder=HERE,
            env={},
        )
        shutil.copy(wanted, done)
    return python
