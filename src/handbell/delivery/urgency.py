"""Urgency: three levels of priority in the queue."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Urgency = Literal["urgent", "normal", "bulk"]
"""Who goes first, as a sender says it."""

URGENT: Final = 9
NORMAL: Final = 5
BULK: Final = 1
LEVELS: Final = (URGENT, NORMAL, BULK)
"""Work of a higher level goes before all work of a lower one."""

NAMES: Final[Mapping[int, Urgency]] = MappingProxyType(
    {URGENT: "urgent", NORMAL: "normal", BULK: "bulk"}
)
"""Each level as a sender says it."""
