"""Names of apps: a name never collides with another app's name, id, bundle id or package."""

import unicodedata
from collections.abc import Iterable
from typing import Final

from handbell.errors import NameTakenError

from .app import App

_ROOM_FOR_NUMBER: Final = 190
# Apps of several teams or projects may have the same.
_SHARED: Final = frozenset({"bundle id", "package"})


def check_name(app: App, others: Iterable[App]) -> None:
    """Raise :class:`~handbell.errors.NameTakenError` when a name also identifies another app.

    Its own bundle id is allowed, even if an app of another team has the same.
    """
    folded = _fold(app.name)
    for other in others:
        if other.id == app.id:
            continue
        for kind, text in other.references:
            if _fold(text) == folded and not (kind in _SHARED and kind in _own_kinds(app)):
                # The owner is not named: the caller may be limited to this app.
                raise NameTakenError(
                    f"{app.name!r} is the {kind} of another app",
                    fix="Choose a name by which no other app is called",
                )


def check_ids(app: App, others: Iterable[App]) -> None:
    """Raise :class:`~handbell.errors.NameTakenError` when another app's name is this one's id.

    The reference would mean another app from now on.
    """
    own = {_fold(text) for kind, text in app.references if kind != "name"}
    for other in others:
        if other.id != app.id and _fold(other.name) in own and not _own_kinds(other):
            raise NameTakenError(
                f"The app {other.id} is called {other.name!r}, which means this one as well",
                fix=f"Rename it first: handbell app set {other.id} --name NAME",
            )


def free_name(app: App, others: Iterable[App]) -> str:
    """Return an app's name, numbered when it also identifies another app."""
    others = tuple(others)
    taken = {_fold(text) for other in others if other.id != app.id for _, text in other.references}
    name, number = app.name, 1
    while _fold(name) in taken:
        number += 1
        name = f"{app.name[:_ROOM_FOR_NUMBER]} {number}"
    return name


def _own_kinds(app: App) -> set[str]:
    """Return which ids of a push service the app's name is."""
    folded = _fold(app.name)
    return {kind for kind, text in app.references if kind in _SHARED and _fold(text) == folded}


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", text.strip()).casefold()
