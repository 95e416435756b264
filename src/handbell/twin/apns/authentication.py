"""Authentication: provider tokens and client certificates, bound to a connection.

Sources are pages below https://developer.apple.com/documentation/usernotifications/ ; where they
are silent the docstring says "our choice".
"""

from dataclasses import replace

from handbell.services.apns.protocol import (
    AUTHORIZATION,
    PROVIDER_TOKEN_MAX_AGE_SECONDS,
    PROVIDER_TOKEN_MIN_REFRESH_SECONDS,
)
from handbell.twin.certificates import ClientCertificate
from handbell.twin.web_token import BadTokenError
from handbell.twin.wire.exchange import Request

from .provider_token import Claims, Key
from .rule_context import ClientConnection, ExpiredError, RefusalError, RuleState


def authenticate(
    request: Request, connection: ClientConnection, world: RuleState
) -> tuple[ClientConnection, Key | None]:
    """Return the connection bound to the authenticated client, and the key that was used.

    On a connection with a client certificate ``authorization`` is ignored
    (sending-notification-requests-to-apns).
    """
    if connection.certificate is not None:
        _certificate(connection.certificate, connection.side)
        return connection, None
    token = _bearer(request)
    if connection.is_expired:
        raise ExpiredError(
            "ExpiredProviderToken",
            "A provider token expired on this connection: open a new one.",
        )
    if token != connection.token:
        connection = _provider_token(token, connection, world)
    key = world.find_key(connection.team_id or "", connection.key_id or "")
    if key is None:
        raise RefusalError("InvalidProviderToken", "The key is no longer known: was it revoked?")
    _age(connection.issued_at, world.now())
    return connection, key


def _certificate(certificate: ClientCertificate, side: str) -> None:
    """Refuse a client certificate that is not a push certificate, or of the other environment."""
    if not certificate.topics:
        raise RefusalError("BadCertificate", "The client certificate lists no topics.")
    if certificate.sides and side not in certificate.sides:
        raise RefusalError(
            "BadCertificateEnvironment", f"The client certificate is not for {side}."
        )


def _bearer(request: Request) -> str:
    scheme, _, token = (request.header(AUTHORIZATION) or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RefusalError(
            "MissingProviderToken", "There is no 'authorization: bearer ...' and no certificate."
        )
    return token.strip()


def _provider_token(token: str, connection: ClientConnection, world: RuleState) -> ClientConnection:
    """Return the connection with a new provider token, if that is valid and may be changed.

    ES256 with ``kid``, ``iss`` and ``iat``, at most an hour away; one connection belongs to one
    team and one key (establishing-a-token-based-connection-to-apns). A connection refuses further
    tokens once one expired on it: observed by the authors of pushy. That it is bound by the first
    valid token, and not by the first push, is our choice.
    """
    try:
        claims = Claims.read(token)
    except BadTokenError as error:
        raise RefusalError("InvalidProviderToken", str(error)) from None
    key = world.find_key(claims.team_id, claims.key_id)
    if key is None:
        raise RefusalError(
            "InvalidProviderToken",
            f"The key {claims.key_id} of team {claims.team_id} is not known to the twin.",
        )
    if not claims.is_signed_by(key):
        raise RefusalError(
            "InvalidProviderToken", f"The signature was not made by the key {key.key_id}."
        )
    _age(claims.issued_at, world.now())
    if key.environment not in (None, connection.side):
        raise RefusalError(
            "BadEnvironmentKeyIdInToken",
            f"The key {key.key_id} is limited to {key.environment}; this is {connection.side}.",
        )
    _binding(claims, connection)
    return _renewed(token, claims, connection, world.now())


def _binding(claims: Claims, connection: ClientConnection) -> None:
    if connection.team_id not in (None, claims.team_id):
        raise RefusalError(
            "InvalidProviderToken",
            f"The connection belongs to team {connection.team_id}, not to {claims.team_id}.",
        )
    if connection.key_id not in (None, claims.key_id):
        raise RefusalError(
            "UnrelatedKeyIdInToken",
            f"The connection was opened with the key {connection.key_id}, not {claims.key_id}.",
        )


def _renewed(
    token: str, claims: Claims, connection: ClientConnection, now: float
) -> ClientConnection:
    """Return the connection with the new token, unless it is renewed too often.

    Not more than once in 20 minutes (establishing-a-token-based-connection-to-apns), counted per
    connection. We read: neither two tokens issued less than that apart, nor two changes within it.
    """
    limit = PROVIDER_TOKEN_MIN_REFRESH_SECONDS
    is_first = connection.token is None
    is_early = not is_first and abs(claims.issued_at - connection.issued_at) < limit
    is_repeated = connection.updated_at is not None and now - connection.updated_at < limit
    if is_early or is_repeated:
        raise RefusalError(
            "TooManyProviderTokenUpdates",
            "The provider token was renewed less than 20 minutes after the former one.",
        )
    return replace(
        connection,
        team_id=claims.team_id,
        key_id=claims.key_id,
        token=token,
        issued_at=claims.issued_at,
        updated_at=None if is_first else now,
    )


def _age(issued_at: float, now: float) -> None:
    """Refuse a token whose ``iat`` is more than an hour from now, in either direction."""
    age = int(now - issued_at)
    if abs(now - issued_at) > PROVIDER_TOKEN_MAX_AGE_SECONDS:
        when = f"{age} seconds ago" if age > 0 else f"{-age} seconds ahead of the twin's clock"
        raise ExpiredError(
            "ExpiredProviderToken", f"The provider token was issued {when}; 3600 is the most."
        )
