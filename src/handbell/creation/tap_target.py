"""What a tap on a notification opens: a data class of the app, or one record of it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from handbell.errors import NotificationError

from . import values


@dataclass(frozen=True, slots=True)
class Record:
    """A record of the app's data, opened by a tap: its data class and its primary key."""

    data_class: str
    primary_key: str | int

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_class", _data_class(self.data_class))
        object.__setattr__(self, "primary_key", _primary_key(self.primary_key))

    def to_user_info(self) -> dict[str, Any]:
        """Return the members of ``user_info`` that identify the record for the app."""
        return {"dataClass": self.data_class, "entity": {"primaryKey": self.primary_key}}


TapTarget = str | Mapping[str, Any] | Record | tuple[str, Any]
"""What :meth:`~handbell.creation.notification.Notification.with_target` opens."""


def read_target(target: object) -> Record | str:
    """Return the record to open, or the name of the data class alone."""
    if isinstance(target, Record):
        return target
    if isinstance(target, str):
        return _data_class(target)
    if isinstance(target, tuple) and len(target) == len(fields(Record)):
        return Record(*target)
    if isinstance(target, Mapping):
        return _record_from_mapping(target)
    raise NotificationError(
        f"What to open is {values.shown(target)}",
        fix="Name a data class, or a record as (data class, primary key)",
    )


def _data_class(value: object) -> str:
    name = values.text("data_class", value)
    if name is None:
        raise NotificationError(
            "The data class to open has no name", fix="Name a data class, such as `Employee`"
        )
    return name


def _primary_key(value: object) -> str | int:
    if isinstance(value, str) and (key := values.text("primary_key", value)):
        return key
    if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        return int(values.number("primary_key", value))
    raise NotificationError(
        f"The primary key of the record to open is {values.shown(value)}",
        fix="It must be a text or a whole number",
    )


def _record_from_mapping(target: Mapping[Any, Any]) -> Record | str:
    spellings = {"dataClass": "data_class", "data_class": "data_class", "entity": "entity"}
    given = values.by_field(target, spellings, "in the target")
    if given.get("entity") is None:
        return _data_class(given.get("data_class"))
    if not isinstance(given["entity"], Mapping):
        raise NotificationError(
            f"The target's `entity` is {values.shown(given['entity'])}",
            fix='It must be a mapping, such as {"primaryKey": "42"}',
        )
    spellings = {"primaryKey": "primary_key", "primary_key": "primary_key"}
    entity = values.by_field(given["entity"], spellings, "in the target's entity")
    return Record(given.get("data_class", ""), entity.get("primary_key", ""))
