"""Stores webhooks, and the calls that report events to them.

:class:`WebhookStore` keeps them, :func:`store_calls` turns events into stored calls, and
:class:`~handbell.delivery.webhooks.sender.WebhookSender` makes the calls. They are signed as the
specification of Standard Webhooks 1.0.0 says (github.com/standard-webhooks/standard-webhooks).
"""

import base64
import dataclasses
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, RowMapping, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from handbell._chunks import chunks
from handbell._text import nearest
from handbell.apps.app import App
from handbell.apps.vault import Vault
from handbell.delivery.events import (
    CircuitClosed,
    CircuitOpened,
    DeliveryFailed,
    Event,
    ServiceDown,
    ServiceUp,
    SessionClosed,
    SessionQuarantined,
    name_of,
)
from handbell.errors import UnknownWebhookError, WebhookError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.tables import ADDRESSED
from handbell.storage.tables import apps as apps_table
from handbell.storage.tables import webhook_calls as calls_table
from handbell.storage.tables import webhooks as webhooks_table

from .call_target import CallTarget

NAMES: Final[Mapping[type[Event], str]] = MappingProxyType(
    {
        kind: name_of(kind)
        for kind in (
            DeliveryFailed,
            SessionClosed,
            SessionQuarantined,
            CircuitOpened,
            CircuitClosed,
            ServiceDown,
            ServiceUp,
        )
    }
)
"""The events that a webhook can be called for, with their names."""

MOST_EVENTS: Final = 100
"""How many events one call tells of at most."""
GATHER_SECONDS: Final = 0.5
"""For how long a stored call waits for more events before it is made."""

SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - the specification's mark, not a secret
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A URL that is called for an app's events. ``created_at`` is in UNIX milliseconds."""

    id: int
    app: str
    url: str
    events: tuple[str, ...]
    is_enabled: bool
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookStatus:
    """A webhook's calls: the number pending, the number given up, and the last error."""

    waiting: int = 0
    failed: int = 0
    last_reason: str | None = None


# Within the class `list` is its method.
_Webhooks = list[Webhook]


class WebhookStore:
    """The webhooks of all apps. ``now`` returns UNIX seconds.

    ``allow_private`` is the setting ``webhook_allow_private``.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        allow_private: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._vault = vault
        self._allow_private = allow_private
        self._now = now

    def add(self, app: App, url: str, *, events: Iterable[str] = ()) -> tuple[Webhook, str]:
        """Add a webhook and return it with its secret, which is sealed and not shown again.

        Without ``events`` it is called for all. Raises :class:`~handbell.errors.WebhookError` for
        an address that may not be called
        (see :class:`~handbell.delivery.webhooks.call_target.CallTarget`), for an unknown
        event, and for an address that the app has already.
        """
        CallTarget.read(url, allow_private=self._allow_private)
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        values = {
            "app_id": app.row,
            "url": url,
            "sealed_secret": self._vault.seal(secret.encode()),
            "events": ",".join(_known(events)),
            "created_at": int(self._now() * 1000),
        }
        with self._database.write() as connection:
            try:
                added = connection.execute(insert(webhooks_table).values(values))
            except IntegrityError:
                raise WebhookError(
                    f"{app.id} has a webhook with this address",
                    fix=Fix(Action.LIST_WEBHOOKS, "Remove it first, by its number"),
                ) from None
        key: Any = added.inserted_primary_key
        return self.find(int(key[0])), secret

    def list(self, app: App | None = None) -> _Webhooks:
        """Return the webhooks of an app, or of all, the oldest first."""
        statement = _webhooks().order_by(webhooks_table.c.id)
        if app is not None:
            statement = statement.where(webhooks_table.c.app_id == app.row)
        with self._database.read() as connection:
            return [_webhook(row) for row in connection.execute(statement).mappings()]

    def find(self, webhook_id: int) -> Webhook:
        """Return a webhook. Raises :class:`~handbell.errors.WebhookError` when it is not there."""
        statement = _webhooks().where(webhooks_table.c.id == webhook_id)
        with self._database.read() as connection:
            row = connection.execute(statement).mappings().one_or_none()
        if row is None:
            raise _gone(webhook_id)
        return _webhook(row)

    def standings(self) -> dict[int, WebhookStatus]:
        """Return the status of each webhook that has calls, by webhook id."""
        table = calls_table
        waiting = func.count().filter(table.c.finished_at.is_(None))
        failed = func.count().filter(table.c.state == "failed")
        statement = select(
            table.c.webhook_id,
            waiting.label("waiting"),
            failed.label("failed"),
            func.max(table.c.id).filter(table.c.attempts > 0).label("latest"),
        ).group_by(table.c.webhook_id)
        with self._database.read() as connection:
            rows = connection.execute(statement).mappings().all()
            latest = [row["latest"] for row in rows if row["latest"] is not None]
            reasons = select(table.c.id, table.c.last_reason).where(table.c.id.in_(latest))
            told = {row.id: row.last_reason for row in connection.execute(reasons)}
        return {
            row["webhook_id"]: WebhookStatus(
                waiting=row["waiting"], failed=row["failed"], last_reason=told.get(row["latest"])
            )
            for row in rows
        }

    def remove(self, webhook_id: int) -> None:
        """Remove a webhook and the calls that wait for it.

        Raises :class:`~handbell.errors.WebhookError` when it is not there.
        """
        statement = delete(webhooks_table).where(webhooks_table.c.id == webhook_id)
        with self._database.write() as connection:
            if not connection.execute(statement).rowcount:
                raise _gone(webhook_id)

    def set_enabled(self, webhook_id: int, is_enabled: bool) -> Webhook:  # noqa: FBT001 - a setter
        """Enable or disable a webhook and return it; events are dropped while it is disabled.

        Calls that were stored before go on when it is switched on again. Raises
        :class:`~handbell.errors.WebhookError` when it is not there.
        """
        statement = (
            update(webhooks_table)
            .where(webhooks_table.c.id == webhook_id)
            .values(is_enabled=is_enabled)
        )
        with self._database.write() as connection:
            connection.execute(statement)
        return self.find(webhook_id)


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header ``webhook-signature`` of a call: ``v1,`` and an HMAC-SHA256 in base64.

    ``secret`` is as it was told, ``whsec_`` and base64; ``timestamp`` is the attempt's, in UNIX
    seconds.
    """
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return f"v1,{base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()}"


