"""Stored rules and circuits of apps, and the deliveries that wait for them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    tuple_,
    update,
)

from handbell._chunks import chunks
from handbell.apps.store import is_any_of, is_app_of
from handbell.delivery.urgency import LEVELS
from handbell.registry.session import Environment
from handbell.services.table import service_of
from handbell.storage.bulk import insert_or_change
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import (
    apps,
    circuits,
    credentials,
    deliveries,
    notifications,
    sessions,
    shards,
)

from .app_rules import AppRules, stopped_by
from .circuit import CircuitScope, CircuitStop, StoredCircuit
from .parts import TIMES_OF_DAY
from .retry import SERVICE_DOWN
from .standing import Key, standing

_HURRIED_AT_ONCE: Final = 5000
_LOOKED_AT: Final = 20_000


class RulesStore:
    """Reads and writes the rules of every app in one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def rules_of(self, app_id: str) -> AppRules:
        """Return the rules of an app; for an unregistered app only its circuits."""
        (rules,) = self.rules_of_many([app_id])
        return rules

    def rules_of_many(self, app_ids: Sequence[str]) -> list[AppRules]:
        """Return the rules of apps, in order, with as many statements as for one app."""
        services: list[StoredCircuit] = []
        circuits_of: dict[str, list[StoredCircuit]] = {}
        rows: dict[str, Any] = {}
        keys: dict[int, tuple[Key, ...]] = {}
        with self._database.read() as connection:
            services += [_noted(row) for row in connection.execute(_SERVICES)]
            for named in chunks(list(set(app_ids))):
                mine = select(circuits).where(circuits.c.app.in_(named))
                for noted in map(_noted, connection.execute(mine)):
                    circuits_of.setdefault(noted.place.app, []).append(noted)
                there = connection.execute(select(apps).where(is_any_of(named))).all()
                rows.update((row.public_id, row) for row in there)
                keys |= _keys(connection, [row.id for row in there])
        return [
            _rules(rows.get(name), circuits_of.get(name, ()), services, keys) for name in app_ids
        ]

    def stopped_apps(self) -> list[str]:
        """Return the ids of the registered apps that are stopped in some environment."""
        registered = select(apps.c.public_id, apps.c.id, circuits).join_from(
            apps, circuits, is_app_of(circuits.c.app)
        )
        open_by_app: dict[tuple[str, int], list[StoredCircuit]] = {}
        with self._database.read() as connection:
            for row in connection.execute(registered.where(circuits.c.reason.is_not(None))):
                open_by_app.setdefault((row.public_id, row.id), []).append(_noted(row))
            keys = _keys(connection, [row for _, row in open_by_app])
        return sorted(
            app_id
            for (app_id, row), noted in open_by_app.items()
            if standing(noted, keys.get(row, ()), is_registered=True).stops
        )

    def outages(self) -> list[StoredCircuit]:
        """Return the open circuits of push services."""
        with self._database.read() as connection:
            return [_noted(row) for row in connection.execute(_SERVICES)]

    def note(self, *noted: StoredCircuit) -> None:
        """Store the state of circuits, each at most once.

        A closed circuit of a service is not stored. The worker that may probe a circuit which stays
        open keeps that permission.
        """
        known = [one for one in noted if one.stop is not None or not one.place.is_service]
        over = [one for one in noted if one not in known]
        with self._database.write() as connection:
            if over:
                connection.execute(_FORGET, [_named(one.place) for one in over])
            if known:
                # A fixed order, so that two writers never deadlock.
                connection.execute(_NOTE, sorted(map(_circuit_row, known), key=_key_of))
            self._database.signal(Kind.RULES)

    def claim_probe(
        self, places: Collection[CircuitScope], worker: int
    ) -> tuple[bool, list[StoredCircuit]]:
        """Give a worker the permission to probe open circuits, unless another worker has it.

        Returns whether it was granted for all of them, and their state; a missing one is closed.
        The worker keeps it until :meth:`release_probe`, or until it is removed. Raises
        ContradictionError if the worker is being removed.
        """
        mine = tuple_(*(circuits.c[name] for name in CircuitScope._fields)).in_(sorted(places))
        statement = select(circuits).where(mine).order_by(*circuits.primary_key)
        with self._database.write() as connection:
            rows = connection.execute(statement.with_for_update()).all()
            is_free = len(rows) == len(places) and all(
                row.reason is not None and row.prober in (None, worker) for row in rows
            )
            if is_free:
                connection.execute(update(circuits).where(mine).values(prober=worker))
        return is_free, list(map(_noted, rows))

    def release_probe(self, places: Collection[CircuitScope], worker: int) -> None:
        """Take the permission back from a worker, so that another one may probe."""
        mine = tuple_(*(circuits.c[name] for name in CircuitScope._fields)).in_(sorted(places))
        statement = update(circuits).where(mine, circuits.c.prober == worker)
        with self._database.write() as connection:
            connection.execute(statement.values(prober=None))

    def resume(self, app_id: str) -> bool:
        """Close an app's circuits by hand; return whether one was open."""
        statement = update(circuits).where(circuits.c.app == app_id, circuits.c.reason.is_not(None))
        closed = dict.fromkeys(("reason", "detail", "stopped_at", "probe_at", "prober"))
        with self._database.write() as connection:
            self._database.signal(Kind.RULES)
            return bool(connection.execute(statement.values({**closed, "probes": 0})).rowcount)

    def users_of(self, session_ids: Collection[int]) -> dict[int, tuple[int, bool]]:
        """Return for each session its user, and whether a push to it was ever accepted."""
        was_sent = exists().where(
            deliveries.c.number == sessions.c.id, deliveries.c.state == "sent"
        )
        columns = (sessions.c.id, sessions.c.user_id, sessions.c.accepted_at.is_not(None), was_sent)
        found: dict[int, tuple[int, bool]] = {}
        with self._database.read() as connection:
            for chunk in chunks(list(set(session_ids))):
                statement = select(*columns).where(sessions.c.id.in_(chunk))
                for session, user, is_noted, is_sent in connection.execute(statement):
                    found[session] = (user, bool(is_noted or is_sent))
        return found

    def users_by_environment(
        self,
        app_row: int,
        service: str,
        is_development: bool,  # noqa: FBT001 - called by position
    ) -> dict[Environment, int]:
        """Return the number of an app's users by environment, from its newest sessions.

        Only sessions of the push service count.

        ``is_development`` is the environment of sessions that were never reached.
        """
        mine = select(sessions).where(sessions.c.app_id == app_row, sessions.c.status == "active")
        newest = mine.order_by(sessions.c.id.desc()).limit(_LOOKED_AT).subquery()
        environment: Any = newest.c.environment
        if is_development:
            is_new = newest.c.accepted_at.is_(None) & (environment == "production")
            environment = case((is_new, "development"), else_=environment)
        statement = select(environment, func.count(newest.c.user_id.distinct())).where(
            newest.c.service == service
        )
        with self._database.read() as connection:
            found = connection.execute(statement.group_by(environment))
            return {name: int(number) for name, number in found}

    def make_due(self, app_id: str, reasons: Collection[str], at: float) -> int:
        """Make deliveries held for these reasons due at ``at`` (UNIX seconds) at the latest.

        Returns the number of deliveries and parts of broadcasts that are due then. Thousands at a
        time are one transaction.
        """
        its = notifications.c.app == app_id
        changed = self._make_due(and_(its, deliveries.c.reason.in_(reasons)), at)
        return changed + self._make_shards_due(app_id, shards.c.reason.in_(reasons), at)

    def resume_after_outage(
        self, service: CircuitScope, app_ids: Collection[str], at: float
    ) -> int:
        """Make due at ``at`` (UNIX seconds) what an outage holds, the urgent first.

        That covers deliveries through the service for these apps and the apps that own the key;
        resting broadcasts resume too. Returns the number of deliveries.
        """
        with self._database.read() as connection:
            registered = connection.scalars(
                select(apps.c.public_id)
                .join_from(apps, credentials)
                .where(credentials.c.fingerprint == service.credential)
            )
            concerned = {*app_ids, *registered}
        changed = self._make_due(
            and_(
                notifications.c.app.in_(concerned),
                deliveries.c.reason == SERVICE_DOWN,
                deliveries.c.environment == service.environment,
                deliveries.c.gateway == service.service,
            ),
            at,
        )
        for app_id in concerned:
            self.resume_broadcasts(app_id, at)
        return changed

    def resume_one(self, place: CircuitScope, at: float) -> bool:
        """Make one delivery due that an open circuit holds; return False if there is none.

        It prefers the most urgent, then one whose session accepted a push before, then the one
        with the fewest attempts.
        """
        held = deliveries.c.reason == SERVICE_DOWN
        if not place.is_service:
            held = and_(deliveries.c.reason.in_(stopped_by()), notifications.c.app == place.app)
        held = and_(held, *_goes_through(place))
        known = select(sessions.c.accepted_at).where(sessions.c.id == deliveries.c.number)
        for level in LEVELS:
            first = (
                _waiting(level, at)
                .where(held)
                .order_by(
                    known.scalar_subquery().is_(None), deliveries.c.attempts, deliveries.c.due_at
                )
                .limit(1)
            )
            with self._database.write() as connection:
                if connection.execute(_bring_forward(first, at)).rowcount:
                    return True
        return False

    def _make_due(self, which: ColumnElement[bool], at: float) -> int:
        total = 0
        for level in LEVELS:
            statement = _bring_forward(_waiting(level, at).where(which).limit(_HURRIED_AT_ONCE), at)
            changed = _HURRIED_AT_ONCE
            while changed == _HURRIED_AT_ONCE:
                with self._database.write() as connection:
                    changed = connection.execute(statement).rowcount
                    if changed:
                        self._database.signal(Kind.WORK)
                total += changed
        return total

    def resume_broadcasts(self, app_id: str, at: float) -> int:
        """Make an app's resting broadcasts due at ``at`` (UNIX seconds) at the latest.

        Returns the number of parts that are due then. Parts that wait for a time are unaffected.
        """
        reason = shards.c.reason
        return self._make_shards_due(app_id, or_(reason.is_(None), reason.not_in(TIMES_OF_DAY)), at)

    def _make_shards_due(self, app_id: str, which: ColumnElement[bool], at: float) -> int:
        mine = select(notifications.c.id).where(notifications.c.app == app_id)
        resting = shards.c.worker_id.is_(None) & (shards.c.due_at > int(at * 1000))
        statement = update(shards).where(resting, which, shards.c.notification_id.in_(mine))
        with self._database.write() as connection:
            return connection.execute(statement.values(due_at=int(at * 1000))).rowcount


