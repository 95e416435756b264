"""New content for the recipients of a notification that was sent: what is stored for it."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.ids import NO_ID
from handbell.delivery.work.composed import is_loud
from handbell.errors import NotificationError

from .composing import compose_for, forms_for, forms_left_out
from .store import Order


@dataclass(frozen=True, slots=True)
class Replacement:
    """An order under the collapse id of the former notification, and its warnings."""

    order: Order
    warnings: tuple[str, ...]


def replacement_for(
    former: Any,
    notification: Notification,
    *,
    app: App,
    other_forms: Collection[str],
    sealed_key: bytes | None,
    now: float,
) -> Replacement:
    """Return what replaces a notification; ``former`` is its row, ``now`` is in UNIX seconds.

    ``other_forms`` are those that sessions of the app have beside the forms of its services.
    Raises NotificationError when the former one had no collapse id, or for content that cannot be
    sent.
    """
    collapse_id = Notification.read(json.loads(former.content)).collapse_id
    if collapse_id is None:
        raise NotificationError(
            f"{former.public_id} was sent without a collapse id, so it cannot be replaced",
            fix="Send with collapse_id what may have to be replaced",
        )
    content = replace(notification, collapse_id=collapse_id)
    forms = forms_for(app, other_forms)
    composed = compose_for(forms, content, app=app, now=now, notification_id=NO_ID)
    order = Order(
        app=app,
        content=content,
        recipients={"replaces": former.public_id},
        urgency=former.urgency,
        is_development=former.is_development,
        is_loud=is_loud(content),
        sealed_key=sealed_key,
        source=former.id,
        replaces=former.public_id,
    )
    return Replacement(order, (*composed.warnings, *forms_left_out(composed)))
