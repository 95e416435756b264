"""The gateway to APNs: pushes in, outcomes out, over HTTP/2.

``verdict.py`` interprets answers. Connection problems are fixed here, once per push: an expired
provider token, one renewed too often, a connection that Apple wants replaced. Everything else is
reported and decided elsewhere.

Source: "Sending notification requests to APNs", "Handling notification responses from APNs"
(https://developer.apple.com/documentation/usernotifications/).
"""

import asyncio
import math
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, Unpack, cast

from handbell.errors import GatewayError
from handbell.gateways.gateway import Message, Push
from handbell.gateways.http2 import End, Endpoint, Headers, Limits, Request, StreamResponse
from handbell.gateways.http2_tls import authority
from handbell.gateways.outcomes import Accepted, Outcome
from handbell.gateways.push_client import SKEW_SAMPLE, ClientOptions, Job, PushClient, Side
from handbell.services.apns.credential import AuthKey, Certificate
from handbell.services.apns.protocol import (
    APNS_COLLAPSE_ID,
    APNS_EXPIRATION,
    APNS_ID,
    APNS_UNIQUE_ID,
    AUTHORIZATION,
    DEVICE_PATH,
)
from handbell.services.reactions import Reaction

from .token import ProviderTokens
from .verdict import judge

__all__ = ["ApnsGateway", "Endpoint"]

_OK: Final = 200
_RENEWAL_PAUSE_SECONDS: Final = 5.0  # Apple treats rapid connects and disconnects as an attack.
_SKEW_TOLERANCE: Final = 60.0
_CHANGING: Final = frozenset({APNS_EXPIRATION, APNS_COLLAPSE_ID})
_IMPOSSIBLE_TOKEN: Final = "00" * 32
# On the hot path: a named tuple's own constructor takes twice as long as tuple's.
_request: Final = cast("Callable[[_Written], Request]", partial(tuple.__new__, Request))
_accepted: Final = cast("Callable[[_Taken], Accepted]", partial(tuple.__new__, Accepted))
_Written = tuple[str, Headers, Headers, bytes]
_Taken = tuple[str, str | None]


class _ApnsSide(Side):
    """An environment: its connection pool, and the headers that its pushes share."""

    def __init__(
        self, gateway: "ApnsGateway", endpoint: Endpoint, limits: Limits, *, has_unique_ids: bool
    ) -> None:
        super().__init__(endpoint, limits, wants_headers=has_unique_ids)
        self._gateway = gateway
        self._has_unique_ids = has_unique_ids
        self._kept_for: str | None = None
        self._message: Message | None = None
        self._token: str | None = None
        self._shared: Headers = ()
        self._own: Headers = ()
        self._renewed_at = -math.inf

    # -- sending ---------------------------------------------------------------------------------

    def _prepare(self, job: Job) -> Request | None:
        if job.is_withdrawn or job.batch.is_dropped:
            job.drop()
            return None
        push = job.push
        token = self._provider_token()
        job.generation = self.pool.generation
        message = push.message
        if message is not self._message or token is not self._token:
            self._shared, self._own = _headers(message, token)
            self._message, self._token = message, token
        own: Headers = ((APNS_ID, push.id), *self._own)
        if push.collapse_id is not None and message.collapse_id is None:
            own = (*own, (APNS_COLLAPSE_ID, push.collapse_id))
        return _request((DEVICE_PATH + push.address, self._shared, own, message.payload))

    def _provider_token(self) -> str | None:
        tokens = self._gateway.tokens
        if tokens is None:
            return None
        current = tokens.current()
        if self._kept_for != current:
            return current
        return tokens.former() or current

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
            unique_id = end.headers().get(APNS_UNIQUE_ID) if self._has_unique_ids else None
            job.batch.tell(job.push, _accepted((job.push.id, unique_id)))
        else:
            self._not_taken(job, end)

    def _not_taken(self, job: Job, answer: StreamResponse) -> None:
        headers = answer.headers()
        outcome = judge(answer.status, answer.body, headers, is_whole=answer.is_whole)
        reaction = getattr(outcome, "reaction", None)
        if not job.is_second and self._is_healed(job, reaction, headers):
            job.is_second = True
            self._gateway.healed += 1
            self.pool.submit([job])
        else:
            job.batch.tell(job.push, outcome)

    def _is_healed(self, job: Job, reaction: Reaction | None, headers: Mapping[str, str]) -> bool:
        """Fix the token or connection if possible; return whether to send the push once more."""
        if reaction is Reaction.RECONNECT:
            return self._is_renewed(job)
        tokens = self._gateway.tokens
        if tokens is None:
            return False
        if reaction is Reaction.RENEW_TOKEN:
            self._gateway.follow_clock(headers)
            return self._is_renewed(job)
        if reaction is Reaction.KEEP_FORMER_TOKEN:
            self._kept_for = tokens.current()
            return tokens.former() is not None
        return False

    def _is_renewed(self, job: Job) -> bool:
        """Return whether the retry uses another connection; opens one at limited intervals."""
        if job.generation == self.pool.generation:
            now = asyncio.get_running_loop().time()
            if now < self._renewed_at + _RENEWAL_PAUSE_SECONDS:
                return False
            self._renewed_at = now
            self.pool.renew()
        return True


