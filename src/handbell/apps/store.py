"""The stored apps and their sealed credentials."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    RowMapping,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from handbell.errors import (
    AppError,
    AppExistsError,
    CredentialError,
    HandbellError,
    MissingCredentialError,
    NameTakenError,
    UnknownAppError,
)
from handbell.fixes import Action, Fix
from handbell.services.apns.credential import AuthKey, Certificate, pack, unpack
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import SEALED
from handbell.storage.tables import apps as apps_table
from handbell.storage.tables import circuits as circuits_table
from handbell.storage.tables import credentials as credentials_table

from .app import App
from .credential_choice import by_preference
from .names import check_ids, check_name, free_name
from .references import meant, single
from .rows import columns_of, read_apps
from .sample_keys import make_key, without_samples
from .vault import Vault

Credential = AuthKey | Certificate

_ADD_APP: Final = Fix(
    Action.ADD_APP,
    "Start a twin, which brings one to try (handbell twin), or add your own",
    app="TEAM123456.com.sample.myapp",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCredential:
    """A stored credential without its secret.

    ``kind`` is ``key`` or ``certificate``. ``environment`` is the only one it serves, or None.
    Instants are in UNIX milliseconds; ``expires_at`` is None for a key.
    """

    id: int
    kind: str
    key_id: str
    environment: str | None
    fingerprint: str
    expires_at: int | None
    created_at: int


KNOWN_SECONDS: Final = 1.0
"""How long a credential is cached as the current one."""

_MOST_OPENED: Final = 5000
_NAMED_AT_ONCE: Final = 500

# Within the class, `list` is its method.
_StoredCredentials = list[StoredCredential]
_Apps = list[App]

_Asked = tuple[int | None, str, frozenset[str]]


class AppStore:
    """Stores the apps. ``now`` returns UNIX seconds, ``clock`` is monotonic.

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
        # By app and environment: until when it is current, by the clock.
        self._current: dict[_Asked, tuple[float, Credential]] = {}

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """Yield a connection that changes what other processes have cached."""
        # Whether a name is free is judged by all apps.
        with self._database.write(alone="apps") as connection:
            yield connection
            self._database.signal(Kind.RULES)

    def add(
        self,
        team_id: str | None = None,
        bundle_id: str | None = None,
        name: str | None = None,
        *,
        app_id: str | None = None,
        android_package: str | None = None,
        android_fingerprints: Iterable[str] = (),
        web_origin: str | None = None,
        is_suggested: bool = False,
    ) -> App:
        """Add an app and return it.

        Its id is ``app_id``, by default one made of the rest, as :class:`App` says. The default
        name is the last part of the bundle id or package; it is numbered when it also identifies
        another app, as is a name that ``is_suggested``. A sample app of a twin yields its name;
        adding the sample app itself makes it a regular app under the given name, with its
        sessions. Raises :class:`~handbell.errors.AppError` for an invalid id,
        :class:`~handbell.errors.AppExistsError` when the app exists, and
        :class:`~handbell.errors.NameTakenError` when the name, or the app's id, identifies another
        app.
        """
        app = App(
            id=app_id or "",
            team_id=team_id,
            bundle_id=bundle_id,
            android_package=android_package,
            android_fingerprints=tuple(android_fingerprints),
            web_origin=web_origin,
            name=name or "",
            created_at=self._milliseconds(),
        )
        with self._write() as connection:
            others = read_apps(connection)
            samples = _samples(connection, others)
            if app.id in (item.id for item in samples):
                return self._adopt(connection, app, others, name=name)
            others = [other for other in others if other not in samples]
            _check_new(app, others)
            check_ids(app, others)
            if name is None or is_suggested:
                app = replace(app, name=free_name(app, others))
            check_name(app, others)
            values = {
                **columns_of(app),
                "is_enabled": app.is_enabled,
                "created_at": app.created_at,
            }
            added = connection.execute(insert(apps_table).values(values))
            for sample in samples:
                given = free_name(sample, [*others, app])
                statement = update(apps_table).where(apps_table.c.id == sample.row)
                connection.execute(statement.values(name=given))
        return replace(app, row=_primary_key(added.inserted_primary_key))

    def set_ids(self, app: App, given: Mapping[str, Any]) -> App:
        """Change what the push services know an app by, and return the app.

        ``given`` has any of ``team_id``, ``bundle_id``, ``android_package``,
        ``android_fingerprints`` and ``web_origin``; None removes one. The app's id stays. Apple's
        ids are added once: its tokens belong to them. Raises
        :class:`~handbell.errors.AppError` for invalid ones, and
        :class:`~handbell.errors.AppExistsError` for those of another app.
        """
        changed = replace(app, **given)
        if app.apple_id not in (None, changed.apple_id):
            raise AppError(
                f"{app.id} has the team id {app.team_id} and the bundle id {app.bundle_id} already",
                fix="Add another app for others: its device tokens belong to them",
            )
        with self._write() as connection:
            others = [other for other in read_apps(connection) if other.row != app.row]
            _check_new(changed, others)
            check_ids(changed, others)
            statement = update(apps_table).where(apps_table.c.id == app.row)
            if not connection.execute(statement.values(columns_of(changed))).rowcount:
                raise _gone(app)
        self.forget()
        return changed

    def _adopt(self, connection: Connection, app: App, others: _Apps, *, name: str | None) -> App:
        (sample,) = (other for other in others if other.id == app.id)
        adopted = replace(app, row=sample.row, name=name or sample.name)
        check_name(adopted, others)
        table = credentials_table
        key = make_key(app.apple.team_id)
        statement = update(apps_table).where(apps_table.c.id == sample.row)
        values = {**columns_of(adopted), "created_at": adopted.created_at}
        connection.execute(statement.values(values))
        connection.execute(delete(table).where(table.c.app_id == sample.row))
        connection.execute(insert(table).values(self._sealed(adopted, key, "twin")))
        self.forget()
        return replace(adopted, is_enabled=sample.is_enabled)

    def by_ids(self, ids: Collection[str]) -> dict[str, App]:
        """Return the apps with these ids, by id; the cost does not depend on the number of apps."""
        found: dict[str, App] = {}
        with self._database.read() as connection:
            for place in range(0, len(named := sorted(set(ids))), _NAMED_AT_ONCE):
                where = is_any_of(named[place : place + _NAMED_AT_ONCE])
                found.update((app.id, app) for app in read_apps(connection, where))
        return found

    def list(self) -> list[App]:
        """Return every app, the oldest first."""
        with self._database.read() as connection:
            return read_apps(connection)

    def find(self, reference: str | None = None, *, within: int | None = None) -> App:
        """Return the app that ``reference`` identifies; None means the only one.

        A twin's sample app is the last choice. ``within`` restricts the search to the app of this
        row. An exact id wins, then a unique name, then a unique bundle id or Android package; then
        the same, ignoring case. Raises :class:`~handbell.errors.AmbiguousAppError` with the
        candidates, and :class:`~handbell.errors.UnknownAppError` with similar names.
        """
        if reference is not None and (exact := self._exactly(reference.strip(), within)):
            return exact
        everything = [app for app in self.list() if within in (None, app.row)]
        if not everything:
            raise UnknownAppError("There is no app yet", fix=_ADD_APP)
        if reference is None:
            return self._single(everything, "No app is named, and there is more than one")
        wanted = reference.strip()
        if not wanted:
            # An empty variable must not remove the only app there is.
            raise UnknownAppError(
                "An app is named by an empty text", fix=Fix(Action.LIST_APPS, "See")
            )
        return self._single(meant(wanted, everything), f"More than one app is meant by {wanted!r}")

    def _exactly(self, wanted: str, within: int | None) -> App | None:
        """Return the app with an id, the usual form of a reference in frequent calls."""
        with self._database.read() as connection:
            found = read_apps(connection, is_any_of([wanted]))
        return next((app for app in found if within in (None, app.row)), None)

    def _single(self, apps: _Apps, what: str) -> App:
        if len(apps) > 1:
            with self._database.read() as connection:
                apps = without_samples(connection, apps) or apps
        return single(apps, what)

    def remove(self, app: App) -> None:
        """Remove an app with its credentials, users and sessions; its ledger stays."""
        with self._write() as connection:
            removed = connection.execute(delete(apps_table).where(apps_table.c.id == app.row))
            if not removed.rowcount:
                raise _gone(app)
            connection.execute(delete(circuits_table).where(circuits_table.c.app == app.id))
        self.forget()

    def set_enabled(self, app: App, is_enabled: bool) -> App:  # noqa: FBT001 - the setter's value
        """Enable or disable an app's push and return the app."""
        statement = (
            update(apps_table).where(apps_table.c.id == app.row).values(is_enabled=is_enabled)
        )
        with self._write() as connection:
            if not connection.execute(statement).rowcount:
                raise _gone(app)
        return replace(app, is_enabled=is_enabled)

    def rename(self, app: App, name: str) -> App:
        """Rename an app and return it.

        Raises :class:`~handbell.errors.AppError` for an invalid name, and
        :class:`~handbell.errors.NameTakenError` for one that identifies another app.
        """
        named = replace(app, name=name)
        statement = update(apps_table).where(apps_table.c.id == app.row).values(name=named.name)
        with self._write() as connection:
            check_name(named, read_apps(connection))
            if not connection.execute(statement).rowcount:
                raise _gone(app)
        return named

    def check_name(self, app: App, name: str) -> None:
        """Raise as :meth:`rename` does, without changing anything."""
        check_name(replace(app, name=name), self.list())

    def set_rules(self, app: App, rules: Mapping[str, str | None]) -> None:
        """Write rules of an app in their stored form; rules not given are unchanged."""
        statement = update(apps_table).where(apps_table.c.id == app.row).values(dict(rules))
        with self._write() as connection:
            if not connection.execute(statement).rowcount:
                raise _gone(app)

    def add_credential(
        self, app: App, credential: Credential, *, environment: str | None = None
    ) -> StoredCredential:
        """Seal and store a credential; replace one with the same key id.

        ``environment`` limits it to one; a certificate issued for one is limited anyway. Raises
        :class:`~handbell.errors.CredentialError` when it belongs to another team or app.
        """
        _check_fit(app, credential)
        if environment is None and isinstance(credential, Certificate):
            environment = credential.environments[0] if len(credential.environments) == 1 else None
        values = self._sealed(app, credential, environment)
        with self._write() as connection:
            connection.execute(delete(credentials_table).where(*_named(app, credential.key_id)))
            try:
                row = _primary_key(
                    connection.execute(
                        insert(credentials_table).values(values)
                    ).inserted_primary_key
                )
            except IntegrityError:
                raise _gone(app) from None
            stored = _stored(_credential_row(connection, row))
        self.forget()
        return stored

    def _sealed(self, app: App, credential: Credential, environment: str | None) -> dict[str, Any]:
        return {
            "app_id": app.row,
            "kind": "key" if isinstance(credential, AuthKey) else "certificate",
            "key_id": credential.key_id,
            "environment": environment,
            "fingerprint": credential.fingerprint,
            "sealed": self._vault.seal(pack(credential)),
            "expires_at": getattr(credential, "expires_at", None),
            "created_at": self._milliseconds(),
        }

    def credentials(self, app: App) -> _StoredCredentials:
        """Return the app's credentials without secrets, the newest first."""
        with self._database.read() as connection:
            return [_stored(row) for row in _credential_rows(connection, app)]

    def remove_credential(self, app: App, key_id: str) -> None:
        """Remove a credential by its key id (a certificate's is its fingerprint)."""
        with self._write() as connection:
            fingerprint = connection.scalar(
                select(credentials_table.c.fingerprint).where(*_named(app, key_id))
            )
            removed = connection.execute(delete(credentials_table).where(*_named(app, key_id)))
            if not removed.rowcount:
                raise _no_key(app, key_id)
            its = (circuits_table.c.app == app.id, circuits_table.c.credential == fingerprint)
            connection.execute(delete(circuits_table).where(*its))
        self.forget()

    def credential(self, app: App, key_id: str) -> Credential:
        """Return one of an app's credentials by its key id.

        Raises :class:`~handbell.errors.MissingCredentialError` when the app has none with it.
        """
        with self._database.read() as connection:
            rows = _credential_rows(connection, app)
        for row in rows:
            if row["key_id"] == key_id:
                return self._unpacked(app, row)
        raise _no_key(app, key_id)

    def credential_for(
        self, app: App, environment: str, *, excluded: Collection[str] = ()
    ) -> Credential:
        """Return the app's credential for an environment.

        One that is limited to the environment wins, then the newest that is not limited. The twin
        accepts any. Those whose fingerprints are in ``excluded`` are skipped if there is another.
        Raises :class:`~handbell.errors.MissingCredentialError` with the fix.
        """
        asked, current = self._clock(), self._current
        place = (app.row, environment, frozenset(excluded))
        until, known = current.get(place, (0.0, None))
        if known is not None and asked < until:
            return known
        with self._database.read() as connection:
            rows = _credential_rows(connection, app)
        serving = by_preference(
            environment, rows, lambda row: cast("str | None", row["environment"])
        )
        others = [row for row in serving if row["fingerprint"] not in place[-1]]
        for row in others or serving:
            found = self._unpacked(app, row)
            # After a change in between, a new mapping is in use.
            current[place] = (asked + KNOWN_SECONDS, found)
            return found
        raise MissingCredentialError(
            f"{app.id} has no key for {environment}",
            fix=Fix(Action.ADD_KEY, "Add one", app=app.id),
        )

    def forget(self) -> None:
        """Drop the cache: credentials may have changed."""
        self._current = {}

    def auth_key(self, team_id: str, key_id: str) -> AuthKey | None:
        """Return a team's key by its id, or None when no app has it."""
        table = credentials_table
        wanted = (table.c.kind == "key", table.c.key_id == key_id, apps_table.c.team_id == team_id)
        statement = select(table).join_from(table, apps_table).where(*wanted).limit(1)
        with self._database.read() as connection:
            row = connection.execute(statement).mappings().one_or_none()
            apps = read_apps(connection)
        if row is None:
            return None
        app = next(app for app in apps if app.row == row["app_id"])
        credential = self._unpacked(app, row)
        return credential if isinstance(credential, AuthKey) else None

    def unusable(self, app: App) -> dict[str, HandbellError]:
        """Return the faults of the app's credentials that cannot be decrypted, by key id."""
        with self._database.read() as connection:
            rows = _credential_rows(connection, app)
        wrong = {}
        for row in rows:
            try:
                self._unpacked(app, row)
            except HandbellError as error:
                wrong[row["key_id"]] = error
        return wrong

    def reseal(self) -> int:
        """Re-encrypt every secret with the vault's first key and return their number.

        These are the credentials, the identity keys, the keys sent along by unregistered apps,
        and the secrets of webhooks. After this the vault's other keys can be removed.
        """
        with self._write() as connection:
            return sum(self._reseal(connection, column) for column in SEALED)

    def _reseal(self, connection: Connection, column: Column[bytes]) -> int:
        table = column.table
        rows = connection.execute(select(table.c.id, column).where(column.is_not(None))).all()
        for row, sealed in rows:
            values = {column.name: self._vault.reseal(sealed)}
            connection.execute(update(table).where(table.c.id == row).values(values))
        return len(rows)

    def _unpacked(self, app: App, row: RowMapping) -> Credential:
        credential = self._opened.get(row["sealed"])
        if credential is None:
            # Decrypted once: each send needs it, and loading a key takes longer than the send.
            credential = unpack(self._vault.unseal(row["sealed"]))
            if len(self._opened) >= _MOST_OPENED:
                self._opened.clear()
            self._opened[row["sealed"]] = credential
        if credential.fingerprint != row["fingerprint"]:
            raise CredentialError(
                f"The stored credential {row['key_id']} is not the one that was added",
                fix="Remove it and add it again",
            )
        _check_fit(app, credential)
        return credential

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _samples(connection: Connection, apps: list[App]) -> list[App]:
    added = without_samples(connection, apps)
    return [app for app in apps if app not in added]


