"""The measurements, one function each: rounds in turn, so that what disturbs one disturbs all."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Final

from handbell.settings import Settings

from . import forms, loads, scaling, seed, server, shared_database
from .figures import Figure, figure, percentile
from .job import Job, Result
from .nats import NatsServer
from .postgresql import PostgresServer, Unavailable
from .programs import (
    AIOAPNS,
    ENGINE,
    FCM_ENGINE,
    FCM_GATEWAY,
    GATEWAY,
    GO,
    H2LOAD,
    NODE,
    PRIMITIVES,
    PYWEBPUSH,
    PYWEBPUSH_ASYNC,
    ROOT,
    STANDARD,
    WEB_PUSH_ENGINE,
    WEB_PUSH_GATEWAY,
    Program,
    aioapns,
    build_firebase_admin,
    build_go,
    build_go_server,
    build_node,
    engine_over,
    fcm_gateway,
    gateway,
    h2load,
    measured,
    output,
    primitives,
    pywebpush,
    web_push_gateway,
)
from .rig import SLOW_STREAMS, Rig, RigError

SESSIONS: Final = 200_000
FAST_PUSHES: Final = 100_000
NODE_PUSHES: Final = 10_000
AIOAPNS_PUSHES: Final = 2_000
FIREBASE_PUSHES: Final = 2_000
WEB_PUSHES: Final = 30_000
PYWEBPUSH_PUSHES: Final = 2_000
SLOW_PUSHES: Final = 40_000
MIXED_SIZES: Final = (9_999, 99_999)
MEMORY_SIZES: Final = (100_000, 1_000_000, 3_000_000)
FRESH_PROCESSES: Final = 15
MOST_TOKENS: Final = FAST_PUSHES + 1000

Note = Callable[[str], None]
"""Told what is about to be measured."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from the call of ``send`` to the sink, and to its return: median and p99."""

    name: str
    samples: int
    to_sink: tuple[float, float]
    to_return: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Start:
    """Medians over fresh processes, in milliseconds from the first line on."""

    samples: int
    imported: float
    at_sink: float
    returned: float


