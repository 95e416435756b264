"""``make chaos``: kill senders, break connections and disks, and count whether anything was lost.

Two processes with the real engine send broadcasts and named sends to a twin, out of one SQLite
file. They are killed with SIGKILL and started again, the twin misbehaves in bursts, the file is
locked, and writes fail. Between episodes the clock of all of them jumps ahead, so that what waits
for a quarter of an hour falls due. In the end every session has to have been reached, as the twin
counts it, and the file be whole. Front doors that come and go are another part: bench/doors.py.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from handbell.apps.app import App
from handbell.clocks import MachineClock, boot_id, seconds_since_boot
from handbell.delivery.ids import apns_id
from handbell.delivery.lanes import WINDOW
from handbell.rehearsal import make_key
from handbell.settings import DATABASE_FILE, PREFIX
from handbell.system import System
from handbell.twin.running import RunningTwin, start_twin

from .doors import Doors, integrity
from .sender import Task

APP: Final = "TEAM123456.com.sample.myapp"
FULL_SESSIONS: Final = 20_000
FULL_SECONDS: Final = 60.0
MOST_EPISODES: Final = 5
NAMED_AT_ONCE: Final = 40
MOST_MEMORY: Final = 150 * 1024 * 1024
DOORS_SHARE: Final = 0.2
"""How long the front doors come and go beside that, as a share of the time of disturbance."""
FINISH_SECONDS: Final = 240.0

_SHORTEST_EPISODE: Final = 6.0
_LOG_LINES: Final = 60
_PACE: Final = (0.2, 1.0)
_LEAP: Final = (16 * 60, 40 * 60)
_IN_FLIGHT: Final = 300
_ROOT: Final = Path(__file__).parent.parent
_OPEN: Final = "state NOT IN ('sent', 'failed', 'expired', 'cancelled')"


@dataclass(slots=True)
class Figures:
    """What happened, what came of it, and what is wrong with that (``problems``).

    ``at_risk_at_kills`` is how many pushes the twin had accepted and nobody had written down, each
    time somebody was killed; ``at_risk_on_the_wire`` how many at most were on their way over
    connections that faults broke. ``memory`` is in bytes, the last one after all disturbance.
    """

    seed: int
    sessions: int
    pushes: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    locks: int = 0
    failed_writes: int = 0
    hours: float = 0.0
    at_risk_at_kills: int = 0
    at_risk_on_the_wire: int = 0
    duplicates: int = 0
    states: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    unreached: int = 0
    shown_twice: int = 0
    memory: list[int] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the figures as they are printed."""
        struck = ", ".join(f"{kind} {number}" for kind, number in sorted(self.faults.items()))
        return [
            f"seed {self.seed}, {self.seconds:.0f} s, clocks {self.hours:.1f} h ahead at the end",
            f"{self.sessions:,} sessions, {self.pushes:,} deliveries accepted",
            f"{self.kills} kills, {self.locks} locks, {self.failed_writes} times no writes",
            f"faults: {struck}",
            f"deliveries: {_told(self.states)}",
            f"sessions: {_told(self.statuses)}",
            f"not reached as the twin counts: {self.unreached}",
            f"duplicates: {self.duplicates:,}",
            f"unwritten at the kills: {self.at_risk_at_kills:,}",
            f"on the wire of connections that broke, at most: {self.at_risk_on_the_wire:,}",
            f"shown twice on a phone: {self.shown_twice}",
            f"memory of a sender at most, by episode: {', '.join(map(_mib, self.memory))}",
        ]


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"


def _mib(size: int) -> str:
    return f"{size / 1024 / 1024:.0f} MiB"


@dataclass
class Clock:
    """The machine's clocks, and how many seconds ahead of them twin and senders are.

    ``wrong`` is by how many seconds the wall's clock was set; the others cannot be.
    """

    ahead: float = 0.0
    wrong: float = 0.0

    def __call__(self) -> float:
        """Return the time in UNIX seconds."""
        return time.time() + self.ahead + self.wrong

    def steady(self) -> float:
        """Return seconds that only ever pass."""
        return time.monotonic() + self.ahead

    @property
    def machine(self) -> MachineClock:
        """The clock that all processes of the machine share."""
        return MachineClock(boot_id(), lambda: seconds_since_boot() + self.ahead)

    def move(self, seconds: float) -> None:
        """Let time pass."""
        self.ahead += seconds

    def set(self, seconds: float) -> None:
        """Set the wall's clock forward, or back."""
        self.wrong += seconds


