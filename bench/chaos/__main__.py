"""The command of ``make chaos``: run it, print the figures, and fail if anything is wrong."""

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.doors import Doors
from handbell.settings import PREFIX
from handbell.twin.threaded import start_twin

from . import __doc__ as what
from .clock import Clock
from .story import FULL_SECONDS, Chaos

FULL_SESSIONS: Final = 10_000
DOORS_SHARE: Final = 0.2
"""How long the front doors come and go beside that, as a share of the time of disturbance."""


def main() -> int:
    """Run the chaos and print its figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=what)
    parser.add_argument("--sessions", type=int, default=FULL_SESSIONS)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help="how long to disturb")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    asked = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # this user's own Handbell has no part in it
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="handbell-chaos-") as name:
        folder = Path(name)
        with start_twin(folder / "doors-twin") as twin:
            doors = Doors(folder / "doors", twin).run(asked.seconds * DOORS_SHARE)
        # Apple's clocks are right, whatever those of the senders are set to.
        with start_twin(folder / "twin", now=clock.right) as twin:
            chaos = Chaos(folder, twin, clock, sessions=asked.sessions, seed=asked.seed)
            figures = chaos.run(asked.seconds)
    problems = [*figures.problems, *doors.problems]
    told = [*doors.lines(), *figures.lines(), *(f"WRONG: {problem}" for problem in problems)]
    print("\n".join(told))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
