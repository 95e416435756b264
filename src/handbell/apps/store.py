"""The stored apps and their sealed credentials."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, insert, update

from handbell.errors import AppError, AppExistsError, NameTakenError, UnknownAppError
from handbell.fixes import Action, Fix
from handbell.storage.tables import apps as apps_table
from handbell.storage.tables import circuits as circuits_table
from handbell.storage.tables import credentials as credentials_table

from .app import App
from .app_services import services_of
from .credential_store import (
    ADD_APP,
    KNOWN_SECONDS,
    CredentialStore,
    StoredCredential,
    gone,
    primary_key,
)
from .names import check_ids, check_name, free_name
from .references import meant, single
from .rows import columns_of, read_apps
from .sample_keys import make_key, without_samples

__all__ = ["KNOWN_SECONDS", "AppStore", "StoredCredential", "is_any_of", "is_app_of"]

_NAMED_AT_ONCE: Final = 500

# Within the class, `list` is its method.
_Apps = list[App]


class AppStore(CredentialStore):
    """Stores the apps and their credentials."""

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
        return replace(app, row=primary_key(added.inserted_primary_key))

    def services_of(self, app: App) -> list[str]:
        """Return the push services that an app is set up for, in their order."""
        return services_of(app, [] if app.row is None else self.credentials(app))

    def set_ids(self, app: App, given: Mapping[str, Any]) -> App:
        """Change what the push services know an app by, and return the app.

        ``given`` has any of ``team_id``, ``bundle_id``, ``android_package``,
        ``android_fingerprints`` and ``web_origin``; None removes one. The app's id stays. Apple's
        ids are added once: its tokens belong to them. Raises
        :class:`~handbell.errors.AppError` for invalid ones, and
        :class:`~handbell.errors.AppExistsError` for those of another app.
        """
        with self._write() as connection:
            apps = read_apps(connection)
            # Others may have changed it since the caller has read it.
            current = next((one for one in apps if one.row == app.row), None)
            if current is None:
                raise gone(app)
            changed = replace(current, **given)
            if current.apple_id not in (None, changed.apple_id):
                raise AppError(
                    f"{app.id} has the team id {current.team_id} and the bundle id "
                    f"{current.bundle_id} already",
                    fix="Add another app for others: its device tokens belong to them",
                )
            others = [other for other in apps if other.row != app.row]
            _check_new(changed, others)
            check_ids(changed, others)
            statement = update(apps_table).where(apps_table.c.id == app.row)
            connection.execute(statement.values(columns_of(changed)))
        self.forget()
        return changed

    def _adopt(self, connection: Connection, app: App, others: _Apps, *, name: str | None) -> App:
        (sample,) = (other for other in others if other.id == app.id)
        adopted = replace(
            app,
            row=sample.row,
            name=name or sample.name,
            android_package=app.android_package or sample.android_package,
            web_origin=app.web_origin or sample.web_origin,
        )
        check_name(adopted, others)
        table = credentials_table
        statement = update(apps_table).where(apps_table.c.id == sample.row)
        values = {**columns_of(adopted), "created_at": adopted.created_at}
        connection.execute(statement.values(values))
        samples = (table.c.app_id == sample.row, table.c.service == "apns")
        connection.execute(delete(table).where(*samples))
        key = make_key(adopted.apple.team_id)
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
            raise UnknownAppError("There is no app yet", fix=ADD_APP)
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
                raise gone(app)
            connection.execute(delete(circuits_table).where(circuits_table.c.app == app.id))
        self.forget()

    def set_enabled(self, app: App, is_enabled: bool) -> App:  # noqa: FBT001 - the setter's value
        """Enable or disable an app's push and return the app."""
        statement = (
            update(apps_table).where(apps_table.c.id == app.row).values(is_enabled=is_enabled)
        )
        with self._write() as connection:
            if not connection.execute(statement).rowcount:
                raise gone(app)
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
                raise gone(app)
        return named

    def check_name(self, app: App, name: str) -> None:
        """Raise as :meth:`rename` does, without changing anything."""
        check_name(replace(app, name=name), self.list())

    def set_rules(self, app: App, rules: Mapping[str, str | None]) -> None:
        """Write rules of an app in their stored form; rules not given are unchanged."""
        statement = update(apps_table).where(apps_table.c.id == app.row).values(dict(rules))
        with self._write() as connection:
            if not connection.execute(statement).rowcount:
                raise gone(app)


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


def is_any_of(ids: Collection[str]) -> ColumnElement[bool]:
    """Return the condition that an app has one of these full ids; uses an index."""
    return apps_table.c.public_id.in_(ids)


def is_app_of(app_id: ColumnElement[str]) -> ColumnElement[bool]:
    """Return the condition that an app's full id equals a column; uses an index."""
    return apps_table.c.public_id == app_id
