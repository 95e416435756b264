"""A user: a person in one app, known by mail."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person in one app. ``mail`` is folded; ``created_at`` is in UNIX milliseconds."""

    id: int
    mail: str | None
    external_id: str | None
    created_at: int
