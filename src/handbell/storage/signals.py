"""Signals between the users of one database: hints that something has changed.

The rows are the truth. A signal says that it is worth looking at them now; whoever hears none
looks from time to time anyway, so one that is lost costs a moment and nothing else.
"""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

MOST_NUMBERS: Final = 200
"""A signal with more numbers than this says to look at everything."""


class Kind(StrEnum):
    """What a signal is about, and what its numbers are."""

    WORK = "work"
    """Deliveries or shards are due now. No numbers."""

    REVOKED = "revoked"
    """Workers are to let go of sessions. The ids of the workers."""

    RELEASED = "released"
    """Workers have let go of sessions. The ids of the revocations."""

    ENDED = "ended"
    """Deliveries have ended, or wait for their time. The rows of their notifications."""

    RULES = "rules"
    """Apps, their rules, credentials or circuits, or API keys have changed. No numbers."""


class Signal(NamedTuple):
    """One hint. ``numbers`` are what the kind says; None means to look at everything."""

    kind: Kind
    numbers: frozenset[int] | None = None


EVERYTHING: Final = tuple(Signal(kind) for kind in Kind)
"""What is to be looked at by whoever may have missed signals."""

Hear = Callable[[Signal], None]
"""Takes a signal, in whatever thread: it must be quick and must not raise."""


class Signals(Protocol):
    """The signals of one database."""

    @property
    def is_prompt(self) -> bool:
        """Return whether signals of other processes arrive here now, within milliseconds.

        Whoever polls may do it seldom then. It may change at any time; each subscriber is told to
        look at everything when it does.
        """

    def subscribe(self, hear: Hear) -> Callable[[], None]:
        """Have ``hear`` called with every signal from now on; return what ends it."""

    def send(self, signals: Sequence[Signal]) -> None:
        """Send signals of a transaction that was committed. Raises nothing."""

    def check(self) -> bool:
        """Return whether signals that are sent through the database arrive; ask in a thread."""

    def close(self) -> None:
        """Hear nothing any more."""


class LocalSignals:
    """Signals within this process, for a database that can carry none between processes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: dict[object, Hear] = {}

    @property
    def is_prompt(self) -> bool:
        """Return False: what other processes do is not told here."""
        return False

    def subscribe(self, hear: Hear) -> Callable[[], None]:
        """See :class:`Signals`."""
        subscriber = object()
        with self._lock:
            self._subscribers[subscriber] = hear

        def leave() -> None:
            with self._lock:
                self._subscribers.pop(subscriber, None)

        return leave

    def send(self, signals: Sequence[Signal]) -> None:
        """Tell the subscribers."""
        self._tell(signals)

    def check(self) -> bool:
        """Return True: there is nothing on the way."""
        return True

    def close(self) -> None:
        """Forget the subscribers; also in a forked process, which has none of their threads."""
        self._lock = threading.Lock()
        self._subscribers = {}

    def _tell(self, signals: Sequence[Signal]) -> None:
        with self._lock:
            subscribers = list(self._subscribers.values())
        for hear in subscribers:
            for signal in signals:
                hear(signal)


class Outbox(threading.local):
    """The signals of the transaction that each thread is in."""

    def __init__(self) -> None:
        self._gathered: dict[Kind, set[int] | None] | None = None

    @contextmanager
    def opened(self) -> Iterator[Callable[[], list[Signal]]]:
        """Gather signals while the block runs; yield what returns them."""
        gathered: dict[Kind, set[int] | None] = {}
        self._gathered = gathered
        try:
            yield lambda: [_signal(kind, numbers) for kind, numbers in gathered.items()]
        finally:
            self._gathered = None

    def add(self, kind: Kind, numbers: Collection[int] | None) -> None:
        """Add a signal to the transaction of this thread; those of one kind become one."""
        if self._gathered is None:
            raise RuntimeError("A signal is sent with what was written, within its transaction")
        former = self._gathered.get(kind, set())
        is_all = numbers is None or former is None
        self._gathered[kind] = None if is_all else {*(former or ()), *(numbers or ())}


def _signal(kind: Kind, numbers: set[int] | None) -> Signal:
    if numbers is None or len(numbers) > MOST_NUMBERS:
        return Signal(kind)
    return Signal(kind, frozenset(numbers))


def write_signals(signals: Sequence[Signal]) -> str:
    """Return signals as one short text: ``work;ended 1 2``."""
    return ";".join(
        one.kind if one.numbers is None else " ".join([one.kind, *map(str, sorted(one.numbers))])
        for one in signals
    )


def read_signals(text: str) -> list[Signal]:
    """Return the signals of a text; a kind that is not known, of a newer version, is left out."""
    known = {kind.value: kind for kind in Kind}
    read: list[Signal] = []
    for part in text.split(";"):
        name, *numbers = part.split()
        if name in known:
            read.append(Signal(known[name], frozenset(map(int, numbers)) if numbers else None))
    return read
