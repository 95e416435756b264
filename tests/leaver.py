"""Runs scripts, each as a process that ends by itself as Python ends, and tells how that went.

Started once, it has loaded what a script needs; each script is a fork of it, which costs a tenth of
an interpreter's start. Run as ``python -m tests.leaver``, it reads a JSON object a line: the code,
the files for its output, and its environment; it answers with the pid, then with the wait status.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent
MOST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Left:
    """How a process ended: its exit code (negative for a signal), and what it wrote."""

    code: int
    out: str
    err: str


class Running:
    """A script that runs now; ``pid`` may be sent signals."""

    def __init__(self, leaver: "Leaver", pid: int, folder: Path) -> None:
        self.pid = pid
        self._leaver = leaver
        self._folder = folder

    @property
    def out(self) -> str:
        """What it has written until now."""
        written = self._folder / "out"
        return written.read_text() if written.exists() else ""

    def left(self) -> Left:
        """Wait until it has ended, and tell how."""
        status = int(self._leaver.read())
        err = (self._folder / "err").read_text()
        return Left(os.waitstatus_to_exitcode(status), self.out, err)


class Leaver:
    """A process that runs scripts, one after the other; use it as a context."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._number = 0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.leaver"],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", **self._environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, code: str) -> Running:
        """Start a script."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir(parents=True)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"code": code, "folder": str(folder)}) + "\n")
        self._process.stdin.flush()
        return Running(self, int(self.read()), folder)

    def run(self, code: str) -> Left:
        """Run a script to its end."""
        return self.start(code).left()

    def read(self) -> str:
        """Return the next line that it answers."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def _serve() -> str | None:
    """Answer until there is nothing more to run; in a fork, return the script to run."""
    _load()
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if not pid:
            _redirect(Path(asked["folder"]))
            return str(asked["code"])
        _say(pid)
        _say(_end_of(pid))
    return None


def _end_of(pid: int) -> int:
    """Return the wait status of a child, which is killed when it does not come to its end."""
    deadline = time.monotonic() + MOST_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1]
        time.sleep(0.01)


def _load() -> None:
    importlib.import_module("handbell.push")
    importlib.import_module("handbell.shared_systems")
    # A fork does not have to look through it all once more when it ends.
    gc.freeze()


def _redirect(folder: Path) -> None:
    descriptors = [os.open(os.devnull, os.O_RDONLY)]
    descriptors += [os.open(folder / name, os.O_WRONLY | os.O_CREAT) for name in ("out", "err")]
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _say(what: Any) -> None:
    print(what, flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    script = _serve()
    if script is not None:
        # Nothing of ours is around it: what it raises ends the program as it would any.
        exec(compile(script, "script", "exec"), {"__name__": "__main__"})  # noqa: S102
