"""What a reference means: an id first, then a unique name, then an id of a push service."""

from collections.abc import Callable
from typing import Final

from handbell._text import nearest
from handbell.errors import AmbiguousAppError, UnknownAppError
from handbell.fixes import Action, Fix

from .app import App


def meant(wanted: str, apps: list[App]) -> list[App]:
    """Return the apps that a reference may mean by its most exact reading; there is at least one.

    Raises :class:`~handbell.errors.UnknownAppError` with similar names.
    """
    for app in apps:
        if app.id == wanted:
            return [app]
    references = [(app, app.references) for app in apps]
    for kinds, fold in _READINGS:
        folded = fold(wanted)
        found = [
            app
            for app, texts in references
            if any(kind in kinds and fold(text) == folded for kind, text in texts)
        ]
        if found:
            return found
    known = {text: app.id for app, texts in references for _, text in texts}
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


_READINGS: Final[tuple[tuple[frozenset[str], Callable[[str], str]], ...]] = (
    (frozenset({"id"}), str),
    (frozenset({"name"}), str),
    (frozenset({"bundle id", "package"}), str),
    (frozenset({"id", "name", "bundle id", "package"}), str.casefold),
)
