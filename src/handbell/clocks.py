"""Clocks: wall time for people, two monotonic clocks for intervals.

``time.time`` is wall time: expiry, due times, quiet hours. It is set occasionally, by hand or by a
time server, so durations are not measured by it. Within a process those use ``time.monotonic``, or
the event loop's clock; between processes of one machine :class:`MachineClock`.
"""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_TIME: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


@dataclass(frozen=True, slots=True)
class MachineClock:
    """Seconds since boot, the same for all processes of the machine, and the boot's id.

    It runs while the machine sleeps and is never set. Instants of another ``boot`` are not
    comparable: their intervals are over.
    """

    boot: str
    seconds: Callable[[], float]

    @classmethod
    def here(cls) -> "MachineClock":
        """Return the clock of this machine.

        If the system has no boot id, the host name replaces it. An instant of an earlier boot is
        then ahead of the clock for a while.
        """
        return cls(boot_id() or socket.gethostname(), seconds_since_boot)


def seconds_since_boot() -> float:
    """Return the seconds since boot, by a clock that cannot be set."""
    if _BOOT_TIME is None:
        return time.monotonic()
    return time.clock_gettime(_BOOT_TIME)


def boot_id() -> str:
    """Return the unique id of this boot; empty if the system has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
