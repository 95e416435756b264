"""What comes of a run, and how it is told."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Figures:
    """What happened, what came of it, and what is wrong with that (``problems``).

    Pushes that may go twice are counted where that comes about: ``at_risk_at_kills`` those that the
    twin had accepted and nobody had written down, each time somebody was killed;
    ``at_risk_at_losses`` those on the way of a sender that was taken for dead while it lived;
    ``at_risk_unanswered`` those whose end was never told, because a connection broke or an answer
    did not come. ``memory`` is in bytes, the last one after all disturbance.
    """

    seed: int
    sessions: int
    pushes: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outages: Counter[str] = field(default_factory=Counter)
    locks: int = 0
    failed_writes: int = 0
    clock_jumps: int = 0
    switches: Counter[str] = field(default_factory=Counter)
    switched: Counter[str] = field(default_factory=Counter)
    after_switch: int = 0
    hours: float = 0.0
    losses: int = 0
    at_risk_at_kills: int = 0
    at_risk_at_losses: int = 0
    at_risk_unanswered: int = 0
    duplicates: int = 0
    states: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    unreached: int = 0
    shown_twice: int = 0
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def at_risk(self) -> int:
        """How many pushes may have gone twice."""
        return self.at_risk_at_kills + self.at_risk_at_losses + self.at_risk_unanswered

    def lines(self) -> list[str]:
        """Return the figures as they are printed."""
        return [
            f"seed {self.seed}, {self.seconds:.0f} s, clocks {self.hours:.1f} h ahead at the end",
            f"{self.sessions:,} sessions, {self.pushes:,} deliveries accepted",
            f"{self.kills} kills, {self.locks} locks, {self.failed_writes} times no writes",
            f"the clock set {self.clock_jumps} times, {self.losses} leases lost",
            f"faults: {told(self.faults)}",
            f"seconds of outage: {told(self.outages)}",
            f"account switches: {told(self.switches)}; their deliveries: {told(self.switched)}",
            f"accepted for a former user after the answer: {self.after_switch}",
            f"deliveries: {told(self.states)}",
            f"sessions: {told(self.statuses)}",
            f"not reached as the twin counts: {self.unreached}",
            f"duplicates: {self.duplicates:,}",
            f"unwritten at the kills: {self.at_risk_at_kills:,}",
            f"on their way where a lease was lost: {self.at_risk_at_losses:,}",
            f"without an answer: {self.at_risk_unanswered:,}",
            f"shown twice on a phone: {self.shown_twice}",
            f"memory of a sender at most, by episode: {', '.join(map(_mib, self.memory))}",
        ]


def told(counts: Counter[str]) -> str:
    """Return counts as one reads them."""
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"
