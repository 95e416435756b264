"""Plain sends, stored column by column: what would be made of each, without making it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from handbell.apps.app import App
from handbell.creation.plain import PlainSend
from handbell.database import Quick
from handbell.registry.addressees import Devices

from .due import NORMAL
from .events import NotificationsAccepted
from .ids import new_notification_id
from .inserting import insert_delivery_columns, insert_notification_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainBatch:
    """Plain sends to people of one app that were looked at, each with whom it goes to.

    ``warnings`` say of a send, by its place, why nobody gets it. ``created_at`` is in UNIX
    milliseconds.
    """

    app: App
    sends: Sequence[PlainSend]
    devices: Devices
    warnings: Mapping[int, str]
    created_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainStored:
    """Plain sends that are stored: the public id of each, and warnings by place."""

    ids: Sequence[str]
    warnings: Mapping[int, str]

    def of(self, place: int) -> tuple[str, ...]:
        """Return the warnings of one send."""
        warning = self.warnings.get(place) if self.warnings else None
        return () if warning is None else (warning,)


def store_plain(connection: Quick, batch: PlainBatch, *, now: int) -> PlainStored:
    """Store plain sends within a transaction; ``now`` is in UNIX milliseconds."""
    ids = [new_notification_id() for _ in batch.sends]
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