def _check_new(app: App, others: Iterable[App]) -> None:
    for other in others:
        if app.id == other.id or app.apple_id in (other.id, other.apple_id or ""):
            raise AppExistsError(
                f"The app {other.id} is already there", fix="Use it, or remove it first"
            )
        if app.id in (other.bundle_id, other.android_package):
            raise NameTakenError(
                f"{app.id} means the app {other.id} already",
                fix="Add the package to that one: handbell app set "
                f"{other.id} --android-package {app.id}; or give another id of your own",
            )


def _gone(app: App) -> UnknownAppError:
    return UnknownAppError(f"The app {app.id} is not there (any more)", fix=_ADD_APP)


def _no_key(app: App, key_id: str) -> MissingCredentialError:
    return MissingCredentialError(
        f"{app.id} has no key {key_id}", fix=Fix(Action.LIST_KEYS, "See", app=app.id)
    )


def is_any_of(ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that an app has one of these full ids; uses an index."""
    return apps_table.c.public_id.in_(ids)


def is_app_of(app_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that an app's full id equals a column; uses an index."""
    return apps_table.c.public_id == app_id


def _check_fit(app: App, credential: Credential) -> None:
    if credential.team_id is not None and credential.team_id != app.team_id:
        raise CredentialError(
            f"{credential.key_id} is of team {credential.team_id}, and {app.id} is not",
            fix="Use a key of the app's own team",
        )
    topics = credential.topics if isinstance(credential, Certificate) else ()
    if topics and app.bundle_id not in topics:
        raise CredentialError(
            f"The certificate is for {', '.join(topics)}, not for {app.bundle_id}",
            fix="Use the certificate of this app, or an auth key of its team",
        )


def _named(app: App, key_id: str) -> tuple[Any, Any]:
    table = credentials_table
    return (table.c.app_id == app.row, table.c.key_id == key_id)


def _credential_rows(connection: Connection, app: App) -> list[RowMapping]:
    table = credentials_table
    statement = select(table).where(table.c.app_id == app.row).order_by(table.c.id.desc())
    return list(connection.execute(statement).mappings())


def _credential_row(connection: Connection, row: int) -> RowMapping:
    table = credentials_table
    return connection.execute(select(table).where(table.c.id == row)).mappings().one()


def _stored(row: RowMapping) -> StoredCredential:
    return StoredCredential(
        id=row["id"],
        kind=row["kind"],
        key_id=row["key_id"],
        environment=row["environment"],
        fingerprint=row["fingerprint"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
    )


def _primary_key(key: Any) -> int:
    return int(key[0])
