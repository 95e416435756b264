"""What a message of the broker says: which rows are to be worked on. The rows say all else.

A message is JSON with a version, so that machines of two versions can share a stream: unknown
members are ignored, and a message of a later version is left to those who can read it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self

from pydantic_core import from_json, to_json

from handbell._chunks import chunks
from handbell.delivery.urgency import LEVELS

VERSION: Final = 1
MOST_KEYS: Final = 500
"""Deliveries in one message: enough to cost nothing, few enough to spread over workers."""

Kind = Literal["due", "shards"]
Key = tuple[int, int]
"""A delivery: its notification's row, and its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkMessage:
    """Deliveries of one app and level, or one shard.

    ``at`` is when it was written (UNIX milliseconds, by the clock of the database). ``keys`` are
    deliveries, ``shard`` is the row of a shard; a message has one or the other.
    """

    app: str
    level: int
    at: int
    keys: tuple[Key, ...] = ()
    shard: int | None = None

    @property
    def kind(self) -> Kind:
        """Whether it is about deliveries or a shard."""
        return "due" if self.shard is None else "shards"

    def subject(self, prefix: str) -> str:
        """Return the subject that it is published under."""
        return subject(prefix, self.kind, self.level, self.app)

    def encode(self) -> bytes:
        """Return the bytes of the message."""
        work = {"keys": self.keys} if self.shard is None else {"shard": self.shard}
        return to_json({"v": VERSION, "app": self.app, "level": self.level, "at": self.at, **work})

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message of :meth:`encode`'s bytes; raises ValueError for anything else."""
        try:
            members = from_json(data)
            if members["v"] != VERSION:
                raise ValueError(f"a message of version {members['v']!r:.20}")
            shard = members.get("shard")
            return cls(
                app=str(members["app"]),
                level=int(members["level"]),
                at=int(members["at"]),
                keys=tuple((int(row), int(number)) for row, number in members.get("keys", ())),
                shard=None if shard is None else int(shard),
            )
        except (KeyError, TypeError) as error:
            raise ValueError("a message that is not one of Handbell's") from error


def messages_of(app: str, level: int, at: int, keys: Sequence[Key]) -> Iterator[WorkMessage]:
    """Yield messages for deliveries of one app and level, each of bounded size."""
    for some in chunks(keys, MOST_KEYS):
        yield WorkMessage(app=app, level=level, at=at, keys=tuple(some))


def subject(prefix: str, kind: Kind, level: int, app: str) -> str:
    """Return a subject; an app's id is in hex, since ids hold dots, which separate subjects."""
    return f"{prefix}.{kind}.{level}.{app.encode().hex()}"


def consumers(prefix: str) -> dict[tuple[Kind, int], tuple[str, str]]:
    """Return name and filter of each consumer: one per kind and level, shared by all workers."""
    kinds: tuple[Kind, Kind] = ("due", "shards")
    return {
        (kind, level): (f"{kind}-{level}", f"{prefix}.{kind}.{level}.*")
        for kind in kinds
        for level in LEVELS
    }
