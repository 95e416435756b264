"""What goes wrong for a moment: pushes, connections, locks, disks, clocks."""

import contextlib
import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final

from .figures import Figures
from .home import Home
from .senders import Sender

_LONGEST_JUMP: Final = 40 * 60


class Faults:
    """Things that go wrong, each at its call; ``pause`` lets the senders go on for so long."""

    def __init__(
        self,
        home: Home,
        senders: Sequence[Sender],
        figures: Figures,
        *,
        rng: random.Random,
        pause: Callable[[float], None],
    ) -> None:
        self._home = home
        self._senders = senders
        self._figures = figures
        self._rng = rng
        self._pause = pause

    def strike(self) -> None:
        """Let the twin misbehave a few times."""
        for _ in range(self._rng.randint(1, 3)):
            kind, details = self._rng.choice(self._possible())
            self._home.twin.add_fault(kind, **details)
            self._figures.faults[str(details.get("reason", kind))] += 1

    def _possible(self) -> list[tuple[str, dict[str, Any]]]:
        rng = self._rng
        is_heads = rng.random() < 0.5  # noqa: PLR2004
        return [
            ("cut", {"count": rng.randint(1, 2)}),
            ("goaway", {"graceful": is_heads}),
            ("refuse-stream", {"count": rng.randint(1, 60)}),
            ("slow", {"count": rng.randint(1, 100), "seconds": 0.3}),
            ("silence", {"count": 2, "delivers": is_heads}),
            ("reset", {"count": 10, "delivers": is_heads}),
            ("answer", {"count": rng.randint(1, 60), "reason": "TooManyRequests"}),
            ("answer", {"count": rng.randint(1, 200), "reason": "ServiceUnavailable"}),
            ("answer", {"count": rng.randint(1, 20), "reason": "InternalServerError"}),
            ("answer", {"count": rng.randint(1, 20), "reason": "Shutdown"}),
            ("answer", {"count": 2, "reason": "ExpiredProviderToken"}),
            ("stream-limit", {"limit": rng.randint(20, 200)}),
            ("answer", {"count": rng.randint(1, 30), "reason": "UNAVAILABLE", "side": "fcm"}),
            ("answer", {"count": rng.randint(1, 9), "reason": "QUOTA_EXCEEDED", "side": "fcm"}),
            ("answer", {"count": 2, "reason": "UNAUTHENTICATED", "side": "fcm"}),
            ("answer", {"count": rng.randint(1, 30), "status": 503, "side": "webpush"}),
            ("answer", {"count": rng.randint(1, 9), "status": 429, "side": "webpush"}),
        ]

    def lock(self) -> None:
        """Keep the database to oneself for a while."""
        self._figures.locks += 1
        with contextlib.closing(sqlite3.connect(self._home.database, timeout=10)) as raw:
            raw.isolation_level = None
            raw.execute("BEGIN EXCLUSIVE")
            self._pause(self._rng.uniform(0.2, 2.0))
            raw.execute("ROLLBACK")

    def no_writes(self) -> None:
        """Let every write of a process fail for a while, where the system can do that."""
        import resource  # noqa: PLC0415 - not on every system

        sender = self._rng.choice(self._senders)
        if not hasattr(resource, "prlimit") or not sender.pid:
            return
        self._figures.failed_writes += 1
        with contextlib.suppress(ProcessLookupError):
            _, most = resource.prlimit(sender.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (0, most))
            self._pause(self._rng.uniform(0.2, 1.5))
            resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (most, most))

    def set_clock(self) -> None:
        """Set the wall's clock of all senders forward or back; the twin's stays right."""
        clock = self._home.clock
        clock.set(self._rng.uniform(-_LONGEST_JUMP, _LONGEST_JUMP) - clock.wrong)
        self._figures.clock_jumps += 1
        for sender in self._senders:
            sender.say(wrong=clock.wrong)