def _rules(
    row: Any,
    noted: Iterable[StoredCircuit],
    services: Iterable[StoredCircuit],
    keys: Mapping[int, tuple[Key, ...]],
) -> AppRules:
    found: dict[str, Any] = {"circuits": tuple(noted), "services": tuple(services)}
    if row is None:
        return AppRules(is_registered=False, **found)
    return AppRules.read(row, **found, keys=keys.get(row.id, ()))


def _keys(connection: Connection, app_rows: Sequence[int]) -> dict[int, tuple[Key, ...]]:
    """Return the credentials of apps, the newest first."""
    columns = [credentials.c[name] for name in Key._fields]
    statement = select(credentials.c.app_id, *columns).order_by(credentials.c.id.desc())
    found: dict[int, tuple[Key, ...]] = {}
    for chunk in chunks(app_rows):
        for app, *key in connection.execute(statement.where(credentials.c.app_id.in_(chunk))):
            found[app] = (*found.get(app, ()), Key(*key))
    return found


def _named(place: CircuitScope) -> dict[str, str]:
    return {f"its_{name}": value for name, value in place._asdict().items()}


def _circuit_row(circuit: StoredCircuit) -> dict[str, Any]:
    stop = circuit.stop
    return {
        **circuit.place._asdict(),
        "accepted_at": _milliseconds(circuit.accepted_at),
        "reason": stop and stop.reason,
        "detail": stop and stop.detail,
        "stopped_at": stop and _milliseconds(stop.since),
        "probe_at": stop and _milliseconds(stop.probe_at),
        "probes": stop.probes if stop else 0,
    }


