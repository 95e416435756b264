"""What a message of the broker says: which rows are to be worked on. The rows say all else.

A message is JSON with a version, so that machines of two versions can share a stream: unknown
members are ignored, and a message of a later version is left to those who can read it. Whoever may
write to the broker may write anything: what is no message of ours must do nothing.
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

_MOST: Final = 2**63
"""Numbers of the database are below it."""

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
    def receive(cls, data: bytes, its_subject: str, prefix: str) -> Self:
        """Do as :meth:`decode`; a message under a subject that is not its own is refused as well.

        Whoever takes work of one kind and level gets no other.
        """
        message = cls.decode(data)
        if message.subject(prefix) != its_subject:
            raise _not_ours()
        return message

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Return the message of :meth:`encode`'s bytes.

        Raises LaterVersionError for one of a later version, ValueError for anything else.
        """
        try:
            members = from_json(data)
            version = members["v"]
            if isinstance(version, int) and version > VERSION:
                raise LaterVersionError(f"a message of version {version!r:.20}")
            keys = [(_number(row), _number(number)) for row, number in members.get("keys", ())]
            shard = members.get("shard")
            message = cls(
                app=str(members["app"]),
                level=_number(members["level"]),
                at=_number(members["at"]),
                keys=tuple(keys),
                shard=None if shard is None else _number(shard),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise _not_ours() from error
        if version != VERSION or message.level not in LEVELS or len(keys) > MOST_KEYS:
            raise _not_ours()
        return message


class LaterVersionError(ValueError):
    """A message that a later version of Handbell has written."""


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST:
        raise _not_ours()
    return value


def _not_ours() -> ValueError:
    return ValueError("a message that is not one of Handbell's")


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
