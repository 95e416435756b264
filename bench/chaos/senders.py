"""The sending processes: they are killed, and started again."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.sender import Task
from handbell.settings import PREFIX

ROOT: Final = Path(__file__).parent.parent.parent

_LOG_LINES: Final = 60
_DRAIN_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 0.01


class Sender:
    """A sending process that is started again whenever it is killed.

    ``at_risk`` is how many pushes it had on its way whenever it was taken for dead while it lived.
    """

    def __init__(self, make_task: Callable[[], Task]) -> None:
        self.at_risk = 0
        self.losses = 0
        self._make_task = make_task
        self._process: subprocess.Popen[str] | None = None
        self._turn = threading.Lock()
        # Not a file: that could not be written either while writes fail.
        self.log: deque[str] = deque(maxlen=_LOG_LINES)

    @property
    def pid(self) -> int:
        """The process, 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process; returns at once."""
        task = self._make_task().text()
        process = subprocess.Popen(
            [sys.executable, "-m", "bench.sender"],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with self._turn, contextlib.suppress(OSError):
            self._process = process
            self._feed(process, task)
        for listen in (self._listen, self._hear):
            threading.Thread(target=listen, args=(process,), daemon=True).start()

    def _feed(self, process: "subprocess.Popen[str]", line: str) -> None:
        if process.stdin is not None:
            process.stdin.write(line + "\n")
            process.stdin.flush()

    def say(self, **what: Any) -> None:
        """Tell the process something, as bench/sender.py reads it; one that is dead hears it not.

        Its next start has it in its task.
        """
        with self._turn, contextlib.suppress(OSError):
            if self._process is not None:
                self._feed(self._process, json.dumps(what))

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        if process.stderr is not None:
            with process.stderr as lines:
                self.log.extend(lines)

    def _hear(self, process: "subprocess.Popen[str]") -> None:
        if process.stdout is None:
            return
        with process.stdout as lines, contextlib.suppress(ValueError):  # the last may be cut off
            for said in map(json.loads, lines):
                self.losses += "lost" in said
                self.at_risk += said.get("lost", 0)

    def kill(self) -> int | None:
        """Kill the process; return the code it had ended with by itself, if it had.

        It stands still before that, until the twin has read whatever it had sent: what comes later
        could not be told from what its successor sends.
        """
        with self._turn:
            process, self._process = self._process, None
        if process is None:
            return None
        ended = process.poll()
        if ended is None:
            process.send_signal(signal.SIGSTOP)
            _drain(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        return ended

    def memory(self) -> int:
        """Return how many bytes the process holds now."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


def clean_environment() -> dict[str, str]:
    """Return this process's environment without a setting of Handbell's."""
    return {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}


def _drain(pid: int) -> None:
    """Return when nothing that a process has sent is on its way, where the system tells that."""
    until = time.monotonic() + _DRAIN_SECONDS
    with contextlib.suppress(OSError):
        while _on_the_way(pid) and time.monotonic() < until:
            time.sleep(_LOOK_SECONDS)


def _on_the_way(pid: int) -> int:
    """Return how many bytes wait in the sockets of a process to go, or at the peer to be read."""
    own = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            own.add(str(each.readlink()))
    # local address, remote address, state, "tx:rx", ..., inode at the tenth place
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [row for row in rows if f"socket:[{row[9]}]" in own]
    ends = {row[1] for row in mine}
    waiting = sum(int(row[4].partition(":")[0], 16) for row in mine)
    return waiting + sum(int(row[4].partition(":")[2], 16) for row in rows if row[2] in ends)
