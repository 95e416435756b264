"""An app, identified to Apple by team id and bundle id."""

import re
from dataclasses import dataclass, field
from typing import Final, Self

from handbell._text import trimmed
from handbell.errors import AppError

TEAM_ID: Final = re.compile(r"[A-Z0-9]{10}")
TEAM_ID_LENGTH: Final = 10
_BUNDLE_ID: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_MAX_BUNDLE_ID_LENGTH: Final = 155
_MAX_NAME_LENGTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app, valid by construction.

    ``id`` is team id and bundle id as one text, ``TEAM123456.com.sample.myapp``. ``row`` is its
    place in the database, None for an app without a registry entry. ``name``
    defaults to the last part of the bundle id; ``created_at`` is in UNIX milliseconds. Raises
    :class:`~handbell.errors.AppError` for an id that cannot be Apple's.
    """

    team_id: str
    bundle_id: str
    name: str = ""
    is_enabled: bool = True
    created_at: int = 0
    row: int | None = None
    id: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Copied from Apple's pages, with stray blanks.
        object.__setattr__(self, "team_id", trimmed(self.team_id))
        object.__setattr__(self, "bundle_id", trimmed(self.bundle_id))
        _check_team_id(self.team_id)
        _check_bundle_id(self.bundle_id)
        name = self.name.strip() or self.bundle_id.rpartition(".")[2]
        if len(name) > _MAX_NAME_LENGTH or not name.isprintable():
            raise AppError(
                "The app's name cannot be used",
                fix=f"Use at most {_MAX_NAME_LENGTH} printable characters",
            )
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "id", f"{self.team_id}.{self.bundle_id}")

    @classmethod
    def read_id(cls, text: str) -> Self:
        """Return the app of an id such as ``TEAM123456.com.sample.myapp``.

        Raises :class:`~handbell.errors.AppError` naming the invalid part.
        """
        text = trimmed(text)
        team_id, dot, bundle_id = text.partition(".")
        if not TEAM_ID.fullmatch(trimmed(team_id).upper()) and _is_bundle_id(text):
            raise AppError(
                f"The team id is missing before {text!r}",
                fix=f"Write it with a dot before the bundle id: TEAM123456.{text}; it "
                "stands at developer.apple.com/account under Membership details",
            )
        if not dot:
            raise AppError(
                f"{text!r} is not an app id",
                fix="Write team id, dot, bundle id: TEAM123456.com.sample.myapp",
            )
        return cls(team_id=team_id, bundle_id=bundle_id)


def _check_team_id(team_id: str) -> None:
    if not TEAM_ID.fullmatch(team_id):
        raise AppError(
            f"{team_id!r} is not a team id",
            fix="A team id is 10 upper-case letters and digits; see Membership details at "
            "developer.apple.com/account",
        )


def _check_bundle_id(bundle_id: str) -> None:
    if not _BUNDLE_ID.fullmatch(bundle_id) or len(bundle_id) > _MAX_BUNDLE_ID_LENGTH:
        raise AppError(
            f"{bundle_id!r} is not a bundle id: {_fault(bundle_id)}",
            fix="Write it as in Xcode, for example com.sample.myapp",
        )


def _is_bundle_id(text: str) -> bool:
    """Return whether a text is certainly a bundle id without a team: it begins like a domain."""
    first, dot, _ = text.partition(".")
    return bool(dot and first.islower() and _BUNDLE_ID.fullmatch(text))


def _fault(bundle_id: str) -> str:
    if not bundle_id:
        return "it is empty"
    if len(bundle_id) > _MAX_BUNDLE_ID_LENGTH:
        return f"it is longer than {_MAX_BUNDLE_ID_LENGTH} characters"
    strange = re.search(r"[^A-Za-z0-9.-]", bundle_id)
    if strange:
        return f"{strange.group()!r} is not a letter, digit, hyphen or dot"
    return "a dot stands at its beginning or end, or beside another"
