"""Nothing accepted is lost, whatever is killed, cut, locked or full."""

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_chaos() -> None:
    """Killed, cut off and without a disk, senders reach every session, and close none of them."""
    command = [sys.executable, "-m", "bench.chaos", "--sessions", "4000", "--seconds", "14"]
    done = subprocess.run(
        [*command, "--seed", "1"], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    print(done.stdout)  # noqa: T201 - the figures, for whoever asks with -s
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not reached as the twin counts: 0" in done.stdout
