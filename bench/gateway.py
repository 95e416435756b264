"""How the gateway's speed depends on its window: ``python -m bench.gateway``.

Each line is the median of three processes of their own, over two connections to one nginx
worker. h2load, which is written in C, shows what the sink can take.
"""

import re
import shutil
import statistics
import subprocess
import sys
from dataclasses import replace
from typing import Final

from .job import Job, Result
from .rig import Rig

PUSHES: Final = 100_000
WINDOWS: Final = (50, 100, 200, 300, 500)
ROUNDS: Final = 3


def main() -> None:
    """Measure and print one line for each window and event loop."""
    with Rig(tokens=PUSHES + 1000) as rig:
        job = rig.job("fast", PUSHES)
        print(f"h2load, 200 in flight  {_h2load(job):>9,.0f}/s")
        for loop in ("asyncio", "uvloop"):
            for window in WINDOWS:
                results = [_round(replace(job, loop=loop, in_flight=window)) for _ in range(ROUNDS)]
                print(f"{loop:<8}{window:>5} in flight {_line(results)}")


def _round(job: Job) -> Result:
    command = [sys.executable, "-m", "bench.ours", "gateway", job.text()]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Result.read(done.stdout)


def _line(results: list[Result]) -> str:
    rate = statistics.median(result.pushes / result.seconds for result in results)
    cost = statistics.median(result.cpu_seconds / result.pushes for result in results)
    return f"{rate:>10,.0f}/s {cost * 1e6:>6.1f} us of CPU"


def _h2load(job: Job) -> float:
    program = shutil.which("h2load")
    if program is None:
        return float("nan")
    # The key file stands for a body: it has the size of a payload.
    command = [program, "-n", str(job.count), "-c", "1", "-m", "200", "-d", job.key_file]
    address = f"{job.url}/3/device/{'0' * 64}"
    done = subprocess.run([*command, address], capture_output=True, text=True, check=True)
    found = re.search(r"([\d.]+) req/s", done.stdout)
    return float(found[1]) if found else float("nan")


if __name__ == "__main__":
    main()
