"""``make bench``: build the rig, measure everything, print the tables, write RESULTS.md."""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from handbell.settings import PREFIX

from . import machine, plot, report
from .measure import MOST_TOKENS, Bench
from .report import Table
from .rig import Rig, RigError

if TYPE_CHECKING:
    from .figures import Figure

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
FULL_ROUNDS: Final = 5
QUICK_ROUNDS: Final = 3
FULL_SESSIONS: Final = 3_000_000
QUICK_SESSIONS: Final = 100_000
WIDTH: Final = 130
PARTS: Final = (
    "throughput",
    "services",
    "mixed",
    "slow",
    "refusing",
    "latency",
    "accepting",
    "loads",
    "calls",
    "lines",
    "sending",
    "databases",
    "lookups",
    "memory",
    "fleet",
)

Part = Callable[[], list[Table]]
"""One measurement and its tables."""


def main() -> int:
    """Run the bench; return the exit code."""
    asked = _arguments()
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]  # this user's own Handbell has no part in it
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    for line in machine.install_missing():
        console.print(line)
    tools = machine.tools()
    if "nginx" not in tools:
        console.print("nginx is missing, and nothing can be measured without it: install it")
        return 1
    left_out = machine.missing(tools)
    for line in left_out:
        console.print(line)
    try:
        tables, failures = _measure(asked, tools, console)
    except RigError as error:
        console.print(f"The bench stopped: {error}", markup=False)
        return 1
    for table in tables:
        table.show(console)
    for failure in failures:
        console.print(f"Not measured: {failure}", markup=False)
    remarks = _remarks([*left_out, *(f"Not measured: {failure}" for failure in failures)])
    former = asked.output.read_text() if asked.only and asked.output.exists() else ""
    run = f"{datetime.now(UTC).date().isoformat()}, {_command(asked)}"
    asked.output.write_text(
        report.document(tables, machine.facts(tools), remarks, run=run, former=former)
    )
    console.print(f"Written to {asked.output}", markup=False)
    try:
        console.print(f"Drawn in {plot.write(asked.output)}", markup=False)
    except ValueError as error:
        console.print(f"Not drawn: {error}", markup=False)
    return 1 if failures else 0


def _measure(
    asked: argparse.Namespace, tools: frozenset[str], console: Console
) -> tuple[list[Table], list[str]]:
    """Return the tables, and why a measurement failed: the others are worth having even so."""
    rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else FULL_ROUNDS)
    tables: list[Table] = []
    failures: list[str] = []
    with Rig(tokens=MOST_TOKENS) as rig, console.status("the rig") as status:

        def note(text: str) -> None:
            # On a terminal the line is replaced; in a pipe each one stays.
            status.update(text)
            if not console.is_terminal:
                print(text, flush=True)

        bench = Bench(rig, tools=tools, rounds=rounds, note=note)
        parts = _parts(bench, asked, tools)
        for part in [parts[name] for name in asked.only or parts]:
            try:
                tables += part()
            except RigError as error:
                failures.append(str(error))
    return tables, failures


def _parts(bench: Bench, asked: argparse.Namespace, tools: frozenset[str]) -> dict[str, Part]:
    """Return what is measured, by the name that ``--only`` takes."""
    fast: list[Figure] = []

    def throughput() -> list[Table]:
        fast[:] = bench.throughput()
        return [report.throughput(fast)]

    parts: dict[str, Part] = {
        "throughput": throughput,
        "services": lambda: [report.services(bench.services())],
        "mixed": lambda: [report.mixed(bench.mixed())],
        "slow": lambda: [report.slow(bench.slow())],
        "refusing": lambda: [report.refusing(bench.refusing(), fast)],
        "latency": lambda: report.latency(bench.latency(), bench.start()),
        "accepting": lambda: [report.accepting(bench.accepting())],
        "loads": lambda: _loads(bench, asked),
    }
    if "wrk" in tools:
        parts["calls"] = lambda: [report.single_calls(bench.single_calls())]
        parts["lines"] = lambda: [report.lines(bench.lines())]
        parts["sending"] = lambda: [report.sending_by_database(bench.sending_by_database())]
    parts["databases"] = lambda: [report.accepting_by_database(bench.accepting_by_database())]
    if asked.only or not asked.quick:
        parts["lookups"] = lambda: [report.lookups(bench.lookups())]
        parts["memory"] = lambda: [report.memory(bench.memory())]
        parts["fleet"] = lambda: [report.fleets(bench.fleets()), report.costs(bench.engines())]
    return parts


def _loads(bench: Bench, asked: argparse.Namespace) -> list[Table]:
    found = bench.loads(QUICK_SESSIONS if asked.quick else FULL_SESSIONS)
    return [report.many_apps(found["apps"]), report.waiting(found["waits"])]


def _command(asked: argparse.Namespace) -> str:
    quick = " --quick" if asked.quick else ""
    rounds = f" --rounds {asked.rounds}" if asked.rounds else ""
    only = f" --only {' '.join(asked.only)}" if asked.only else ""
    return f"`python -m bench{quick}{rounds}{only}`"


def _remarks(left_out: list[str]) -> str:
    first = (
        "Sink and clients share one machine, so figures of two machines, or of two runs, are not "
        "comparable; ratios within one table are. Below each table stands its run; the machine is "
        "that of the last one."
    )
    return "\n\n".join([first, *(f"{line}." for line in left_out)])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the large broadcasts")
    parser.add_argument("--rounds", type=int, default=0, help="rounds of each program")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        help="these parts alone; the other tables stay",
        choices=PARTS,
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
