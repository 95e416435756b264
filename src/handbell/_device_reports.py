"""Reports of virtual phones: written to the ledger in batches by a thread."""

import logging
import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from handbell.delivery.ledger.device_reports import DeviceReport
from handbell.delivery.ledger.receipts import ReceiptKind

from .errors import StorageError

if TYPE_CHECKING:
    from .system import System

_WAITS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""How long a report waits for its delivery to be written, in seconds."""
_AT_ONCE: Final = 500

_log = logging.getLogger(__name__)


class _Early(NamedTuple):
    """A report that arrived before its delivery was written; ``due`` is monotonic."""

    due: float
    report: DeviceReport
    tries: int


class DeviceReports:
    """Accepts reports without blocking, so that the twin never waits for a disk."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._new: deque[DeviceReport] = deque()
        self._early: list[_Early] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def add(self, apns_id: str, event: ReceiptKind) -> None:
        """Add a phone's report of now."""
        report = DeviceReport(apns_id, event, int(self._system.now() * 1000))
        with self._changed:
            self._new.append(report)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="handbell-reports")
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Return when every report is written or has waited in vain for its delivery."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while due := self._next():
            written = self._write(due)
            missing = [item for item in due if item.report.apns_id not in written]
            self._early += [
                _Early(monotonic() + _WAITS[item.tries], item.report, item.tries + 1)
                for item in missing
                if item.tries < len(_WAITS) and self._may_follow(item.report)
            ]

    def _next(self) -> list[_Early]:
        """Return the next batch, as soon as there is one; empty at the end."""
        with self._changed:
            while True:
                now = monotonic()
                ready = [item for item in self._early if item.due <= now]
                due = ready[:_AT_ONCE]
                while self._new and len(due) < _AT_ONCE:
                    due.append(_Early(now, self._new.popleft(), 0))
                if due:
                    later = [item for item in self._early if item.due > now]
                    self._early = ready[_AT_ONCE:] + later
                    return due
                if self._is_closed and not self._early:
                    return []
                first = min((item.due for item in self._early), default=None)
                self._changed.wait(None if first is None else first - now)

    def _write(self, due: list[_Early]) -> set[str]:
        try:
            return self._system.ledger.note_reports([item.report for item in due])
        except StorageError as error:
            _log.warning("Could not record device reports now; retrying: %s", error)
            return set()
        except Exception:  # noqa: BLE001 - what they say next is written
            _log.exception("Could not record device reports")
            return set()

    def _may_follow(self, report: DeviceReport) -> bool:
        try:
            return self._system.ledger.knows(report.apns_id)
        except Exception:  # noqa: BLE001 - it is asked again
            return True
