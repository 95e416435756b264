"""Proof of identity: how an app's devices prove their owner, and its back end's tokens.

An identity token is a JWT: ``aud`` is the app id, ``sub`` (or ``email``) the mail address, ``exp``
at most ten minutes ahead, ``iat`` and ``jti`` are required, and a ``jti`` is valid once.
"""

import base64
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from handbell.apps.app import App
from handbell.apps.checkup import Finding
from handbell.apps.vault import Vault
from handbell.errors import AppError, IdentityError, RegistryError, UnknownAppError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.tables import apps, identity_tokens

from .registration import registered_mail
from .secret import digest_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

Proof = Literal["key", "link", "token"]
PROOFS: Final[tuple[str, ...]] = get_args(Proof)

LONGEST_SECONDS: Final = 600
"""The longest validity of an identity token from now."""

LEEWAY_SECONDS: Final = 30
"""The clock difference allowed between the app's back end and this machine."""

_MIN_SECRET_BYTES: Final = 32
_MAX_TOKEN_LENGTH: Final = 4096
_MAX_JTI_LENGTH: Final = 255
_MAX_URL_LENGTH: Final = 2000
_DOMAIN: Final = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9-]{1,63}")
_PUBLIC_KEY: Final = re.compile(
    rb"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.DOTALL
)
# A sequence, and in it a sequence that begins with the kind of key: id-ecPublicKey.
_EC_KEY: Final = re.compile(
    rb"\x30(?:[\x00-\x7f]|\x81.|\x82..)\x30(?:[\x00-\x7f]|\x81.|\x82..)"
    rb"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
    re.DOTALL,
)
_CLAIMS: Final = "Sign the claims aud, sub, exp, iat and jti"
_SIGN: Final = "Let the back end sign a new token for each registration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """An app's proof of identity; ``algorithm`` is None while there is no key.

    ``associated_domain`` and ``store_url`` are for universal links.
    """

    proof: str = "key"
    algorithm: str | None = None
    associated_domain: str | None = None
    store_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """A verified identity token. ``expires_at`` is in UNIX milliseconds."""

    mail: str
    digest: str
    expires_at: int


def check_identity(identity: Identity, *, can_mail: bool) -> list[Finding]:
    """Return what prevents devices from proving their owner."""
    if identity.proof == "link" and not can_mail:
        return [
            Finding(
                check="proof",
                verdict="wrong",
                sentence="Devices are to be proven by mailed links, and there is no mail server.",
                fix="Set HANDBELL_SMTP_URL and HANDBELL_MAIL_FROM, or choose another proof.",
            )
        ]
    return []


class IdentityStore:
    """Stores each app's proof of identity. ``now`` returns UNIX seconds.

    ``can_mail`` means that there is a mail server for links. Identity keys are sealed by the vault
    and never shown again.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        can_mail: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._vault = vault
        self._can_mail = can_mail
        self._now = now

    def of(self, app: App) -> Identity:
        """Return an app's settings."""
        return _identity(self._row(app))

    def all(self) -> dict[int, Identity]:
        """Return every app's settings, by its row."""
        with self._database.read() as connection:
            return {row.id: _identity(row) for row in connection.execute(select(apps))}

    def set(
        self,
        app: App,
        *,
        proof: str | None = None,
        identity_key: str | bytes | None = None,
        associated_domain: str | None = None,
        store_url: str | None = None,
    ) -> Identity:
        """Change the given settings, all or nothing, and return the result.

        An ``identity_key`` is a public key in PEM (P-256, for ES256) or a secret of 32 bytes or
        more (for HS256). ``none`` removes a key, a domain or an address. Raises
        :class:`~handbell.errors.AppError` for invalid values, when tokens could not be verified
        without a key, and when links could not be mailed.
        """
        if proof == "link" and not self._can_mail:
            raise AppError(
                "Links can only be mailed with a mail server",
                fix="Set HANDBELL_SMTP_URL and HANDBELL_MAIL_FROM first, here and for the server",
            )
        values: dict[str, Any] = {}
        if proof is not None:
            values["proof"] = _one_of_proofs(proof)
        if identity_key is not None:
            values |= self._sealed(identity_key)
        if associated_domain is not None:
            values["associated_domain"] = _read_domain(associated_domain)
        if store_url is not None:
            values["store_url"] = _read_store_url(store_url)
        with self._database.write() as connection:
            if values:
                connection.execute(update(apps).where(apps.c.id == app.row).values(values))
            row = connection.execute(select(apps).where(apps.c.id == app.row)).one_or_none()
            if row is None:
                raise _gone(app)
            identity = _identity(row)
            if identity.proof == "token" and identity.algorithm is None:
                raise AppError(
                    f"{app.id} has no identity key to check tokens with",
                    fix=Fix(Action.SET_IDENTITY_KEY, "Give one as well", app=app.id),
                )
        return identity

    def check(self, app: App, token: str) -> Claims:
        """Verify an identity token of an app and return its claims.

        Raises :class:`~handbell.errors.IdentityError`, with the reason. Reuse is detected by
        :meth:`use`.
        """
        row = self._row(app)
        if row.identity_algorithm is None or row.sealed_identity_key is None:
            raise IdentityError(
                f"{app.id} has no identity key",
                fix=Fix(Action.SET_IDENTITY_KEY, "Set one", app=app.id),
            )
        key = self._vault.unseal(row.sealed_identity_key)
        payload = _decode(token, key, row.identity_algorithm, app)
        return self._claims(payload)

    def use(self, connection: Connection, app: App, claims: Claims) -> None:
        """Record the use of a token in a transaction. Raises IdentityError the second time."""
        now = self._milliseconds()
        connection.execute(delete(identity_tokens).where(identity_tokens.c.expires_at < now))
        values = {"app_id": app.row, "digest": claims.digest, "expires_at": claims.expires_at}
        try:
            connection.execute(insert(identity_tokens).values(values))
        except IntegrityError:
            raise IdentityError("The identity token was used before", fix=_SIGN) from None

    def _claims(self, payload: Mapping[str, Any]) -> Claims:
        now = self._now()
        expires, issued = _number(payload, "exp"), _number(payload, "iat")
        if expires <= now - LEEWAY_SECONDS:
            raise IdentityError("The identity token has expired", fix=_SIGN)
        if expires > now + LONGEST_SECONDS + LEEWAY_SECONDS:
            raise IdentityError(
                "The identity token lives too long", fix="Let exp be at most 10 minutes ahead"
            )
        if issued > now + LEEWAY_SECONDS or _number(payload, "nbf", issued) > now + LEEWAY_SECONDS:
            raise IdentityError(
                "The identity token is from the future", fix="Set the back end's clock right"
            )
        jti = _text(payload, "jti")
        if len(jti) > _MAX_JTI_LENGTH:
            raise IdentityError("The claim jti is too long", fix="Use a UUID, say")
        mail = _text(payload, "email" if "email" in payload else "sub")
        try:
            folded = registered_mail(mail)
        except RegistryError:
            raise IdentityError(
                "The identity token names no mail address",
                fix="Put the person's mail address into the claim sub, or into email",
            ) from None
        # By jti, not by the token's text: anyone can derive a second text from an ES256 token.
        return Claims(
            mail=folded,
            digest=digest_of(jti),
            expires_at=int((expires + LEEWAY_SECONDS) * 1000) + 1000,
        )

    def _sealed(self, identity_key: str | bytes) -> dict[str, Any]:
        key = identity_key.encode() if isinstance(identity_key, str) else identity_key
        key = key.strip()
        if key == b"none":
            return {"identity_algorithm": None, "sealed_identity_key": None}
        return {
            "identity_algorithm": _algorithm(key),
            "sealed_identity_key": self._vault.seal(key),
        }

    def _row(self, app: App) -> Any:
        with self._database.read() as connection:
            row = connection.execute(select(apps).where(apps.c.id == app.row)).one_or_none()
        if row is None:
            raise _gone(app)
        return row

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _identity(row: Any) -> Identity:
    return Identity(
        proof=row.proof,
        algorithm=row.identity_algorithm,
        associated_domain=row.associated_domain,
        store_url=row.store_url,
    )


