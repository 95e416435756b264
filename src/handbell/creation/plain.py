"""What nearly every send of a long stream is: some words to one person, recognised at a glance.

Of a plain send nothing can be wrong, so it takes a tenth of the time to read. Whatever else it is
is left to :class:`~handbell.creation.notification.Notification` and
:class:`~handbell.creation.recipients.Recipients`; tests hold that both ways come to the same.
"""

from math import isfinite
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from handbell._mail import ordinary_mail

from .notification import RESERVED_MEMBER

MOST_BYTES: Final = 1500
"""How long a plain notification may be, as JSON: it fits whatever else goes into a payload."""

_SHOWN: Final = frozenset({"title", "subtitle", "body"})
_TEXTS: Final = _SHOWN | {"sound", "url", "image_url", "thread_id", "category"}
_KNOWN: Final = _TEXTS | {"badge", "user_info"}
# `url` may stand in `user_info` as well, if it is the same.
_NOT_PLAIN: Final = frozenset({"aps", "data", "url", RESERVED_MEMBER})
_SCALARS: Final = frozenset({str, bool, type(None)})
_BADGES: Final = range(2**31)
_INTEGERS: Final = range(-(2**63), 2**63)


class PlainSend(NamedTuple):
    """Some words to one person: the notification as the ledger keeps it, and the folded mail.

    ``key`` is its idempotency key.
    """

    content: str
    mail: str
    key: str | None = None

    @property
    def recipients(self) -> str:
        """Return whom it is for, as the ledger keeps it."""
        # Nothing in an ordinary address has to be escaped.
        return f'{{"mails": ["{self.mail}"]}}'


def read_plain(
    notification: object, recipients: object, key: str | None = None
) -> PlainSend | None:
    """Return a send as it was written, or None for one that has to be read in full.

    What it returns is what the full reading would keep; both values are as JSON gives them. The
    ``key`` goes along.
    """
    if type(recipients) is list and len(recipients) == 1:
        recipients = recipients[0]
    mail = ordinary_mail(recipients) if type(recipients) is str else None
    if mail is None or type(notification) is not dict or not _is_plain(notification):
        return None
    if "user_info" in notification:
        notification = {"user_info": notification["user_info"], **notification}
    try:
        content = to_json(notification)
    except ValueError:
        # Half of a character pair stands alone in one of the texts.
        return None
    return PlainSend(content.decode(), mail, key) if len(content) <= MOST_BYTES else None


def _is_plain(given: dict[Any, Any]) -> bool:
    if not given.keys() <= _KNOWN or given.keys().isdisjoint(_SHOWN):
        return False
    for name, value in given.items():
        if name in _TEXTS:
            if type(value) is not str or not value or value.isspace():
                return False
        elif name == "badge":
            if type(value) is not int or value not in _BADGES:
                return False
        elif not _is_flat(value):
            return False
    return True


def _is_flat(info: object) -> bool:
    return (
        type(info) is dict
        and bool(info)
        and info.keys().isdisjoint(_NOT_PLAIN)
        and all(type(key) is str and _is_scalar(value) for key, value in info.items())
    )


def _is_scalar(value: object) -> bool:
    kind = type(value)
    if kind is int:
        return value in _INTEGERS
    return kind in _SCALARS or (isinstance(value, float) and isfinite(value))
