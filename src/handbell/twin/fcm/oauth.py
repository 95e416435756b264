"""The token endpoint: a signed assertion for an access token (RFC 7523).

Source: https://developers.google.com/identity/protocols/oauth2/service-account . Where it is
silent about an error's words, they are those that users have published.
"""

from collections.abc import Collection
from typing import Any, Final
from urllib.parse import parse_qs

from handbell.services.fcm.protocol import (
    ASSERTION_SECONDS,
    BROAD_SCOPE,
    GRANT_TYPE,
    SCOPE,
    TOKEN_URI,
)
from handbell.twin.web_token import BadTokenError, WebToken, describe_token
from handbell.twin.wire.exchange import Request, TwinResponse

from .accounts import Account, Accounts
from .responses import json_answer, oauth_error

TOKEN_PATH: Final = "/token"  # noqa: S105 - a path
_SKEW_SECONDS: Final = 60.0
"""How far ``iat`` may be in the future. Google states no figure; our choice."""
_FORM: Final = "application/x-www-form-urlencoded"
_TIMEFRAME: Final = (
    "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. "
    "Check your iat and exp values in the JWT claim."
)


class OAuthRefusalError(Exception):
    """A refused request: the error, its description, and the explanation for people."""

    def __init__(self, error: str, description: str, why: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.why = why or description


def issue_token(
    request: Request, accounts: Accounts, audiences: Collection[str], now: float
) -> tuple[TwinResponse, str]:
    """Return the answer to a request for an access token, and what became of it in a sentence.

    ``audiences`` are the twin's own addresses of this endpoint; Google's counts always. Raises
    OAuthRefusalError for a request that Google refuses.
    """
    account, can_send = _judge(request, accounts, {TOKEN_URI, *audiences}, now)
    token, seconds = accounts.issue(account, can_send=can_send)
    content = {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}
    answer = json_answer(200, content, now, [("cache-control", "no-store")])
    return answer, f"An access token of {account.client_email} for {seconds} seconds."


def refused_token(refused: OAuthRefusalError, now: float) -> TwinResponse:
    """Return the answer to a refused request."""
    return oauth_error(refused.error, refused.description, now)


def describe_form(body: bytes) -> bytes:
    """Return the form as it may be shown: the assertion without its signature."""
    form = parse_qs(body.decode("utf-8", "replace"))
    lines = [
        f"{name}: {describe_token(value) if name == 'assertion' else value}"
        for name, values in form.items()
        for value in values
    ]
    return "\n".join(lines).encode()


def _judge(
    request: Request, accounts: Accounts, audiences: Collection[str], now: float
) -> tuple[Account, bool]:
    token = _assertion(request)
    claims = token.claims
    email = claims.get("iss")
    if token.header.get("alg") != "RS256":
        raise OAuthRefusalError("invalid_grant", "Invalid JWT: the algorithm is not RS256.")
    if not isinstance(email, str) or not email:
        raise OAuthRefusalError("invalid_grant", "Invalid JWT: iss field missing.")
    key_id = token.header.get("kid")
    keys = accounts.of(email, key_id if isinstance(key_id, str) else None)
    if not accounts.has(email):
        raise OAuthRefusalError(
            "invalid_grant",
            "Invalid grant: account not found",
            f"The twin knows no service account {email}.",
        )
    account = next((one for one in keys if token.is_signed_by(one.public_key)), None)
    if account is None:
        raise OAuthRefusalError(
            "invalid_grant",
            "Invalid JWT Signature.",
            f"The signature was made by no known key of {email}.",
        )
    _times(claims.get("iat"), claims.get("exp"), now)
    if claims.get("aud") not in audiences:
        raise OAuthRefusalError(
            "invalid_grant",
            "Invalid JWT: Failed audience check.",
            f"aud is {claims.get('aud')!r}, not {TOKEN_URI}.",
        )
    return account, _can_send(claims.get("scope"))


def _assertion(request: Request) -> WebToken:
    kind = (request.header("content-type") or "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise OAuthRefusalError("invalid_request", f"Bad Request: the body is not {_FORM}")
    form = parse_qs(request.body.decode("utf-8", "replace"))
    if form.get("grant_type") != [GRANT_TYPE]:
        raise OAuthRefusalError(
            "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', [''])[0]}"
        )
    try:
        return WebToken.read(form.get("assertion", [""])[0])
    except BadTokenError:
        raise OAuthRefusalError(
            "invalid_grant", "Bad Request", "The assertion is not a JSON web token."
        ) from None


def _times(issued_at: Any, expires_at: Any, now: float) -> None:
    """Refuse a life of over an hour, one that is over, and one that has not begun."""
    for value in (issued_at, expires_at):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise OAuthRefusalError("invalid_grant", _TIMEFRAME, "iat or exp is not a number.")
    life = expires_at - issued_at
    if not 0 < life <= ASSERTION_SECONDS:
        why = f"exp is {life:g} seconds after iat; {ASSERTION_SECONDS} are the most."
        raise OAuthRefusalError("invalid_grant", _TIMEFRAME, why)
    if expires_at <= now or issued_at > now + _SKEW_SECONDS:
        when = "over" if expires_at <= now else "still to come"
        why = f"By the twin's clock the time of the assertion is {when}."
        raise OAuthRefusalError("invalid_grant", _TIMEFRAME, why)


def _can_send(scope: Any) -> bool:
    """Return whether the scope covers messaging; a scope that is none of Google's is refused."""
    wanted = scope.split() if isinstance(scope, str) else []
    if not wanted:
        raise OAuthRefusalError(
            "invalid_scope", "Invalid OAuth scope or ID token audience provided."
        )
    return bool({SCOPE, BROAD_SCOPE} & set(wanted))
