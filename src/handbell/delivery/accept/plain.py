"""Plain sends, stored column by column: what would be made of each, without making it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic_core import from_json, to_json

from handbell.apps.app import App
from handbell.creation.plain import PlainSend
from handbell.delivery.events import NotificationsAccepted
from handbell.delivery.ids import new_notification_id
from handbell.delivery.urgency import NORMAL
from handbell.registry.recipient_lookup import Devices
from handbell.storage.database import Quick, driver_of

from .bulk_insert import insert_delivery_columns, insert_keys, insert_notification_columns
from .store import fingerprint

_KNOWN_KEYS: Final = """
    SELECT EXISTS (
        SELECT 1 FROM json_each(?2) AS asked
        CROSS JOIN idempotency ON idempotency.app = ?1 AND idempotency.key = asked.value
    )
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBatch:
    """Plain sends to people of one app that were looked at, each with whom it goes to.

    ``warnings`` say of a send, by its place, why nobody gets it. ``keys`` are the idempotency keys
    and ``fingerprints`` what each stands for; every send has one, or none. ``created_at`` is in
    UNIX milliseconds.
    """

    app: App
    sends: Sequence[PlainSend]
    devices: Devices
    warnings: Mapping[int, str]
    created_at: int
    keys: Sequence[str] = ()
    fingerprints: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainStored:
    """Plain sends that are stored: the public id of each, and warnings by place."""

    ids: Sequence[str]
    warnings: Mapping[int, str]

    def of(self, place: int) -> tuple[str, ...]:
        """Return the warnings of one send."""
        warning = self.warnings.get(place) if self.warnings else None
        return () if warning is None else (warning,)


def can_be_plain(sends: Sequence[PlainSend]) -> bool:
    """Return whether sends can be stored together: each has a key of its own, or none has one."""
    keys = {send.key for send in sends}
    return len(keys) == len(sends) if None not in keys else len(keys) <= 1


def fingerprints(app: App, sends: Sequence[PlainSend]) -> list[str]:
    """Return what the idempotency keys of sends stand for, in their order."""
    return [fingerprint(app.id, from_json(send.content), {"mails": [send.mail]}) for send in sends]


def store_plain(connection: Quick, batch: PlainBatch, *, now: int) -> PlainStored | None:
    """Store plain sends within a transaction; ``now`` is in UNIX milliseconds.

    Returns None, and has stored nothing, where one of their keys is known.
    """
    ids = [new_notification_id() for _ in batch.sends]
    if batch.keys and not _claim_keys(connection, batch, ids, now):
        return None
    rows = insert_notification_columns(
        connection,
        {
            "public_id": ids,
            "content": [send.content for send in batch.sends],
            "recipients": [send.recipients for send in batch.sends],
        },
        {
            "app": batch.app.id,
            "created_at": batch.created_at,
            "urgency": NORMAL,
            "is_development": False,
            "is_loud": True,
        },
        len(ids),
    )
    _insert_deliveries(connection, batch.devices, rows, now)
    return PlainStored(ids=ids, warnings=batch.warnings)


def _claim_keys(connection: Quick, batch: PlainBatch, ids: Sequence[str], now: int) -> bool:
    """Enter the idempotency keys, unless somebody has one of them already."""
    driver = driver_of(connection)
    if driver is None:
        # There somebody else may enter one at the same time.
        return False
    asked = (batch.app.id, to_json(batch.keys).decode())
    (is_known,) = driver.execute(_KNOWN_KEYS, asked).fetchone()
    if is_known:
        return False
    varying = {"key": batch.keys, "fingerprint": batch.fingerprints, "notification_id": ids}
    insert_keys(driver, varying, {"app": batch.app.id, "created_at": now})
    return True


def _insert_deliveries(connection: Quick, devices: Devices, rows: Sequence[int], now: int) -> None:
    if not devices.numbers:
        return
    same = {"gateway": "apns", "urgency": NORMAL, "state": "queued", "due_at": now}
    varying: dict[str, Sequence[object]] = {
        "notification_id": [rows[place] for place in devices.places],
        "number": devices.numbers,
    }
    if len(set(devices.environments)) == 1:
        same["environment"] = devices.environments[0]
    else:
        varying["environment"] = devices.environments
    insert_delivery_columns(connection, varying, same)


def event_of(batch: PlainBatch, stored: PlainStored, *, at: float) -> NotificationsAccepted:
    """Return what hooks are told; ``at`` is in UNIX seconds."""
    return NotificationsAccepted(
        app=batch.app.id,
        at=at,
        notification_ids=tuple(stored.ids),
        targets=len(batch.devices.numbers),
    )
