"""The gateway to FCM: pushes in, outcomes out, over HTTP/2.

``verdict.py`` interprets answers, ``token.py`` gets the access token. A token that FCM refuses is
renewed here, and its pushes are sent once more; everything else is reported and decided elsewhere.

Source: https://firebase.google.com/docs/cloud-messaging/send/v1-api .
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, Unpack, cast

from handbell.gateways.gateway import Message, Push
from handbell.gateways.http2 import End, Endpoint, Headers, Limits, Request, StreamResponse
from handbell.gateways.http2_tls import authority
from handbell.gateways.outcomes import Accepted, DeviceGone, Outcome, RetryLater
from handbell.gateways.push_client import SKEW_SAMPLE, ClientOptions, Job, PushClient, Side
from handbell.services.fcm.address import FID_LENGTH, is_fid
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.protocol import AUTHORIZATION, MAX_TTL_SECONDS, send_path
from handbell.services.reactions import Reaction

from .compose import HEADERS, TTL_HEAD
from .token import AccessTokens, default_token_endpoint
from .verdict import judge

__all__ = ["Endpoint", "FcmGateway"]

_OK: Final = 200
_IMPOSSIBLE_TOKEN: Final = "handbell-asks-whether-the-key-is-accepted"  # noqa: S105 - nobody's
_CLOSED: Final = RetryLater(
    "ConnectionClosed", Reaction.RECONNECT, detail="The gateway was closed before it had a token"
)
_VALIDATE_ONLY: Final = "validate-only"
_MESSAGE: Final = b'{"message":{'
_CHECKED_MESSAGE: Final = b'{"validate_only":true,"message":{'
_TOKEN: Final = b'"token":"'
_FID: Final = b'"fid":"'
# On the hot path: a named tuple's own constructor takes twice as long as tuple's.
_request: Final = cast("Callable[[_Written], Request]", partial(tuple.__new__, Request))
_accepted: Final = cast("Callable[[_Taken], Accepted]", partial(tuple.__new__, Accepted))
_Written = tuple[str, Headers, Headers, bytes]
_Taken = tuple[str, str | None]


class _Endpoints(NamedTuple):
    """Where messages are sent to, and where access tokens are asked for."""

    push: Endpoint
    token: Endpoint


class _FcmSide(Side):
    """FCM's host: its connection pool, its access tokens, and the pushes that wait for one."""

    def __init__(
        self,
        gateway: "FcmGateway",
        endpoints: _Endpoints,
        account: ServiceAccount,
        limits: Limits,
        seconds: Callable[[], float],
    ) -> None:
        super().__init__(endpoints.push, limits, wants_headers=False)
        self.tokens = AccessTokens(
            account,
            endpoints.token,
            limits,
            changed=self._token_changed,
            heard=gateway.compare_clock,
            now=gateway.now,
            seconds=seconds,
        )
        self._gateway = gateway
        self._path = send_path(account.project_id)
        self._parked: list[Job] = []
        self._message: Message | None = None
        self._second = -1
        self._token: str | None = None
        self._shared: Headers = ()
        self._head = self._tail = b""
        self._settled: asyncio.Future[None] | None = None

    # -- sending ---------------------------------------------------------------------------------

    def submit(self, jobs: Iterable[Job]) -> None:
        """Queue pushes, and have a token asked for while the connection opens."""
        self.tokens.current()
        super().submit(jobs)

    def _prepare(self, job: Job) -> Request | None:
        if job.is_withdrawn or job.batch.is_dropped:
            job.drop()
            return None
        tokens = self.tokens
        token = tokens.current()
        if token is None:
            self._wait_for_token(job)
            return None
        job.generation = tokens.generation
        push = job.push
        if push.message is not self._message or (
            self._second >= 0 and int(self._gateway.now()) != self._second
        ):
            self._use(push.message)
        if token is not self._token:
            self._token = token
            self._shared = (*HEADERS, (AUTHORIZATION, f"Bearer {token}"))
        address = push.address
        is_short = len(address) <= FID_LENGTH and is_fid(address)
        target = _FID if is_short else _TOKEN
        body = b"".join((self._head, target, address.encode(), self._tail))
        return _request((self._path, self._shared, (), body))

    def _use(self, message: Message) -> None:
        """Prepare what follows the token in the body, the same for many devices.

        A time to live counts from the request on, so it is what is left of it now.
        """
        payload = message.payload
        self._message, self._second = message, -1
        if message.expires_at and payload.startswith(TTL_HEAD):
            self._second = int(self._gateway.now())
            left = max(0, min(message.expires_at - self._second, MAX_TTL_SECONDS))
            end = payload.index(b's"', len(TTL_HEAD))
            payload = b"%s%d%s" % (TTL_HEAD, left, payload[end:])
        self._head = _CHECKED_MESSAGE if message.push_type == _VALIDATE_ONLY else _MESSAGE
        self._tail = b'",' + payload[1:] + b"}"

    def _wait_for_token(self, job: Job) -> None:
        if self.tokens.is_asking:
            self._parked.append(job)
        else:
            job.batch.tell(job.push, self.tokens.failure())

    def _token_changed(self) -> None:
        if self.tokens.current() is None and not self.tokens.is_asking:
            self._give_up_parked(self.tokens.failure())
        elif self._parked:
            parked, self._parked = self._parked, []
            self.pool.submit(parked)
        if self._settled is not None and not self._settled.done():
            self._settled.set_result(None)

    def _give_up_parked(self, outcome: Outcome) -> None:
        parked, self._parked = self._parked, []
        for job in parked:
            job.batch.tell(job.push, outcome)

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Withdraw pushes, those that wait for a token as well."""
        waiting = [job for job in self._parked if is_meant(job.push)]
        self._parked = [job for job in self._parked if not is_meant(job.push)]
        for job in waiting:
            job.is_withdrawn = True
            job.drop()
        super().withdraw(is_meant)

    async def close(self, *, within: float | None = None) -> None:
        """Finish what was submitted, once it has its token, then close the connections."""
        if self.tokens.is_asking:
            self._settled = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._settled], timeout=within)
        await super().close(within=within)
        await self.tokens.close(within=within)
        self._give_up_parked(_CLOSED)

    # -- answers ---------------------------------------------------------------------------------

    def _finish(self, job: Job, end: End) -> None:
        if not isinstance(end, StreamResponse):
            self._unanswered(job, end)
            return
        self._until_sample -= 1
        if self._until_sample < 0 and end.pairs:
            self._until_sample = SKEW_SAMPLE
            self._gateway.compare_clock(end.headers())
        if end.status == _OK:
            job.batch.tell(job.push, _accepted((job.push.id, None)))
        else:
            self._not_taken(job, end)

    def _not_taken(self, job: Job, answer: StreamResponse) -> None:
        outcome = judge(answer.status, answer.body, answer.headers(), is_whole=answer.is_whole)
        if isinstance(outcome, DeviceGone):
            # FCM does not say since when; who registers after this instant is not closed.
            outcome = replace(outcome, since=int(job.batch.began_at * 1000))
        reaction = getattr(outcome, "reaction", None)
        is_renewal = reaction is Reaction.RENEW_TOKEN and not job.is_second
        if is_renewal and self.tokens.renew(job.generation):
            job.is_second = True
            self._gateway.healed += 1
            self.submit([job])
        else:
            job.batch.tell(job.push, outcome)


class FcmGateway(PushClient):
    """Firebase Cloud Messaging, reached with one service account; implements :class:`Gateway`.

    ``endpoint`` is FCM's host; ``token_endpoint`` the one that gives access tokens, by default
    that of the account's ``token_uri``, reached as ``endpoint`` is. ``now`` gives UNIX seconds,
    ``seconds`` those of a monotonic clock. ``project_id`` is the project that it sends for.

    Pushes wait while an access token is asked for. Where there is none, they end: as refused when
    Google refuses the account, and as to be sent later otherwise.
    """

    def __init__(
        self,
        *,
        credential: ServiceAccount,
        endpoint: Endpoint,
        token_endpoint: Endpoint | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(fingerprint=credential.fingerprint, **options)
        self.project_id = credential.project_id
        self._account = credential
        self._endpoints = _Endpoints(
            endpoint, token_endpoint or default_token_endpoint(credential, endpoint)
        )
        self._side: _FcmSide | None = None

    @property
    def _open_sides(self) -> Collection[Side]:
        return () if self._side is None else (self._side,)

    def _grouped(self, batch: Sequence[Push]) -> Iterable[tuple[Side, Sequence[Push]]]:
        if self._side is None:
            self._side = _FcmSide(self, self._endpoints, self._account, self._limits, self._seconds)
            self._side.pool.may_begin = self._may_begin
        return [(self._side, batch)]

    @property
    def topic(self) -> str:
        """Return what all its pushes are sent under: the project's id."""
        return self.project_id

    @property
    def token_requests(self) -> int:
        """Return how many access tokens were asked for since the start."""
        return 0 if self._side is None else self._side.tokens.requests

    def address_of(self, environment: str) -> str:  # noqa: ARG002 - of the other gateways
        """Return the address of FCM's host."""
        return self._endpoints.push.url

    def host(self, environment: str) -> str:  # noqa: ARG002 - of the other gateways
        """Return FCM's host; with its port when that is not 443."""
        return authority(self._endpoints.push.url)

    async def probe(self, environment: str, message: Message) -> Outcome:
        """Return FCM's answer to a token that no device has, only checked; nobody is notified.

        A refusal of the token means that the service account and the project are accepted.
        """
        checked = replace(message, push_type=_VALIDATE_ONLY)
        return await self._answer_to(Push(0, _IMPOSSIBLE_TOKEN, environment, "", checked))
