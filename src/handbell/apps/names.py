"""Names of apps: a name never collides with another app's name, bundle id or id."""

import unicodedata
from collections.abc import Iterable
from typing import Final

from handbell.errors import NameTakenError

from .app import App

_ROOM_FOR_NUMBER: Final = 190


def check_name(app: App, others: Iterable[App]) -> None:
    """Raise :class:`~handbell.errors.NameTakenError` when a name also identifies another app.

    Its own bundle id is allowed, even if an app of another team has the same.
    """
    folded = _fold(app.name)
    for other in others:
        if other.id == app.id:
            continue
        kinds = {"name": other.name, "bundle id": other.bundle_id, "id": other.id}
        for kind, text in kinds.items():
            if _fold(text) == folded and not (kind == "bundle id" == _own_kind(app)):
                # The owner is not named: the caller may be limited to this app.
                raise NameTakenError(
                    f"{app.name!r} is the {kind} of another app",
                    fix="Choose a name by which no other app is called",
                )


def check_ids(app: App, others: Iterable[App]) -> None:
    """Raise :class:`~handbell.errors.NameTakenError` when another app's name is this one's id.

    The reference would mean another app from now on.
    """
    for other in others:
        if _fold(other.name) in (_fold(app.id), _fold(app.bundle_id)) and (
            _fold(other.name) != _fold(other.bundle_id)
        ):
            raise NameTakenError(
                f"The app {other.id} is called {other.name!r}, which means this one as well",
                fix=f"Rename it first: handbell app set {other.id} --name NAME",
            )


def free_name(app: App, others: Iterable[App]) -> str:
    """Return an app's name, numbered when it also identifies another app."""
    others = tuple(others)
    taken = {
        _fold(text)
        for other in others
        if other.id != app.id
        for text in (other.name, other.bundle_id, other.id)
    }
    name, number = app.name, 1
    while _fold(name) in taken:
        number += 1
        name = f"{app.name[:_ROOM_FOR_NUMBER]} {number}"
    return name


def _own_kind(app: App) -> str:
    return "bundle id" if _fold(app.name) == _fold(app.bundle_id) else "name"


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text.strip()).casefold()
