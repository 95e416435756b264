"""The course of a run over processes, and what is wrong with what came of it."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from bench.nats import NatsServer
from bench.postgresql import PostgresServer
from handbell.delivery.work.app_states import WINDOW
from handbell.twin.threaded import RunningTwin

from .callers import Caller
from .ground import APP, SWITCHING_APP, Ground
from .link import Link
from .nodes import Node
from .traffic import Sends, Switching, Urgent

SERVERS: Final = 2
WORKERS: Final = 3
WRONG_SECONDS: Final = 60.0
UP_SECONDS: Final = 6.0
"""How long nothing goes wrong at first, while a broadcast and urgent sends are on their way."""
FINISH_SECONDS: Final = 300.0
_LONGEST_CUT: Final = 25.0
"""Longer than a lease, so that others take over meanwhile."""
_LOOK_SECONDS: Final = 0.5
_OPEN: Final = "state NOT IN ('sent', 'failed', 'dead_letter', 'expired', 'cancelled')"
_SWITCHED_ENDS: Final = {"sent", "cancelled SessionClosed", "failed SessionClosed"}


@dataclass(slots=True)
class FleetFigures:
    """What happened, what came of it, and what is wrong with that (``problems``).

    ``at_risk`` is how many pushes the twin had accepted and nobody had written down, at most,
    while each thing went wrong. ``urgent_seconds`` is how long the slowest urgent send took that
    was made while everything was up and a broadcast on its way.
    """

    seed: int
    sessions: int
    faults: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    retries: int = 0
    states: Counter[str] = field(default_factory=Counter)
    switched: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    after_switch: int = 0
    unreached: int = 0
    duplicates: int = 0
    at_risk: int = 0
    urgent_seconds: float = 0.0
    seconds: float = 0.0
    broadcast_seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the figures as they are printed."""
        return [
            (
                f"seed {self.seed}, {self.seconds:.0f} s, the broadcasts done after "
                f"{self.broadcast_seconds:.0f} s"
            ),
            (
                f"{self.sessions:,} sessions; {self.accepted:,} sends answered with 2xx, "
                f"{self.retries:,} calls made again"
            ),
            f"went wrong: {_told(self.faults)}",
            f"deliveries: {_told(self.states)}",
            f"sessions: {_told(self.statuses)}",
            f"account switches: {self.switches}; their deliveries: {_told(self.switched)}",
            f"accepted for a former user after the answer: {self.after_switch}",
            f"not reached as the twin counts: {self.unreached}",
            f"urgent ones while all was up: {self.urgent_seconds:.2f} s at most",
            f"duplicates: {self.duplicates:,}; at risk: {self.at_risk:,}",
        ]


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in sorted(counts.items())) or "none"


