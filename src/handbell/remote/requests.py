"""What a send server is asked, as the JSON of a call: the other half of ``_answers``."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from handbell.creation.notification import Notification
from handbell.creation.template import TemplateUse, read_template_use
from handbell.creation.values import json_mapping, shown
from handbell.delivery.policy.schedule import read_send_at
from handbell.errors import HandbellError, TemplateError


def write_notification(notification: Any) -> dict[str, Any]:
    """Return the notification of a call: a template's use as it is, all else checked here.

    Raises NotificationError for what JSON cannot carry, as a local send does.
    """
    use = read_template_use(notification)
    if use is None:
        return Notification.read(notification).to_dict()
    return _used(use, use.variables)


def write_options(send_options: Mapping[str, Any], *, is_development: bool) -> dict[str, Any]:
    """Return how to send, with only what is set.

    Raises NotificationError for a ``send_at`` that is none; what is a text the server reads.
    """
    given = {name: value for name, value in send_options.items() if value is not None}
    send_at = given.get("send_at")
    if send_at is not None and not isinstance(send_at, str):
        read_send_at(send_at)
        given["send_at"] = _dated(send_at)
    return {**given, "is_development": True} if is_development else given


def write_each(
    use: TemplateUse, variables_of: Mapping[str, Any], send_options: Mapping[str, Any]
) -> dict[str, dict[str, Any] | HandbellError]:
    """Return a call for each recipient, or what is wrong with the variables of that one.

    Raises TemplateError when ``variables_of`` is no mapping, and for fields beside the template
    that JSON cannot carry.
    """
    if not isinstance(variables_of, Mapping):
        raise wrong_variables(variables_of)
    key = send_options.get("idempotency_key")

    def entry(name: str, recipient_variables: object) -> dict[str, Any] | HandbellError:
        if not isinstance(recipient_variables, Mapping):
            return wrong_variables(recipient_variables)
        try:
            notification = _used(use, {**use.variables, **recipient_variables})
        except HandbellError as error:
            return error
        named = {} if key is None else {"idempotency_key": f"{key}:{name}"}
        # The name is read there, so that a wrong one is that answer's error alone.
        return {**send_options, **named, "notification": notification, "recipients": name}

    return {
        name: entry(name, recipient_variables) for name, recipient_variables in variables_of.items()
    }


def wrong_variables(value: object) -> TemplateError:
    """Return what is wrong with recipients' variables that are no mapping."""
    return TemplateError(
        f"What was given for the recipients is {shown(value)}",
        fix='Give variables by recipient: {"test@4d.com": {"name": "you"}}',
    )


def _used(use: TemplateUse, variables: Mapping[str, Any]) -> dict[str, Any]:
    overrides = {name: _dated(value) for name, value in use.overrides.items()}
    return {
        **json_mapping("notification", overrides),
        "template": use.template,
        "variables": json_mapping("variables", variables),
    }


def _dated(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
