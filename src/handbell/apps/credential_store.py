"""The sealed credentials of apps."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, cast, overload

from sqlalchemy import Connection, RowMapping, delete, insert, select
from sqlalchemy.exc import IntegrityError

from handbell.errors import (
    CredentialError,
    HandbellError,
    MissingCredentialError,
    UnknownAppError,
)
from handbell.fixes import Action, Fix
from handbell.services.apns.credential import AuthKey, Certificate
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.table import SERVICES
from handbell.services.webpush.credential import VapidKey
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import apps as apps_table
from handbell.storage.tables import circuits, credentials

from . import subscriptions
from .app import App
from .credential_choice import by_preference
from .credential_kinds import ADDED_BY, KINDS, Credential, kind_of, pack, unpack
from .credential_rules import check_environment, check_fit
from .rows import read_apps
from .vault import Vault

KNOWN_SECONDS: Final = 1.0
"""How long a credential is cached as the current one."""

_MOST_OPENED: Final = 5000

ADD_APP: Final = Fix(
    Action.ADD_APP,
    "Start a twin, which brings one to try (handbell twin), or add your own",
    app="TEAM123456.com.sample.myapp",
)
"""What to do where there is no app."""

_Asked = tuple[int | None, str, str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredential:
    """A stored credential without its secret.

    ``kind`` is one of :data:`~handbell.apps.credential_kinds.KINDS`. ``environment`` is the only
    one it serves, or None. Instants are in UNIX milliseconds; ``expires_at`` is None for a key.
    """

    id: int
    kind: str
    key_id: str
    environment: str | None
    fingerprint: str
    expires_at: int | None
    created_at: int
    service: str = "apns"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebPushKey:
    """The public key that pages subscribe with, and the environment of such subscriptions."""

    public_key: str
    environment: str


class CredentialStore:
    """Stores credentials. ``now`` returns UNIX seconds, ``clock`` is monotonic.

    A changed credential takes effect at once in this process, in others when a signal has them
    :meth:`forget`, and after :data:`KNOWN_SECONDS` in any case.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._vault = vault
        self._now = now
        self._clock = clock
        self._opened: dict[bytes, Credential] = {}
        # By app, service and environment: until when it is current, by the clock.
        self._current: dict[_Asked, tuple[float, Credential]] = {}

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Yield a connection that changes what other processes have cached."""
        # Whether a name is free is judged by all apps.
        with self._database.write(alone="apps") as connection:
            yield connection
            self._database.signal(Kind.RULES)

    def add_credential(
        self,
        app: App,
        credential: Credential,
        *,
        environment: str | None = None,
        is_forced: bool = False,
    ) -> StoredCredential:
        """Seal and store a credential; replace one with the same key id.

        ``environment`` limits it to one; a certificate issued for one is limited anyway. A VAPID
        key takes the place of the former one of its environment, and of one that served it beside
        others: with ``is_forced`` the subscriptions of that are lost, and without it
        :class:`~handbell.errors.CredentialInUseError` is raised if there are any. Raises
        :class:`~handbell.errors.CredentialError` when it belongs to another team or app.
        """
        check_fit(app, credential)
        if environment is None and isinstance(credential, Certificate):
            environment = credential.environments[0] if len(credential.environments) == 1 else None
        values = self._sealed(app, credential, environment)
        with (
            self._write() as connection,
            _minded(connection, app, is_forced=is_forced),
        ):
            if isinstance(credential, VapidKey):
                _replace_vapid(connection, app, environment)
            connection.execute(delete(credentials).where(*_named(app, credential.key_id)))
            try:
                key = connection.execute(insert(credentials).values(values)).inserted_primary_key
            except IntegrityError:
                raise gone(app) from None
            made = select(credentials).where(credentials.c.id == primary_key(key))
            stored = _stored(connection.execute(made).mappings().one())
        self.forget()
        return stored

    def _sealed(self, app: App, credential: Credential, environment: str | None) -> dict[str, Any]:
        kind = kind_of(credential)
        check_environment(KINDS[kind].service, environment)
        return {
            "app_id": app.row,
            "service": KINDS[kind].service,
            "kind": kind,
            "key_id": credential.key_id,
            "environment": environment,
            "fingerprint": credential.fingerprint,
            "sealed": self._vault.seal(pack(credential)),
            "expires_at": getattr(credential, "expires_at", None),
            "created_at": self._milliseconds(),
        }

    def credentials(self, app: App, service: str | None = None) -> list[StoredCredential]:
        """Return the app's credentials without secrets, all or a service's, the newest first."""
        with self._database.read() as connection:
            return [_stored(row) for row in _rows(connection, app, service)]

    def remove_credential(self, app: App, key_id: str, *, is_forced: bool = False) -> None:
        """Remove a credential by its key id (a certificate's is its fingerprint).

        With ``is_forced`` the subscriptions of a VAPID key are lost with it; without,
        :class:`~handbell.errors.CredentialInUseError` is raised if there are any.
        """
        with (
            self._write() as connection,
            _minded(connection, app, is_forced=is_forced),
        ):
            row = next(
                (row for row in _rows(connection, app) if row["key_id"] == key_id),
                None,
            )
            if row is None:
                raise _no_key(app, key_id)
            connection.execute(delete(credentials).where(*_named(app, key_id)))
            its = (circuits.c.app == app.id, circuits.c.credential == row["fingerprint"])
            connection.execute(delete(circuits).where(*its))
        self.forget()

    def subscriptions_by(self, app: App, key_id: str) -> int:
        """Return how many subscriptions can be reached by a web push key alone; 0 for another."""
        with self._database.read() as connection:
            rows = _rows(connection, app, "webpush")
            row = next((row for row in rows if row["key_id"] == key_id), None)
            if row is None:
                return 0
            return subscriptions.count_of(connection, app, _environments_of(rows, row))

    def credential(self, app: App, key_id: str) -> Credential:
        """Return one of an app's credentials by its key id.

        Raises :class:`~handbell.errors.MissingCredentialError` when the app has none with it.
        """
        with self._database.read() as connection:
            rows = _rows(connection, app)
        for row in rows:
            if row["key_id"] == key_id:
                return self._unpacked(app, row)
        raise _no_key(app, key_id)

    @overload
    def credential_for(
        self,
        app: App,
        environment: str,
        *,
        service: Literal["apns"] = "apns",
        excluded: Collection[str] = (),
    ) -> AuthKey | Certificate: ...
    @overload
    def credential_for(
        self,
        app: App,
        environment: str,
        *,
        service: Literal["fcm"],
        excluded: Collection[str] = (),
    ) -> ServiceAccount: ...
    @overload
    def credential_for(
        self,
        app: App,
        environment: str,
        *,
        service: Literal["webpush"],
        excluded: Collection[str] = (),
    ) -> VapidKey: ...
    @overload
    def credential_for(
        self, app: App, environment: str, *, service: str, excluded: Collection[str] = ()
    ) -> Credential: ...
    def credential_for(
        self,
        app: App,
        environment: str,
        *,
        service: str = "apns",
        excluded: Collection[str] = (),
    ) -> Credential:
        """Return the app's credential of a push service for an environment.

        One that is limited to the environment wins, then the newest that is not limited. The twin
        accepts any. Those whose fingerprints are in ``excluded`` are skipped if there is another.
        Raises :class:`~handbell.errors.MissingCredentialError` with the fix.
        """
        asked, current = self._clock(), self._current
        place = (app.row, service, environment, frozenset(excluded))
        until, known = current.get(place, (0.0, None))
        if known is not None and asked < until:
            return known
        with self._database.read() as connection:
            serving = _serving(_rows(connection, app, service), environment)
        others = [row for row in serving if row["fingerprint"] not in place[-1]]
        for row in others or serving:
            found = self._unpacked(app, row)
            # After a change in between, a new mapping is in use.
            current[place] = (asked + KNOWN_SECONDS, found)
            return found
        raise MissingCredentialError(
            f"{app.id} has no {_NOUNS.get(service, 'credential')} for {environment}",
            fix=Fix(ADDED_BY[service], "Add one", app=app.id) if service in ADDED_BY else "",
        )

    def web_push_key(self, app: App) -> WebPushKey:
        """Return the public key that an app's pages subscribe with.

        It is the one for production, or else the twin's. Raises
        :class:`~handbell.errors.MissingCredentialError` when the app has none.
        """
        for environment in ("production", "twin"):
            try:
                found = self.credential_for(app, environment, service="webpush")
            except MissingCredentialError:
                continue
            return WebPushKey(public_key=found.public_key, environment=environment)
        raise MissingCredentialError(
            f"{app.id} has no web push key",
            fix=Fix(Action.MAKE_WEB_PUSH_KEYS, "Make one", app=app.id),
        )

    def web_push_keys(self, app: App, environments: Iterable[str]) -> set[str]:
        """Return the public keys that browsers' subscriptions in these environments live by."""
        found = set()
        for environment in environments:
            with suppress(MissingCredentialError):
                found.add(self.credential_for(app, environment, service="webpush").public_key)
        return found

    def forget(self) -> None:
        """Drop the cache: credentials may have changed."""
        self._current = {}

    def auth_key(self, team_id: str, key_id: str) -> AuthKey | None:
        """Return a team's key by its id, or None when no app has it."""
        named = (credentials.c.key_id == key_id, apps_table.c.team_id == team_id)
        for credential in self._all_of("key", *named):
            if isinstance(credential, AuthKey):
                return credential
        return None

    def service_account(self, client_email: str) -> ServiceAccount | None:
        """Return a service account by its mail address, or None when no app has it."""
        for credential in self._all_of("service-account"):
            if isinstance(credential, ServiceAccount) and credential.client_email == client_email:
                return credential
        return None

    def _all_of(self, kind: str, *where: Any) -> Iterator[Credential]:
        statement = select(credentials).join_from(credentials, apps_table)
        with self._database.read() as connection:
            wanted = statement.where(credentials.c.kind == kind, *where)
            rows = connection.execute(wanted).mappings().all()
            apps = {app.row: app for app in read_apps(connection)} if rows else {}
        for row in rows:
            yield self._unpacked(apps[row["app_id"]], row)

    def unusable(self, app: App) -> dict[str, HandbellError]:
        """Return the faults of the app's credentials that cannot be decrypted, by key id."""
        with self._database.read() as connection:
            rows = _rows(connection, app)
        wrong = {}
        for row in rows:
            try:
                self._unpacked(app, row)
            except HandbellError as error:
                wrong[row["key_id"]] = error
        return wrong

    def _unpacked(self, app: App, row: RowMapping) -> Credential:
        credential = self._opened.get(row["sealed"])
        if credential is None:
            # Decrypted once: each send needs it, and loading a key takes longer than the send.
            credential = unpack(row["kind"], self._vault.unseal(row["sealed"]))
            if len(self._opened) >= _MOST_OPENED:
                self._opened.clear()
            self._opened[row["sealed"]] = credential
        if credential.fingerprint != row["fingerprint"]:
            raise CredentialError(
                f"The stored credential {row['key_id']} is not the one that was added",
                fix="Remove it and add it again",
            )
        check_fit(app, credential)
        return credential

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


_NOUNS: Final = {"apns": "key", "fcm": "service account", "webpush": "web push key"}


def gone(app: App) -> UnknownAppError:
    """Return the error for an app that was removed meanwhile."""
    return UnknownAppError(f"The app {app.id} is not there (any more)", fix=ADD_APP)


def primary_key(key: Any) -> int:
    """Return the id of an inserted row."""
    return int(key[0])


def _no_key(app: App, key_id: str) -> MissingCredentialError:
    return MissingCredentialError(
        f"{app.id} has no key {key_id}", fix=Fix(Action.LIST_KEYS, "See", app=app.id)
    )


def _replace_vapid(connection: Connection, app: App, environment: str | None) -> None:
    """Remove the former VAPID key of an environment, or of all of them."""
    for row in _rows(connection, app, "webpush"):
        if row["environment"] == environment:
            connection.execute(delete(credentials).where(credentials.c.id == row["id"]))


def _minded(connection: Connection, app: App, *, is_forced: bool) -> AbstractContextManager[None]:
    serving = partial(_web_push_keys, connection, app)
    return subscriptions.minded(connection, app, serving, is_forced=is_forced)


def _web_push_keys(connection: Connection, app: App) -> dict[str, str]:
    """Return the fingerprint of the VAPID key that serves each environment."""
    rows = _rows(connection, app, "webpush")
    serving = {name: _serving(rows, name) for name in SERVICES["webpush"].environments}
    return {name: found[0]["fingerprint"] for name, found in serving.items() if found}


def _environments_of(rows: list[RowMapping], row: RowMapping) -> list[str]:
    """Return the environments in which, of an app's web push keys, this one is used."""
    return [
        environment
        for environment in SERVICES["webpush"].environments
        if _serving(rows, environment)[:1] == [row]
    ]


def _serving(rows: list[RowMapping], environment: str) -> list[RowMapping]:
    return by_preference(environment, rows, lambda row: cast("str | None", row["environment"]))


def _named(app: App, key_id: str) -> tuple[Any, Any]:
    return (credentials.c.app_id == app.row, credentials.c.key_id == key_id)


def _rows(connection: Connection, app: App, service: str | None = None) -> list[RowMapping]:
    statement = select(credentials).where(credentials.c.app_id == app.row)
    if service is not None:
        statement = statement.where(credentials.c.service == service)
    return list(connection.execute(statement.order_by(credentials.c.id.desc())).mappings())


def _stored(row: RowMapping) -> StoredCredential:
    return StoredCredential(
        id=row["id"],
        kind=row["kind"],
        key_id=row["key_id"],
        environment=row["environment"],
        fingerprint=row["fingerprint"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        service=row["service"],
    )