class Sender:
    """A sending process that is started again whenever it is killed."""

    def __init__(self, make_task: Callable[[], Task]) -> None:
        self._make_task = make_task
        self._process: subprocess.Popen[str] | None = None
        # Not a file: that could not be written either while writes fail.
        self.log: deque[str] = deque(maxlen=_LOG_LINES)

    @property
    def pid(self) -> int:
        """The process, 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start the process; returns at once."""
        environment = {name: text for name, text in os.environ.items() if not _is_ours(name)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.sender", self._make_task().text()],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        if process.stderr is not None:
            with process.stderr as lines:
                self.log.extend(lines)

    def kill(self) -> int | None:
        """Kill the process; return the code it had ended with by itself, if it had."""
        process, self._process = self._process, None
        if process is None:
            return None
        ended = process.poll()
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        return ended

    def memory(self) -> int:
        """Return how many bytes the process holds now."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


class Chaos:
    """One run: a home, a twin, two senders, and everything that goes wrong."""

    def __init__(
        self, folder: Path, twin: RunningTwin, clock: Clock, *, sessions: int, seed: int
    ) -> None:
        self.figures = Figures(seed=seed, sessions=sessions)
        self._rng = random.Random(seed)  # noqa: S311 - not for secrets
        self._twin = twin
        self._clock = clock
        self._orders: list[dict[str, Any]] = []
        self._mails = [f"user{number}@example.com" for number in range(sessions)]
        self._task = Task(
            home=str(folder / "home"),
            production_url=twin.production_url,
            development_url=twin.development_url,
            ca_file=str(twin.ca_file),
            app=APP,
            request_timeout=5.0,
        )
        self._tokens = self._make_home(sessions)
        self._senders = [
            Sender(lambda: self._a_task(self._orders)),
            Sender(lambda: self._a_task([])),
        ]

    @property
    def _database(self) -> Path:
        return Path(self._task.home) / DATABASE_FILE

    def _a_task(self, orders: list[dict[str, Any]]) -> Task:
        members = {name: getattr(self._task, name) for name in Task.__dataclass_fields__}
        return Task(**{**members, "ahead": self._clock.ahead, "orders": orders})

    def _make_home(self, sessions: int) -> list[str]:
        system = System(self._task.settings(), now=self._clock)
        named = App.read_id(APP)
        app = system.apps.add(named.team_id, named.bundle_id, name="Chaos")
        key = make_key(app.team_id)
        system.apps.add_credential(app, key)
        self._twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        self._twin.add_app(app.id, app.name)
        system.database.close()
        phones = self._twin.call(lambda twin: [twin.add_phone(app=APP) for _ in range(sessions)])
        tokens = [phone.token for phone in phones]
        fill(self._database, app.row or 0, tokens)
        return tokens

    # The story

    def run(self, seconds: float) -> Figures:
        """Run for about so many seconds, then let everything come to its end and count."""
        began = time.monotonic()
        try:
            episodes = max(2, min(MOST_EPISODES, int(seconds // _SHORTEST_EPISODE)))
            for episode in range(episodes):
                self._episode(episode, seconds / episodes)
            self._twin.clear_faults()
            self._finish()
        finally:
            self._kill_all()
        self._count()
        self.figures.seconds = time.monotonic() - began
        self.figures.hours = self._clock.ahead / 3600
        return self.figures

    def _episode(self, episode: int, seconds: float) -> None:
        self._order(episode)
        self.figures.memory.append(0)
        for sender in self._senders:
            sender.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._rng.choice(
                [self._kill_one, self._faults, self._faults, self._lock, self._no_writes]
            )()
            self._pause(self._rng.uniform(*_PACE))
        self._kill_all()
        self._clock.move(self._rng.uniform(*_LEAP))

    def _order(self, episode: int) -> None:
        """Add a broadcast, and a few sends to some by name, urgent ones among them."""
        content = {"title": f"Episode {episode}", "body": "x" * self._rng.randint(1, 500)}
        everybody = {"everybody": True}
        self._orders.append({"content": content, "to": everybody, "idempotency_key": f"{episode}"})
        for number in range(5):
            some = self._rng.sample(self._mails, min(NAMED_AT_ONCE, len(self._mails)))
            urgency = self._rng.choice(["urgent", "normal", "bulk"])
            key = f"{episode}-{number}"
            self._orders.append(
                {"content": content, "to": some, "urgency": urgency, "idempotency_key": key}
            )

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
            memory = max(sender.memory() for sender in self._senders)
            self.figures.memory[-1] = max(self.figures.memory[-1], memory)

    # What goes wrong

    def _kill_one(self) -> None:
        sender = self._rng.choice(self._senders)
        self._kill(sender)
        self._note_unwritten()
        sender.start()

    def _kill_all(self) -> None:
        is_any = [self._kill(sender) for sender in self._senders]
        if any(is_any):
            self._note_unwritten()

    def _kill(self, sender: Sender) -> bool:
        if not sender.pid:
            return False
        ended = sender.kill()
        self.figures.kills += 1
        if ended is not None:
            last = "".join(sender.log)
            self.figures.problems.append(f"a sender had ended by itself, code {ended}:\n{last}")
        return True

    def _note_unwritten(self) -> None:
        """Count what the twin has accepted and nobody has written down: it may go twice."""
        time.sleep(0.05)
        taken = self._twin.call(
            lambda twin: sum(len(twin.accepted_of(token)) for token in self._tokens)
        )
        ((written,),) = self._read("SELECT count(*) FROM deliveries WHERE state = 'sent'")
        self.figures.at_risk_at_kills += max(0, taken - written)

    def _faults(self) -> None:
        for _ in range(self._rng.randint(1, 3)):
            self._fault()

    def _fault(self) -> None:
        kind, details = self._rng.choice(self._possible_faults())
        self._twin.add_fault(kind, **details)
        self.figures.faults[str(details.get("reason", kind))] += 1
        if kind in {"cut", "goaway", "silence", "reset"}:
            is_whole = kind in {"cut", "goaway"}
            number = int(details.get("count", 1)) * (_IN_FLIGHT if is_whole else 1)
            self.figures.at_risk_on_the_wire += number

    def _possible_faults(self) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("cut", {"count": self._rng.randint(1, 2)}),
            ("goaway", {"graceful": self._rng.random() < 0.5}),  # noqa: PLR2004
            ("refuse-stream", {"count": self._rng.randint(1, 60)}),
            ("slow", {"count": self._rng.randint(1, 100), "seconds": 0.3}),
            ("silence", {"count": 2, "delivers": self._rng.random() < 0.5}),  # noqa: PLR2004
            ("reset", {"count": 10, "delivers": self._rng.random() < 0.5}),  # noqa: PLR2004
            ("answer", {"count": self._rng.randint(1, 60), "reason": "TooManyRequests"}),
            ("answer", {"count": self._rng.randint(1, 200), "reason": "ServiceUnavailable"}),
            ("answer", {"count": self._rng.randint(1, 20), "reason": "InternalServerError"}),
            ("answer", {"count": self._rng.randint(1, 20), "reason": "Shutdown"}),
            ("answer", {"count": 2, "reason": "ExpiredProviderToken"}),
            ("stream-limit", {"limit": self._rng.randint(20, 200)}),
        ]

    def _lock(self) -> None:
        self.figures.locks += 1
        with contextlib.closing(sqlite3.connect(self._database, timeout=10)) as raw:
            raw.isolation_level = None
            raw.execute("BEGIN EXCLUSIVE")
            self._pause(self._rng.uniform(0.2, 2.0))
            raw.execute("ROLLBACK")

    def _no_writes(self) -> None:
        """Let every write of a process fail for a while, where the system can do that."""
        import resource  # noqa: PLC0415 - not on every system

        sender = self._rng.choice(self._senders)
        if not hasattr(resource, "prlimit") or not sender.pid:
            return
        self.figures.failed_writes += 1
        with contextlib.suppress(ProcessLookupError):
            _, most = resource.prlimit(sender.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (0, most))
            self._pause(self._rng.uniform(0.2, 1.5))
            resource.prlimit(sender.pid, resource.RLIMIT_FSIZE, (most, most))

    # The end

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
            ((due,),) = self._read("SELECT max(due_at) FROM deliveries")
            if due is not None:
                self._clock.move(max(0.0, due / 1000 - self._clock() + 1))

    def _left(self) -> int:
        """Return how many orders, shards and deliveries have no end yet."""
        ((accepted,),) = self._read("SELECT count(*) FROM notifications")
        ((left,),) = self._read(
            f"SELECT (SELECT count(*) FROM shards)"  # noqa: S608 - constants
            f" + (SELECT count(*) FROM deliveries WHERE {_OPEN})"
        )
        return len(self._orders) - int(accepted) + int(left)

    def _is_going(self) -> int:
        ((accepted,),) = self._read("SELECT count(*) FROM notifications")
        ((left,),) = self._read(
            "SELECT (SELECT count(*) FROM shards) + (SELECT count(*) FROM deliveries"
            " WHERE worker_id IS NOT NULL OR due_at <= ?)",
            int(self._clock() * 1000),
        )
        return len(self._orders) - int(accepted) + int(left)

    def _count(self) -> None:
        figures = self.figures
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as raw:
            figures.problems += integrity(raw)
        figures.states = Counter(
            dict(self._read("SELECT state, count(*) FROM deliveries GROUP BY state"))
        )
        figures.statuses = Counter(
            dict(self._read("SELECT status, count(*) FROM sessions GROUP BY status"))
        )
        figures.pushes = self._expected()
        figures.unreached = sum(1 for _ in self._unreached())
        figures.duplicates = self._twin.accepted - self._twin.call(
            lambda twin: sum(len(twin.accepted_of(token)) for token in self._tokens)
        )
        for phone in self._twin.phones.values():
            ids = [card.apns_id for card in phone.cards]
            figures.shown_twice += len(ids) - len(set(ids))
        self._judge()

    def _expected(self) -> int:
        everybody = sum(isinstance(order["to"], dict) for order in self._orders)
        named = sum(len(order["to"]) for order in self._orders if isinstance(order["to"], list))
        return everybody * len(self._tokens) + named

    def _unreached(self) -> Iterator[tuple[str, int]]:
        """Yield each delivery that the twin has never accepted."""
        taken = self._twin.call(lambda twin: [twin.accepted_of(token) for token in self._tokens])
        everybody = range(1, len(self._tokens) + 1)
        for row, name, recipients in self._read(
            "SELECT id, public_id, recipients FROM notifications"
        ):
            is_broadcast = "everybody" in json.loads(recipients)
            numbers: Sequence[int] = everybody if is_broadcast else self._numbers(row)
            for number in numbers:
                if apns_id(name, number) not in taken[number - 1]:
                    yield name, number

    def _numbers(self, row: int) -> list[int]:
        rows = self._read(f"SELECT number FROM deliveries WHERE notification_id = {row}")  # noqa: S608
        return [number for (number,) in rows]

    def _judge(self) -> None:
        figures, wrong = self.figures, self.figures.problems
        if figures.states != {"sent": figures.pushes}:
            wrong.append(f"{figures.pushes:,} deliveries should be sent: {_told(figures.states)}")
        if figures.unreached:
            wrong.append(f"{figures.unreached} were not reached")
        if figures.duplicates > figures.at_risk_at_kills + figures.at_risk_on_the_wire:
            wrong.append("there are more duplicates than there were pushes at risk")
        if figures.duplicates > figures.kills * WINDOW + figures.at_risk_on_the_wire:
            wrong.append("there are more duplicates than may be in flight")
        if set(figures.statuses) != {"active"}:
            wrong.append("valid tokens were closed or put in quarantine")
        if figures.shown_twice:
            wrong.append("a phone shows a notification twice")
        if max(figures.memory) > MOST_MEMORY:
            wrong.append("a sender held too much memory")

    def _read(self, query: str, *values: int) -> list[Any]:
        with contextlib.closing(sqlite3.connect(self._database, timeout=30)) as raw:
            return raw.execute(query, values).fetchall()


def fill(path: Path, app: int, tokens: Sequence[str]) -> None:
    """Give an app in an empty registry a user with one active session for each token.

    They are numbered from 1, and their mails are user0@example.com and so on.
    """
    at = int(time.time() * 1000) - 60_000
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        numbers = range(1, len(tokens) + 1)
        connection.executemany(
            "INSERT INTO users (id, app_id, mail, created_at) VALUES (?, ?, ?, ?)",
            ((number, app, f"user{number - 1}@example.com", at) for number in numbers),
        )
        connection.executemany(
            "INSERT INTO sessions (id, app_id, user_id, token, platform, environment, status,"
            " created_at, registered_at) VALUES (?, ?, ?, ?, 'ios', 'production', 'active', ?, ?)",
            ((number, app, number, token, at, at) for number, token in enumerate(tokens, 1)),
        )


def main() -> int:
    """Run the chaos and print its figures; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    parser.add_argument("--sessions", type=int, default=FULL_SESSIONS)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help="how long to disturb")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))  # noqa: S311
    asked = parser.parse_args()
    for name in [name for name in os.environ if _is_ours(name)]:
        del os.environ[name]  # this user's own Handbell has no part in it
    clock = Clock()
    with tempfile.TemporaryDirectory(prefix="handbell-chaos-") as name:
        folder = Path(name)
        with start_twin(folder / "doors-twin") as twin:
            doors = Doors(folder / "doors", twin).run(asked.seconds * DOORS_SHARE)
        with start_twin(folder / "twin", now=clock) as twin:
            chaos = Chaos(folder, twin, clock, sessions=asked.sessions, seed=asked.seed)
            figures = chaos.run(asked.seconds)
    problems = [*figures.problems, *doors.problems]
    told = [*doors.lines(), *figures.lines(), *(f"WRONG: {problem}" for problem in problems)]
    print("\n".join(told))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
