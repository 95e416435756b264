"""Formatting of values on the console's pages."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from markupsafe import Markup, escape

from handbell._icon import AppIcon
from handbell._text import count, moment, rough_span, short_token, zoned
from handbell.services.table import service_of

from .fix_buttons import in_console, remedy

_FULL: Final = 999

# The format of moment() in sentences.
_MOMENT: Final = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (UTC|[+-]\d\d:\d\d)")

SESSION_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "active": ("good", "Active"),
        "pending": ("wait", "Waits for proof"),
        "quarantined": ("bad", "In quarantine"),
        "closed": ("off", "Closed"),
    }
)
"""Each status of a session: the kind of its chip, and its name."""

DELIVERY_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "queued": ("wait", "Queued"),
        "sending": ("wait", "On its way"),
        "held": ("wait", "Waits"),
        "sent": ("good", "Sent"),
        "failed": ("bad", "Failed"),
        "dead_letter": ("bad", "Dead letter"),
        "expired": ("off", "Expired"),
        "cancelled": ("off", "Cancelled"),
    }
)
"""Each state of a delivery: the kind of its chip, and its name."""


_PLANNED: Final = frozenset({"Scheduled", "QuietHours"})
_STUCK: Final = frozenset({"CircuitOpen", "AppDisabled", "NoCredential", "ServiceDown"})


def delivery_chip(state_and_reason: tuple[str, str | None]) -> tuple[str, str]:
    """Return the kind and the word of a delivery's chip: planned and blocked ones differ."""
    state, reason = state_and_reason
    if state == "held" and reason in _PLANNED:
        return "plan", "Planned"
    if state == "held" and reason in _STUCK:
        return "stuck", "Held up"
    return DELIVERY_WORDS.get(state, ("off", state))


PLATFORM_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ios": "iOS",
        "ipados": "iPadOS",
        "macos": "macOS",
        "tvos": "tvOS",
        "visionos": "visionOS",
        "watchos": "watchOS",
        "android": "Android",
        "web": "Browser",
    }
)
"""Each platform as people write it."""


def platform(name: str) -> str:
    """Return a platform as people write it."""
    return PLATFORM_WORDS.get(name, name)


def service_title(gateway: str) -> str:
    """Return what the push service behind a gateway is called."""
    return service_of(gateway).title


def when(milliseconds: float | None, *, empty: str = "never") -> Markup | str:
    """Return an instant as a ``time`` element; the page's script localizes it."""
    if milliseconds is None:
        return empty
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    iso = instant.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Markup('<time datetime="{}">{}</time>').format(iso, zoned(milliseconds))


def ago(milliseconds: float | None, now: float, *, empty: str = "never") -> Markup | str:
    """Return an instant relative to ``now`` (UNIX seconds), as a ``time`` element."""
    if milliseconds is None:
        return empty
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    iso = instant.isoformat(timespec="seconds").replace("+00:00", "Z")
    title = moment(milliseconds)
    told = rough_span(now - milliseconds / 1000)
    return Markup('<time datetime="{}" data-ago title="{}">{}</time>').format(iso, title, told)


def with_times(text: str) -> Markup:
    """Return a sentence with its instants as ``time`` elements, which the script localizes."""
    told = Markup('<time datetime="{}T{}{}">{}</time>')
    parts = _MOMENT.split(text)
    found = escape(parts[0])
    for day, clock, zone, after in zip(
        parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True
    ):
        offset = "Z" if zone == "UTC" else zone
        found += told.format(day, clock, offset, f"{day} {clock} {zone}") + escape(after)
    return found


def badge(value: object) -> str:
    """Return a badge shortened to fit an icon."""
    text = str(value)
    return f"{_FULL}+" if text.isascii() and text.isdigit() and int(text[:9]) > _FULL else text


def number(value: float) -> str:
    """Return a number with thousands separators."""
    return f"{value:,}"


def percent(share: float) -> str:
    """Return a fraction in whole percent; only none is 0 %, and only all is 100 %."""
    value = share * 100
    if 1 <= value <= 99 or share in (0, 1):  # noqa: PLR2004 - of a hundred
        return f"{value:.0f} %"
    return f"{min(max(value, 0.1), 99.9):.1f} %"


FILTERS: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "when": when,
        "ago": ago,
        "in_console": in_console,
        "way": remedy,
        "with_times": with_times,
        "delivery_chip": delivery_chip,
        "badge": badge,
        "icon": AppIcon.of,
        "number": number,
        "percent": percent,
        "platform": platform,
        "service_title": service_title,
        "count": count,
        "short_token": short_token,
    }
)
"""The template filters, such as ``{{ session.created_at | when }}``."""
