"""Circuits: when sending stops and when it resumes. Pure: clock and randomness are passed in.

Two failures affect all pushes at once. An app's *configuration* is refused: its key, its topic, or
all of its tokens (:class:`ConfigurationCircuit`, for one app, environment, credential and topic).
Or the push *service* accepts nothing (:class:`ServiceCircuit`, for one environment and
credential). Each stops only what it covers; while it is open, one probe at a time is let through.

Instants are UNIX seconds, except ``heard_at`` and ``sent_at``, which are the event loop's.
docs/decisions/0014-two-circuits.md has the why.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, NamedTuple

from handbell._back_off import BackOff
from handbell.registry.session import Environment
from handbell.services.table import service_of

from .retry import MENDED_BY_HAND, SERVICE_PROBE, no_sooner, probe_at

SEVERAL_PERSONS: Final = 5
"""The number of persons whose tokens must be refused before the configuration is suspected."""

FEWEST_TOKENS: Final = 3
"""The number of tokens that must fail before the service counts as down."""

NEARLY_ALL: Final = 9
"""The ratio of failed to accepted pushes that counts as an outage."""

DOUBT_SECONDS: Final = 0.5
"""How long failures wait for good answers before they are judged, while answers are pending."""

LONGEST_ASKED_SECONDS: Final = 15 * 60.0
"""The longest ``Retry-After`` of a service that delays the next probe."""

FIRST_SENT: Final = 20
"""How many pushes go out at once after an outage; each accepted one adds two more."""

RAMP_SECONDS: Final = 10.0
"""The longest ramp-up after an outage, in seconds."""

_RAMP_ENDS: Final = 2000
_WINDOW: Final = 100
_HALF_LIFE_SECONDS: Final = 5.0
_SOON_AGAIN_SECONDS: Final = 60.0


class CircuitScope(NamedTuple):
    """The scope of a circuit. That of a service has neither app nor topic.

    ``credential`` is a fingerprint. ``topic`` is what the push service judges by beside it:
    Apple's topic, Google's project, the origin of a browser's push server.
    """

    app: str
    environment: Environment
    credential: str
    topic: str = ""
    service: str = "apns"

    @property
    def is_service(self) -> bool:
        """Return whether it is the circuit of a push service, reached with one credential."""
        return not self.app

    @property
    def shared(self) -> "CircuitScope":
        """The circuit of the service that the pushes go through, common to all apps."""
        # Where addresses name their server, one that is down says nothing about the others.
        topic = self.topic if service_of(self.service).origin_of is not None else ""
        return CircuitScope("", self.environment, self.credential, topic, self.service)


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStop:
    """An open circuit: why sending stopped, and when the next probe is sent (UNIX seconds).

    ``service``, ``environment`` and ``topic`` say what is stopped; an outage has a topic only where
    addresses name their server.
    """

    reason: str
    detail: str
    since: float
    probe_at: float
    probes: int = 0
    environment: Environment | None = None
    topic: str = ""
    service: str = "apns"


class StoredCircuit(NamedTuple):
    """The stored state of a circuit, for all processes and the next start.

    ``accepted_at`` is when the service first accepted a push here (UNIX seconds).
    """

    place: CircuitScope
    accepted_at: float | None = None
    stop: CircuitStop | None = None


@dataclass(slots=True)
class Circuit:
    """Base of both circuits: closed, or open with a ``stop``.

    ``probe`` is the permission to send one push through it, while it is taken. A clock that is set
    back delays a probe by the longest delay at most.
    """

    place: CircuitScope
    stop: CircuitStop | None = None
    probe: object | None = None

    @property
    def row(self) -> BackOff:
        """The delays between probes."""
        raise NotImplementedError

    @property
    def longest(self) -> float:
        """Return the longest delay to a probe, in seconds."""
        raise NotImplementedError

    def may_probe(self, now: float) -> bool:
        """Return whether the open circuit lets a probe through now."""
        return self.stop is not None and self.probe is None and self.wait(now) <= 0

    def wait(self, now: float) -> float:
        """Return the seconds until the next probe; 0 where the circuit is closed."""
        if self.stop is None:
            return 0.0
        wait = self.stop.probe_at - now
        return wait if wait <= self.longest else 0.0

    def adopt(self, stop: CircuitStop | None, now: float) -> bool:  # noqa: ARG002 - a service's needs it
        """Adopt the stored state of this circuit, unless it is just being probed.

        Return whether that closes it.
        """
        if self.probe is not None:
            return False
        is_closed = self.stop is not None and stop is None
        self.stop = stop
        return is_closed

    def move(self, jump: float) -> None:
        """Move the next probe by the seconds by which the wall clock was set."""
        if self.stop is not None:
            self.stop = replace(self.stop, probe_at=self.stop.probe_at + jump)

    def put_off(self, now: float, rng: Random) -> bool:
        """Note an inconclusive probe and delay the next; return whether one was out."""
        if self.stop is None or self.probe is None:
            return False
        self._set(self.stop.reason, self.stop.detail, now, rng)
        return True

    def _set(
        self,
        reason: str,
        detail: str,
        now: float,
        rng: Random,
        *,
        probes: int = 0,
        after: float = 0,
    ) -> None:
        """Open, or stay open after a probe."""
        former = self.stop
        probes = probes if former is None else former.probes + 1
        at = probe_at(self.row, probes=probes, now=now, rng=rng)
        self.stop = CircuitStop(
            reason=reason,
            detail=detail,
            since=now if former is None else former.since,
            probe_at=max(at, now + min(after, LONGEST_ASKED_SECONDS)),
            probes=probes,
            environment=self.place.environment,
            topic=self.place.topic,
            service=self.place.service,
        )
        self.probe = None


class TokenRefusal(NamedTuple):
    """A token that was refused in every environment that could be tried.

    ``person`` is the user's number; None stands for the app's own back end, for a token without a
    session. ``was_accepted`` says that the service accepted an earlier push to it; ``sent_at`` is
    when the refused push was sent.
    """

    person: int | None
    reason: str
    was_accepted: bool
    sent_at: float
    detail: str = ""


class CircuitRecovery(NamedTuple):
    """What an accepted push means: whether it was the first, and whether it closed the circuit."""

    is_first: bool
    has_closed: bool


@dataclass(slots=True)
class ConfigurationCircuit(Circuit):
    """Whether the push service accepts an app's key and topic in one environment.

    It opens at once when the key, the topic or the certificate is refused; and when the tokens of
    :data:`SEVERAL_PERSONS` were refused, each person counted once, and nothing was accepted in
    between. Once a push was accepted with this credential (``is_established``), only refusals of
    tokens that were accepted before count. An accepted push closes it.

    A refusal condemns its token only when the configuration is known to be right: a push was
    accepted since the refused one went out; or the app is established, and neither a token that
    was accepted before nor those of several persons are in doubt. A later acceptance proves
    nothing about an earlier refusal: the configuration may have been fixed in between.
    """

    is_established: bool = False
    heard_at: float = -math.inf
    doubters: set[int | None] = field(default_factory=set)
    strangers: set[int | None] = field(default_factory=set)

    @property
    def row(self) -> BackOff:
        """The delays between probes."""
        return MENDED_BY_HAND

    @property
    def longest(self) -> float:
        """Return the longest delay to a probe, in seconds."""
        return 1.25 * MENDED_BY_HAND.longest

    def note_accepted(self, heard_at: float) -> CircuitRecovery:
        """Note that a push was accepted."""
        noted = CircuitRecovery(not self.is_established, self.stop is not None)
        self.heard_at, self.is_established = heard_at, True
        self.stop = self.probe = None
        self._forget_doubts()
        return noted

    def refuse(self, reason: str, detail: str, now: float, rng: Random, *, is_probe: bool) -> bool:
        """Note that the configuration was refused; return whether that opens it or keeps it open.

        Pushes in flight when it opened change nothing.
        """
        if self.stop is not None and not is_probe:
            return False
        self._set(reason, detail, now, rng)
        self._forget_doubts()
        return True

    def judge(self, refusals: Sequence[TokenRefusal], now: float, rng: Random) -> list[bool]:
        """Return for each refused token whether it is at fault.

        Call it once no more answers are expected, and check ``stop`` afterwards.
        """
        for refusal in refusals:
            if not self._is_confirmed(refusal):
                speaks = refusal.was_accepted or not self.is_established
                (self.doubters if speaks else self.strangers).add(refusal.person)
        if self.stop is None and len(self.doubters) >= SEVERAL_PERSONS:
            self._set(refusals[-1].reason, refusals[-1].detail, now, rng)
            self._forget_doubts()
        if self.stop is not None:
            return [False] * len(refusals)
        return [self._is_guilty(item) for item in refusals]

    def _is_confirmed(self, refusal: TokenRefusal) -> bool:
        return self.heard_at >= refusal.sent_at

    def _is_guilty(self, refusal: TokenRefusal) -> bool:
        if self._is_confirmed(refusal):
            return True
        in_doubt = bool(self.doubters) or len(self.strangers) >= SEVERAL_PERSONS
        return self.is_established and not refusal.was_accepted and not in_doubt

    def _forget_doubts(self) -> None:
        if self.doubters or self.strangers:
            self.doubters, self.strangers = set(), set()


class ServiceFailure(NamedTuple):
    """A push that the service failed to accept: a server error, no connection, or no answer.

    ``is_certain`` means that no connection could be made, which no single push can cause;
    ``after`` is the ``Retry-After`` of the service in seconds.
    """

    address: str
    reason: str
    detail: str = ""
    is_certain: bool = False
    after: float = 0.0


@dataclass(slots=True)
class ServiceCircuit(Circuit):
    """Whether a push service accepts pushes with one credential.

    It opens when nearly every answer is trouble: nine times as many as recent good answers, for at
    least three tokens, or when no connection can be made. A complete answer that is no server
    error closes it. Waiting pushes then resume on a ramp: first :data:`FIRST_SENT` pushes, and two
    more for each accepted one.
    """

    taken: float = 0.0
    troubled: float = 0.0
    seen_at: float = -math.inf
    struck: set[str] = field(default_factory=set)
    is_certain: bool = False
    ended_at: float = -math.inf
    former_probes: int = 0
    credit: int | None = None
    granted: int = 0

    @property
    def row(self) -> BackOff:
        """The delays between probes."""
        return no_sooner(SERVICE_PROBE, service_of(self.place.service))

    @property
    def longest(self) -> float:
        """Return the longest delay to a probe, in seconds."""
        return LONGEST_ASKED_SECONDS

    @property
    def is_well(self) -> bool:
        """Return whether recent good answers outweigh the trouble."""
        return self.stop is None and self.taken > self.troubled

    def note_taken(self, count: int, now: float) -> bool:
        """Note complete answers that are no server error; return whether that ends an outage."""
        has_ended = self.stop is not None
        if has_ended:
            self._come_back(now)
        self._age(now)
        self.taken = min(self.taken + count, float(_WINDOW))
        self.struck.clear()
        self.is_certain = False
        if self.credit is not None:
            self.credit += 2 * count
        return has_ended

    def note_trouble(self, trouble: ServiceFailure, now: float) -> None:
        """Note trouble; :meth:`judge` returns what follows from it."""
        self._age(now)
        self.troubled += 1
        if len(self.struck) < FEWEST_TOKENS:
            self.struck.add(trouble.address)
        self.is_certain = self.is_certain or trouble.is_certain
        if self.credit is not None:
            self.credit += 1

    def judge(
        self,
        trouble: ServiceFailure,
        now: float,
        rng: Random,
        *,
        is_heard_out: bool,
        is_probe: bool = False,
    ) -> bool:
        """Return whether failures open the circuit, or keep it open after a probe.

        ``is_heard_out`` means that no more answers are expected.
        """
        if self.stop is not None:
            if is_probe:
                self._set(trouble.reason, trouble.detail, now, rng, after=trouble.after)
            return is_probe
        is_enough = self.is_certain or (is_heard_out and len(self.struck) >= FEWEST_TOKENS)
        if not is_enough or self.troubled < NEARLY_ALL * self.taken:
            return False
        is_back = 0 <= now - self.ended_at < _SOON_AGAIN_SECONDS
        probes = self.former_probes + 1 if is_back else 0
        self._set(trouble.reason, trouble.detail, now, rng, probes=probes, after=trouble.after)
        self.credit = None
        return True

    def move(self, jump: float) -> None:
        """Move the next probe and the times of answers by the clock's jump in seconds."""
        Circuit.move(self, jump)
        self.seen_at += jump
        self.ended_at += jump

    def adopt(self, stop: CircuitStop | None, now: float) -> bool:
        """Adopt the stored state; start the ramp-up if another process ended the outage.

        An outage that was not probed for a long time and never seen by this process is dropped.
        """
        former = self.stop
        if stop is not None and former is None and now - stop.probe_at > self.longest:
            stop = None
        is_closed = Circuit.adopt(self, stop, now)
        if is_closed:
            self.stop = former
            self._come_back(now)
        return is_closed

    def grant(self, wanted: int, now: float) -> int:
        """Return how many of ``wanted`` pushes may go now; fewer only during the ramp-up."""
        if self.credit is None:
            return wanted
        if self.granted >= _RAMP_ENDS or not 0 <= now - self.ended_at <= RAMP_SECONDS:
            self.credit = None
            return wanted
        most = min(wanted, self.credit)
        self.credit -= most
        self.granted += most
        return most

    def _come_back(self, now: float) -> None:
        self.former_probes = 0 if self.stop is None else self.stop.probes
        self.stop = self.probe = None
        self.taken = self.troubled = 0.0
        self.struck.clear()
        self.is_certain = False
        self.ended_at, self.credit, self.granted = now, FIRST_SENT, 0

    def _age(self, now: float) -> None:
        passed, self.seen_at = max(0.0, now - self.seen_at), now
        share = 0.5 ** min(passed / _HALF_LIFE_SECONDS, 64.0)
        if self.taken + self.troubled > _WINDOW:
            share /= 2
        self.taken *= share
        self.troubled *= share
