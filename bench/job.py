"""What every program of the bench is asked, and what it answers: one JSON text each.

The programs in Go and JavaScript read the same members, so a name changes everywhere or nowhere.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One round of one program: ``count`` alerts to as many device tokens, after a warm-up.

    ``tokens`` is a file with one token a line, ``warm_up`` of them first; ``home`` is the folder of
    a Handbell with the sessions, for programs that need it; its database is an SQLite file in it,
    unless ``database`` is the URL of another one.
    """

    url: str
    ca_file: str
    key_file: str
    tokens: str
    count: int
    in_flight: int = 200
    warm_up: int = 500
    home: str = ""
    database: str = ""
    loop: str = "uvloop"
    team_id: str = "TEAM123456"
    key_id: str = "KEY1234567"
    topic: str = "com.sample.myapp"
    title: str = "This is title"
    body: str = "Here is the content of this notification"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the job that a program was given as its argument."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return the job as a program's argument."""
        return json.dumps(asdict(self))

    def read_tokens(self) -> list[str]:
        """Return the tokens to warm up with and those to measure, in this order."""
        with Path(self.tokens).open() as file:
            return [line.rstrip() for line in islice(file, self.warm_up + self.count)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of one round. ``cpu_seconds`` are the program's own; ``sink_cpu`` is the sink's.

    ``peak_bytes`` is the most memory that the program held, 0 where it was not looked at.
    """

    accepted: int
    refused: int
    seconds: float
    cpu_seconds: float
    sink_cpu: float = 0.0
    peak_bytes: int = 0
    samples: dict[str, list[float]] = field(default_factory=dict)

    @property
    def pushes(self) -> int:
        """How many pushes were answered."""
        return self.accepted + self.refused

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the result that a program wrote as its last line."""
        return cls(**json.loads(text.strip().splitlines()[-1]))


class Stopwatch:
    """Seconds on the clock and of CPU since it was made, of this process and all its threads."""

    def __init__(self) -> None:
        self._cpu = _cpu_seconds()
        self._started = time.perf_counter()

    def result(self, accepted: int, refused: int) -> Result:
        """Stop, and return what came of the round."""
        seconds = time.perf_counter() - self._started
        return Result(
            accepted=accepted,
            refused=refused,
            seconds=seconds,
            cpu_seconds=_cpu_seconds() - self._cpu,
            peak_bytes=peak_bytes(),
        )


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """Return the most memory that this process ever held."""
    # Not ru_maxrss: that begins with what the parent held when it started this process.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def answer(run: Callable[[Job], Result]) -> None:
    """Run a program's job as asked on its command line, and write the result."""
    result = run(Job.read(sys.argv[-1]))
    members: dict[str, Any] = asdict(result)
    print(json.dumps(members))
