"""The ``handbell`` command on a machine whose wall clock is wrong.

Run as ``python -m bench.fleet.machine SECONDS ARGUMENTS``. The clock is set before anything of
Handbell is loaded, so it is wrong for every part of the process.
"""

import sys
import time


def _set_clock(seconds: float) -> None:
    right = time.time
    if seconds:
        time.time = lambda: right() + seconds


def main() -> None:
    """Set the clock, then run the command."""
    _set_clock(float(sys.argv.pop(1)))
    from handbell.cli import main as run  # noqa: PLC0415 - it must see the clock as it is set

    run()


if __name__ == "__main__":
    main()