def _decode(token: str, key: bytes, algorithm: str, app: App) -> Mapping[str, Any]:
    import jwt  # noqa: PLC0415 - of the extra server, and only needed there

    if len(token) > _MAX_TOKEN_LENGTH:
        raise IdentityError("The identity token is too long", fix=_SIGN)
    # Times are checked here, with the injected clock.
    options: Any = {
        **dict.fromkeys(("verify_exp", "verify_iat", "verify_nbf"), False),
        **dict.fromkeys(("verify_sub", "verify_jti"), False),
        "require": ["exp", "iat", "jti", "aud"],
    }
    try:
        payload = jwt.decode(
            token,
            _verifying(key, algorithm),
            algorithms=[algorithm],
            audience=app.id,
            options=options,
        )
    except jwt.InvalidAudienceError:
        raise IdentityError(
            "The identity token is for another app", fix=f"Let its claim aud be {app.id}"
        ) from None
    except jwt.MissingRequiredClaimError as error:
        raise IdentityError(
            f"The identity token has no claim {error.claim}",
            fix=_CLAIMS,
        ) from None
    except jwt.InvalidAlgorithmError:
        raise IdentityError(
            "The identity token is not signed as this app's key asks",
            fix=f"Sign it with {algorithm}",
        ) from None
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise IdentityError(
            "The identity token cannot be read, or its signature is wrong",
            fix=f"Sign it with {algorithm} and the key that belongs to the app's identity key",
        ) from None
    return payload