def call_body(app: str, events: Iterable[Event], *, now: float) -> str:
    """Return the JSON body of a call that reports these events, in order."""
    told = [_told(event) for event in events]
    return _json({"type": "events", "timestamp": iso(now), "data": {"app": app, "events": told}})


def _told(event: Event) -> dict[str, Any]:
    return {"type": NAMES[type(event)], "timestamp": iso(event.at), "data": _data(event)}


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def iso(seconds: float) -> str:
    """Format an instant (UNIX seconds) as ISO 8601 in UTC with milliseconds and Z."""
    instant = datetime.fromtimestamp(seconds, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def message_id() -> str:
    """Return a new message id, which stays the same for all attempts of a call."""
    return f"msg_{uuid4().hex}"


def store_calls(
    connection: Connection,
    events: Sequence[Event],
    *,
    now: float,
    gather_seconds: float = GATHER_SECONDS,
) -> int:
    """Store, within a transaction, the calls that report these events to enabled webhooks.

    They are due after ``gather_seconds``; until then one takes what happens meanwhile, up to
    :data:`MOST_EVENTS`. Returns how many calls are new. ``now`` is in UNIX seconds.
    """
    at = int(now * 1000)
    statement = _webhooks().where(webhooks_table.c.is_enabled)
    rows: list[dict[str, Any]] = []
    for found in connection.execute(statement).mappings().all():
        webhook = _webhook(found)
        wanted = [
            event
            for event in events
            if event.app == webhook.app and NAMES.get(type(event)) in webhook.events
        ]
        added = _add_to_waiting(connection, webhook, wanted, at) if wanted else 0
        rows += (
            {
                "webhook_id": webhook.id,
                "message_id": message_id(),
                "body": call_body(webhook.app, some, now=now),
                "state": "queued",
                "due_at": at + int(gather_seconds * 1000),
                "created_at": at,
            }
            for some in chunks(wanted[added:], MOST_EVENTS)
        )
    if rows:
        connection.execute(insert(calls_table), rows)
    return len(rows)


def _add_to_waiting(
    connection: Connection, webhook: Webhook, events: Sequence[Event], now: int
) -> int:
    """Add events to the webhook's call that is not due yet; return how many it had room for."""
    waiting = (
        select(calls_table.c.id, calls_table.c.body)
        .where(
            calls_table.c.webhook_id == webhook.id,
            calls_table.c.state == "queued",
            calls_table.c.attempts == 0,
            calls_table.c.due_at > now,
        )
        .order_by(calls_table.c.id.desc())
        .limit(1)
        .with_for_update()
    )
    row = connection.execute(waiting).one_or_none()
    if row is None:
        return 0
    content = json.loads(row.body)
    told = content["data"]["events"]
    some = events[: max(0, MOST_EVENTS - len(told))]
    told += map(_told, some)
    statement = update(calls_table).where(calls_table.c.id == row.id)
    connection.execute(statement.values(body=_json(content)))
    return len(some)


def _data(event: Event) -> dict[str, Any]:
    data = {
        field.name: getattr(event, field.name)
        for field in dataclasses.fields(event)
        if field.name not in ("app", "at", "number")
    }
    if isinstance(event, DeliveryFailed):
        data["session_id"] = event.number if event.number < ADDRESSED else None
    if isinstance(event, CircuitOpened | ServiceDown):
        data["probe_at"] = iso(event.probe_at)
    return data


def _known(events: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in events)) or list(NAMES.values())
    for name in names:
        if name not in NAMES.values():
            near = nearest(name, NAMES.values())
            raise WebhookError(
                f"There is no event {name!r}",
                fix=f"Did you mean {near}?" if near else f"Use some of {', '.join(NAMES.values())}",
            )
    return names


def _webhooks() -> Select[Any]:
    return select(webhooks_table, apps_table.c.public_id.label("app")).join_from(
        webhooks_table, apps_table
    )


def _webhook(row: RowMapping) -> Webhook:
    return Webhook(
        id=row["id"],
        app=row["app"],
        url=row["url"],
        events=tuple(row["events"].split(",")),
        is_enabled=row["is_enabled"],
        created_at=row["created_at"],
    )


def _gone(webhook_id: int) -> UnknownWebhookError:
    return UnknownWebhookError(
        f"There is no webhook {webhook_id}", fix=Fix(Action.LIST_WEBHOOKS, "See")
    )
