"""What the clients of all push services have in common: batches, pushes in progress, and hosts.

A :class:`PushClient` takes batches of pushes and groups them by :class:`Side`: a host with its
connection pool. A client of a service writes how a push becomes a request and what an answer
means; this module reports each push once, withdraws, drops, counts and closes.

On the hot path nothing of this is called more than once per push: a side's ``_prepare`` and
``_finish`` are the pool's own calls.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypedDict

from handbell._retry_after import instant
from handbell.clocks import seconds_since_boot
from handbell.errors import GatewayError
from handbell.services.reactions import Reaction

from .gateway import Push, Report
from .http2 import End, Endpoint, Limits, NotSent, Pool, Request, StreamResponse
from .outcomes import Outcome, RetryLater, Unknown, Withdrawn

SKEW_SAMPLE: Final = 1000
"""The clock is compared by one in so many answers."""


class Batch:
    """A call of :meth:`PushClient.send`: its report function, and how many pushes are out.

    ``began_at`` is when it began, in UNIX seconds.
    """

    __slots__ = ("began_at", "done", "error", "is_dropped", "left", "report")

    def __init__(
        self, size: int, report: Report, done: asyncio.Future[None], began_at: float
    ) -> None:
        self.began_at = began_at
        self.left = size
        self.report = report
        self.done = done
        self.error: Exception | None = None
        self.is_dropped = False

    def tell(self, push: Push, outcome: Outcome) -> None:
        """Report the outcome of a push; an error of the report function is kept for the caller."""
        try:
            self.report(push, outcome)
        except Exception as error:  # noqa: BLE001  the caller's fault is raised to the caller
            self.error = self.error or error
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class Job:
    """A push in progress.

    ``generation`` is that of the connections, or of the token, that it was last sent with;
    ``is_second`` means that it is sent for the second time, after something was put right.
    """

    __slots__ = ("batch", "generation", "is_second", "is_withdrawn", "push")

    def __init__(self, push: Push, batch: Batch) -> None:
        self.push = push
        self.batch = batch
        self.generation = 0
        self.is_second = False
        self.is_withdrawn = False

    def drop(self) -> None:
        """End a push that is not to be sent any more: withdrawn, or its caller is gone."""
        if not self.batch.is_dropped:
            self.batch.tell(self.push, Withdrawn())


class Side(ABC):
    """A host of a push service: its connection pool, and the pushes on their way to it."""

    def __init__(self, endpoint: Endpoint, limits: Limits, *, wants_headers: bool) -> None:
        self.pool: Pool[Job] = Pool(
            endpoint,
            limits,
            prepare=self._prepare,
            finish=self._finish,
            wants_headers=wants_headers,
        )
        self._until_sample = 0  # answers whose headers are read before the clock is compared

    @abstractmethod
    def _prepare(self, job: Job) -> Request | None:
        """Return the request of a push as it goes on the wire.

        None for one that does not: where it was withdrawn or its caller is gone, :meth:`Job.drop`
        ends it.
        """

    @abstractmethod
    def _finish(self, job: Job, end: End) -> None:
        """Report what became of a push; an end that is no answer is for :meth:`_unanswered`."""

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue pushes for sending."""
        self.pool.submit(jobs)

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Report pushes that are not on the wire as withdrawn, and retry none of the others."""
        waiting, on_wire = self.pool.withdraw(lambda job: is_meant(job.push))
        for job in on_wire:
            job.is_withdrawn = True
        for job in waiting:
            job.batch.tell(job.push, Withdrawn())

    async def close(self, *, within: float | None = None) -> None:
        """Finish what was submitted, then close the connections; see :meth:`Pool.close`."""
        await self.pool.close(within=within)

    def _unanswered(self, job: Job, end: End) -> None:
        """Report a push that got no answer."""
        job.batch.tell(job.push, without_answer(end))


def without_answer(end: End) -> RetryLater | Unknown:
    """Return the outcome of a request that ended without an answer."""
    if isinstance(end, NotSent):
        return RetryLater(end.reason, Reaction.RECONNECT, end.after, detail=end.detail)
    if isinstance(end, StreamResponse):
        raise TypeError("an answer came")
    return Unknown(end.reason, end.detail)


class ClientOptions(TypedDict, total=False):
    """What every client takes: the most connections of a host, the most pushes in flight on each.

    Time-outs are in seconds. ``now`` gives UNIX seconds, ``seconds`` those of a monotonic clock.
    """

    connections: int
    in_flight: int
    connect_timeout: float
    request_timeout: float
    now: Callable[[], float]
    seconds: Callable[[], float]


class PushClient(ABC):
    """A push service, reached with one credential; the base of what implements :class:`Gateway`.

    ``fingerprint`` is the credential's. ``clock_skew`` is how many seconds this machine's clock is
    ahead of the service's (negative: behind), or None before the first answer; it is compared
    occasionally. ``healed`` counts pushes sent a second time after a token or a connection was
    replaced. The options are those of :class:`ClientOptions`.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        connections: int = 2,
        in_flight: int = 1000,
        connect_timeout: float = 10.0,
        request_timeout: float = 30.0,
        now: Callable[[], float] = time.time,
        seconds: Callable[[], float] = seconds_since_boot,
    ) -> None:
        self.fingerprint = fingerprint
        self.clock_skew: float | None = None
        self.healed = 0
        self._limits = Limits(
            connections=connections,
            in_flight=in_flight,
            connect_timeout=connect_timeout,
            request_timeout=request_timeout,
        )
        self.now = now
        self._seconds = seconds
        self._is_closed = False
        self._may_begin: Callable[[], bool] = lambda: True

    @property
    @abstractmethod
    def _open_sides(self) -> Collection[Side]:
        """The hosts that are in use."""

    @abstractmethod
    def _grouped(self, batch: Sequence[Push]) -> Iterable[tuple[Side, Sequence[Push]]]:
        """Return the pushes by host; raise before anything is sent where there is none for one."""

    @property
    def connections(self) -> int:
        """Return the number of open connections."""
        return sum(side.pool.connected for side in list(self._open_sides))

    @property
    def opened(self) -> int:
        """Return how many connections were opened since the start."""
        return sum(side.pool.opened for side in self._open_sides)

    @property
    def requests(self) -> int:
        """Return how many requests were put on the wire since the start."""
        return sum(side.pool.requests for side in self._open_sides)

    @property
    def resent(self) -> int:
        """Return how many certainly unprocessed requests were sent again."""
        return sum(side.pool.resent for side in self._open_sides)

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Send every push and report each outcome once, as it arrives; see :class:`Gateway`.

        When the call is cancelled, pushes not yet on the wire are neither sent nor reported; the
        others are still reported. An error raised by ``report`` is raised here after everything
        was reported. Raises :class:`~handbell.errors.GatewayError` after :meth:`close` and for a
        push that this gateway does not serve.
        """
        if self._is_closed:
            raise GatewayError("The gateway is closed", fix="Open it again")
        groups = list(self._grouped(batch))
        if not batch:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sending = Batch(len(batch), report, done, self.now())
        for side, pushes in groups:
            side.submit([Job(push, sending) for push in pushes])
        try:
            await done
        except asyncio.CancelledError:
            sending.is_dropped = True
            raise
        if sending.error is not None:
            raise sending.error

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Put pushes on the wire only while ``may_begin`` returns true; see :class:`Gateway`."""
        self._may_begin = may_begin
        for side in self._open_sides:
            side.pool.may_begin = may_begin

    def limit_connections(self, most: int) -> None:
        """Limit the connections to each host; close those beyond the limit."""
        self._limits = replace(self._limits, connections=most)
        for side in self._open_sides:
            side.pool.limit_connections(most)

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Withdraw pushes that are not on the wire; see :class:`Gateway`."""
        for side in list(self._open_sides):
            side.withdraw(is_meant)

    async def close(self, *, within: float | None = None) -> None:
        """Finish pushes in flight, each within its timeout, then close the connections.

        After ``within`` seconds they are aborted with an unknown outcome.
        """
        self._is_closed = True
        await asyncio.gather(*(side.close(within=within) for side in list(self._open_sides)))

    async def _answer_to(self, push: Push) -> Outcome:
        """Send one push and return its outcome."""
        outcomes: list[Outcome] = []
        await self.send([push], lambda _, outcome: outcomes.append(outcome))
        return outcomes[0]

    def compare_clock(self, headers: Mapping[str, str]) -> None:
        """Record the offset between this clock and the ``Date`` of an answer."""
        theirs = instant(headers.get("date", ""))
        if theirs is not None:
            self.clock_skew = self.now() - theirs