class FleetChaos:
    """One run: two servers, three workers, a PostgreSQL, a twin, and everything that goes wrong.

    With a ``broker`` it hands out the work, and goes wrong as well.
    """

    def __init__(
        self,
        folder: Path,
        server: PostgresServer,
        twin: RunningTwin,
        *,
        sessions: int,
        seed: int,
        broker: NatsServer | None = None,
    ) -> None:
        self.figures = FleetFigures(seed=seed, sessions=sessions)
        self._rng = random.Random(seed)  # noqa: S311 - not for secrets
        self._ground = Ground(folder, server, twin, sessions=sessions)
        self._server = server
        self._broker = broker
        self._folder = folder
        self._sends = Sends()
        self._is_over = threading.Event()
        self._nodes: list[Node] = []

    def run(self, seconds: float) -> FleetFigures:
        """Disturb for about so many seconds, then let everything come to its end and judge."""
        began = time.monotonic()
        with ExitStack() as stack:
            self._nodes = [*self._make_nodes(stack)]
            stack.callback(self._stop_all)
            for node in self._nodes:
                node.start()
            for node in self._nodes:
                node.await_ready()
            urgent, switching = self._threads()
            switching.prepare()
            self._broadcast("first")
            for thread in (urgent, switching):
                thread.start()
            self._pause(UP_SECONDS)
            urgent.is_measured = False
            self.figures.urgent_seconds = max(urgent.seconds, default=UP_SECONDS)
            self._disturb(time.monotonic() + seconds)
            self._is_over.set()
            for thread in (urgent, switching):
                thread.join()
            self.figures.problems += [*urgent.problems, *switching.problems]
            self._finish()
            self.figures.broadcast_seconds = time.monotonic() - began
            switching.judge()
            self._judge(switching)
            self._end_in_good_order()
        self.figures.seconds = time.monotonic() - began
        return self.figures

    def _make_nodes(self, stack: ExitStack) -> Iterator[Node]:
        kinds = [("server", SERVERS), ("worker", WORKERS)]
        for kind, name in [(kind, f"{kind}-{one}") for kind, many in kinds for one in range(many)]:
            links = [stack.enter_context(Link(self._server.port))]
            engine = ""
            if self._broker is not None:
                links.append(stack.enter_context(Link(self._broker.port)))
                engine = self._broker.url(port=links[1].port)
            yield Node(
                name,
                self._folder,
                self._ground.settings_of(name, links[0].port, engine),
                links=links,
                is_server=kind == "server",
                # One of each kind has a clock that is wrong.
                wrong=WRONG_SECONDS if name.endswith("-1") else 0.0,
            )

    @property
    def _workers(self) -> list[Node]:
        return [node for node in self._nodes if not node.port]

    @property
    def _servers(self) -> list[Node]:
        return [node for node in self._nodes if node.port]

    def _caller(self) -> Caller:
        ports = [node.port for node in self._servers]
        return Caller(ports, self._ground.api_key, self._is_over)

    def _threads(self) -> tuple[Urgent, Switching]:
        self._callers = [self._caller() for _ in range(3)]
        urgent = Urgent(
            self._callers[0],
            APP,
            self._ground.mails,
            self._ground.tokens,
            twin=self._ground.twin,
            sends=self._sends,
            over=self._is_over,
        )
        switching = Switching(
            self._callers[1], SWITCHING_APP, self._ground.twin, self._sends, self._is_over
        )
        return urgent, switching

    def _broadcast(self, name: str) -> None:
        body = {
            "notification": {"title": f"Broadcast {name}", "body": "x" * 200},
            "recipients": {"everybody": True},
        }
        answer = self._callers[2].post(f"/v1/apps/{APP}/notifications", body, key=name)
        self._sends.accepted[answer["id"]] = self.figures.sessions

    # What goes wrong

    def _disturb(self, deadline: float) -> None:
        wrongs = [
            self._kill_worker,
            self._kill_server,
            self._restart_database,
            self._cut_worker,
            self._cut_server,
            *([self._kill_broker] if self._broker is not None else []),
        ]
        # Each once, in an order of the seed; then as they come.
        due = self._rng.sample(wrongs, len(wrongs))
        while time.monotonic() < deadline:
            self._pause(self._rng.uniform(1.0, 3.0))
            wrong = due.pop() if due else self._rng.choice(wrongs)
            risk = self._watched(wrong)
            self.figures.at_risk += risk

    def _watched(self, wrong: object) -> int:
        """Do something wrong, and return how many pushes nobody had written down, at most."""
        assert callable(wrong)  # noqa: S101 - it is one of ours
        highest = [0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_SECONDS):
                with contextlib.suppress(psycopg.Error):
                    highest[0] = max(highest[0], self._unwritten())

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            wrong()
        finally:
            done.set()
            watching.join()
        return max(highest[0], self._unwritten())

    def _unwritten(self) -> int:
        """Return how many pushes the twin has accepted that nobody has written down."""
        # In this order: what is written meanwhile must not hide what was sent.
        ((written,),) = self._ground.read(
            "SELECT count(*) FROM deliveries JOIN notifications n ON n.id = notification_id"
            " WHERE state = 'sent' AND n.app = %s",
            APP,
        )
        return max(0, self._ground.accepted() - int(written))

    def _kill_worker(self) -> None:
        node = self._rng.choice(self._workers)
        self._note(node.kill(), node, "workers killed")
        self._pause(self._rng.uniform(0.0, 2.0))
        node.start()

    def _kill_server(self) -> None:
        node = self._rng.choice(self._servers)
        self._note(node.kill(), node, "servers killed")
        self._pause(self._rng.uniform(0.0, 2.0))
        node.start()

    def _note(self, lived: object, node: Node, what: str) -> None:
        self.figures.faults[what] += 1
        if not lived:
            self.figures.problems.append(f"{node.name} had ended by itself:\n{node.last_words()}")

    def _restart_database(self) -> None:
        self.figures.faults["databases killed"] += 1
        self._server.kill()
        self._pause(self._rng.uniform(0.5, 4.0))
        self._server.start()

    def _kill_broker(self) -> None:
        if self._broker is not None:
            self.figures.faults["brokers killed"] += 1
            self._broker.stop(signal.SIGKILL)
            self._pause(self._rng.uniform(0.5, 4.0))
            self._broker.start()

    def _cut_worker(self) -> None:
        self._cut(self._rng.choice(self._workers), _LONGEST_CUT, "links of workers cut")

    def _cut_server(self) -> None:
        self._cut(self._rng.choice(self._servers), 10.0, "links of servers cut")

    def _cut(self, node: Node, longest: float, what: str) -> None:
        is_silent = self._rng.random() < 0.5  # noqa: PLR2004
        link = self._rng.choice(node.links)
        whither = " to the broker" if link is not node.links[0] else ""
        self.figures.faults[f"{what}{whither}{' silently' if is_silent else ''}"] += 1
        link.cut(silently=is_silent)
        self._pause(self._rng.uniform(2.0, longest))
        link.restore()

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)

    # The end

    def _finish(self) -> None:
        deadline = time.monotonic() + FINISH_SECONDS
        while (left := self._left()) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        if left:
            self.figures.problems.append(f"{left} did not come to an end")

    def _left(self) -> int:
        """Return how many shards and deliveries have no end yet."""
        ((left,),) = self._ground.read(
            f"SELECT (SELECT count(*) FROM shards)"  # noqa: S608 - constants
            f" + (SELECT count(*) FROM deliveries WHERE {_OPEN})"
        )
        return int(left)

    def _judge(self, switching: Switching) -> None:
        figures, wrong = self.figures, self.figures.problems
        figures.accepted = len(self._sends.accepted) + len(self._sends.switching)
        figures.retries = sum(caller.retries for caller in self._callers)
        figures.switches = switching.counts["switches"]
        figures.after_switch = switching.after
        self._count()
        expected = sum(self._sends.accepted.values())
        if figures.states != {"sent": expected}:
            wrong.append(f"{expected:,} deliveries should be sent: {_told(figures.states)}")
        if figures.unreached:
            wrong.append(f"{figures.unreached} were not reached")
        faults = sum(figures.faults.values())
        if figures.duplicates > min(figures.at_risk, faults * WORKERS * WINDOW):
            wrong.append("there are more duplicates than may be in flight")
        if set(figures.statuses) != {"active"}:
            wrong.append("valid tokens were closed or put in quarantine")
        if figures.after_switch:
            wrong.append(f"{figures.after_switch} pushes for a former user came after the answer")
        if not figures.switches or not set(figures.switched) <= _SWITCHED_ENDS:
            wrong.append(f"switches went wrong: {_told(figures.switched)}")

    def _count(self) -> None:
        figures, read = self.figures, self._ground.read
        by_app = (
            "SELECT {}, count(*) FROM deliveries d JOIN notifications n"
            " ON n.id = d.notification_id WHERE n.app = %s GROUP BY 1"
        )
        ending = "trim(d.state || ' ' || coalesce(d.reason, ''))"
        figures.states = Counter(dict(read(by_app.format("d.state"), APP)))
        figures.switched = Counter(dict(read(by_app.format(ending), SWITCHING_APP)))
        last = len(self._ground.tokens)
        figures.statuses = Counter(
            dict(read("SELECT status, count(*) FROM sessions WHERE id <= %s GROUP BY 1", last))
        )
        stored = {name for (name,) in read("SELECT public_id FROM notifications")}
        missing = {*self._sends.accepted, *self._sends.switching} - stored
        if missing:
            figures.problems.append(
                f"{len(missing)} sends were answered with 2xx and are not there"
            )
        twice = len(stored) - len(self._sends.accepted) - len(self._sends.switching)
        # The last calls of a run may have been stored and not answered.
        if twice > len(self._callers):
            figures.problems.append(f"{twice} sends are there that nobody was answered")
        sent = read(
            "SELECT n.public_id, d.number FROM deliveries d JOIN notifications n"
            " ON n.id = d.notification_id WHERE n.app = %s",
            APP,
        )
        figures.unreached = self._ground.unreached(sent)
        figures.duplicates = self._ground.duplicates()

    def _end_in_good_order(self) -> None:
        for node in self._nodes:
            if (code := node.stop()) != 0:
                self.figures.problems.append(f"{node.name} ended with {code}:\n{node.last_words()}")
            if tracebacks := node.tracebacks():
                told = f"{node.name} wrote {len(tracebacks)} tracebacks, first:\n{tracebacks[0]}"
                self.figures.problems.append(told)

    def _stop_all(self) -> None:
        for node in self._nodes:
            if node.is_running:
                node.kill()
