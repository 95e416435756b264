"""Many registrations in one transaction: for imports, where a statement for each would be slow."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from handbell.apps.app import App
from handbell.tables import sessions, users

from .registration import (
    CLAIMED,
    NEWEST_FIRST,
    PROVEN,
    Registration,
    added_values,
    lock_app,
    moved_values,
    refreshed_values,
)

_ROW: Final = "row_id"
_AT_ONCE: Final = 500


@dataclass(slots=True)
class _Group:
    """What a group of registrations, each of another token, comes to."""

    moved: list[int] = field(default_factory=list)
    refreshed: list[dict[str, Any]] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)


def register_many(
    connection: Connection, app: App, registrations: Iterable[Registration]
) -> tuple[int, ...]:
    """Write registrations as if one after the other; return the sessions they took from."""
    lock_app(connection, app)
    moved: list[int] = []
    for group in _groups(registrations):
        moved.extend(_register(connection, app, group))
    return tuple(moved)


def _groups(registrations: Iterable[Registration]) -> Iterator[list[Registration]]:
    """Yield runs of registrations in which no token comes twice, so that they cannot meet."""
    group: list[Registration] = []
    tokens: set[str] = set()
    for one in registrations:
        if one.token in tokens or len(group) >= _AT_ONCE:
            yield group
            group, tokens = [], set()
        group.append(one)
        tokens.add(one.token)
    if group:
        yield group


def _register(connection: Connection, app: App, group: Sequence[Registration]) -> list[int]:
    people, known_people = _users(connection, app, group)
    tokens = [one.token for one in group]
    holders = _holders(connection, app, tokens)
    formers = _formers(connection, known_people, tokens)
    work = _Group()
    for one in group:
        user = people[one.mail]
        holder = holders.get(one.token)
        if holder is not None and holder.user_id == user:
            work.refreshed.append({_ROW: holder.id, **refreshed_values(holder, one)})
            continue
        if holder is not None and one.status == "active":
            work.moved.append(holder.id)
        former = formers.get((user, one.token))
        if former is None:
            work.added.append(added_values(app, user, one))
        else:
            work.refreshed.append({_ROW: former.id, **refreshed_values(former, one)})
    _write(connection, work, group)
    return work.moved


def _write(connection: Connection, work: _Group, group: Sequence[Registration]) -> None:
    # Who loses a token does so before it is given away: the index holds it at every step.
    if work.moved:
        values = moved_values(max(one.at for one in group))
        connection.execute(update(sessions).where(sessions.c.id.in_(work.moved)).values(values))
    if work.refreshed:
        statement = update(sessions).where(sessions.c.id == bindparam(_ROW))
        connection.execute(statement, work.refreshed)
    if work.added:
        connection.execute(insert(sessions), work.added)


def _users(
    connection: Connection, app: App, group: Sequence[Registration]
) -> tuple[dict[str, int], list[int]]:
    """Return the user of each mail, made where there is none, and those that were there before."""
    mails = {one.mail: one.at for one in reversed(group)}
    people = _known_users(connection, app, list(mails))
    known = list(people.values())
    missing = [mail for mail in mails if mail not in people]
    if missing:
        rows = [{"app_id": app.row, "mail": mail, "created_at": mails[mail]} for mail in missing]
        connection.execute(insert(users), rows)
        people |= _known_users(connection, app, missing)
    return people, known


def _known_users(connection: Connection, app: App, mails: list[str]) -> dict[str, int]:
    statement = select(users.c.mail, users.c.id).where(
        users.c.app_id == app.row, users.c.mail.in_(mails)
    )
    return {row[0]: row[1] for row in connection.execute(statement)}


def _holders(connection: Connection, app: App, tokens: list[str]) -> dict[str, Row[Any]]:
    statement = select(sessions).where(
        sessions.c.app_id == app.row, sessions.c.token.in_(tokens), PROVEN
    )
    return {row.token: row for row in connection.execute(statement)}


def _formers(
    connection: Connection, people: list[int], tokens: list[str]
) -> dict[tuple[int, str], Row[Any]]:
    if not people:
        return {}
    statement = (
        select(sessions)
        .where(sessions.c.user_id.in_(people), sessions.c.token.in_(tokens))
        .order_by(CLAIMED, *NEWEST_FIRST)
    )
    found: dict[tuple[int, str], Row[Any]] = {}
    for row in connection.execute(statement):
        found.setdefault((row.user_id, row.token), row)
    return found
