"""The gateway to the push services of browsers: messages in, outcomes out.

A subscription names its own push service, so one gateway speaks to many hosts: each origin has a
connection pool, over HTTP/2, or HTTP/1.1 where a host speaks nothing else. ``verdict.py``
interprets answers; nothing is sent a second time here.

Source: RFC 8030, "Generic Event Delivery Using HTTP Push".
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Unpack

from handbell._ip import is_public
from handbell._proxy import DIRECT, Proxies
from handbell.errors import RegistryError
from handbell.gateways.gateway import Message, Push
from handbell.gateways.http2 import End, Endpoint, Headers, Limits, Request, StreamResponse
from handbell.gateways.outcomes import Accepted, Refused
from handbell.gateways.push_client import SKEW_SAMPLE, ClientOptions, Job, PushClient, Side
from handbell.services.reactions import Reaction
from handbell.services.webpush.address import SubscriptionKeys
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.hosts import EndpointTarget, PushHosts
from handbell.services.webpush.protocol import AUTHORIZATION, TOPIC, TTL

from .compose import seconds_to_live, topic_of
from .encrypt import encrypt
from .vapid import VapidTokens
from .verdict import judge

__all__ = ["WebPushGateway"]

MOST_ORIGINS: Final = 32
"""How many hosts that nobody named may have connections at once."""
IDLE_SECONDS: Final = 300.0
"""How long the connections to a host are kept when nothing is sent there."""

_ROUND: Final = 32  # some four milliseconds of work, before the event loop does other things
_MOST_SIDES: Final = 1000
_HTTP1_CONNECTIONS: Final = 8
_MORE_OF_NAMED: Final = 8
_SCHEME: Final = len("https://")
_OK: Final = 200
_REDIRECTION: Final = 300
_TWIN: Final = "twin"
_OF_THE_CLIENT: Final = frozenset({TTL, TOPIC})


class _Origin(Side):
    """A push service by its origin: its connection pool, and the headers that messages share.

    It is connected to while it has a place. ``is_named`` means that it is a browser vendor's or was
    added by the operator, be it as one of many (``*.example.com``): such have more of them.
    """

    def __init__(
        self,
        gateway: "WebPushGateway",
        target: EndpointTarget,
        endpoint: Endpoint,
        limits: Limits,
        *,
        is_named: bool,
    ) -> None:
        super().__init__(endpoint, limits, wants_headers=False)
        self.origin = target.origin
        self.is_named = is_named
        self.used_at = 0.0
        self.pool.may_begin = self._may_begin
        self._gateway = gateway
        self._least_seconds = target.least_ttl
        self._message: Message | None = None
        self._authorization = ""
        self._shared: Headers = ()
        self._topic: Headers = ()
        self._own: Headers = ()
        self._seconds = -1

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue messages for sending."""
        self.used_at = asyncio.get_running_loop().time()
        super().submit(jobs)

    def _may_begin(self) -> bool:
        return self._gateway.may_begin(self)

    def _prepare(self, job: Job) -> Request | None:
        if job.is_withdrawn or job.batch.is_dropped:
            job.drop()
            return None
        push, message = job.push, job.push.message
        authorization = self._gateway.tokens.authorization(self.origin)
        if message is not self._message or authorization is not self._authorization:
            self._message, self._authorization = message, authorization
            self._seconds = -1
            self._topic = tuple(pair for pair in message.headers if pair[0] == TOPIC)
            self._shared = (
                *(pair for pair in message.headers if pair[0] not in _OF_THE_CLIENT),
                (AUTHORIZATION, authorization),
            )
        seconds = seconds_to_live(message.expires_at, self._gateway.now())
        if seconds != self._seconds:
            self._seconds = seconds
            self._own = ((TTL, str(max(self._least_seconds, seconds))), *self._topic)
        own = self._own
        if push.collapse_id is not None and not self._topic:
            own = (*own, (TOPIC, topic_of(push.collapse_id)))
        keys = SubscriptionKeys.of(push.details or "")
        body = encrypt(message.payload, keys.public_key, keys.secret)
        place = push.address.find("/", _SCHEME)
        path = push.address[place:] if place > 0 else "/"
        return Request(path, self._shared, own, body)

    def _finish(self, job: Job, end: End) -> None:
        if not isinstance(end, StreamResponse):
            self._unanswered(job, end)
            return
        self._until_sample -= 1
        if self._until_sample < 0 and end.pairs:
            self._until_sample = SKEW_SAMPLE
            self._gateway.compare_clock(end.headers())
        if _OK <= end.status < _REDIRECTION:
            job.batch.tell(job.push, Accepted(job.push.id))
            return
        outcome = judge(
            end.status,
            end.body,
            end.headers(),
            is_whole=end.is_whole,
            sent_at=job.batch.began_at,
            now=self._gateway.now(),
        )
        job.batch.tell(job.push, outcome)


class _Nowhere(Side):
    """Stands for endpoints that may not be sent to: each message is refused at once."""

    def __init__(self, refusal: Refused) -> None:
        super().__init__(Endpoint("https://invalid"), Limits(), wants_headers=False)
        self._refusal = refusal

    def submit(self, jobs: Iterable[Job]) -> None:
        """Report each message as refused."""
        for job in jobs:
            job.batch.tell(job.push, self._refusal)

    def _prepare(self, _: Job) -> Request | None:
        return None

    def _finish(self, job: Job, end: End) -> None:
        self._unanswered(job, end)


def _origin_of(endpoint: str) -> str:
    """Return an endpoint without its path."""
    place = endpoint.find("/", _SCHEME)
    return endpoint if place < 0 else endpoint[:place]


