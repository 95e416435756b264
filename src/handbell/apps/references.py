"""What a reference means: an id first, then a unique name, then an id of a push service."""

from collections.abc import Callable, Iterable
from typing import Final

from handbell._text import nearest
from handbell.errors import AmbiguousAppError, UnknownAppError
from handbell.fixes import Action, Fix

from .app import App


def meant(wanted: str, apps: list[App]) -> list[App]:
    """Return the apps that a reference may mean by its most exact reading; there is at least one.

    Raises :class:`~handbell.errors.UnknownAppError` with similar names.
    """
    for reading in _READINGS:
        found = [app for app in apps if reading(wanted, app)]
        if found:
            return found
    known = {text: app.id for app in apps for _, text in app.references}
    near = nearest(wanted, known)
    raise UnknownAppError(
        f"There is no app {wanted!r}",
        fix=f"Did you mean {known[near]}?" if near else Fix(Action.LIST_APPS, "See"),
    )


def single(found: list[App], ambiguity: str) -> App:
    """Return the only app, or raise AmbiguousAppError with the candidates."""
    if len(found) == 1:
        return found[0]
    ids = tuple(app.id for app in found)
    raise AmbiguousAppError(ambiguity, fix=f"Name one by its id: {', '.join(ids)}", candidates=ids)


def _by(kinds: Iterable[str], fold: Callable[[str], str] = str) -> Callable[[str, App], bool]:
    kinds = frozenset(kinds)

    def reading(wanted: str, app: App) -> bool:
        folded = fold(wanted)
        return any(kind in kinds and fold(text) == folded for kind, text in app.references)

    return reading


_READINGS: Final = (
    lambda wanted, app: app.id == wanted,
    _by(["id"]),
    _by(["name"]),
    _by(["bundle id", "package"]),
    _by(["id", "name", "bundle id", "package"], str.casefold),
)
