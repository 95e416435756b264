"""The addresses of FCM: registration tokens, and Firebase installation ids.

A registration token is opaque: ``fGc…:APA91b…`` today, without the colon in the past. An
installation id (FID) is 22 characters of URL-safe base64, of which the first four bits are 0111.

Source: https://firebase.google.com/docs/cloud-messaging/manage-tokens ,
https://firebase.google.com/docs/projects/manage-installations .
"""

import re
from collections.abc import Mapping
from typing import Final

from handbell._text import count, trimmed
from handbell.errors import RegistryError
from handbell.services.address import Address

LONGEST: Final = 4096
"""The longest registration token that is taken; today's have about 142 characters."""
FID_LENGTH: Final = 22
SHORTEST: Final = 32
"""The shortest text that can be a registration token."""

_FID: Final = re.compile(r"[c-f][A-Za-z0-9_-]{21}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_.~%+=/:-]+")
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{160}")
_FIX: Final = (
    "Give the registration token as FirebaseMessaging.getToken() hands it to the app, whole and "
    "unchanged"
)


def read_address(token: str, details: Mapping[str, str] | None = None, /) -> Address:
    """Return a registration token or an installation id, without blanks around it, as an address.

    Raises :class:`~handbell.errors.RegistryError` for a text that can be neither, for a device
    token of Apple's or a browser's endpoint, which FCM does not take, and for any details.
    """
    text = trimmed(token)
    if details:
        raise RegistryError(
            f"A device of FCM has no `{min(details)}`", fix="Give its registration token alone"
        )
    if is_fid(text):
        return Address("fcm", text, "fid")
    _refuse_others(text)
    if not text:
        raise RegistryError("The registration token is empty", fix=_FIX)
    if len(text) > LONGEST:
        raise RegistryError(
            f"The registration token has {len(text):,} characters, and FCM's have about 150",
            fix=_FIX,
        )
    if len(text) < SHORTEST:
        raise RegistryError(
            f"The registration token has {count(len(text), 'character')}, and is cut", fix=_FIX
        )
    if not _TOKEN.fullmatch(text):
        raise RegistryError(
            "The registration token has characters that none of FCM's has", fix=_FIX
        )
    return Address("fcm", text)


def _refuse_others(text: str) -> None:
    if text.startswith("https://"):
        raise RegistryError(
            "What was given as a registration token is an address, as browsers have them",
            fix="Register it with the platform `web`, and with its keys",
        )
    if _HEX.fullmatch(text):
        raise RegistryError(
            "What was given as a registration token is a device token of Apple's",
            fix="Register it with the platform `ios`; for Android give the registration token "
            "of FCM",
        )


def is_fid(address: str) -> bool:
    """Return whether an address is a Firebase installation id, and no registration token."""
    return _FID.fullmatch(address) is not None
