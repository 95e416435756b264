"""Erase a person: their sessions, and their name in the ledger."""

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, delete, or_, select, update

from handbell._chunks import chunks
from handbell._mail import fold_mail
from handbell.apps.app import App
from handbell.delivery.addresses import stored_form
from handbell.errors import UnknownUserError
from handbell.storage.database import Database
from handbell.storage.tables import (
    ADDRESSED,
    deliveries,
    notifications,
    sessions,
    users,
    webhook_calls,
    webhooks,
)

NOBODY: Final = "removed@removed.invalid"
"""Replaces the name of an erased person in the ledger."""

_NO_CONTENT: Final = json.dumps({"title": "Removed"})
_NO_ADDRESS: Final = "removed"
_AT_ONCE: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureResult:
    """The result of an erasure: the person's former row, and the sessions to release."""

    user: int
    sessions: tuple[int, ...]


class Eraser:
    """Removes people permanently."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def erase(self, app: App, mail: str) -> ErasureResult:
        """Remove a user of an app with every session, and their name from the ledger.

        Deliveries stay, without anything that identifies the person. The content of a notification
        to this person only is erased too. Raises :class:`~handbell.errors.UnknownUserError` when
        there is no such user.
        """
        folded = fold_mail(mail)
        with self._database.read() as connection:
            _known_user(connection, app, folded)
            tokens, addresses = self._addresses(connection, app, folded)
            named = self._naming(connection, app, [folded, *tokens])
        with self._database.write() as connection:
            erased = self._remove(connection, app, folded)
        # In small steps: one long transaction would block every sender.
        for rows in chunks(named, _AT_ONCE):
            with self._database.write() as connection:
                for row in rows:
                    _anonymise(connection, row, {folded, *tokens, *addresses})
        with self._database.write() as connection:
            connection.execute(delete(webhook_calls).where(*_calls_about(app, folded)))
        return erased

    def _addresses(
        self, connection: Connection, app: App, mail: str
    ) -> tuple[list[str], list[str]]:
        """Return the tokens of a user's devices, and their addresses as the ledger keeps them."""
        statement = (
            select(sessions.c.token, sessions.c.address)
            .distinct()
            .join_from(sessions, users, users.c.id == sessions.c.user_id)
            .where(users.c.app_id == app.row, users.c.mail == mail)
        )
        found = connection.execute(statement).all()
        return [row.token for row in found], [stored_form(*row) for row in found]

    def _naming(self, connection: Connection, app: App, names: list[str]) -> list[int]:
        is_named = or_(*(_says(notifications.c.recipients, name) for name in names))
        statement = select(notifications.c.id).where(notifications.c.app == app.id, is_named)
        return list(connection.scalars(statement))

    def _remove(self, connection: Connection, app: App, mail: str) -> ErasureResult:
        user = _known_user(connection, app, mail)
        of_user = select(sessions.c.id).where(sessions.c.user_id == user)
        held = tuple(connection.scalars(of_user))
        connection.execute(delete(sessions).where(sessions.c.user_id == user))
        connection.execute(delete(users).where(users.c.id == user))
        return ErasureResult(user=user, sessions=held)


def _known_user(connection: Connection, app: App, mail: str) -> int:
    """Return the row of a user. Raises UnknownUserError for an unknown mail address."""
    mine = (users.c.app_id == app.row, users.c.mail == mail)
    user = connection.scalar(select(users.c.id).where(*mine))
    if user is None:
        raise UnknownUserError(
            f"{app.id} has no user {mail[:100]!r}", fix="Look at the list of its users"
        )
    return int(user)


def _says(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    return column.contains(json.dumps(name, ensure_ascii=False), autoescape=True)


def _anonymise(connection: Connection, row: int, names: set[str]) -> None:
    found = connection.execute(
        select(notifications.c.recipients).where(notifications.c.id == row)
    ).one_or_none()
    if found is None:
        return
    recipients = json.loads(found.recipients)
    kept = {kind: _without(named, names) for kind, named in recipients.items()}
    is_for_others = any(
        item not in {NOBODY, _NO_ADDRESS}
        for named in kept.values()
        if isinstance(named, list)
        for item in named
    )
    values: dict[str, Any] = {"recipients": json.dumps(kept, ensure_ascii=False)}
    if not is_for_others:
        values["content"] = _NO_CONTENT
    connection.execute(update(notifications).where(notifications.c.id == row).values(values))
    connection.execute(
        update(deliveries)
        .where(
            deliveries.c.notification_id == row,
            deliveries.c.number >= ADDRESSED,
            deliveries.c.address.in_(names),
        )
        .values(address=_NO_ADDRESS)
    )


def _without(named: Any, names: set[str]) -> Any:
    if not isinstance(named, list):
        return named
    return [(NOBODY if "@" in item else _NO_ADDRESS) if item in names else item for item in named]


def _calls_about(app: App, mail: str) -> tuple[Any, ...]:
    of_app = select(webhooks.c.id).where(webhooks.c.app_id == app.row)
    return (webhook_calls.c.webhook_id.in_(of_app), _says(webhook_calls.c.body, mail))
