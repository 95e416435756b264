"""Access tokens, which authenticate a service account to FCM.

A request signed with the account's key (RS256) is exchanged for a token of about an hour, at the
``token_uri`` of the key file. It goes over the same HTTP/2 engine as the pushes.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account , RFC 7523.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlencode, urlsplit

from handbell._back_off import BackOff
from handbell._retry_after import instant
from handbell.gateways.http2 import End, Endpoint, Limits, NotSent, Pool, Request, StreamResponse
from handbell.gateways.jose import rs256_token
from handbell.gateways.outcomes import LostVerdict, Refused, RetryLater
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.protocol import ASSERTION_SECONDS, GRANT_TYPE, RETRY_SECONDS, SCOPE
from handbell.services.reactions import Reaction

from .verdict import AccessToken, judge_token

EARLY_SECONDS: Final = 5 * 60
"""A token is renewed so long before it expires, while it is still used."""

Failure = Refused | RetryLater | LostVerdict
"""Why there is no token: the outcome of the pushes that wait for one."""

_MARGIN_SECONDS: Final = 30  # leaves time for requests on the wire
_SKEW_TOLERANCE: Final = 60.0
_PAUSE: Final = BackOff(RETRY_SECONDS, 2, 300)
_FORM: Final = (("content-type", "application/x-www-form-urlencoded"),)


def assertion(account: ServiceAccount, issued_at: int) -> str:
    """Return the signed request (a JWS) of an account for an instant in UNIX seconds."""
    kid = {"kid": account.private_key_id} if account.private_key_id else {}
    claims: dict[str, str | int] = {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": account.token_uri,
        "iat": issued_at,
        "exp": issued_at + ASSERTION_SECONDS,
    }
    return rs256_token(account.private_key, {"alg": "RS256", "typ": "JWT", **kid}, claims)


def default_token_endpoint(account: ServiceAccount, like: Endpoint) -> Endpoint:
    """Return where an account asks for tokens: reached as ``like`` is, by its CA and its proxy."""
    return replace(like, url=account.token_uri, client_certificate=None)


class AccessTokens:
    """The current access token of one service account, with one request in flight at most.

    :meth:`current` asks for a token when it is first called and five minutes before the last one
    expires; meanwhile the last one is used. ``changed`` is called when a request has ended, however
    it did. After a failure the next request waits for ten seconds, doubling to five minutes, or
    for as long as the service asked; :meth:`failure` is what becomes of pushes until then.

    ``endpoint`` is where tokens are asked for; without a path, that of ``token_uri`` is taken.
    Where the token endpoint refuses the signed request and its ``Date`` shows that this machine's
    clock is wrong, it is asked once more by that clock. ``generation`` counts the tokens;
    ``heard`` gets the headers of each answer. Ages are measured by ``seconds``, a monotonic clock.
    Use it inside one running event loop.
    """

    def __init__(
        self,
        account: ServiceAccount,
        endpoint: Endpoint,
        limits: Limits,
        *,
        changed: Callable[[], None],
        heard: Callable[[Mapping[str, str]], None],
        now: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        self.generation = 0
        self.requests = 0
        self.is_asking = False
        self._account = account
        parts = urlsplit(endpoint.url)
        asked = parts if parts.path.strip("/") else urlsplit(account.token_uri)
        self._path = asked._replace(scheme="", netloc="").geturl()
        self._changed = changed
        self._heard = heard
        self._now = now
        self._seconds = seconds
        self._pool: Pool[int] = Pool(
            replace(endpoint, url=f"{parts.scheme}://{parts.netloc}"),
            replace(limits, connections=1, in_flight=1),
            prepare=self._prepare,
            finish=self._finish,
        )
        self._text: str | None = None
        self._until = self._renew_at = self._not_before = -math.inf
        self._asked_at = self._dropped_at = -math.inf
        self._failure: Failure | None = None
        self._failures = 0
        self._lead = 0.0

    def current(self) -> str | None:
        """Return the token to use now, None while there is none; ask for one when it is time."""
        now = self._seconds()
        if now >= self._renew_at and not self.is_asking and now >= self._not_before:
            self._ask(now)
        return self._text if now < self._until else None

    def failure(self) -> Failure:
        """Return what becomes of a push that has no token, while none is being asked for."""
        failure = self._failure or RetryLater("Interrupted", Reaction.RENEW_TOKEN)
        if isinstance(failure, Refused):
            return failure
        left = max(0.0, self._not_before - self._seconds())
        return replace(failure, after=max(left, failure.after or 0.0))

    def renew(self, generation: int) -> bool:
        """Drop a token that FCM refused; return whether sending again with another may help.

        ``generation`` is that of the refused one. False where the token is new: then it is not the
        token that is wrong.
        """
        if generation != self.generation or self._text is None:
            return True
        now = self._seconds()
        if now < self._dropped_at + RETRY_SECONDS:
            return False
        self._dropped_at = now
        self._text = None
        self._until = self._renew_at = -math.inf
        return True

    async def close(self, *, within: float | None = None) -> None:
        """Finish the request in flight, then close the connection."""
        await self._pool.close(within=within)

    # -- asking ----------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        self.is_asking = True
        self._asked_at = now
        self._pool.submit([0])

    def _prepare(self, _: int) -> Request:
        self.requests += 1
        signed = assertion(self._account, int(self._now() + self._lead))
        body = urlencode({"grant_type": GRANT_TYPE, "assertion": signed}).encode("ascii")
        return Request(self._path, _FORM, (), body)

    def _finish(self, _: int, end: End) -> None:
        self.is_asking = False
        if isinstance(end, StreamResponse):
            headers = end.headers()
            self._heard(headers)
            result = judge_token(end.status, end.body, headers, is_whole=end.is_whole)
            if isinstance(result, Refused) and self._follows_clock(headers):
                self._ask(self._seconds())
                return
        else:
            # A lost answer is no loss: asking again makes another token, and no push was sent.
            after = end.after if isinstance(end, NotSent) else None
            detail = f"no access token: {end.detail or end.reason}"
            result = RetryLater(end.reason, Reaction.RECONNECT, after, detail=detail)
        if isinstance(result, AccessToken):
            self._take(result)
        else:
            self._pause(result)
        self._changed()

    def _take(self, token: AccessToken) -> None:
        self.generation += 1
        self._text = token.text
        self._until = self._asked_at + token.seconds - _MARGIN_SECONDS
        self._renew_at = self._asked_at + max(token.seconds - EARLY_SECONDS, token.seconds / 2)
        self._failure, self._failures = None, 0

    def _pause(self, failure: Failure) -> None:
        after = 0.0 if isinstance(failure, Refused) else failure.after or 0.0
        self._not_before = self._seconds() + max(after, _PAUSE.delay(self._failures))
        self._failures += 1
        self._failure = failure

    def _follows_clock(self, headers: Mapping[str, str]) -> bool:
        """Go by the service's clock where ours is wrong; return whether that is new."""
        theirs = instant(headers.get("date", ""))
        lead = 0.0 if theirs is None else theirs - self._now()
        if abs(lead - self._lead) <= _SKEW_TOLERANCE:
            return False
        self._lead = lead if abs(lead) > _SKEW_TOLERANCE else 0.0
        return True
