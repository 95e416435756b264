"""When the push service is out of order for a whole stretch: it refuses all, or is not there."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from handbell.twin.threaded import RunningTwin

_ALL: Final = 1_000_000


@contextlib.contextmanager
def _each_meets(twin: RunningTwin, kind: str, **details: Any) -> Iterator[None]:
    fault = twin.add_fault(kind, count=_ALL, **details)
    try:
        yield
    finally:
        twin.remove_fault(fault.id)


OUTAGES: Final[dict[str, Callable[[RunningTwin], AbstractContextManager[None]]]] = {
    "5xx": lambda twin: _each_meets(twin, "answer", status=503, reason="ServiceUnavailable"),
    "5xx of a proxy": lambda twin: _each_meets(twin, "answer", status=502),
    "refused": lambda twin: twin.unreachable(),
    "silence": lambda twin: _each_meets(twin, "silence"),
}
"""Each kind of outage, and what makes it last as long as a block."""
