"""A fleet of real processes for tests: one PostgreSQL, a broker where one is asked for, a twin."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
from bench.chaos.senders import clean_environment
from bench.fleet.ground import APP, Ground
from bench.nats import NatsServer
from bench.postgresql import free_port
from tests.postgresql import start_postgresql

from handbell.twin.threaded import start_twin

_STOP_SECONDS: Final = 60.0


class Fleet:
    """Processes of ``handbell`` on one installation; ``engine`` is the broker's address, or empty.

    ``package`` is the folder of another Handbell that a process is to run.
    """

    def __init__(self, folder: Path, ground: Ground, engine: str) -> None:
        self.ground = ground
        self.engine = engine
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._clients: list[httpx.Client] = []

    def start(self, name: str, *words: str, package: Path | None = None) -> None:
        """Begin a command of ``handbell`` under a name of its own; returns at once."""
        settings = self.ground.settings_of(f"of-{name}", self.ground.server.port, self.engine)
        environment = clean_environment() | {
            f"HANDBELL_{key.upper()}": value for key, value in settings.items()
        }
        if package is not None:
            environment["PYTHONPATH"] = str(package)
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "handbell", *words],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def serve(self, name: str, *, package: Path | None = None) -> httpx.Client:
        """Start a server without a worker; return a client of it once it answers."""
        port = free_port()
        self.start(name, "serve", "--no-worker", "--port", str(port), package=package)
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {self.ground.api_key}"},
            timeout=30,
        )
        self._clients.append(client)
        until(lambda: _answers(client), what=f"{name} does not serve: {self.log(name)[-2000:]}")
        return client

    def stop(self, name: str) -> float:
        """End a process in good order; return how many seconds that took."""
        process, began = self._processes.pop(name), time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(_STOP_SECONDS) == 0, self.log(name)
        return time.monotonic() - began

    def log(self, name: str) -> str:
        """Return what a process has said."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def sent(self) -> int:
        """Return how many deliveries are sent."""
        ((number,),) = self.ground.read("SELECT count(*) FROM deliveries WHERE state = 'sent'")
        return int(number)

    def leased(self) -> tuple[int, ...]:
        """Return how many deliveries, shards and workers are in the database as one's own."""
        ((deliveries, shards, workers),) = self.ground.read(
            "SELECT (SELECT count(*) FROM deliveries WHERE worker_id IS NOT NULL),"
            " (SELECT count(*) FROM shards WHERE worker_id IS NOT NULL),"
            " (SELECT count(*) FROM workers)"
        )
        return deliveries, shards, workers

    def end(self) -> None:
        """End what still runs, the processes of its own too."""
        for client in self._clients:
            client.close()
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            process.wait(_STOP_SECONDS)


@contextmanager
def run_fleet(folder: Path, *, sessions: int, has_broker: bool) -> Iterator[Fleet]:
    """Give a fleet without processes yet; its test is skipped where there is no PostgreSQL."""
    with start_postgresql() as server, ExitStack() as stack:
        engine = ""
        if has_broker:
            (folder / "nats").mkdir()
            broker = NatsServer(folder / "nats")
            stack.callback(broker.stop)
            broker.start()
            engine = broker.url("fleet")
        twin = stack.enter_context(start_twin(folder / "twin"))
        fleet = Fleet(folder, Ground(folder, server, twin, sessions=sessions), engine)
        stack.callback(fleet.end)
        yield fleet


def send(client: httpx.Client, recipients: object, **options: Any) -> None:
    """Have a server accept a send."""
    body = {"notification": {"title": "Hello"}, "recipients": recipients, **options}
    answer = client.post(f"/v1/apps/{APP}/notifications", json=body)
    assert answer.status_code in (200, 202), answer.text


def until(is_so: Callable[[], object], seconds: float = 90, *, what: str = "it is not so") -> float:
    """Return, once something is so, how many seconds that took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() < began + seconds, what
        time.sleep(0.1)
    return time.monotonic() - began


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx.HTTPError:
        return False