def _key_of(row: Mapping[str, Any]) -> CircuitScope:
    return CircuitScope(*(row[name] for name in CircuitScope._fields))


def _upsert() -> Any:
    statement: Any = insert_or_change(circuits)
    new = {
        column.name: statement.excluded[column.name]
        for column in circuits.c
        if not column.primary_key and column is not circuits.c.prober
    }
    is_open = statement.excluded.reason.is_not(None)
    new["prober"] = case((is_open, circuits.c.prober), else_=None)
    return statement.on_conflict_do_update(index_elements=list(circuits.primary_key), set_=new)


_NOTE: Final = _upsert()
_FORGET: Final = delete(circuits).where(
    *(circuits.c[name] == bindparam(f"its_{name}") for name in CircuitScope._fields)
)
_SERVICES: Final = select(circuits).where(circuits.c.app == "")


def _waiting(level: int, at: float) -> Select[Any]:
    """Return the keys of the deliveries of a level that are held beyond ``at``."""
    return (
        select(deliveries.c.notification_id, deliveries.c.number)
        .join_from(deliveries, notifications)
        .where(
            deliveries.c.urgency == level,
            deliveries.c.due_at > int(at * 1000),
            deliveries.c.state == "held",
        )
    )


def _goes_through(place: CircuitScope) -> list[ColumnElement[bool]]:
    """Return the conditions that a delivery goes the way of a circuit, as far as its row tells."""
    found = [
        deliveries.c.environment == place.environment,
        deliveries.c.gateway == place.service,
    ]
    if service_of(place.service).origin_of is not None:
        its = select(sessions.c.token).where(sessions.c.id == deliveries.c.number)
        address = func.coalesce(deliveries.c.address, its.scalar_subquery())
        found.append(address.contains(f"{place.topic}/", autoescape=True))
    return found


def _bring_forward(keys: Select[Any], at: float) -> Update:
    key = tuple_(deliveries.c.notification_id, deliveries.c.number)
    return update(deliveries).where(key.in_(keys)).values(due_at=int(at * 1000))


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _noted(row: Any) -> StoredCircuit:
    stop = None
    if row.reason is not None:
        stop = CircuitStop(
            reason=row.reason,
            detail=row.detail or "",
            since=row.stopped_at / 1000,
            probe_at=row.probe_at / 1000,
            probes=row.probes,
            environment=row.environment,
            topic=row.topic,
            service=row.service,
        )
    place = CircuitScope(row.app, row.environment, row.credential, row.topic, row.service)
    return StoredCircuit(place, None if row.accepted_at is None else row.accepted_at / 1000, stop)
