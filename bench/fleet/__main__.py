"""The command of ``make chaos DATABASE=postgresql``: run it, print the figures, fail if wrong."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench.postgresql import PostgresServer, new_folder
from handbell.twin.threaded import start_twin

from . import __doc__ as what
from .story import FleetChaos

FULL_SESSIONS = 50_000
FULL_SECONDS = 90.0


def main() -> int:
    """Run the chaos and print its figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description=what)
    parser.add_argument("--sessions", type=int, default=FULL_SESSIONS)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help="how long to disturb")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    asked = parser.parse_args()
    server = PostgresServer(new_folder(), is_durable=True)
    try:
        server.start()
        with tempfile.TemporaryDirectory(prefix="handbell-fleet-") as name:
            folder = Path(name)
            with start_twin(folder / "twin") as twin:
                chaos = FleetChaos(folder, server, twin, sessions=asked.sessions, seed=asked.seed)
                figures = chaos.run(asked.seconds)
    finally:
        with contextlib.suppress(OSError):
            server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
    problems = figures.problems
    print("\n".join([*figures.lines(), *(f"WRONG: {problem}" for problem in problems)]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