def _verifying(key: bytes, algorithm: str) -> Any:
    return _public_key(key) if algorithm == "ES256" else key


def _algorithm(key: bytes) -> str:
    if b"-----BEGIN" in key:
        _public_key(key)
        return "ES256"
    if len(key) < _MIN_SECRET_BYTES:
        raise AppError(
            f"The identity key is a secret of {len(key)} bytes only",
            fix="Use 32 random bytes or more: openssl rand -hex 32",
        )
    return "HS256"


def _public_key(pem: bytes) -> "EllipticCurvePublicKey":
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - heavy
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415

    if b"PRIVATE KEY" in pem:
        raise AppError(
            "The identity key is a private key, which stays with the back end",
            fix="Name its public half: openssl ec -in key.pem -pubout",
        )
    block = _PUBLIC_KEY.search(pem)
    try:
        der = base64.b64decode(b"" if block is None else block[1])
        # Keys of other kinds are not loaded: validating their numbers may take minutes.
        key = load_der_public_key(der) if _EC_KEY.match(der) else None
    except Exception:  # noqa: BLE001 - the library promises no kind of error for bad input
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AppError(
            "The identity key is not a public key on the curve P-256",
            fix="ES256 needs one: openssl ecparam -name prime256v1 -genkey",
        )
    return key


def _number(payload: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = payload.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e12:  # noqa: PLR2004 - beyond any date
        raise IdentityError(
            f"The claim {name} is not a number", fix="Write instants in seconds since 1970"
        )
    return value


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload.get(name)
    if not isinstance(value, str) or not value:
        raise IdentityError(
            f"The claim {name} is not a text", fix="Sign aud, sub, exp, iat and jti"
        )
    return value


def _one_of_proofs(proof: str) -> str:
    if proof not in PROOFS:
        raise AppError(f"{proof!r} is not a known proof", fix=f"Use one of {', '.join(PROOFS)}")
    return proof


def _read_domain(text: str) -> str | None:
    domain = text.strip().lower().removeprefix("applinks:")
    if domain in ("", "none"):
        return None
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:
        domain = ""
    if not _DOMAIN.fullmatch(domain):
        raise AppError(
            f"{text[:100]!r} is not a domain", fix="Write the host alone: links.example.com"
        )
    return domain


def _read_store_url(text: str) -> str | None:
    url = text.strip()
    if url in ("", "none"):
        return None
    try:
        parts = urlsplit(url)
        is_good = parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        is_good = False
    if not is_good or len(url) > _MAX_URL_LENGTH or not url.isascii() or not url.isprintable():
        raise AppError(
            f"{text[:100]!r} is not the address of an app in a store",
            fix="It looks like https://apps.apple.com/app/id1234567890",
        )
    return url


def _gone(app: App) -> UnknownAppError:
    return UnknownAppError(
        f"The app {app.id} is not there (any more)", fix=Fix(Action.LIST_APPS, "See")
    )