def _headers(message: Message, token: str | None) -> tuple[Headers, Headers]:
    """Return the headers shared by many pushes, and those that vary.

    Apple says which is which ("Sending notification requests to APNs").
    """
    shared = [pair for pair in message.headers if pair[0] not in _CHANGING]
    if token is not None:
        shared.append((AUTHORIZATION, f"bearer {token}"))
    return tuple(shared), tuple(pair for pair in message.headers if pair[0] in _CHANGING)


class ApnsGateway(PushClient):
    """Apple's push service, reached with one credential; implements :class:`Gateway`.

    ``endpoints`` names the host of each environment; each has a connection pool, so that a
    connection is never shared between two teams or keys. ``now`` gives UNIX seconds, ``seconds``
    those of a monotonic clock. :meth:`send` raises :class:`~handbell.errors.GatewayError` for an
    environment without an endpoint.
    """

    def __init__(
        self,
        *,
        credential: AuthKey | Certificate,
        endpoints: Mapping[str, Endpoint],
        **options: Unpack[ClientOptions],
    ) -> None:
        super().__init__(fingerprint=credential.fingerprint, **options)
        self.tokens = (
            ProviderTokens(credential, self.now, self._seconds)
            if isinstance(credential, AuthKey)
            else None
        )
        self._certificate = credential.pem if isinstance(credential, Certificate) else None
        self._endpoints = dict(endpoints)
        self._sides: dict[str, _ApnsSide] = {}

    @property
    def _open_sides(self) -> Collection[Side]:
        return self._sides.values()

    def _grouped(self, batch: Sequence[Push]) -> Iterable[tuple[Side, Sequence[Push]]]:
        sides = {name: self._side(name) for name in {push.environment for push in batch}}
        return [
            (side, [push for push in batch if push.environment == name])
            for name, side in sides.items()
        ]

    def address_of(self, environment: str) -> str:
        """Return the address of an environment's host."""
        return self._endpoints[environment].url

    def host(self, environment: str) -> str:
        """Return the host of an environment; with its port when that is not 443."""
        return authority(self._endpoints[environment].url)

    async def probe(self, environment: str, message: Message) -> Outcome:
        """Return the service's answer to a token that no device has; nobody is notified.

        A refusal of the token means that the key, the team and the topic are accepted.
        """
        push = Push(0, _IMPOSSIBLE_TOKEN, environment, str(uuid.uuid4()), message)
        return await self._answer_to(push)

    def _side(self, environment: str) -> _ApnsSide:
        side = self._sides.get(environment)
        if side is None:
            side = self._sides[environment] = self._open_side(environment)
        return side

    def _open_side(self, environment: str) -> _ApnsSide:
        endpoint = self._endpoints.get(environment)
        if endpoint is None:
            raise GatewayError(
                f"This gateway does not serve the environment {environment!r}",
                fix=f"It serves: {', '.join(self._endpoints)}",
            )
        if self._certificate is not None:
            endpoint = replace(endpoint, client_certificate=self._certificate)
        side = _ApnsSide(self, endpoint, self._limits, has_unique_ids=environment != "production")
        side.pool.may_begin = self._may_begin
        return side

    def follow_clock(self, headers: Mapping[str, str]) -> None:
        """Issue tokens by the service's clock when ours is too wrong for them."""
        self.compare_clock(headers)
        if self.tokens is not None:
            skew = self.clock_skew or 0.0
            self.tokens.follow(-skew if abs(skew) > _SKEW_TOLERANCE else 0.0)
