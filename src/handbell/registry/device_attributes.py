"""Optional attributes of a device: an invalid one never refuses a registration.

A phone with an unknown time zone is still a phone, and its new token must not be lost. An invalid
attribute is left out, which keeps the stored value, and reported as a warning.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from handbell._text import nearest
from handbell.creation.languages import fallbacks
from handbell.errors import RegistryError

from .session import (
    MAX_LABEL_LENGTH,
    read_label,
    time_zone_of,
)

LABELS: Final = ("locale", "device", "app_version", "os_version", "external_id", "device_id")
FACTS: Final = ("time_zone", *LABELS)
"""The optional attributes of a device, by their names in the API."""

MAX_DEVICE_ID_LENGTH: Final = 128

_SHOWN: Final = 40
# PostgreSQL stores no NUL, and a lone surrogate is no character.
_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")


def read_attributes(values: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return the valid attributes, and a warning for each invalid one.

    ``values`` may contain anything. Null and an empty text cause no warning.
    """
    facts: dict[str, str] = {}
    warnings: list[str] = []
    for name in FACTS:
        value = values.get(name)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            warnings.append(f"{name} is no text; it is left out.")
            continue
        try:
            facts[name] = _READERS.get(name, _label)(name, str(value).strip(), warnings)
        except RegistryError as error:
            warnings.append(f"{error.what} It is left out.")
    return facts, warnings


def unknown_member(name: str, known: tuple[str, ...]) -> str:
    """Return the warning for an unknown member."""
    near = nearest(name[:_SHOWN], known)
    hint = f" Did you mean {near}?" if near else ""
    return f"The member {name[:_SHOWN]!r} is not known; it is left out.{hint}"


def _time_zone(_name: str, text: str, _warnings: list[str]) -> str:
    found = time_zone_of(text)
    if found is None:
        raise RegistryError(
            f"{text[:_SHOWN]!r} is not a time zone", fix="Name it as IANA does: Europe/Paris"
        )
    return found


def _label(name: str, text: str, warnings: list[str]) -> str:
    text = _UNSTORABLE.sub("\ufffd", text)
    if len(text) > MAX_LABEL_LENGTH:
        warnings.append(f"{name} is cut to {MAX_LABEL_LENGTH} characters.")
        text = text[:MAX_LABEL_LENGTH]
    return read_label(name, text) or ""


def _locale(name: str, text: str, warnings: list[str]) -> str:
    if not fallbacks(text):
        raise RegistryError(f"{text[:_SHOWN]!r} is not a locale", fix="Write it like fr-CH")
    return _label(name, text, warnings)


def _device_id(name: str, text: str, warnings: list[str]) -> str:
    # Cut, it might be another device's.
    if len(text) > MAX_DEVICE_ID_LENGTH:
        raise RegistryError(
            f"{name} has more than {MAX_DEVICE_ID_LENGTH} characters", fix="Send a shorter one"
        )
    return _label(name, text, warnings)


_READERS: Final = {"time_zone": _time_zone, "locale": _locale, "device_id": _device_id}
