"""Addresses at APNs: device tokens, opaque bytes in hex."""

import re
from collections.abc import Mapping
from typing import Final

from handbell._text import short_token
from handbell.errors import RegistryError
from handbell.services.address import Address

_TOKEN: Final = re.compile(r"(?:[0-9a-f]{2}){4,256}")


def read_token(text: str) -> str:
    """Return a device token in its canonical form: lower case.

    Raises :class:`~handbell.errors.RegistryError` unless it is an even run of 8 to 512 hex digits.
    """
    token = text.strip().lower()
    if not _TOKEN.fullmatch(token):
        raise RegistryError(
            f"{short_token(text)!r} is not a device token",
            fix="Send the token's bytes as hex digits: an even number of them, 8 to 512",
        )
    return token


def read_address(token: str, details: Mapping[str, str] | None = None) -> Address:
    """Return the address of a device token, which has no further parts.

    Raises :class:`~handbell.errors.RegistryError` for anything else.
    """
    if details:
        raise RegistryError(
            f"A device token of Apple's has no `{min(details)}`",
            fix="Send the token alone, or name the platform that the address is of",
        )
    return Address("apns", read_token(token))
