"""A stored notification, composed for sending: its message, its app's state, its times."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
from handbell.errors import AppError, NotForServiceError, NotificationError
from handbell.gateways.composers import composer
from handbell.gateways.gateway import Message
from handbell.gateways.wordings import Wordings, compose_each
from handbell.services.forms import VARIANTS, form_of, forms_of
from handbell.services.table import SERVICES, service_of

from .app_state import AppState


class Made(NamedTuple):
    """What goes out in one form: a message, and those of other languages, if there are any."""

    message: Message
    languages: Wordings | None = None


@dataclass(slots=True, kw_only=True)
class Composed:
    """What all deliveries of one notification share while a worker sends them.

    ``created_at``, ``composed_at`` and ``expires_at`` are UNIX seconds: a time to live counts from
    ``composed_at``, and ``expires_at`` is 0 for now or never. ``key`` is the opened key of a sender
    whose app is not in the registry. ``made`` is what goes out in each form, composed when the
    first push in it goes.
    """

    row: int
    id: str
    app_state: AppState
    content: Notification
    composed_at: float
    urgency: int
    created_at: float
    expires_at: int | None
    send_at: SendAt | None
    is_development: bool
    is_loud: bool
    key: Any = None
    is_cancelled: bool = False
    made: dict[str, Made | NotificationError] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, stored: Any, app_state: AppState, key: Any = None) -> "Composed":
        """Return the notification of a row of the table ``notifications``."""
        send_at = None if stored.send_at is None else read_send_at(stored.send_at)
        return cls._of(
            Notification.read(from_json(stored.content, cache_strings="keys")),
            app_state,
            row=stored.id,
            public_id=stored.public_id,
            urgency=stored.urgency,
            created_at=stored.created_at / 1000,
            send_at=send_at,
            is_development=stored.is_development,
            key=key,
            is_cancelled=stored.cancelled_at is not None,
        )

    @classmethod
    def fresh(
        cls,
        content: Notification,
        wordings: Mapping[str, Wordings],
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

        ``wordings`` are what would be composed for each form, as far as it was.
        """
        return cls._of(
            content,
            app_state,
            row=row,
            public_id=public_id,
            urgency=urgency,
            created_at=(created_at or 0) / 1000,
            send_at=send_at,
            is_development=is_development,
            key=key,
            made={form: _made(its) for form, its in wordings.items()},
        )

    @classmethod
    def _of(
        cls,
        content: Notification,
        app_state: AppState,
        *,
        public_id: str,
        created_at: float,
        send_at: SendAt | None,
        **fields: Any,
    ) -> "Composed":
        # A time to live counts from when it is to go out.
        starts = created_at if send_at is None else due_at(send_at, None, app_state.rules.time_zone)
        composed_at = max(created_at, starts)
        return cls(
            id=public_id,
            app_state=app_state,
            content=content,
            composed_at=composed_at,
            created_at=created_at,
            expires_at=content.expiry(composed_at),
            send_at=send_at,
            is_loud=is_loud(content),
            **fields,
        )

    def for_device(self, gateway: str, details: str | None) -> Made:
        """Return what goes to an address behind a gateway, composed at the first call.

        Raises :class:`~handbell.errors.NotificationError` where the service cannot carry it.
        """
        made = self._made_for(form_of(gateway, details))
        if isinstance(made, NotificationError):
            # It is raised again and again, and would keep the frames of each time.
            raise made.with_traceback(None)
        return made

    def _made_for(self, form: str) -> Made | NotificationError:
        made = self.made.get(form)
        if made is None:
            made = self.made[form] = self._compose(form)
        return made

    def _compose(self, form: str) -> Made | NotificationError:
        try:
            wordings = compose_each(
                composer(form).compose,
                self.content,
                app=self.app_state.app,
                now=self.composed_at,
                notification_id=self.id,
            )
        except NotificationError as error:
            return error
        except AppError as error:
            # The app is not known to the service.
            return NotForServiceError(error.what, fix=error.fix)
        return _made(wordings)

    def made_by(self, gateway: str) -> Made | None:
        """Return what goes by a gateway in the first form that it can carry, or None."""
        made = map(self._made_for, forms_of(service_of(gateway).name))
        return next((one for one in made if isinstance(one, Made)), None)

    def carried(self) -> list[str]:
        """Return the names of the forms in which it can be sent."""
        forms = (form for name in SERVICES for form in forms_of(name))
        return [form for form in forms if not isinstance(self._made_for(form), NotificationError)]

    def refusal(self, form: str) -> NotificationError | None:
        """Return why it cannot be sent in a form, or by a gateway in its service's own, or None."""
        made = self._made_for(form if form in VARIANTS else service_of(form).name)
        return made if isinstance(made, NotificationError) else None

    def topic(self, gateway: str) -> str:
        """Return the topic of its messages at a gateway; empty where it cannot carry any."""
        made = self._made_for(service_of(gateway).name)
        return "" if isinstance(made, NotificationError) else made.message.topic

    def is_of_its_kind(self, gateway: str) -> bool:
        """Return whether it is of the kind that sessions' addresses at a gateway are for.

        At Apple those are tokens for alerts and related types: a refusal of another kind of push
        proves nothing about them.
        """
        return gateway != "apns" or self.topic(gateway) == self.app_state.app.bundle_id

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
            "locale": self.content.languages is not None,
        }
        return frozenset(name for name, is_needed in needs.items() if is_needed)

    def is_expired(self, now: float) -> bool:
        """Return whether it has expired; ``expires_at`` 0 is handled by the first attempt."""
        return bool(self.expires_at) and now >= (self.expires_at or 0)


def _made(wordings: Wordings) -> Made:
    return Made(wordings.own.message, wordings if wordings.by_language else None)


def is_loud(content: Notification) -> bool:
    """Return whether quiet hours hold it and a cap counts it."""
    return disturbs(push_type=push_type_of(content), interruption_level=content.interruption_level)


def push_type_of(content: Notification) -> str:
    """Return the push type of a notification, by Apple's name, as it follows from its fields."""
    if content.push_type is not None:
        return content.push_type
    if content.event is not None:
        return "liveactivity"
    return "alert" if content.is_shown else "background"
