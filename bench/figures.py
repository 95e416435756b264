"""From rounds to figures: pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from typing import Final

from .job import Result

MICRO: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What the rounds of one program come to: medians, and the slowest and fastest round.

    Rates are pushes per second, ``cpu`` is microseconds of the program's CPU per push,
    ``sink_busy`` the share of one core that the sink used, ``refused`` the share of refusals.
    """

    name: str
    rounds: int
    pushes: int
    rate: float
    slowest: float
    fastest: float
    cpu: float
    sink_busy: float
    refused: float
    peak_bytes: int

    @property
    def microseconds(self) -> float:
        """Time per push."""
        return MICRO / self.rate


def figure(name: str, rounds: Sequence[Result]) -> Figure:
    """Return what the rounds of one program come to; at least one is needed."""
    rates = [each.pushes / each.seconds for each in rounds]
    return Figure(
        name=name,
        rounds=len(rounds),
        pushes=rounds[0].pushes,
        rate=median(rates),
        slowest=min(rates),
        fastest=max(rates),
        cpu=median(MICRO * each.cpu_seconds / each.pushes for each in rounds),
        sink_busy=median(each.sink_cpu / each.seconds for each in rounds),
        refused=median(each.refused / each.pushes for each in rounds),
        peak_bytes=max(each.peak_bytes for each in rounds),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def ratio(ours: float, theirs: float | None) -> str:
    """Return how many times theirs ours is, for a table; a dash where theirs was not measured."""
    if not theirs:
        return "-"
    times = ours / theirs
    return f"{times:.0f}" if times >= 10 else f"{times:.2f}"  # noqa: PLR2004
