"""A stored notification, composed for sending: its message, its app's state, its times."""

from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from handbell.creation.notification import Notification
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.quiet_hours import disturbs
from handbell.delivery.policy.retry import retry_deadline
from handbell.delivery.policy.schedule import (
    LAST_ZONE,
    LocalTime,
    SendAt,
    due_at,
    read_send_at,
)
from handbell.gateways.apns.compose import compose
from handbell.gateways.gateway import Message
from handbell.gateways.wordings import Wordings, compose_each

from .app_state import AppState


@dataclass(slots=True, kw_only=True)
class Composed:
    """What all deliveries of one notification share while a worker sends them.

    ``created_at`` and ``expires_at`` are UNIX seconds; ``expires_at`` is 0 for now or never.
    ``key`` is the opened key of a sender whose app is not in the registry. ``languages`` gives the
    message for a locale; None where ``message`` is for everybody.
    """

    row: int
    id: str
    app_state: AppState
    message: Message
    urgency: int
    created_at: float
    expires_at: int | None
    send_at: SendAt | None
    is_development: bool
    is_loud: bool
    languages: Wordings | None = None
    key: Any = None
    is_cancelled: bool = False

    @classmethod
    def read(cls, stored: Any, app_state: AppState, key: Any = None) -> "Composed":
        """Return the notification of a row of the table ``notifications``."""
        content = Notification.read(from_json(stored.content, cache_strings="keys"))
        send_at = None if stored.send_at is None else read_send_at(stored.send_at)
        created_at = stored.created_at / 1000
        # A time to live counts from when it is to go out.
        starts = created_at if send_at is None else due_at(send_at, None, app_state.rules.time_zone)
        wordings = compose_each(
            compose,
            content,
            app=app_state.app,
            now=max(created_at, starts),
            notification_id=stored.public_id,
        )
        message = wordings.own.message
        return cls(
            row=stored.id,
            id=stored.public_id,
            app_state=app_state,
            message=message,
            urgency=stored.urgency,
            created_at=created_at,
            expires_at=message.expires_at,
            send_at=send_at,
            is_development=stored.is_development,
            is_loud=is_loud(content, message),
            languages=wordings if wordings.by_language else None,
            key=key,
            is_cancelled=stored.cancelled_at is not None,
        )

    @classmethod
    def fresh(
        cls,
        content: Notification,
        wordings: Wordings,
        app_state: AppState,
        *,
        row: int,
        public_id: str,
        urgency: int,
        created_at: int | None,
        send_at: SendAt | None,
        is_development: bool,
        key: Any = None,
    ) -> "Composed":
        """Return the notification of what was just stored, without reading it back.

        ``wordings`` are what :meth:`read` would compose from its row.
        """
        message = wordings.own.message
        return cls(
            row=row,
            id=public_id,
            app_state=app_state,
            message=message,
            urgency=urgency,
            created_at=(created_at or 0) / 1000,
            expires_at=message.expires_at,
            send_at=send_at,
            is_development=is_development,
            is_loud=is_loud(content, message),
            languages=wordings if wordings.by_language else None,
            key=key,
        )

    @property
    def is_of_its_kind(self) -> bool:
        """Whether it is of the kind that sessions' tokens are for: alerts and related types.

        A refusal of another kind of push proves nothing about a token for alerts.
        """
        return self.message.topic == self.app_state.app.bundle_id

    def starts_at(self, zone: str | None) -> float:
        """Return when it may first go out to somebody in a time zone (UNIX seconds)."""
        if self.send_at is None:
            return self.created_at
        return max(self.created_at, due_at(self.send_at, zone, self.app_state.rules.time_zone))

    def is_over(self, now: float) -> bool:
        """Return whether an unattempted delivery is given up if it cannot go now."""
        starts = self.starts_at(LAST_ZONE)
        return now >= retry_deadline(created_at=starts, expires_at=self.expires_at).at

    def needs(self, rules: AppRules) -> frozenset[str]:
        """Return the columns of a session, beside its token, that its deliveries go by."""
        needs = {
            "user_id": self.is_loud and rules.cap is not None,
            "time_zone": isinstance(self.send_at, LocalTime)
            or (self.is_loud and rules.quiet is not None),
            "locale": self.languages is not None,
        }
        return frozenset(name for name, is_needed in needs.items() if is_needed)

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired; ``expires_at`` 0 is handled by the first attempt."""
        return bool(self.expires_at) and now >= (self.expires_at or 0)


def is_loud(content: Notification, message: Message) -> bool:
    """Return whether quiet hours hold it and a cap counts it."""
    return disturbs(push_type=message.push_type, interruption_level=content.interruption_level)
