"""Which clock measures what: the wall's is for people, two that are never set are for intervals.

``time.time`` says what people mean by time: expiry, due times, quiet hours. It is set now and then,
by hand or by a time server, so nothing that is to last a while is measured by it. Within a process
that is ``time.monotonic``, or the event loop's clock; between the processes of one machine it is
:class:`MachineClock`.
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
    """Seconds since this machine started, the same for all its processes, and which start it was.

    It goes on while the machine sleeps and is never set. Instants of another ``boot`` say nothing
    here: whatever they measured is over.
    """

    boot: str
    seconds: Callable[[], float]

    @classmethod
    def here(cls) -> "MachineClock":
        """Return the clock of this machine.

        Where the system gives a start no name, the host's name stands for it. An instant of an
        earlier start then lies ahead of the clock, until that has come as far.
        """
        return cls(boot_id() or socket.gethostname(), seconds_since_boot)


def seconds_since_boot() -> float:
    """Return the seconds since the machine started, by a clock that nobody can set."""
    if _BOOT_TIME is None:
        return time.monotonic()
    return time.clock_gettime(_BOOT_TIME)


def boot_id() -> str:
    """Return what names this start of the machine and no other; empty where nothing does."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
