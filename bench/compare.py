"""Another checkout of Handbell beside this one: ``python -m bench.compare FOLDER``.

Both must be set up (``make setup``). Each program of each checkout runs in a process of its own,
in turn, against one sink; the sessions of a broadcast are made by the checkout that sends it.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from .job import Job, Result
from .rig import Rig
from .seed import copy_home

HERE: Final = Path(__file__).parents[1]
LONGEST_SECONDS: Final = 900
MEBIBYTE: Final = 1024 * 1024

_SEED: Final = """
import sys
from bench import seed
from bench.job import Job
seed.make_home(Job.read(sys.argv[-1]))
"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A folder with a checkout of Handbell that is set up."""

    folder: Path

    def run(self, *arguments: str) -> str:
        """Return what Python wrote when it was run in the checkout."""
        command = [str(self.folder / ".venv" / "bin" / "python"), *arguments]
        done = subprocess.run(
            command,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=LONGEST_SECONDS,
        )
        return done.stdout

    def measure(self, program: str, job: Job) -> Result:
        """Return one round of ``gateway`` or ``engine``."""
        return Result.read(self.run("-m", "bench.ours", program, _text(job)))

    def seed(self, job: Job) -> None:
        """Make the job's home, with this checkout's own tables."""
        self.run("-c", _SEED, _text(job))


def main() -> None:
    """Measure both, and print their medians and the ratio of each pair of rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    parser.add_argument("folder", type=Path, help="the other checkout, set up")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pushes", type=int, default=200_000)
    parser.add_argument("--broadcast", type=int, default=0, help="sessions of a larger broadcast")
    options = parser.parse_args()
    both = [Checkout(options.folder.resolve()), Checkout(HERE)]
    print("| | other | this | this/other, median | each round |\n| :-- | --: | --: | --: | :-- |")
    with Rig(tokens=max(options.pushes, options.broadcast) + 1000) as rig:
        gateway = rig.job("fast", options.pushes)
        rounds = [
            [each.measure("gateway", gateway) for each in both] for _ in range(options.rounds)
        ]
        _tell("gateway", rounds)
        for size in filter(None, (options.pushes, options.broadcast)):
            rounds = list(_engine_rounds(rig, both, size, options.rounds))
            _tell(f"engine, {size:,}", rounds)


def _engine_rounds(
    rig: Rig, both: list[Checkout], size: int, rounds: int
) -> Iterator[list[Result]]:
    homes = []
    for number, checkout in enumerate(both):
        homes.append(rig.folder / f"home{number}-{size}")
        checkout.seed(replace(rig.job("fast", size), home=str(homes[-1])))
    for _ in range(rounds):
        results = []
        for checkout, home in zip(both, homes, strict=True):
            copy = copy_home(home, rig.folder / "round")
            job = replace(rig.job("fast", size), home=str(copy))
            results.append(checkout.measure("engine", job))
        yield results


def _tell(name: str, rounds: list[list[Result]]) -> None:
    figures: dict[str, Callable[[Result], float]] = {
        "pushes/s": lambda result: result.pushes / result.seconds,
        "CPU us": lambda result: result.cpu_seconds / result.pushes * 1e6,
        "peak MiB": lambda result: result.peak_bytes / MEBIBYTE,
    }
    for unit, figure in figures.items():
        pairs = [[figure(result) for result in results] for results in rounds]
        other, this = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratios = [pair[1] / pair[0] if pair[0] else 0 for pair in pairs]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        middle = statistics.median(ratios)
        print(
            f"| {name}, {unit} | {other:,.1f} | {this:,.1f} | {middle:.2f} | {each} |", flush=True
        )


def _text(job: Job) -> str:
    """Return the job without what is not set, for a checkout that does not know it."""
    members: dict[str, Any] = {name: value for name, value in asdict(job).items() if value != ""}
    return json.dumps(members)


if __name__ == "__main__":
    main()
