"""Base64 with the alphabet for URLs (RFC 4648, 5), as JOSE and Web Push write it: unpadded."""

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

_TEXT: Final = re.compile(r"[A-Za-z0-9_-]*={0,2}")


def base64url(data: bytes) -> str:
    """Return the text of these bytes, without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def read_base64url(text: str) -> bytes:
    """Return the bytes of a text, with padding or without it.

    Raises ValueError for any other text, and for one that :func:`base64url` would write otherwise:
    no two texts mean the same bytes, but for the padding.
    """
    bare = text.rstrip("=")
    try:
        data = urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error:
        data = None
    if data is None or not _TEXT.fullmatch(text) or base64url(data) != bare:
        raise ValueError("it is not base64 with the alphabet for URLs")
    return data
