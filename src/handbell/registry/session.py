"""A session: one device of one user in one app."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Final, Literal, NamedTuple, get_args
from zoneinfo import available_timezones

from handbell._text import nearest
from handbell.errors import RegistryError

Status = Literal["pending", "active", "quarantined", "closed"]
Environment = Literal["production", "development", "twin"]
Platform = Literal["ios", "ipados", "macos", "tvos", "visionos", "watchos", "android", "web"]

PLATFORMS: Final[tuple[str, ...]] = get_args(Platform)
ENVIRONMENTS: Final[tuple[str, ...]] = get_args(Environment)
MOVED: Final = "moved"
"""Close reason: the device now belongs to somebody else."""

LOGGED_OUT: Final = "closed"
"""Close reason: the device was logged out."""

CLOSED_BY_OPERATOR: Final = "closed by operator"
"""Close reason: a back end or an operator closed it."""

CROWDED_OUT: Final = "session-limit"
"""Close reason: the person had too many sessions, and no push was accepted for this one."""

CLOSED_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        MOVED: "the device has registered for somebody else since",
        LOGGED_OUT: "it was logged out",
        CROWDED_OUT: "its person registered more devices than are allowed",
    }
)
"""Explanations of our own close reasons. Other reasons are a push service's, or free text."""

MAX_LABEL_LENGTH: Final = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One device of one user in one app. Instants are in UNIX milliseconds.

    ``service`` is the push service that reaches it, ``token`` what identifies it there: a device
    token, a registration token, a subscription's endpoint. ``kind`` is the form of address, and
    ``details`` JSON of what else belongs to it, such as a browser's keys. Sessions of one device
    through several services have the same ``device_id``.

    ``registered_at`` is when the device last registered, ``accepted_at`` when the push service
    last accepted a push for it, except broadcasts, which do not update each row. ``reason`` is why
    it is closed or quarantined; ``external_id`` is its id in the system that it was imported from.
    The device's secret is not included.
    """

    id: int
    user_id: int
    mail: str
    token: str
    platform: Platform
    environment: Environment
    status: Status
    reason: str | None
    locale: str | None
    time_zone: str | None
    device: str | None
    external_id: str | None
    created_at: int
    registered_at: int
    accepted_at: int | None
    closed_at: int | None
    app_version: str | None = None
    os_version: str | None = None
    service: str = "apns"
    kind: str = "device"
    details: str | None = field(default=None, repr=False)
    device_id: str | None = None

    @property
    def address(self) -> str:
        """The address of its device, which is its ``token``."""
        return self.token


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredSession(Session):
    """A session as returned by its registration.

    Its device authenticates with ``secret``, which is returned only once and revokes the former
    one. ``warnings`` name attributes of the device that were left out.
    """

    secret: str = field(repr=False)
    warnings: tuple[str, ...] = ()


class SessionLocation(NamedTuple):
    """Of a session: push service, environment, whether a push was accepted there, time zone."""

    environment: Environment
    was_reached: bool
    time_zone: str | None
    service: str


class ActiveSession(NamedTuple):
    """An active session as a broadcast needs it: minimal, since there may be millions."""

    id: int
    token: str
    environment: Environment
    mail: str
    platform: str
    time_zone: str | None
    accepted_at: int | None
    locale: str | None
    service: str
    details: str | None
    device_id: str | None


_OFFSET: Final = re.compile(
    r"(?:GMT|UTC)\s*(?:([+-])(\d{1,2})(?::?(\d{2}))?)?|Z|([+-])(\d\d):?(\d\d)", re.IGNORECASE
)
_MOST_HOURS: Final = 14
# Files of a system's zone folder that are no zones of a place.
_NO_PLACES: Final = frozenset({"localtime", "Factory"})


def read_platform(text: str) -> str:
    """Return a known platform, or raise :class:`~handbell.errors.RegistryError`."""
    return _one_of("platform", text.strip().lower(), PLATFORMS)


def read_environment(text: str) -> str:
    """Return a known environment, or raise :class:`~handbell.errors.RegistryError`."""
    return _one_of("environment", text, ENVIRONMENTS)


def read_time_zone(name: str) -> str:
    """Return the name of an IANA time zone, or raise :class:`~handbell.errors.RegistryError`."""
    found = time_zone_of(name.strip())
    if found is not None:
        return found
    near = nearest(name, known_time_zones())
    raise RegistryError(
        f"{name!r} is not a time zone",
        fix=f"Did you mean {near}?" if near else "Use an IANA name such as Europe/Paris",
    )


def time_zone_of(text: str) -> str | None:
    """Return the IANA name of a time zone as devices write it, or None.

    Case does not matter, and an offset of whole hours (``GMT+0200``, ``+02:00``) is a zone of
    ``Etc``, with the opposite sign.
    """
    known = known_time_zones()
    if text in known:
        return text
    folded = text.casefold().replace(" ", "_")
    alike = next((name for name in known if name.casefold() == folded), None)
    if alike is not None:
        return alike
    found = _OFFSET.fullmatch(text)
    if found is None or not text:
        return None
    hours, minutes = int(found[2] or found[5] or 0), int(found[3] or found[6] or 0)
    if minutes or hours > _MOST_HOURS:
        return None
    sign = "-" if "+" in (found[1], found[4]) else "+"
    name = f"Etc/GMT{sign}{hours}" if hours else "UTC"
    return name if name in known else None


def read_label(name: str, text: str | None) -> str | None:
    """Return a display text, such as a device's name, or None for an empty one.

    Raises :class:`~handbell.errors.RegistryError` for more than 512 characters or a lone
    surrogate.
    """
    label = (text or "").strip()
    if len(label) > MAX_LABEL_LENGTH or any("\ud800" <= letter <= "\udfff" for letter in label):
        raise RegistryError(
            f"The {name} of a session cannot be stored",
            fix=f"Use at most {MAX_LABEL_LENGTH} characters of valid Unicode",
        )
    return label or None


@cache
def known_time_zones() -> frozenset[str]:
    """Return the names of all IANA time zones, even if the system has no time zone data."""
    return frozenset(available_timezones()) - _NO_PLACES


def _one_of(what: str, text: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise RegistryError(f"{text!r} is not a known {what}", fix=f"Use one of {', '.join(known)}")
    return text
