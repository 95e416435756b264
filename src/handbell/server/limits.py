"""Rate limits per caller, which all servers on a database share."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from handbell.errors import RateLimitedError
from handbell.storage.shared_buckets import Ask, Given

MOST_CALLERS: Final = 100_000
"""How many callers a server remembers; beyond that the oldest are forgotten."""

_REFUSED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """``number`` at once, and as many again, evenly, in each ``seconds``.

    A server takes ``step`` of them at a time: with 1 the limit is exact, with more each further
    server may grant as many beyond it, and the database is asked so much less often.
    """

    number: int
    seconds: float
    step: int = 1


class Buckets(Protocol):
    """The buckets that all servers share."""

    def take(self, asks: Sequence[Ask]) -> list[Given]:
        """Return what each is given; each bucket is named once."""

    def forget(self, names: Iterable[str]) -> None:
        """Fill buckets."""


@dataclass(slots=True)
class _Caller:
    """What a server has for a caller, or until when the caller is refused and not asked about."""

    left: int = 0
    free_at: float = 0.0
    ask_at: float = 0.0


class Limiter:
    """Limits of what one caller may do for a purpose. Its methods block, in whatever thread.

    ``buckets`` gives those that all servers share; they hold no address, only digests. Who is
    refused is refused for a second without a further question, so that a flood costs the database
    nothing. ``clock`` returns seconds and never goes back.
    """

    def __init__(
        self,
        buckets: Callable[[], Buckets],
        *,
        clock: Callable[[], float] = time.monotonic,
        most: int = MOST_CALLERS,
    ) -> None:
        self._buckets = buckets
        self._clock = clock
        self._most = most
        self._lock = threading.Lock()
        self._callers: dict[str, _Caller] = {}

    @property
    def size(self) -> int:
        """Return the number of callers that are remembered."""
        return len(self._callers)

    def take(self, purpose: str, caller: str, limit: Limit) -> float:
        """Count a call and return 0; or count nothing and return the seconds to wait."""
        name, now = _name(purpose, caller), self._clock()
        with self._lock:
            known = self._callers.get(name, _Caller())
            if known.left:
                known.left -= 1
                return 0.0
            if now < min(known.ask_at, known.free_at):
                return known.free_at - now
        (given,) = self._buckets().take([_ask(name, limit, wanted=limit.step)])
        with self._lock:
            known = self._callers.setdefault(name, _Caller())
            known.left += max(0, given.granted - 1)
            known.free_at = now + given.wait_seconds
            known.ask_at = now + _REFUSED_SECONDS
            if len(self._callers) > self._most:
                self._forget_oldest()
        return given.wait_seconds

    def require(self, purpose: str, caller: str, limit: Limit) -> None:
        """Count a call. Raises RateLimitedError with the time to wait."""
        wait = self.take(purpose, caller, limit)
        if wait > 0:
            raise RateLimitedError(
                "Rate limit exceeded",
                fix=f"Wait {max(1, round(wait))} s, then try again",
                retry_after=wait,
            )

    def give_back(self, purpose: str, caller: str, limit: Limit) -> None:
        """Count a call no more."""
        name = _name(purpose, caller)
        self._buckets().take([_ask(name, limit, back=1)])
        self._drop(name)

    def forget(self, purpose: str, caller: str) -> None:
        """Count no call so far, as after a successful sign-in."""
        name = _name(purpose, caller)
        self._buckets().forget([name])
        self._drop(name)

    def _drop(self, name: str) -> None:
        with self._lock:
            self._callers.pop(name, None)

    def _forget_oldest(self) -> None:
        for name in list(self._callers)[: self._most // 2]:
            del self._callers[name]


def _name(purpose: str, caller: str) -> str:
    return f"{purpose} {hashlib.sha256(caller.encode()).hexdigest()}"


def _ask(name: str, limit: Limit, *, wanted: int = 0, back: int = 0) -> Ask:
    return Ask(
        name=name,
        size=float(limit.number),
        rate=limit.number / limit.seconds,
        wanted=wanted,
        back=back,
    )
