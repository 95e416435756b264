"""Ids of notifications and pushes, each computable from the other without a lookup.

A notification's public id is 15 hex digits (60 bits), most of them random. The apns-id of a
delivery is a UUID of version 8 (RFC 9562) that carries those 60 bits and the delivery's number in
60 more. A repeat of a delivery therefore goes out under the same apns-id, whatever crashed in
between.
"""

import os
import re
import secrets
from collections.abc import Callable
from typing import Final

from handbell.storage.tables import ADDRESSED

_NOTIFICATION_ID: Final = re.compile(r"[0-9a-f]{15}")
_APNS_ID: Final = re.compile(
    r"([0-9a-f]{8})-([0-9a-f]{4})-8([0-9a-f]{3})-8([0-9a-f]{3})-([0-9a-f]{12})"
)

_TWELVE_DIGITS: Final = 1 << 48


NO_ID: Final = "0" * 15
"""Stands for the id of a notification that has none yet, where only its length matters."""


_DRAWN_AT_ONCE: Final = 256
_drawn: Final[list[str]] = []
# Two processes must never draw the same id.
os.register_at_fork(after_in_child=_drawn.clear)


def new_notification_id() -> str:
    """Return a new public id: 15 hex digits, the first 13 random and shared by 256 in a row.

    Consecutive ids are adjacent in the database's index, where each would otherwise touch a page
    of its own. Ids can be guessed from each other, which is harmless: they grant no access.
    """
    try:
        return _drawn.pop()
    except IndexError:
        # Drawn in batches: each system call costs a thread its turn of the interpreter.
        first = secrets.randbits(52) * _DRAWN_AT_ONCE
        own, *others = (f"{first + number:015x}" for number in range(_DRAWN_AT_ONCE))
        _drawn.extend(reversed(others))
        return own


def is_notification_id(text: str) -> bool:
    """Return whether the text is a well-formed public notification id."""
    return _NOTIFICATION_ID.fullmatch(text) is not None


def apns_id(notification_id: str, number: int) -> str:
    """Return the apns-id of a delivery, the same for each attempt."""
    digits = f"{number:015x}"
    return (
        f"{notification_id[:8]}-{notification_id[8:12]}-8{notification_id[12:]}"
        f"-8{digits[:3]}-{digits[3:]}"
    )


def apns_ids(notification_id: str) -> Callable[[int], str]:
    """Return a function from delivery number to apns-id, for long loops."""
    start = apns_id(notification_id, 0)[:-12]

    def name(number: int) -> str:
        # Session ids have at most twelve digits; bare addresses have larger numbers.
        return (
            f"{start}{number:012x}" if number < _TWELVE_DIGITS else apns_id(notification_id, number)
        )

    return name


def read_apns_id(text: str) -> tuple[str, int] | None:
    """Return a notification's id and a delivery's number, or None for a foreign apns-id."""
    found = _APNS_ID.fullmatch(text.lower())
    if found is None:
        return None
    first, second, third, high, low = found.groups()
    return first + second + third, int(high + low, 16)


def session_id(number: int) -> int | None:
    """Return the session id in a delivery number, or None for a bare address."""
    return number if number < ADDRESSED else None
