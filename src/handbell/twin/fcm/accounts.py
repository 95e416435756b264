"""Service accounts, their access tokens, and what each may do.

Source: https://developers.google.com/identity/protocols/oauth2/service-account
"""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from handbell.errors import CredentialError
from handbell.services.fcm.protocol import ACCESS_TOKEN_SECONDS, TOKEN_URI
from handbell.twin.hooks import call

_KEY_BITS: Final = 2048
_EXPONENT: Final = 65537
_MAX_TOKENS: Final = 10_000

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A service account's key, of which only the public half is known.

    ``may_send`` is the permission ``cloudmessaging.messages.create`` in its project.
    """

    client_email: str
    project: str
    key_id: str
    public_key: rsa.RSAPublicKey
    may_send: bool = True


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token's owner and life; ``can_send`` says whether its scope covers messaging."""

    account: Account
    expires_at: float
    can_send: bool = True


class Accounts:
    """The service accounts that the twin knows, and the access tokens that it issued."""

    def __init__(
        self,
        *,
        find: Callable[[str], Mapping[str, str] | None],
        now: Callable[[], float],
    ) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        self._tokens: dict[str, AccessToken] = {}
        self._find = find
        self._now = now
        self.token_seconds: float = ACCESS_TOKEN_SECONDS

    @property
    def all(self) -> list[Account]:
        """Return the known accounts, one for each key."""
        return list(self._accounts.values())

    @property
    def projects(self) -> list[str]:
        """Return the projects of the known accounts."""
        return list(dict.fromkeys(account.project for account in self._accounts.values()))

    def make(self, project: str, *, token_uri: str = TOKEN_URI, may_send: bool = True) -> str:
        """Create an account with a key and return its key file, as Google's console gives it."""
        key = rsa.generate_private_key(_EXPONENT, _KEY_BITS)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        number = secrets.randbelow(10**21)
        email = f"firebase-adminsdk-{secrets.token_hex(3)}@{project}.iam.gserviceaccount.com"
        file = {
            "type": "service_account",
            "project_id": project,
            "private_key_id": secrets.token_hex(20),
            "private_key": pem,
            "client_email": email,
            "client_id": f"{number:021}",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": "googleapis.com",
        }
        self.add(file, may_send=may_send)
        return json.dumps(file, indent=2) + "\n"

    def add(self, file: Mapping[str, Any], *, may_send: bool = True) -> Account:
        """Add an account from its key file, of which only the key's public half is kept.

        ``public_key`` in PEM may stand in place of ``private_key``. Raises CredentialError when
        the file lacks a member or its key is not RSA.
        """
        said = {name: file.get(name) for name in ("client_email", "project_id", "private_key_id")}
        email, project, key_id = said.values()
        if not (isinstance(email, str) and email and isinstance(project, str) and project):
            raise CredentialError(
                "The service account's file lacks 'client_email' or 'project_id'",
                fix="Give the JSON file as Google's console downloads it",
            )
        account = Account(
            client_email=email,
            project=project,
            key_id=key_id if isinstance(key_id, str) else "",
            public_key=_public_key(file.get("public_key") or file.get("private_key"), email),
            may_send=may_send,
        )
        self._accounts[email, account.key_id] = account
        return account

    def remove(self, client_email: str) -> None:
        """Delete an account with its keys; its access tokens are refused from now on."""
        self._accounts = {key: one for key, one in self._accounts.items() if key[0] != client_email}
        self._tokens = {
            token: one
            for token, one in self._tokens.items()
            if one.account.client_email != client_email
        }

    def of(self, client_email: str, key_id: str | None) -> list[Account]:
        """Return the account's keys, or the one that is named; the hook is asked for unknown ones.

        An empty list means that there is no such account, or that it has no such key.
        """
        found = self._known(client_email, key_id)
        if not found:
            file = call(self._find, client_email)
            if isinstance(file, Mapping):
                try:
                    self.add(file)
                except CredentialError as error:
                    logger.warning("Could not use the account from its hook: %s", error)
        return self._known(client_email, key_id)

    def has(self, client_email: str) -> bool:
        """Return whether the account is known, whatever its keys are."""
        return any(email == client_email for email, _ in self._accounts)

    def issue(self, account: Account, *, can_send: bool) -> tuple[str, int]:
        """Return a new access token and its life in seconds."""
        token = f"ya29.c.{secrets.token_urlsafe(96)}"
        if len(self._tokens) >= _MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        self._tokens[token] = AccessToken(account, self._now() + self.token_seconds, can_send)
        return token, int(self.token_seconds)

    def revoke_tokens(self) -> None:
        """Refuse every access token that was issued so far."""
        self._tokens.clear()

    def find_token(self, token: str) -> AccessToken | None:
        """Return what an access token stands for; None for an unknown or expired one."""
        found = self._tokens.get(token)
        return found if found is not None and self._now() < found.expires_at else None

    def _known(self, client_email: str, key_id: str | None) -> list[Account]:
        return [
            one
            for (email, known), one in self._accounts.items()
            if email == client_email and (key_id is None or known == key_id)
        ]


def _public_key(pem: object, email: str) -> rsa.RSAPublicKey:
    key: object = None
    if isinstance(pem, str):
        try:
            if "PRIVATE KEY" in pem:
                key = serialization.load_pem_private_key(pem.encode(), None)
            else:
                key = serialization.load_pem_public_key(pem.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None
    if isinstance(key, rsa.RSAPrivateKey):
        key = key.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key
    raise CredentialError(
        f"The key of {email} is not an RSA key in PEM",
        fix="Give the JSON file as Google's console downloads it",
    )
