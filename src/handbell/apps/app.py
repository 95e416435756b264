"""An app: its id and name, and what each push service knows it by."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from handbell._text import trimmed
from handbell.errors import AppError
from handbell.fixes import Action, Fix

from .identifiers import (
    TEAM_ID,
    TEAM_ID_LENGTH,
    is_bundle_id,
    is_own_id,
    own_id_of,
    read_app_id,
    read_bundle_id,
    read_fingerprints,
    read_origin,
    read_package,
    read_team_id,
)

__all__ = ["APP_IDS", "TEAM_ID", "TEAM_ID_LENGTH", "App", "AppleIds", "named_by"]

APP_IDS: Final = (
    "team_id",
    "bundle_id",
    "android_package",
    "android_fingerprints",
    "web_origin",
)
"""What push services and the web know an app by, as its members are called."""

_MAX_NAME_LENGTH: Final = 200


class AppleIds(NamedTuple):
    """What Apple knows an app by."""

    team_id: str
    bundle_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app, valid by construction.

    ``id`` is its permanent name. Unless given it is Apple's team id and bundle id as one text
    (``TEAM123456.com.sample.myapp``), or else the Android package, or else one made of the name or
    the web origin (``my-shop``). ``row`` is its place in the database, None for an app without a
    registry entry. ``name`` defaults to the last part of the bundle id or package; ``created_at``
    is in UNIX milliseconds. ``android_fingerprints`` are those of its signing certificates. Raises
    :class:`~handbell.errors.AppError` for what cannot be an id.
    """

    team_id: str | None = None
    bundle_id: str | None = None
    android_package: str | None = None
    android_fingerprints: tuple[str, ...] = ()
    web_origin: str | None = None
    name: str = ""
    is_enabled: bool = True
    created_at: int = 0
    row: int | None = None
    id: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.team_id is None) != (self.bundle_id is None):
            raise AppError(
                "An app has both of Apple's ids or none", fix="Give team id and bundle id"
            )
        for name, read in _READERS.items():
            if (text := getattr(self, name)) is not None:
                object.__setattr__(self, name, read(text))
        object.__setattr__(
            self, "android_fingerprints", read_fingerprints(self.android_fingerprints)
        )
        name = self.name.strip() or self._default_name()
        if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
            raise AppError(
                "The app's name cannot be used",
                fix=f"Use at most {_MAX_NAME_LENGTH} printable characters",
            )
        object.__setattr__(self, "id", read_app_id(self.id) if self.id else self._default_id())
        object.__setattr__(self, "name", name or self.id)

    @property
    def apple(self) -> AppleIds:
        """Apple's ids; raises :class:`~handbell.errors.AppError` where it has none."""
        if self.team_id is None or self.bundle_id is None:
            raise AppError(
                f"{self.id} has no team id and bundle id of Apple's",
                fix=Fix(Action.SET_APPLE_IDS, "Add them", app=self.id),
            )
        return AppleIds(self.team_id, self.bundle_id)

    @property
    def apple_id(self) -> str | None:
        """Apple's ids as one text, which names the app too; None where it has none."""
        return None if self.team_id is None else f"{self.team_id}.{self.bundle_id}"

    @property
    def services(self) -> tuple[str, ...]:
        """The push services that know the app, in the order in which a device is reached."""
        known = {
            "apns": self.bundle_id,
            "fcm": self.android_package,
            "webpush": self.web_origin,
        }
        return tuple(service for service, text in known.items() if text is not None)

    @property
    def references(self) -> tuple[tuple[str, str], ...]:
        """All texts that may mean this app, each with its kind; the most exact first."""
        texts = [("id", self.id), ("name", self.name)]
        if self.bundle_id is not None:
            texts[1:1] = [("id", f"{self.team_id}.{self.bundle_id}")]
            texts.append(("bundle id", self.bundle_id))
        if self.android_package is not None:
            texts.append(("package", self.android_package))
        return tuple(texts)

    @classmethod
    def read_id(cls, text: str) -> Self:
        """Return the app of an id of Apple's, such as ``TEAM123456.com.sample.myapp``.

        Raises :class:`~handbell.errors.AppError` naming the invalid part.
        """
        text = trimmed(text)
        team_id, dot, bundle_id = text.partition(".")
        if not TEAM_ID.fullmatch(trimmed(team_id).upper()) and is_bundle_id(text):
            raise AppError(
                f"The team id is missing before {text!r}",
                fix=f"Write it with a dot before the bundle id: TEAM123456.{text}; it "
                "stands at developer.apple.com/account under Membership details. For an Android "
                f"app: --android-package {text}",
            )
        if not dot:
            raise AppError(
                f"{text!r} is not an app id",
                fix="Write team id, dot, bundle id: TEAM123456.com.sample.myapp. An app without "
                "Apple's has an Android package or a web origin, and an id of lower-case letters, "
                "digits and hyphens",
            )
        return cls(team_id=team_id, bundle_id=bundle_id)

    def _default_name(self) -> str:
        dotted = self.bundle_id or self.android_package
        if dotted:
            return dotted.rpartition(".")[2]
        return "" if self.web_origin is None else str(urlsplit(self.web_origin).hostname)

    def _default_id(self) -> str:
        found = self.apple_id or self.android_package or own_id_of(self.name)
        if found is None and self.web_origin is not None:
            found = own_id_of(str(urlsplit(self.web_origin).hostname))
        if found is None:
            raise AppError(
                "The app has no id",
                fix="Give Apple's team id and bundle id, an Android package, or an id of your own "
                "in lower case, such as my-shop",
            )
        return found


def named_by(text: str | None, given: Mapping[str, object]) -> dict[str, str]:
    """Return what an app's id says of a new app: Apple's ids, or an id of one's own.

    ``given`` is what else is said of the app. An id of one's own needs something else to belong to
    it; alone it is rather a mistyped one of Apple's. Raises :class:`~handbell.errors.AppError`.
    """
    if text is None:
        return {}
    others = any(given.get(name) for name in (*APP_IDS, "name"))
    if others and is_own_id(trimmed(text)):
        return {"app_id": trimmed(text)}
    if given.get("android_package") == trimmed(text):
        return {}
    team_id, bundle_id = App.read_id(text).apple
    if given.get("team_id") not in (None, team_id) or given.get("bundle_id") not in (
        None,
        bundle_id,
    ):
        raise AppError(f"{text!r} names other ids than team id and bundle id", fix="Give one")
    return {"team_id": team_id, "bundle_id": bundle_id}


_READERS: Final = {
    "team_id": read_team_id,
    "bundle_id": read_bundle_id,
    "android_package": read_package,
    "web_origin": read_origin,
}
