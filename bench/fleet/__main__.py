"""The command of ``make chaos`` with DATABASE=postgresql or CLUSTER=1: run it, judge it."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench.nats import NatsServer
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
    parser.add_argument("--broker", action="store_true", help="NATS JetStream hands out the work")
    asked = parser.parse_args()
    server = PostgresServer(new_folder(), is_durable=True)
    with (
        tempfile.TemporaryDirectory(prefix="handbell-fleet-") as name,
        contextlib.ExitStack() as end,
    ):
        folder = Path(name)
        end.callback(shutil.rmtree, server.folder, ignore_errors=True)
        end.callback(_stop, server)
        server.start()
        broker = None
        if asked.broker:
            (folder / "nats").mkdir()
            broker = NatsServer(folder / "nats")
            end.callback(broker.stop)
            broker.start()
        twin = end.enter_context(start_twin(folder / "twin"))
        chaos = FleetChaos(
            folder, server, twin, sessions=asked.sessions, seed=asked.seed, broker=broker
        )
        figures = chaos.run(asked.seconds)
    problems = figures.problems
    print("\n".join([*figures.lines(), *(f"WRONG: {problem}" for problem in problems)]))
    return 1 if problems else 0


def _stop(server: PostgresServer) -> None:
    with contextlib.suppress(OSError):
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
