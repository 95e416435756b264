"""What a worker has in hand: pages of broadcasts, and parcels of pushes handed to a gateway."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from .campaign import Campaign
from .lane import Lane
from .outcome import Tried
from .queue import Due, Listener, Shard

Item = Due | Listener
"""A delivery that is to be sent: a row that is due, or a session of a broadcast's page."""


@dataclass(slots=True)
class Page:
    """A part of a shard that was handed out: where it ends, and how much is not reported yet."""

    end: int
    left: int


@dataclass(slots=True)
class Broadcast:
    """A shard in hand: its pages that are out, oldest first; it rests until ``ready_at``."""

    shard: Shard
    pages: deque[Page] = field(default_factory=deque)
    is_read: bool = False
    ready_at: float = 0.0
    lane: Lane | None = None

    def is_ready(self, now: float) -> bool:
        """Whether its next page may be handed out; the first answers are waited for."""
        is_waiting = self.lane is not None and self.lane.awaits_proof
        return self.ready_at <= now and not is_waiting


class Parcel:
    """Pushes of one campaign to one environment, handed to a gateway together."""

    __slots__ = ("campaign", "environment", "is_plain", "items", "page", "sent", "started", "tried")

    def __init__(
        self,
        campaign: Campaign,
        environment: str,
        items: Mapping[int, Item],
        started: float,
        *,
        page: Page | None = None,
        tried: Mapping[int, Tried] | None = None,
    ) -> None:
        self.campaign = campaign
        self.environment = environment
        self.items = items
        self.started = started
        self.page = page
        self.tried = tried or {}
        self.is_plain = page is not None and not self.tried
        self.sent: list[int] = []
