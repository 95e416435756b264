"""Hooks through which a program follows a twin."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .phone import Card, Phone

logger = logging.getLogger(__name__)


def _nothing(*_what: object) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinHooks:
    """Callbacks of a program; each is called in the twin's loop and should be quick.

    ``on_phone`` is called when a phone is created, as an app registers with its back end. A
    HandbellError is the back end's refusal: the phone is not created, and the caller gets the
    error. ``on_displayed`` and ``on_opened`` report a card, ``on_phone_removed`` an uninstalled
    app. ``find_key`` returns the PEM of a key that the twin does not know yet, and
    ``find_service_account`` the key file of a service account by its mail address; of both only
    the public half is kept. ``name_of_app`` returns the name of an app, ``android_of_app`` its
    Google project and its package, ``web_push_key`` the public key that its pages subscribe with,
    base64url.
    ``guards_page`` returns whether the page and its API require the token of the page's link: if
    not, any user of this machine may create phones. Any other exception is logged; the page is
    guarded then.
    """

    on_phone: Callable[[Phone], object] = _nothing
    on_displayed: Callable[[Phone, Card], object] = _nothing
    on_opened: Callable[[Phone, Card], object] = _nothing
    on_phone_removed: Callable[[Phone], object] = _nothing
    find_key: Callable[[str, str], str | None] = _nothing
    find_service_account: Callable[[str], Mapping[str, str] | None] = _nothing
    name_of_app: Callable[[str], str | None] = _nothing
    android_of_app: Callable[[str], tuple[str | None, str | None] | None] = _nothing
    web_push_key: Callable[[str], str | None] = _nothing
    guards_page: Callable[[], bool] = lambda: False


def call(
    hook: Callable[..., object], *arguments: object, passes: tuple[type[Exception], ...] = ()
) -> object:
    """Return a hook's result; log its error and return None.

    Errors of the kinds in ``passes`` are raised.
    """
    try:
        return hook(*arguments)
    except passes:
        raise
    except Exception:
        logger.exception("Twin hook failed")
        return None
