"""Converts core values to the JSON of the API: snake_case, instants in ISO 8601."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from handbell.delivery.delivery import Delivery
from handbell.delivery.ledger.reports import Funnel, Overview
from handbell.delivery.response import Response
from handbell.diagnostic import Diagnostic
from handbell.registry.session import Session
from handbell.server.fix_calls import as_call
from handbell.server.pages import instant

from .session_models import session_out


def represent(value: Any) -> Any:
    """Return a value of the core ready for JSON.

    Members whose names end with ``_at`` are UNIX milliseconds in the core and ISO 8601 here.
    """
    if isinstance(value, Delivery):
        return delivery(value)
    if isinstance(value, Session):
        return session_out(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _member(field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.repr
        }
    if isinstance(value, Mapping):
        return {str(name): represent(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [represent(item) for item in value]
    return as_call(value) if isinstance(value, str) else value


def delivery(one: Delivery) -> dict[str, Any]:
    """Return a delivery, its id and address under Apple's names as well."""
    return {
        "id": one.id,
        "apns_id": one.apns_id,
        "notification_id": one.notification_id,
        "session_id": one.session_id,
        "mail": one.mail,
        "gateway": one.gateway,
        "address": one.address,
        "device_token": one.address,
        "environment": one.environment,
        "state": one.state,
        "reason": one.reason,
        "detail": one.detail,
        "status": one.status,
        "attempts": one.attempts,
        "unique_id": one.unique_id,
        "created_at": instant(one.created_at),
        "due_at": instant(one.due_at),
        "sent_at": instant(one.sent_at),
        "finished_at": instant(one.finished_at),
        "displayed_at": instant(one.displayed_at),
        "opened_at": instant(one.opened_at),
    }


def overview(one: Overview) -> dict[str, Any]:
    """Return a notification as a list shows it."""
    return {
        "id": one.id,
        "title": one.title,
        "recipients": one.recipients,
        "created_at": instant(one.created_at),
        "cancelled_at": instant(one.cancelled_at),
        "is_running": one.is_running,
        "accepted": one.total,
        "ahead": one.ahead,
        "states": dict(one.states),
        "displayed": one.displayed,
        "opened": one.opened,
    }


def funnel(one: Funnel, response: Response) -> dict[str, Any]:
    """Return a notification with everything that is known of it, and the answer to its sender."""
    return {
        **overview(one.overview),
        "success": response.success,
        "reached": response.reached,
        "total": response.total,
        **told("warning", response.warnings),
        **told("error", response.errors),
        "sent": one.sent,
        "urgency": one.urgency,
        "send_at": one.send_at,
        "replaces": one.replaces,
        "next_due_at": instant(one.next_due_at),
        "reasons": [represent(reason) for reason in one.reasons],
        "services": [represent(count._asdict()) for count in one.services],
        "notification": represent(one.content),
        "named": represent(one.named),
    }


def outcome(response: Response, deliveries: list[Delivery]) -> dict[str, Any]:
    """Return the outcome of a send with these deliveries."""
    return {
        "id": response.notification_id,
        "success": response.success,
        "reached": response.reached,
        "total": response.total,
        "states": dict(response.states),
        "is_running": response.is_running,
        **told("warning", response.warnings),
        **told("error", response.errors),
        "deliveries": [delivery(one) for one in deliveries],
    }


def told(kind: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return warnings or errors as texts, with their parts if there are any."""
    said: dict[str, Any] = {f"{kind}s": list(texts)}
    if texts:
        said[f"{kind}_details"] = [Diagnostic.read(text).parts() for text in texts]
    return said


def _member(name: str, value: Any) -> Any:
    if name.endswith("_at") and isinstance(value, int | float):
        return instant(value)
    return represent(value)
