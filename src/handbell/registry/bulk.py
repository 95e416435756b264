"""Bulk registration in one transaction, for imports."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from handbell.apps.app import App
from handbell.errors import RegistryError, SessionLimitError
from handbell.storage.tables import sessions, users

from .conditions import CLAIMED, NEWEST_FIRST, PROVEN
from .ownership import (
    added_values,
    lock_app,
    moved_values,
    refreshed_values,
    register,
    silence_others,
)
from .places import Place, place_of
from .registration import Registration

_ROW: Final = "row_id"
_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkResult:
    """The result of a bulk registration: sessions that lost their token, and refusals.

    ``refused`` has the errors by the position of the registration.
    """

    moved: tuple[int, ...] = ()
    refused: Mapping[int, RegistryError] = field(default_factory=dict)


@dataclass(slots=True)
class _Group:
    """A group of registrations with distinct addresses."""

    moved: list[int] = field(default_factory=list)
    refreshed: list[dict[str, Any]] = field(default_factory=list)
    added: list[dict[str, Any]] = field(default_factory=list)


_Placed = tuple[int, Registration]


def register_many(
    connection: Connection, app: App, registrations: Iterable[Registration], *, max_sessions: int
) -> BulkResult:
    """Store registrations as if one after the other; return the result.

    ``max_sessions`` is the limit of sessions per person; registrations beyond it are refused.
    """
    lock_app(connection, app)
    moved: list[int] = []
    refused: dict[int, RegistryError] = {}
    for group in _groups(registrations):
        people, known = _users(connection, app, [registration for _, registration in group])
        crowded = _crowded(connection, people, known, group, max_sessions)
        roomy = [registration for _, registration in group if registration.mail not in crowded]
        moved.extend(_register(connection, app, people, known, roomy))
        for place, registration in group:
            if registration.mail in crowded:
                try:
                    moved.extend(
                        register(connection, app, registration, max_sessions=max_sessions)[1]
                    )
                except SessionLimitError as error:
                    refused[place] = error
    return BulkResult(moved=tuple(moved), refused=refused)


def _groups(registrations: Iterable[Registration]) -> Iterator[list[_Placed]]:
    """Yield runs of registrations with distinct tokens, which cannot affect each other."""
    group: list[_Placed] = []
    places: set[Place] = set()
    for place, registration in enumerate(registrations):
        reached = place_of(registration.address)
        if reached in places or len(group) >= _AT_ONCE:
            yield group
            group, places = [], set()
        group.append((place, registration))
        places.add(reached)
    if group:
        yield group


def _crowded(
    connection: Connection,
    people: Mapping[str, int],
    known: list[int],
    group: Sequence[_Placed],
    max_sessions: int,
) -> set[str]:
    """Return the persons who might exceed the limit: their registrations are written singly."""
    held = (
        select(sessions.c.user_id, func.count())
        .where(sessions.c.user_id.in_(known), sessions.c.status != "closed")
        .group_by(sessions.c.user_id)
    )
    counts = {row[0]: row[1] for row in connection.execute(held)} if known else {}
    more = Counter(registration.mail for _, registration in group)
    return {
        mail for mail, added in more.items() if counts.get(people[mail], 0) + added > max_sessions
    }


def _register(
    connection: Connection,
    app: App,
    people: Mapping[str, int],
    known: list[int],
    group: Sequence[Registration],
) -> list[int]:
    tokens = [entry.token for entry in group]
    holders = _holders(connection, app, tokens)
    formers = _formers(connection, known, tokens)
    work = _Group()
    for item in group:
        user = people[item.mail]
        reached = place_of(item.address)
        holder = holders.get(reached)
        if holder is not None and holder.user_id == user:
            work.refreshed.append({_ROW: holder.id, **refreshed_values(holder, item)})
            continue
        if holder is not None and item.status == "active":
            work.moved.append(holder.id)
        former = formers.get((user, reached))
        if former is None:
            work.added.append(added_values(app, user, item))
        else:
            work.refreshed.append({_ROW: former.id, **refreshed_values(former, item)})
    silence_others(
        connection,
        app.row,
        {
            place_of(entry.address): people[entry.mail]
            for entry in group
            if entry.status == "active"
        },
    )
    _write(connection, work, group)
    return work.moved


def _write(connection: Connection, work: _Group, group: Sequence[Registration]) -> None:
    # A session loses its token before it is reassigned: the unique index holds at every step.
    if work.moved:
        values = moved_values(max(item.at for item in group))
        connection.execute(update(sessions).where(sessions.c.id.in_(work.moved)).values(values))
    if work.refreshed:
        statement = update(sessions).where(sessions.c.id == bindparam(_ROW))
        connection.execute(statement, work.refreshed)
    if work.added:
        connection.execute(insert(sessions), work.added)


def _users(
    connection: Connection, app: App, group: Sequence[Registration]
) -> tuple[dict[str, int], list[int]]:
    """Return the user of each mail, created where missing, and those that existed before."""
    mails = {item.mail: item.at for item in reversed(group)}
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


def _holders(connection: Connection, app: App, tokens: list[str]) -> dict[Place, Row[Any]]:
    statement = select(sessions).where(
        sessions.c.app_id == app.row, sessions.c.token.in_(tokens), PROVEN
    )
    return {place_of(row): row for row in connection.execute(statement)}


def _formers(
    connection: Connection, people: list[int], tokens: list[str]
) -> dict[tuple[int, Place], Row[Any]]:
    if not people:
        return {}
    statement = (
        select(sessions)
        .where(sessions.c.user_id.in_(people), sessions.c.token.in_(tokens))
        .order_by(CLAIMED, *NEWEST_FIRST)
    )
    found: dict[tuple[int, Place], Row[Any]] = {}
    for row in connection.execute(statement):
        found.setdefault((row.user_id, place_of(row)), row)
    return found
