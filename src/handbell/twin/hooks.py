"""What a program hears of a twin."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .phone import Card, Phone

logger = logging.getLogger(__name__)


def _nothing(*_what: object) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinHooks:
    """What a program wants to hear; each is called in the twin's loop and should be quick.

    ``on_phone`` when a phone is made: the moment an app registers it with its back end. A
    HandbellError is the back end's no: there is no phone then, and who wanted it gets the error.
    ``on_displayed`` and ``on_opened`` report a card, ``on_phone_removed`` an uninstalled app.
    ``find_key`` is asked for the PEM of a key the twin does not know yet, ``name_of_app`` for the
    name of an app. ``guards_page`` says
    whether the page and its API want the token of the page's link: where they do not, any user of
    this machine may make phones. One that raises anything else is logged, and does the twin no
    harm; the page is guarded then.
    """

    on_phone: Callable[[Phone], object] = _nothing
    on_displayed: Callable[[Phone, Card], object] = _nothing
    on_opened: Callable[[Phone, Card], object] = _nothing
    on_phone_removed: Callable[[Phone], object] = _nothing
    find_key: Callable[[str, str], str | None] = _nothing
    name_of_app: Callable[[str], str | None] = _nothing
    guards_page: Callable[[], bool] = lambda: False


def call(
    hook: Callable[..., object], *what: object, passes: tuple[type[Exception], ...] = ()
) -> object:
    """Return what a hook said; None where it raised, which the log tells.

    Errors of the kinds in ``passes`` are raised.
    """
    try:
        return hook(*what)
    except passes:
        raise
    except Exception:
        logger.exception("Twin hook failed")
        return None
