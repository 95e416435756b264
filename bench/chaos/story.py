"""The course of a run: episodes in which things go wrong, outages, and a quiet end."""

import random
import time
from pathlib import Path
from typing import Final

from handbell.twin.threaded import RunningTwin

from .clock import Clock
from .count import count, unwritten
from .faults import Faults
from .figures import Figures
from .home import Home
from .outages import OUTAGES
from .senders import Sender
from .switches import Switches

FULL_SECONDS: Final = 60.0
MOST_EPISODES: Final = 5
NAMED_AT_ONCE: Final = 40
FINISH_SECONDS: Final = 240.0
OUTAGE_SECONDS: Final = 30.0
"""How long each outage lasts in a full run."""

_OUTAGE_SHARE: Final = 0.08
_SHORTEST_EPISODE: Final = 6.0
_PACE: Final = (0.2, 1.0)
_LEAP: Final = (16 * 60, 40 * 60)
_OPEN: Final = "state NOT IN ('sent', 'failed', 'dead_letter', 'expired', 'cancelled')"


class Chaos:
    """One run: a home, a twin, two senders, and everything that goes wrong."""

    def __init__(
        self, folder: Path, twin: RunningTwin, clock: Clock, *, sessions: int, seed: int
    ) -> None:
        self.figures = Figures(seed=seed, sessions=sessions)
        self._rng = random.Random(seed)  # noqa: S311 - not for secrets
        self._clock = clock
        self._twin = twin
        self._home = Home(folder, twin, clock, sessions=sessions)
        self._senders = [
            Sender(lambda: self._home.task(self._home.orders)),
            Sender(self._home.task),
        ]
        self._faults = Faults(
            self._home, self._senders, self.figures, rng=self._rng, pause=self._pause
        )
        self._switches = Switches(self._home, self._senders[0], self.figures, seed=seed)

    def run(self, seconds: float) -> Figures:
        """Run for about so many seconds, then let everything come to its end and count.

        Outages come on top of that: half a minute each, a share of ``seconds`` in a short run.
        """
        began = time.monotonic()
        try:
            episodes = max(2, min(MOST_EPISODES, int(seconds // _SHORTEST_EPISODE)))
            for episode in range(episodes):
                self._episode(episode, seconds / episodes)
            self._twin.clear_faults()
            self._outages(seconds)
            self._finish()
        finally:
            self._switches.end()
            self._kill_all()
        self._switches.judge()
        self.figures.losses = sum(sender.losses for sender in self._senders)
        self.figures.at_risk_at_losses = sum(sender.at_risk for sender in self._senders)
        count(self._home, self.figures)
        self.figures.seconds = time.monotonic() - began
        self.figures.hours = self._clock.ahead / 3600
        return self.figures

    def _episode(self, episode: int, seconds: float) -> None:
        is_first = episode == 0
        self._order(f"{episode}")
        self._begin(by_command=is_first)
        wrongs = [self._kill_one, self._faults.strike, self._faults.strike, self._faults.lock]
        wrongs.append(self._faults.no_writes)
        if not is_first:  # commands of another process go by the machine's own clock
            wrongs.append(self._faults.set_clock)
            self._faults.set_clock()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._rng.choice(wrongs)()
            self._pause(self._rng.uniform(*_PACE))
        self._end()

    def _outages(self, seconds: float) -> None:
        """Let the service be out of order in every way, in the midst of a broadcast each time."""
        each = OUTAGE_SECONDS if seconds >= FULL_SECONDS else seconds * _OUTAGE_SHARE
        self._begin(by_command=False)
        for kind, outage in OUTAGES.items():
            self._order(kind)
            self._pause(self._rng.uniform(*_PACE))
            with outage(self._twin):
                self._pause(each)
            self.figures.outages[kind] += round(each)
        self._end()

    def _begin(self, *, by_command: bool) -> None:
        self.figures.memory.append(0)
        for sender in self._senders:
            sender.start()
        self._switches.begin(by_command=by_command)

    def _end(self) -> None:
        self._kill_all()
        # Who waits for the dead is answered soon; who switches then goes by the clocks of now.
        self._switches.end()
        self._clock.move(self._rng.uniform(*_LEAP))

    def _order(self, name: str) -> None:
        """Order a broadcast, and a few sends to some by name, urgent ones among them."""
        content = {"title": f"Episode {name}", "body": "x" * self._rng.randint(1, 500)}
        self._give({"content": content, "to": {"everybody": True}, "idempotency_key": name})
        for number in range(5):
            some = self._rng.sample(self._home.mails, min(NAMED_AT_ONCE, len(self._home.mails)))
            urgency = self._rng.choice(["urgent", "normal", "bulk"])
            key = f"{name}-{number}"
            self._give({"content": content, "to": some, "urgency": urgency, "idempotency_key": key})

    def _give(self, order: dict[str, object]) -> None:
        self._home.orders.append(order)
        self._senders[0].say(order=order)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
            memory = max(sender.memory() for sender in self._senders)
            self.figures.memory[-1] = max(self.figures.memory[-1], memory)

    def _kill_one(self) -> None:
        sender = self._rng.choice(self._senders)
        self._kill(sender)
        self.figures.at_risk_at_kills += unwritten(self._home)
        sender.start()

    def _kill_all(self) -> None:
        were_any = [self._kill(sender) for sender in self._senders]
        if any(were_any):
            self.figures.at_risk_at_kills += unwritten(self._home)

    def _kill(self, sender: Sender) -> bool:
        if not sender.pid:
            return False
        ended = sender.kill()
        self.figures.kills += 1
        if ended is not None:
            last = "".join(sender.log)
            self.figures.problems.append(f"a sender had ended by itself, code {ended}:\n{last}")
        return True

    def _finish(self) -> None:
        """Run without disturbance, leaping to when the next falls due, until all has ended."""
        self.figures.memory.append(0)
        deadline = time.monotonic() + FINISH_SECONDS
        while self._left():
            if time.monotonic() > deadline:
                self.figures.problems.append(f"{self._left()} did not come to an end")
                return
            for sender in self._senders:
                sender.start()
            while self._is_going() and time.monotonic() < deadline:
                self._pause(0.2)
            self._kill_all()
            ((due,),) = self._home.read("SELECT max(due_at) FROM deliveries")
            if due is not None:
                self._clock.move(max(0.0, due / 1000 - self._clock() + 1))

    def _left(self) -> int:
        """Return how many orders, shards and deliveries have no end yet."""
        ((accepted,),) = self._home.read("SELECT count(*) FROM notifications")
        ((left,),) = self._home.read(
            f"SELECT (SELECT count(*) FROM shards)"  # noqa: S608 - constants
            f" + (SELECT count(*) FROM deliveries WHERE {_OPEN})"
        )
        return len(self._home.orders) - int(accepted) + int(left)

    def _is_going(self) -> int:
        ((accepted,),) = self._home.read("SELECT count(*) FROM notifications")
        ((left,),) = self._home.read(
            "SELECT (SELECT count(*) FROM shards) + (SELECT count(*) FROM deliveries"
            " WHERE worker_id IS NOT NULL OR due_at <= ?)",
            int(self._clock() * 1000),
        )
        return len(self._home.orders) - int(accepted) + int(left)
