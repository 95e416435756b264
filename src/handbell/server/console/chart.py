"""A bar chart of sends, as numbers for a template."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from handbell._text import count
from handbell.delivery.record.hourly_counts import HourCount

HEIGHT: Final = 100.0
"""The height of the chart; its width is the number of bars."""

_STEPS: Final = (1, 2, 4)
_LABELS: Final = 6
_DAY_HOURS: Final = 24
_THIN: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bucket: the heights of sent, failed and opened, and its labels.

    ``label`` is empty for an unlabelled tick. Heights are of :data:`HEIGHT`.
    """

    bucket: HourCount
    sent: float
    failed: float
    opened: float
    label: str

    @property
    def iso(self) -> str:
        """Return its start, for a ``time`` element."""
        return _start(self.bucket).isoformat().replace("+00:00", "Z")

    @property
    def name(self) -> str:
        """Return its start in words, in UTC."""
        return _start(self.bucket).strftime(_form(self.bucket.hours))

    @property
    def told(self) -> str:
        """Return its content in words."""
        bar = self.bucket
        return f"{bar.sent:,} sent, {bar.failed:,} failed, {bar.opened:,} opened"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """Bars, and the number at the top of the scale.

    ``services`` are the push services that have a share in such a chart, of all or of one.
    """

    bars: tuple[Bar, ...]
    top: int
    sent: int
    failed: int
    opened: int
    services: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Return whether every bar is empty."""
        return not (self.sent or self.failed or self.opened)

    @property
    def told(self) -> str:
        """Return a one-sentence summary."""
        span = count(len(self.bars), "hour" if self.bars[0].bucket.hours == 1 else "day")
        return (
            f"In {span}: {self.sent:,} sent, {self.failed:,} failed, {self.opened:,} opened. "
            f"The most in one is {max(bar.bucket.sent for bar in self.bars):,} sent."
        )


def draw(buckets: Sequence[HourCount], services: Sequence[str] = ()) -> Chart:
    """Return the chart of buckets, the oldest first."""
    top = nice(max((bucket.sent + bucket.failed for bucket in buckets), default=0))
    every = max(1, len(buckets) // _LABELS)
    return Chart(
        bars=tuple(
            _bar(bar, top, is_named=(len(buckets) - 1 - place) % every == 0)
            for place, bar in enumerate(buckets)
        ),
        top=top,
        sent=sum(bucket.sent for bucket in buckets),
        failed=sum(bucket.failed for bucket in buckets),
        opened=sum(bucket.opened for bucket in buckets),
        services=tuple(services),
    )


def nice(number: int) -> int:
    """Return the next round number that is not smaller: 1, 2 or 4 with zeros, at least 4."""
    size = 1
    while True:
        for step in _STEPS:
            if step * size >= max(number, 4):
                return step * size
        size *= 10


def _bar(bucket: HourCount, top: int, *, is_named: bool) -> Bar:
    return Bar(
        bucket=bucket,
        sent=_height(bucket.sent, top),
        failed=_height(bucket.failed, top),
        opened=_height(bucket.opened, top),
        label=_start(bucket).strftime(_form(bucket.hours)) if is_named else "",
    )


def _height(number: int, top: int) -> float:
    # Any nonzero number is visible.
    return round(max(_THIN, HEIGHT * number / top), 2) if number else 0.0


def _form(hours: int) -> str:
    return "%H:%M" if hours < _DAY_HOURS else "%d %b"


def _start(bucket: HourCount) -> datetime:
    return datetime.fromtimestamp(bucket.start / 1000, UTC)
