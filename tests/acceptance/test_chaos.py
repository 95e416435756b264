"""Nothing accepted is lost, whatever is killed, cut, locked or full; nobody gets another's."""

import subprocess
import sys
from pathlib import Path

import pytest
from bench.postgresql import Unavailable, programs

_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("sessions", "seconds"),
    [("1500", "8"), pytest.param("4000", "20", marks=pytest.mark.clients)],
    ids=["short", "long"],
)
def test_nothing_is_lost_in_chaos(sessions: str, seconds: str) -> None:
    """Senders reach every session and close none, and a phone that changed hands tells nothing.

    They are killed, cut off, without a disk and without a right clock; the service is not there.
    """
    command = [sys.executable, "-m", "bench.chaos", "--sessions", sessions, "--seconds", seconds]
    done = subprocess.run(
        [*command, "--seed", "1"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout)  # noqa: T201 - the figures, for whoever asks with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not reached as the twin counts: 0" in done.stdout
    assert "accepted for a former user after the answer: 0" in done.stdout


@pytest.mark.cluster
@pytest.mark.timeout(600)
@pytest.mark.parametrize("options", [[], ["--broker"]], ids=["postgresql", "jetstream"])
def test_nothing_is_lost_in_a_fleet(options: list[str]) -> None:
    """Two servers and three workers on one PostgreSQL reach everybody, and no former user.

    Nodes, the database and the broker, where one hands out the work, are killed, links are cut, and
    the clock of two nodes is wrong.
    """
    try:
        programs()
    except Unavailable as error:
        pytest.skip(str(error))
    command = [sys.executable, "-m", "bench.fleet", "--sessions", "5000", "--seconds", "45"]
    done = subprocess.run(
        [*command, *options, "--seed", "1"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout)  # noqa: T201 - the figures, for whoever asks with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not reached as the twin counts: 0" in done.stdout
    assert "accepted for a former user after the answer: 0" in done.stdout
