"""One app's way out: whether it may send now, and what its answers say of its configuration."""

import math
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from handbell.apps.app import App

from .caps import Underway
from .in_flight import Load
from .outcome import Decision, Doubt
from .probe import Probe
from .retry import next_probe
from .rules import AppRules, Stop
from .timing import Bucket, take

FEWEST_ANSWERS: Final = 10
"""Below this many answers, refused tokens say nothing about the configuration."""

FIRST_BATCH: Final = 50
"""How many are sent before the first answers are looked at, so that a wrong key stops early."""

_WINDOW: Final = 400
_PROBING_SECONDS: Final = 3.0


@dataclass(slots=True)
class Lane:
    """What a worker knows of one app while it sends for it; ``load`` is what it has on its way.

    ``underway`` is what counts under the app's cap and is not written down yet; both follow from
    the tickets (:mod:`~handbell.delivery.in_flight`). ``read_at``, when the rules were read, and
    the bucket of the rate go by a clock that nobody sets, the circuit by the wall's. ``probe`` is
    the permission to probe the open circuit, while somebody has it.

    The circuit opens at once when the push service refuses the key, the topic or the certificate,
    and when more than half of at least ten answers refused the token. While it is open no token is
    judged; from time to time one push is let through, and when that is accepted it closes.
    """

    app: App
    rules: AppRules = field(default_factory=AppRules)
    read_at: float = -math.inf
    load: Load = field(default_factory=Load)
    accepted: int = 0
    refused: int = 0
    is_proven: bool = False
    probe: Probe | None = None
    bucket: Bucket | None = None
    underway: Underway = field(default_factory=Underway)

    @property
    def stop(self) -> Stop | None:
        """Why nothing is sent for the app now, or None."""
        return self.rules.stop

    @property
    def is_trusted(self) -> bool:
        """Whether the answers so far speak for the configuration, so that a token may be judged."""
        return self.stop is None and self.accepted > self.refused

    @property
    def awaits_proof(self) -> bool:
        """Whether the first answers are still out: a wrong key is to cost few refusals."""
        return self.load.handed > 0 and not (self.is_proven or self.stop)

    @property
    def is_probing(self) -> bool:
        """Whether somebody has the permission to probe the open circuit."""
        return self.probe is not None

    def resume_at(self, now: float) -> float:
        """Return when a lane that may not send now is to be looked at again (UNIX seconds)."""
        soon = now + _PROBING_SECONDS
        return soon if self.stop is None else max(self.stop.probe_at, soon)

    def take_rules(self, rules: AppRules, instant: float) -> None:
        """Take the rules as they stand in the database at an instant, by the steady clock.

        The circuit of an app that is not registered is known nowhere else, and stays as it is. So
        does one that is being probed, unless it was closed by hand.
        """
        if not rules.is_registered or (self.is_probing and rules.stop is not None):
            rules = replace(rules, stop=self.stop)
        if rules.rate is None:
            self.bucket = None
        elif self.bucket is None or self.bucket.limit != rules.rate:
            self.bucket = rules.rate.full(instant)
        self.rules, self.read_at = rules, instant
        if self.stop is None:
            self.probe = None

    def move(self, jump: float) -> None:
        """Move the next probe by as many seconds as the wall's clock was set."""
        if self.stop is not None:
            stop = replace(self.stop, probe_at=self.stop.probe_at + jump)
            self.rules = replace(self.rules, stop=stop)

    def acquire(self, now: float) -> Probe | None:
        """Return the permission to send one push while the circuit is open.

        None while it is closed, while it is not time to probe, and while somebody else has the
        permission. It is given back by :meth:`~handbell.delivery.probe.Probe.release`.
        """
        if self.stop is None or now < self.stop.probe_at or self.is_probing:
            return None
        self.probe = Probe(self)
        return self.probe

    def take_back(self, probe: Probe) -> None:
        """Let the next one probe who asks; see :class:`~handbell.delivery.probe.Circuit`."""
        # One that the circuit outlived is another's permission by now.
        if self.probe is probe:
            self.probe = None

    def grant(self, wanted: int, instant: float) -> tuple[int, float]:
        """Return how many of so many pushes may go, and the wait for more in seconds.

        The ``instant`` is by the steady clock.
        """
        if self.bucket is None:
            return wanted, 0.0
        granted, self.bucket, wait = take(self.bucket, wanted, instant)
        return granted, wait

    def note_accepted(self, count: int) -> bool:
        """Count accepted pushes; say whether that closes the circuit."""
        self.accepted += count
        self.is_proven = True
        self._forget()
        if self.stop is None:
            return False
        self._set_stop(None)
        self.accepted, self.refused = count, 0
        return True

    def note(self, decision: Decision, now: float, rng: Random) -> bool:
        """Count a decision; say whether the circuit has opened, or stays open after a probe."""
        if decision.environment is not None:
            return False
        if decision.doubt is Doubt.CONFIGURATION:
            return self._open(decision, now, rng)
        if decision.doubt is Doubt.TOKEN:
            self.refused += 1
            self._forget()
            answers = self.accepted + self.refused
            if self.is_probing or (answers >= FEWEST_ANSWERS and 2 * self.refused > answers):
                return self._open(decision, now, rng)
        return False

    def note_unclear(self, now: float, rng: Random) -> bool:
        """Note that a probe, if one is out, came to no clear end: the next one is later."""
        if not self.is_probing or self.stop is None:
            return False
        self._set_stop(self._next(self.stop.reason, self.stop.detail, now, rng))
        return True

    def _open(self, decision: Decision, now: float, rng: Random) -> bool:
        if self.stop is not None and not self.is_probing:
            return False
        reason, detail = decision.reason or "", decision.detail
        self._set_stop(self._next(reason, detail, now, rng))
        self.is_proven = False
        return True

    def _next(self, reason: str, detail: str, now: float, rng: Random) -> Stop:
        former = self.stop
        probes = 0 if former is None else former.probes + 1
        return Stop(
            reason=reason,
            detail=detail,
            since=now if former is None else former.since,
            probe_at=next_probe(probes=probes, now=now, rng=rng),
            probes=probes,
        )

    def _set_stop(self, stop: Stop | None) -> None:
        self.rules = replace(self.rules, stop=stop)
        self.probe = None

    def _forget(self) -> None:
        # Only the last answers count: a configuration that breaks after a million must still show.
        if self.accepted + self.refused > _WINDOW:
            self.accepted //= 2
            self.refused //= 2