class WebPushGateway(PushClient):
    """The push services of browsers, reached with one VAPID key; implements :class:`Gateway`.

    ``subject`` is whom a push service may write to: ``mailto:`` or ``https:``. ``hosts`` says which
    endpoints are sent to; all others are refused, with the status 0. A host's addresses are looked
    up for each connection, each must be public, and only those are connected to; a proxy of
    ``proxies`` looks them up itself. The twin's endpoints are for the environment ``twin``, where
    ``ca_file`` is trusted.

    Each origin has up to ``connections``. Those that nobody named share ``most_origins`` places,
    the others eight times as many, so that strangers cannot have connections opened without end:
    for those without one, messages wait. The connections to a host without traffic are closed after
    ``idle_seconds``. ``now`` gives UNIX seconds, ``seconds`` those of a monotonic clock.
    """

    def __init__(
        self,
        *,
        credential: VapidKey,
        subject: str,
        hosts: PushHosts,
        ca_file: Path | None = None,
        proxies: Proxies = DIRECT,
        most_origins: int = MOST_ORIGINS,
        idle_seconds: float = IDLE_SECONDS,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(fingerprint=credential.fingerprint, **options)
        self._limits = replace(self._limits, round=_ROUND, is_slow_to_prepare=True)
        self.tokens = VapidTokens(credential, subject, self.now, self._seconds)
        self._hosts = hosts
        self._ca_file = ca_file
        self._proxies = proxies
        self._most_origins = most_origins
        self._idle_seconds = idle_seconds
        self._sides: dict[tuple[str, str], _Origin | _Nowhere] = {}
        self._admitted: set[_Origin] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def _open_sides(self) -> Collection[Side]:
        return self._sides.values()

    @property
    def origins(self) -> tuple[str, ...]:
        """Return the origins that are in use, in the order in which they came."""
        sides = self._sides.values()
        return tuple(side.origin for side in sides if isinstance(side, _Origin))

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Put messages on the wire only while ``may_begin`` returns true; see :class:`Gateway`."""
        self._may_begin = may_begin

    def may_begin(self, origin: _Origin) -> bool:
        """Return whether messages to an origin may go on the wire now."""
        return self._may_begin() and (origin in self._admitted or self._is_admitted(origin))

    async def close(self, *, within: float | None = None) -> None:
        """Finish messages in flight, each within its timeout, then close the connections.

        After ``within`` seconds they are aborted with an unknown outcome.
        """
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().close(within=within)
        await asyncio.gather(*self._leaving)

    def _grouped(self, batch: Sequence[Push]) -> Iterable[tuple[Side, Sequence[Push]]]:
        groups: dict[Side, list[Push]] = {}
        server, environment = "", ""
        mine: list[Push] = []
        for push in batch:
            # Most go where the one before them goes.
            if push.environment != environment or not push.address.startswith(server):
                origin, environment = _origin_of(push.address), push.environment
                server = f"{origin}/"
                mine = groups.setdefault(self._side(origin, environment), [])
            mine.append(push)
        return groups.items()

    # -- origins ---------------------------------------------------------------------------------

    def _side(self, origin: str, environment: str) -> "_Origin | _Nowhere":
        """Return the side of endpoints that begin so; their host is checked here."""
        side = self._sides.get((origin, environment))
        if side is None:
            if len(self._sides) >= _MOST_SIDES:
                self._leave_idle(0.0)
            side = self._sides[origin, environment] = self._open_side(origin, environment)
            if self._sweeper is None:
                self._sweep_later()
        return side

    def _open_side(self, origin: str, environment: str) -> "_Origin | _Nowhere":
        is_twins = environment == _TWIN
        try:
            target = self._hosts.target(f"{origin}/", environment)
        except RegistryError as error:
            detail = error.what.partition(": ")[2] or error.what
            reason = "OtherTwin" if is_twins else "HostNotAllowed"
            return _Nowhere(Refused(reason, Reaction.FIX_NOTIFICATION, 0, detail))
        endpoint = Endpoint(
            target.origin,
            ca_file=self._ca_file if is_twins else None,
            proxy=None if is_twins else self._proxies.to(target.url),
            accepts=None if is_twins else is_public,
            http1_connections=_HTTP1_CONNECTIONS,
        )
        is_named = self._hosts.is_named(target)
        return _Origin(self, target, endpoint, self._limits, is_named=is_named)

    def _is_admitted(self, origin: _Origin) -> bool:
        """Give an origin a place, where one is free or its owner has nothing to send."""
        peers = [each for each in self._admitted if each.is_named is origin.is_named]
        if len(peers) >= self._most_origins * (_MORE_OF_NAMED if origin.is_named else 1):
            idle = (each for each in peers if each.pool.is_idle)
            longest = min(idle, key=lambda each: each.used_at, default=None)
            if longest is None:
                return False
            self._leave(longest)
        self._admitted.add(origin)
        return True

    def _sweep_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._idle_seconds / 2, self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        self._leave_idle(self._idle_seconds)
        if self._sides:
            self._sweep_later()

    def _leave_idle(self, seconds: float) -> None:
        """Leave the origins that nothing was sent to for so long, and forget refused ones."""
        before = asyncio.get_running_loop().time() - seconds
        for side in list(self._sides.values()):
            if isinstance(side, _Nowhere) or (side.pool.is_idle and side.used_at <= before):
                self._leave(side)

    def _leave(self, side: "_Origin | _Nowhere") -> None:
        for key in [key for key, each in self._sides.items() if each is side]:
            del self._sides[key]
        if isinstance(side, _Origin):
            self._admitted.discard(side)
        leaving = asyncio.get_running_loop().create_task(side.close())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
