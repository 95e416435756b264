"""Single calls and lines in every form that users send, against the server as it is run.

The server is ``handbell serve``, a process of its own with a home of its own; wrk calls it, and the
sink takes what it sends. What is told of a form is the CPU of the server and its worker together
for each send: stored, sent and recorded. Beside it runs a server in Go (net/http, and apns2 behind
a channel), which keeps nothing.
"""

import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from sqlalchemy import text

from handbell.creation.template import Template
from handbell.storage.database import Database
from handbell.system import System

from . import seed
from .job import Job
from .postgresql import PostgresServer, free_port
from .programs import ROOT, output
from .rig import RigError

FORMS: Final = (
    "mail",
    "token",
    "list of five",
    "badge, url, data",
    "template",
    "languages",
    "options",
)
MIX: Final = "mix"
"""All forms, at random."""
PEOPLE: Final = 20_000
LINES: Final = 20_000
SCRIPT: Final = Path(__file__).with_name("forms.lua")

_SECONDS: Final = 5
_CONNECTIONS: Final = 16
_START_SECONDS: Final = 30.0
_DRAIN_SECONDS: Final = 120.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_CALLS: Final = re.compile(r"(\d+) requests in")
_PERCENTILE: Final = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s)$", re.MULTILINE)
_MILLISECONDS: Final = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_TEMPLATE: Final = {
    "default_language": "en",
    "notification": {
        "title": "Order {{ order }}",
        "body": "Hello {{ name }}, your order {{ order }} is on its way",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FormFigure:
    """What a form came to: sends, pushes of each, CPU in microseconds, and what callers saw.

    ``rate`` is sends per second until the last push was answered and recorded. ``database_cpu`` is
    that of a database server's processes, which ``cpu`` does not hold.
    """

    name: str
    form: str
    sends: int
    pushes: float
    rate: float
    cpu: float
    database_cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0


class Target:
    """A server that is measured, while it runs: where it is, and which processes are its own."""

    def __init__(
        self, name: str, path: str, key: str, port: int, sent: Callable[[], tuple[int, int]]
    ) -> None:
        self.name = name
        self.path = path
        self.key = key
        self.port = port
        self.pids: list[int] = []
        self.database: PostgresServer | None = None
        self._sent = sent

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def calls(self, form: str, seconds: int = _SECONDS) -> FormFigure:
        """Have wrk make single calls of a form, and wait for the last push of them."""
        self._wrk(form, 1)
        self._drained()
        (before, pushed), cpu, started = self._sent(), self._cpu(), time.perf_counter()
        database_cpu = self._database_cpu()
        said = self._wrk(form, seconds)
        after, arrived = self._drained()
        taken, sends = time.perf_counter() - started, after - before
        waits = {name: float(value) * _MILLISECONDS[unit] for name, value, unit in said}
        return FormFigure(
            name=self.name,
            form=form,
            sends=sends,
            pushes=(arrived - pushed) / sends,
            rate=sends / taken,
            cpu=1e6 * (self._cpu() - cpu) / sends,
            database_cpu=1e6 * (self._database_cpu() - database_cpu) / sends,
            p50=waits.get("50", 0.0),
            p99=waits.get("99", 0.0),
        )

    def lines(self, form: str, folder: Path) -> FormFigure:
        """Send one stream of lines of a form with curl, and wait for the last push of it."""
        file = folder / "lines"
        file.write_bytes(b"".join(line + b"\n" for line in _lines(form)))
        cpu, database_cpu, started = self._cpu(), self._database_cpu(), time.perf_counter()
        (_, pushed) = self._sent()
        command = ["curl", "-sS", "-f", "-X", "POST", "-T", str(file)]
        command += ["-H", "Content-Type: application/x-ndjson"]
        command += ["-H", f"Authorization: Bearer {self.key}", f"{self.url}{self.path}/lines"]
        last = json.loads(output(command).splitlines()[-1])
        if last != {"accepted": LINES, "refused": 0}:
            raise RigError(f"Of {LINES} lines: {last}")
        _, arrived = self._drained()
        return FormFigure(
            name=self.name,
            form=form,
            sends=LINES,
            pushes=(arrived - pushed) / LINES,
            rate=LINES / (time.perf_counter() - started),
            cpu=1e6 * (self._cpu() - cpu) / LINES,
            database_cpu=1e6 * (self._database_cpu() - database_cpu) / LINES,
        )

    def _wrk(self, form: str, seconds: int) -> list[tuple[str, str, str]]:
        command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--latency"]
        command += ["-s", str(SCRIPT), self.url, "--", form, self.path, self.key, str(PEOPLE)]
        said = output(command)
        if "Non-2xx" in said or not _CALLS.search(said):
            raise RigError(f"{self.name} refused calls: {form}")
        return _PERCENTILE.findall(said)

    def _drained(self) -> tuple[int, int]:
        """Return how many sends there are, and how many pushes, once all are answered."""
        deadline, before = time.monotonic() + _DRAIN_SECONDS, (-1, -1)
        while (now := self._sent()) != before or now[0] > now[1]:
            if time.monotonic() > deadline:
                raise RigError(f"{self.name} has sent {now[1]} pushes for {now[0]} sends")
            before = now
            time.sleep(0.1)
        return now

    def _cpu(self) -> float:
        return sum(map(_cpu_of, self.pids))

    def _database_cpu(self) -> float:
        return self.database.cpu_seconds() if self.database is not None else 0.0


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


@contextmanager
def handbell_server(
    job: Job, *, is_beside: bool = False, postgresql: PostgresServer | None = None
) -> Iterator[Target]:
    """Run ``handbell serve`` over a home; with ``is_beside`` a ``handbell worker`` sends.

    ``postgresql`` is the server of the job's database, where that is not an SQLite file.
    """
    system = System(seed.settings(job))
    app = system.apps.list()[0]
    _, key = system.api_keys.add("forms", ["send"], app)
    system.templates.put(app, Template.read(_TEMPLATE, name="order"))
    system.database.close()
    port = free_port()
    environment = {
        **os.environ,
        "HANDBELL_HOME": job.home,
        **({"HANDBELL_DATABASE_URL": job.database} if job.database else {}),
        "HANDBELL_APNS_PRODUCTION_URL": job.url,
        "HANDBELL_APNS_DEVELOPMENT_URL": job.url.replace("127.0.0.1", "localhost"),
        "HANDBELL_APNS_CA_FILE": job.ca_file,
        "HANDBELL_IN_FLIGHT": str(job.in_flight),
    }
    handbell = [sys.executable, "-m", "handbell"]
    commands = [[*handbell, "serve", "--listen", f"127.0.0.1:{port}"]]
    if is_beside:
        commands = [[*commands[0], "--no-worker"], [*handbell, "worker"]]
    path = f"/v1/apps/{app.id}/notifications"
    with _counter(job) as sent:
        target = Target("Handbell", path, key, port, sent)
        target.database = postgresql
        with _running(commands, environment, target):
            yield target


@contextmanager
def _counter(job: Job) -> Iterator[Callable[[], tuple[int, int]]]:
    """Give what counts sends, and the pushes that they came to."""
    database = Database(seed.settings(job).database_url)
    counts = text(
        "SELECT (SELECT count(*) FROM notifications), count(*) FILTER (WHERE state <> 'sent'),"
        " count(*) FROM deliveries"
    )

    def sent() -> tuple[int, int]:
        with database.read() as connection:
            sends, open_ones, done = connection.execute(counts).one()
        # Until nothing is open, no more pushes count than sends that have one at least.
        return sends, done if not open_ones else 0

    try:
        yield sent
    finally:
        database.close()


@contextmanager
def go_server(program: Path, job: Job) -> Iterator[Target]:
    """Run the server in Go, which knows as many people, and a token of each."""
    port = free_port()
    target = Target("Go, net/http and apns2", "/send", "key", port, lambda: _asked(port))
    command = [str(program), json.dumps({**json.loads(job.text()), "port": port, "people": PEOPLE})]
    with _running([command], dict(os.environ), target):
        yield target


def _asked(port: int) -> tuple[int, int]:
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", "/sent")
        told = json.loads(connection.getresponse().read())
    return int(told["sends"]), int(told["pushes"])


@contextmanager
def _running(
    commands: Sequence[list[str]], environment: dict[str, str], target: Target
) -> Iterator[None]:
    processes = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    target.pids = [process.pid for process in processes]
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not _is_listening(target.port):
            if time.monotonic() > deadline:
                raise RigError(f"{target.name} did not start")
            time.sleep(0.05)
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait(_START_SECONDS)


def _is_listening(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def middle(rounds: Sequence[FormFigure]) -> FormFigure:
    """Return the medians of a form's rounds."""
    return replace(
        rounds[0],
        sends=sum(one.sends for one in rounds),
        **{
            name: median(getattr(one, name) for one in rounds)
            for name in ("pushes", "rate", "cpu", "p50", "p99")
        },
    )


# -- lines: the same forms as those of the script ------------------------------------------------


def _lines(form: str) -> Iterator[bytes]:
    chance = random.Random(form)  # noqa: S311 - not for secrets
    for number in range(LINES):
        name = chance.choice(FORMS) if form == MIX else form
        yield json.dumps(_send(name, number), separators=(",", ":")).encode()


def _send(form: str, number: int) -> dict[str, Any]:
    """Return one send: a person of their own, and words of their own."""
    words: dict[str, Any] = {
        "title": f"Order {number}",
        "body": f"Hello user{number}, your order {number} is on its way",
    }
    send: dict[str, Any] = {"notification": words, "recipients": _mail(number)}
    match form:
        case "token":
            send["recipients"] = f"{number + (1 << 200):064x}"
        case "list of five":
            send["recipients"] = [_mail(5 * number + place) for place in range(5)]
        case "badge, url, data":
            words["badge"] = number % 100
            words["url"] = f"https://example.com/orders/{number}"
            lines = [{"article": f"A-{number}", "count": 2}]
            words["user_info"] = {"order": number, "lines": lines}
        case "template":
            variables = {"name": f"user{number}", "order": number}
            send["notification"] = {"template": "order", "variables": variables}
        case "languages":
            words["languages"] = {
                "fr": {"title": f"Commande {number}", "body": f"Votre commande {number}"},
                "de": {"title": f"Bestellung {number}"},
            }
        case "options":
            words |= {"collapse_id": f"order-{number}", "priority": 5, "ttl": 3600}
            send |= {"urgency": "urgent", "idempotency_key": f"order-{number}"}
    return send


def _mail(number: int) -> str:
    return seed.MAIL.format(1 + number % PEOPLE)
