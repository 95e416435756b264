"""Reports of virtual phones: written to the ledger in batches by a thread."""

import logging
import threading
from collections import deque
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Final, NamedTuple

from handbell.delivery.ledger.receipts import Receipt, ReceiptKind

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
    report: Receipt
    tries: int


class DeviceReports:
    """Accepts reports without blocking, so that the twin never waits for a disk."""

    def __init__(self, system: "System") -> None:
        self._system = system
        self._new: deque[Receipt] = deque()
        self._early: list[_Early] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def add(self, apns_id: str, event: ReceiptKind) -> None:
        """Note that something happened on a phone just now."""
        self._add(Receipt.read(event=event, delivery_id=apns_id, at=self._milliseconds()))

    def add_of_session(self, notification_id: str, session_id: int, event: ReceiptKind) -> None:
        """Note what happened on a device that is told the notification's id alone."""
        at = self._milliseconds()
        read = Receipt.read(event=event, notification_id=notification_id, at=at)
        self._add(replace(read, number=session_id))

    def _milliseconds(self) -> int:
        return int(self._system.now() * 1000)

    def _add(self, report: Receipt) -> None:
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
            self._early += [
                _Early(monotonic() + _WAITS[one.tries], one.report, one.tries + 1)
                for one, is_written in zip(due, written, strict=True)
                if not is_written and one.tries < len(_WAITS) and self._may_follow(one.report)
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

    def _write(self, due: list[_Early]) -> list[bool]:
        try:
            return self._system.receipts.note([one.report for one in due])
        except StorageError as error:
            _log.warning("Could not record device reports now; retrying: %s", error)
        except Exception:  # noqa: BLE001 - what they say next is written
            _log.exception("Could not record device reports")
        return [False] * len(due)

    def _may_follow(self, report: Receipt) -> bool:
        try:
            return self._system.receipts.may_follow([report])
        except Exception:  # noqa: BLE001 - it is asked again
            return True