class Bench:
    """All measurements over one rig. ``tools`` names the toolchains that are there."""

    def __init__(self, rig: Rig, *, tools: frozenset[str], rounds: int, note: Note) -> None:
        self._rig = rig
        self._tools = tools
        self._rounds = rounds
        self._note = note
        self._in_flight: int = Settings.model_fields["in_flight"].default

    @cached_property
    def _home(self) -> Path:
        return self._make_home(SESSIONS)

    @cached_property
    def _small_home(self) -> Path:
        return self._make_home(SLOW_PUSHES)

    @cached_property
    def _go(self) -> Callable[[Job], Result]:
        self._note("building the program around Go's apns2")
        return build_go(self._rig.folder / "go")

    @cached_property
    def _go_server(self) -> Path:
        return build_go_server(self._rig.folder / "go-server")

    @cached_property
    def _node(self) -> Callable[[Job], Result]:
        self._note("installing node's apns2")
        return build_node(self._rig.folder / "node")

    def throughput(self) -> list[Figure]:
        """Return every program's figures against the sink that answers at once."""
        engine = engine_over(self._home)
        standard, flight = "asyncio", self._in_flight
        programs = [
            Program(GATEWAY, FAST_PUSHES, gateway, flight),
            Program(GATEWAY + STANDARD, FAST_PUSHES, gateway, flight, standard),
            Program(ENGINE, SESSIONS, engine, flight),
            Program(ENGINE + STANDARD, SESSIONS, engine, flight, standard),
            *self._go_program(FAST_PUSHES, 200),
            *self._go_program(FAST_PUSHES, flight, f"{GO}, {flight:,} in flight"),
            Program(AIOAPNS, AIOAPNS_PUSHES, aioapns),
        ]
        if "h2load" in self._tools:
            programs.insert(0, Program(H2LOAD, FAST_PUSHES, h2load))
        if "node" in self._tools:
            programs.append(Program(NODE, NODE_PUSHES, self._node))
        return self._in_turn(programs, "fast", self._rounds)

    def services(self) -> list[Figure]:
        """Return the figures of the other push services, beside their own libraries."""
        return [*self._fcm(), *self._web_push()]

    def _fcm(self) -> list[Figure]:
        self._note("installing firebase-admin")
        peers = build_firebase_admin(self._rig.folder / "firebase-admin")
        home = self._rig.folder / "home-fcm"
        seed.make_fcm_home(replace(self._rig.job("fcm", FAST_PUSHES), home=str(home)))
        programs = [
            Program(FCM_GATEWAY, FAST_PUSHES, fcm_gateway, self._in_flight),
            Program(FCM_ENGINE, FAST_PUSHES, engine_over(home), self._in_flight),
            *(Program(name, FIREBASE_PUSHES, run) for name, run in peers.items()),
        ]
        return self._in_turn(programs, "fcm", min(3, self._rounds))

    def _web_push(self) -> list[Figure]:
        self._note(f"making {WEB_PUSHES:,} subscriptions")
        self._rig.make_subscriptions(WEB_PUSHES + 1000)
        home = self._rig.folder / "home-webpush"
        job = replace(self._rig.job("webpush", WEB_PUSHES), home=str(home))
        seed.make_web_push_home(job)
        programs = [
            Program(PRIMITIVES, WEB_PUSHES, primitives),
            Program(WEB_PUSH_GATEWAY, WEB_PUSHES, web_push_gateway, self._in_flight),
            Program(WEB_PUSH_ENGINE, WEB_PUSHES, engine_over(home), self._in_flight),
            Program(PYWEBPUSH, PYWEBPUSH_PUSHES, pywebpush("session")),
            Program(PYWEBPUSH_ASYNC, PYWEBPUSH_PUSHES, pywebpush("async")),
        ]
        return self._in_turn(programs, "webpush", min(3, self._rounds))

    def mixed(self, sizes: Sequence[int] = MIXED_SIZES) -> list[Figure]:
        """Return what a broadcast to iPhones, Android phones and browsers comes to, by its size."""
        self._note(f"making {max(sizes) // 3:,} subscriptions")
        self._rig.make_subscriptions(max(sizes) // 3 + 1)
        figures = []
        for size in sizes:
            home = self._rig.folder / f"home-mixed-{size}"
            apple = replace(self._rig.job("fast", size), home=str(home))
            others = [self._rig.job(sink, size // 3 + 1) for sink in ("fcm", "webpush")]
            seed.make_mixed_home(apple, *others)
            program = Program(f"{size:,}", size, engine_over(home), self._in_flight)
            figures += self._in_turn([program], "fast", 1)
        return figures

    def slow(self) -> list[Figure]:
        """Return the figures against the sink that answers after 60 ms, 500 streams at a time."""
        ours = 2 * SLOW_STREAMS  # more than the sink allows: the limit is found by itself
        programs = [
            Program(GATEWAY, SLOW_PUSHES, gateway, ours),
            Program(ENGINE, SLOW_PUSHES, engine_over(self._small_home), ours),
            *self._go_program(SLOW_PUSHES, SLOW_STREAMS),
        ]
        return self._in_turn(programs, "slow", min(3, self._rounds))

    def refusing(self) -> list[Figure]:
        """Return the figures against the sink that refuses 2 %, for mixed reasons."""
        programs = [
            Program(GATEWAY, FAST_PUSHES, gateway, self._in_flight),
            Program(ENGINE, SESSIONS, engine_over(self._home), self._in_flight),
            *self._go_program(FAST_PUSHES, 200),
        ]
        return self._in_turn(programs, "refusing", min(3, self._rounds))

    def accepting(self) -> list[tuple[str, list[server.Accepted]]]:
        """Return how many sends the server accepts, alone and while they are sent: medians."""
        home = self._make_home(server.PEOPLE)
        found = []
        ways = {
            "accepting alone": {},
            "and sending": {"works": True},
            "a worker sending beside": {"is_beside": True},
        }
        for name, way in ways.items():
            rounds = []
            for number in range(1, min(3, self._rounds) + 1):
                self._note(f"the server, {name}, round {number}")
                copy = seed.copy_home(home, self._rig.folder / "server")
                job = replace(self._rig.job("fast", server.PEOPLE), home=str(copy))
                rounds.append(server.measure(job, **way))
            found.append((name, [server.middle(each) for each in zip(*rounds, strict=True)]))
        return found

    def single_calls(self) -> list[forms.FormFigure]:
        """Return what single calls of each form come to, stored, sent and recorded: medians."""
        rounds = self._form_rounds()
        found: list[forms.FormFigure] = []
        for form in (*forms.FORMS, forms.MIX):
            ours, theirs = [], []
            for number in range(1, rounds + 1):
                self._note(f"single calls, {form}, round {number} of {rounds}")
                with forms.handbell_server(self._form_job()) as target:
                    ours.append(target.calls(form))
                if "go" in self._tools:
                    with forms.go_server(self._go_server, self._rig.job("fast", 0)) as target:
                        theirs.append(target.calls(form))
            found += [forms.middle(one) for one in (ours, theirs) if one]
        return found

    def lines(self) -> list[forms.FormFigure]:
        """Return what a stream of lines of each form comes to, with a worker beside: medians."""
        rounds = self._form_rounds()
        found: list[forms.FormFigure] = []
        for form in (*forms.FORMS, forms.MIX):
            ours = []
            for number in range(1, rounds + 1):
                self._note(f"lines, {form}, round {number} of {rounds}")
                with forms.handbell_server(self._form_job(), is_beside=True) as target:
                    ours.append(target.lines(form, self._rig.folder))
            found.append(forms.middle(ours))
        return found

    def accepting_by_database(self) -> list[shared_database.Taken]:
        """Return what the server accepts on SQLite and on PostgreSQL, in turn: medians."""
        rounds: dict[str, list[list[shared_database.Taken]]] = {}
        home = self._make_home(server.PEOPLE)
        with self._postgresql() as postgresql:
            for number in range(1, self._form_rounds() + 1):
                self._note(f"accepting, SQLite and PostgreSQL, round {number}")
                copy = seed.copy_home(home, self._rig.folder / "server")
                job = replace(self._rig.job("fast", server.PEOPLE), home=str(copy))
                rounds.setdefault("SQLite", []).append(shared_database.accepting(None, job))
                job = self._shared_job(postgresql, server.PEOPLE, f"accepting{number}")
                rounds.setdefault("PostgreSQL", []).append(
                    shared_database.accepting(postgresql, job)
                )
        return [
            sorted(each, key=lambda one: one.accepted.rate)[len(each) // 2]
            for its_rounds in rounds.values()
            for each in zip(*its_rounds, strict=True)
        ]

    def sending_by_database(self) -> list[tuple[str, str, forms.FormFigure]]:
        """Return what sends come to on SQLite and PostgreSQL, a worker beside: medians."""
        found: list[tuple[str, str, forms.FormFigure]] = []
        with self._postgresql() as postgresql:
            for kind in ("single calls", "one stream of lines"):
                sides: dict[str, list[forms.FormFigure]] = {"SQLite": [], "PostgreSQL": []}
                for number in range(1, self._form_rounds() + 1):
                    self._note(f"{kind}, SQLite and PostgreSQL, round {number}")
                    name = f"{kind.split()[0]}{number}"
                    shared = self._shared_job(postgresql, forms.PEOPLE, name)
                    for side, job, its in (
                        ("SQLite", self._form_job(), None),
                        ("PostgreSQL", shared, postgresql),
                    ):
                        with forms.handbell_server(job, is_beside=True, postgresql=its) as target:
                            sides[side].append(
                                target.calls(forms.MIX)
                                if kind == "single calls"
                                else target.lines(forms.MIX, self._rig.folder)
                            )
                found += [(side, kind, forms.middle(one)) for side, one in sides.items()]
        return found

    def lookups(self) -> list[shared_database.Lookup]:
        """Return how long look-ups take in a small registry and a large one, on PostgreSQL."""
        found: list[shared_database.Lookup] = []
        # Checkpoints would write most pages of the indexes several times while they are filled.
        with self._postgresql("max_wal_size=8GB", "checkpoint_timeout=30min") as postgresql:
            for size in shared_database.SIZES:
                self._note(f"making {size:,} sessions in PostgreSQL")
                job = self._shared_job(postgresql, size, f"size{size}")
                found += shared_database.lookups(job)
        return found

    @contextmanager
    def _postgresql(self, *settings: str) -> Iterator[PostgresServer]:
        try:
            with shared_database.running("shared_buffers=1GB", *settings) as postgresql:
                yield postgresql
        except Unavailable as error:
            raise RigError(str(error)) from error

    def _shared_job(self, postgresql: PostgresServer, sessions: int, name: str) -> Job:
        home = self._rig.folder / name
        shutil.rmtree(home, ignore_errors=True)
        job = replace(self._rig.job("fast", sessions), home=str(home))
        return shared_database.prepared(postgresql, job, name)

    def _form_rounds(self) -> int:
        return min(3, self._rounds)

    def _form_job(self) -> Job:
        home = self._make_home(forms.PEOPLE)
        copy = seed.copy_home(home, self._rig.folder / "forms")
        return replace(self._rig.job("fast", forms.PEOPLE), home=str(copy))

    def memory(self, sizes: Sequence[int] = MEMORY_SIZES) -> list[Figure]:
        """Return what a broadcast to ever more sessions comes to, the smallest several times."""
        figures = []
        for size in sizes:
            home = self._make_home(size)
            program = Program(f"{size:,}", size, engine_over(home), self._in_flight)
            repeats = max(1, min(self._rounds, SESSIONS // size))
            figures += self._in_turn([program], "fast", repeats)
        return figures

    def loads(self, sessions: int) -> dict[str, list[loads.Step]]:
        """Return what many small apps cost, and what waits: by the part, step by step."""
        found = {}
        for part, count in (("apps", 0), ("waits", sessions)):
            self._note(f"the engine, {part}")
            home = self._rig.folder / "loads"
            shutil.rmtree(home, ignore_errors=True)
            job = replace(self._rig.job("fast", 1), home=str(home), count=count)
            job = replace(job, in_flight=self._in_flight)
            told = output([sys.executable, "-m", "bench.loads", part, job.text()])
            found[part] = [loads.Step(**one) for one in json.loads(told.splitlines()[-1])]
        return found

    def fleets(self) -> list[scaling.Fleet]:
        """Return how a broadcast goes by ever more workers that are bound by waiting."""
        found: list[scaling.Fleet] = []
        with self._jetstream() as (postgresql, broker):
            for workers in scaling.WORKERS:
                self._note(f"JetStream, {workers} workers")
                name = f"fleet{workers}"
                job = self._rig.job("slow", workers * scaling.SESSIONS_EACH)
                job = replace(job, home=str(self._rig.folder / "fleet"))
                job = replace(job, in_flight=scaling.STREAMS)
                job = scaling.prepare(postgresql, job, name)
                found.append(scaling.measure(postgresql, broker, job, name=name, workers=workers))
        return found

    def engines(self) -> list[scaling.Fleet]:
        """Return what one worker costs that is bound by the CPU: by rows, and by JetStream."""
        found: list[scaling.Fleet] = []
        with self._jetstream() as (postgresql, broker):
            for title, its in (("PostgreSQL", None), ("PostgreSQL and JetStream", broker)):
                self._note(f"one worker, {title}")
                name = title.split()[-1].lower()
                job = self._rig.job("fast", scaling.SESSIONS_AT_ONCE)
                job = replace(job, home=str(self._rig.folder / "engine"))
                job = replace(job, in_flight=self._in_flight)
                job = scaling.prepare(postgresql, job, name)
                found.append(scaling.measure(postgresql, its, job, name=name, workers=1))
        home = self._make_home(scaling.SESSIONS_AT_ONCE)
        program = Program("SQLite, embedded", scaling.SESSIONS_AT_ONCE, engine_over(home))
        program = replace(program, in_flight=self._in_flight)
        self._note("one worker, embedded")
        return [scaling.embedded(measured(self._rig, program, "fast")), *found]

    @contextmanager
    def _jetstream(self) -> Iterator[tuple[PostgresServer, NatsServer]]:
        folder = self._rig.folder / "nats"
        folder.mkdir(exist_ok=True)
        broker = NatsServer(folder)
        with self._postgresql() as postgresql:
            try:
                broker.start()
                yield postgresql, broker
            except Unavailable as error:
                raise RigError(str(error)) from error
            finally:
                broker.stop()

    def latency(self) -> list[Latency]:
        """Return how long one person's push takes to the sink and back, cold and warm."""
        self._note("one person's push, cold and warm")
        with self._arrivals() as (url, stop):
            home = seed.copy_home(self._small_home, self._rig.folder / "person")
            job = replace(self._rig.job("fast", 1), url=url, home=str(home))
            command = [sys.executable, "-m", "bench.ours", "person", job.text()]
            samples = Result.read(output(command)).samples
            arrived = stop()
        cold = len(samples["cold_asked"])
        return [
            _latency("cold", samples, arrived[:cold]),
            _latency("warm", samples, arrived[cold:]),
        ]

    def start(self) -> Start:
        """Return what a fresh process pays until its first push has arrived."""
        self._note("the first push of a fresh process")
        with self._arrivals() as (url, stop):
            home = seed.copy_home(self._small_home, self._rig.folder / "person")
            environment = {
                "HANDBELL_HOME": str(home),
                "HANDBELL_APNS_PRODUCTION_URL": url,
                "HANDBELL_APNS_CA_FILE": str(self._rig.ca_file),
            }
            command = [sys.executable, "-m", "bench.first"]
            outputs = [output(command, environment=environment) for _ in range(FRESH_PROCESSES)]
            arrived = stop()
        instants = [[float(word) for word in text.split()] for text in outputs]
        return Start(
            samples=FRESH_PROCESSES,
            imported=median(1000 * (imported - began) for began, imported, _ in instants),
            at_sink=median(
                1000 * (at - began) for (began, _, _), at in zip(instants, arrived, strict=True)
            ),
            returned=median(1000 * (end - began) for began, _, end in instants),
        )

    def _in_turn(self, programs: Sequence[Program], sink: str, rounds: int) -> list[Figure]:
        results: dict[str, list[Result]] = {program.name: [] for program in programs}
        for number in range(1, rounds + 1):
            for program in programs:
                self._note(f"{sink} sink, round {number} of {rounds}: {program.name}")
                results[program.name].append(measured(self._rig, program, sink))
        return [figure(name, its_rounds) for name, its_rounds in results.items()]

    def _go_program(self, count: int, in_flight: int, name: str = GO) -> list[Program]:
        return [Program(name, count, self._go, in_flight)] if "go" in self._tools else []

    def _make_home(self, sessions: int) -> Path:
        home = self._rig.folder / f"home-{sessions}"
        if not home.exists():
            self._note(f"making {sessions:,} sessions")
            seed.make_home(replace(self._rig.job("fast", sessions), home=str(home)))
        return home

    @contextmanager
    def _arrivals(self) -> Iterator[tuple[str, Callable[[], list[float]]]]:
        """Run the sink that notes instants; yield its address, and what stops it and gives them."""
        command = [sys.executable, "-m", "bench.arrivals", str(self._rig.ca_file.parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)

        def stop() -> list[float]:
            process.terminate()
            said, _ = process.communicate()
            return [float(line) for line in said.splitlines()]

        try:
            port = process.stdout.readline() if process.stdout else ""
            yield f"https://127.0.0.1:{port.strip()}", stop
        finally:
            process.terminate()
            process.wait()


def _latency(name: str, samples: dict[str, list[float]], arrived: Sequence[float]) -> Latency:
    asked, returned = samples[f"{name}_asked"], samples[f"{name}_returned"]
    return Latency(
        name=name,
        samples=len(asked),
        to_sink=_middle_and_worst(asked, arrived),
        to_return=_middle_and_worst(asked, returned),
    )


def _middle_and_worst(begins: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    taken = [1000 * (end - begin) for begin, end in zip(begins, ends, strict=True)]
    return percentile(taken, 0.5), percentile(taken, 0.99)
