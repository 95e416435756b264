"""The events of sends that were just stored."""

from collections.abc import Iterable, Iterator, Sequence

from handbell.delivery.events import Event, NotificationAccepted, NotificationsAccepted

from .prepare import Prepared


def accepted_events(stored: Iterable[Prepared], at: float) -> Iterator[Event]:
    """Yield an event for each broadcast, and one per app for sends with named recipients.

    ``at`` is in UNIX seconds.
    """
    by_app: dict[str, list[Prepared]] = {}
    for one in stored:
        if one.targets is None:
            yield _of_one(one, at)
        else:
            by_app.setdefault(one.entry.app.id, []).append(one)
    for app, together in by_app.items():
        yield _of_one(together[0], at) if len(together) == 1 else _of_all(app, together, at)


def _of_one(one: Prepared, at: float) -> NotificationAccepted:
    return NotificationAccepted(
        app=one.entry.app.id,
        at=at,
        notification_id=one.order.public_id,
        targets=None if one.targets is None else len(one.targets),
    )


def _of_all(app: str, together: Sequence[Prepared], at: float) -> NotificationsAccepted:
    return NotificationsAccepted(
        app=app,
        at=at,
        notification_ids=tuple(one.order.public_id for one in together),
        targets=sum(len(one.targets or ()) for one in together),
    )
