"""The state of a twin: keys, apps, phones and received requests. It opens no socket."""

import hmac
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from handbell.errors import TwinError
from handbell.services.fcm.protocol import TOKEN_URI

from .apns.provider_token import Key
from .apns.request_handler import ApnsSide
from .discovery import Address
from .fcm.accounts import Account
from .fcm.request_handler import FCM_SIDE
from .history import ReceivedRequest, Subscription
from .hooks import TwinHooks, call
from .phones import DEFAULT_PROJECT, Phones
from .sides import APNS_SIDES
from .untrusted import as_mapping
from .webpush.handler import SIDE as WEBPUSH_SIDE
from .wire.side import PlainSide, Side


class TwinState(Phones):
    """The state of one twin: what its answers and its page depend on.

    It belongs to one event loop. ``now`` is the twin's clock in UNIX seconds.
    """

    def __init__(self, *, hooks: TwinHooks | None, now: Callable[[], float]) -> None:
        self._address: Address | None = None
        self._page_token = secrets.token_urlsafe(16)
        self.links: dict[str, str] = {}
        super().__init__(hooks=TwinHooks() if hooks is None else hooks, now=now)

    def _webpush_origin(self) -> str:
        return self.address.webpush_url

    def _sides(self) -> list[Side]:
        return [
            *(ApnsSide(name, self._apns_handler) for name in APNS_SIDES),
            PlainSide(FCM_SIDE, self._fcm.answer),
            PlainSide(WEBPUSH_SIDE, self._webpush.answer),
        ]

    @property
    def address(self) -> Address:
        """Return the addresses of the running twin; raises TwinError when it is not running."""
        if self._address is None:
            raise TwinError("The twin is not running", fix="Start it first")
        return self._address

    def allows_token(self, token: str) -> bool:
        """Return whether a caller with this token, or without one, may use the page."""
        if hmac.compare_digest(token.encode(), self._page_token.encode()):
            return True
        return call(self._hooks.guards_page) is False

    # Configuration

    @property
    def keys(self) -> Mapping[tuple[str, str], Key]:
        """Return the known keys, by team id and key id."""
        return self._apns.keys

    def add_key(
        self,
        team_id: str,
        key_id: str,
        key_pem: str | bytes,
        environment: str | None = None,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Add a key from the PEM of its public half, or from a ``.p8``, of which only that is kept.

        ``environment`` limits it to ``production`` or ``development``, ``topics`` to those apps.
        Raises CredentialError when it is not a P-256 key.
        """
        self._apns.add_key(team_id, key_id, key_pem, environment, topics)

    def remove_key(self, team_id: str, key_id: str) -> None:
        """Revoke a key: its tokens are an ``InvalidProviderToken`` from now on."""
        self._apns.remove_key(team_id, key_id)

    @property
    def service_accounts(self) -> list[Account]:
        """Return the known service accounts, one for each key."""
        return self._fcm.accounts.all

    def make_service_account(
        self, project: str = DEFAULT_PROJECT, *, may_send: bool = True, is_direct: bool = False
    ) -> str:
        """Create a service account and return its key file: JSON, as Google's console gives it.

        Its ``token_uri`` is Google's, which a client reaches by the twin's proxy or a mapped host;
        ``is_direct`` names the twin's own. Without ``may_send`` the account lacks the permission
        to send. The private key is in the returned text alone.
        """
        token_uri = self.address.oauth_url if is_direct else TOKEN_URI
        return self._fcm.accounts.make(project, token_uri=token_uri, may_send=may_send)

    def add_service_account(self, key_file: str | bytes, *, may_send: bool = True) -> str:
        """Add a service account from its key file and return its project.

        Only the public half of its key is kept. Raises CredentialError for what is no key file.
        """
        try:
            file = json.loads(key_file)
        except (ValueError, RecursionError):
            file = None
        return self._fcm.accounts.add(as_mapping(file), may_send=may_send).project

    def remove_service_account(self, client_email: str) -> None:
        """Delete a service account: its assertions and its access tokens are refused."""
        self._fcm.accounts.remove(client_email)

    def revoke_access_tokens(self) -> None:
        """Refuse every access token that was issued so far."""
        self._fcm.accounts.revoke_tokens()

    def limit_fcm(
        self, *, messages_per_minute: int | None = None, token_seconds: float | None = None
    ) -> None:
        """Change the quota of each Google project, and the life of further access tokens."""
        if messages_per_minute is not None:
            self._fcm.quotas.per_minute = messages_per_minute
        if token_seconds is not None:
            self._fcm.accounts.token_seconds = token_seconds

    # History

    @property
    def requests(self) -> list[ReceivedRequest]:
        """The last requests, newest first, 1000 at most."""
        return self._history.requests

    @property
    def accepted(self) -> int:
        """Return how many pushes were accepted since the start."""
        return self._reception.total

    def accepted_of(self, token: str) -> dict[str, int]:
        """Return how often each push, by its id, was accepted for the token."""
        return self._reception.accepted.of(token)

    def shown(self, token: str) -> dict[str, int]:
        """Return how often each push, by its id, was shown on the phone of the token.

        Replacing an older card with the same collapse id counts too.
        """
        return self._reception.shown.of(token)

    def listen(self) -> AbstractContextManager[Subscription]:
        """Yield a listener that receives every change while the block runs."""
        return self._history.listen()
