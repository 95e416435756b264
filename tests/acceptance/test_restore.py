"""Backup and restore as a drill: everything is destroyed while it works, and nothing is lost."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest
from bench.chaos.senders import ROOT, clean_environment
from bench.fleet.callers import Caller
from bench.fleet.ground import APP, Ground
from bench.fleet.nodes import Node
from bench.nats import NatsServer
from bench.postgresql import PostgresServer, Unavailable, new_folder, programs

from handbell.apps.vault import KEY_FILE
from handbell.delivery.ids import read_apns_id
from handbell.settings import Settings
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

SESSIONS: Final = 3000
_RATE: Final = "50/s"
"""So slow that a backup is taken in the middle of a broadcast."""
_SOON_SECONDS: Final = 75
_RETRY_SECONDS: Final = 12
_OPEN: Final = "state NOT IN ('sent', 'failed', 'expired', 'cancelled')"


def _until(holds: Callable[[], bool], *, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


class Drill:
    """An installation of a server and two workers, with what a backup of it is made by."""

    def __init__(self, folder: Path, twin: RunningTwin) -> None:
        self.folder, self.twin = folder, twin
        self.postgres = PostgresServer(new_folder())
        self.postgres.start()
        self.ground = Ground(folder, self.postgres, twin, sessions=SESSIONS)
        self.nats = self._broker("nats")
        self.home = folder / "first"
        self.nodes: list[Node] = []
        self._accepted: dict[str, int] = {}

    def _broker(self, name: str) -> NatsServer:
        (self.folder / name).mkdir()
        nats = NatsServer(self.folder / name)
        nats.start()
        return nats

    @property
    def settings(self) -> dict[str, str]:
        """The settings of each node."""
        found = self.ground.settings(self.home, self.postgres.port)
        return {**found, "engine": self.nats.url()}

    def start(self, name: str) -> None:
        """Start a server and two workers, and return when the server answers."""
        self.nodes = [
            Node(f"{name}-{one}", self.folder, self.settings, links=[], is_server=one == 0)
            for one in range(3)
        ]
        for node in self.nodes:
            node.start()
        self.nodes[0].await_ready()

    def command(self, *words: str) -> dict[str, Any]:
        """Run a command of Handbell and return what it says as JSON."""
        named = {f"HANDBELL_{name.upper()}": value for name, value in self.settings.items()}
        done = subprocess.run(
            [sys.executable, "-m", "handbell", *words, "--json"],
            cwd=ROOT,
            env=clean_environment() | named,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def send(self, title: str, deliveries: int, **body: Any) -> str:
        """Send by the server; note how many deliveries it makes, and return its id."""
        caller = Caller([self.nodes[0].port], self.ground.api_key, threading.Event())
        what = {"notification": {"title": title, "body": "text"}, **body}
        name = str(caller.post(f"/v1/apps/{APP}/notifications", what, key=title)["id"])
        self._accepted[name] = deliveries
        return name

    def count(self, condition: str) -> int:
        """Return how many deliveries are as a condition says."""
        ((number,),) = self.ground.read(f"SELECT count(*) FROM deliveries WHERE {condition}")  # noqa: S608
        return int(number)

    def reached(self, name: str) -> Counter[str]:
        """Return how often each phone's push of a notification was accepted, by its token."""
        taken = self.twin.call(
            lambda twin: {token: twin.accepted_of(token) for token in self.ground.tokens}
        )
        found: Counter[str] = Counter()
        for token, pushes in taken.items():
            for push_id, times in pushes.items():
                known = read_apns_id(push_id)
                if known is not None and known[0] == name:
                    found[token] += times
        return found

    def is_known(self, name: str) -> bool:
        """Return whether the server knows a notification."""
        connection = HTTPConnection("127.0.0.1", self.nodes[0].port, timeout=30)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {self.ground.api_key}"}
            connection.request("GET", f"/v1/notifications/{name}", headers=headers)
            return connection.getresponse().status == 200

    # As docs/operations.md says

    def back_up(self) -> Path:
        """Take a backup of the database while everything works, and of the key file."""
        kept = self.folder / "backup"
        kept.mkdir()
        shutil.copy(self.home / KEY_FILE, kept / KEY_FILE)
        self._run("pg_dump", "--format=custom", f"--file={kept / 'handbell.dump'}", self._address)
        return kept

    @property
    def _address(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.postgres.port}/fleet"

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [programs() / program, *words], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr

    def destroy(self) -> None:
        """Kill every process, and remove the database, the stream and the homes."""
        for node in self.nodes:
            assert node.kill(), node.last_words()
        self.postgres.stop(signal.SIGQUIT)
        self.nats.stop(signal.SIGKILL)
        for folder in (self.postgres.folder, self.nats.folder, self.home):
            shutil.rmtree(folder)

    def restore(self, kept: Path) -> dict[str, Any]:
        """Bring the backup back on fresh servers; return what is told of repeats."""
        self.postgres = self.ground.server = PostgresServer(new_folder())
        self.postgres.start()
        self.postgres.execute("CREATE DATABASE fleet")
        options = ("--exit-on-error", "--no-owner", f"--dbname={self._address}")
        self._run("pg_restore", *options, str(kept / "handbell.dump"))
        self.nats = self._broker("new-nats")
        self.home = self.folder / "restored"
        self.home.mkdir(mode=0o700)
        shutil.copy(kept / KEY_FILE, self.home / KEY_FILE)
        self.command("db", "upgrade")
        return self.command("db", "restored")

    def end(self) -> None:
        """End what still runs."""
        for node in self.nodes:
            if node.is_running:
                node.kill()
        with contextlib.suppress(OSError):
            self.postgres.stop()
        self.nats.stop()
        shutil.rmtree(self.postgres.folder, ignore_errors=True)


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    """Give an installation that works."""
    try:
        programs()
    except Unavailable as error:
        pytest.skip(str(error))
    with start_twin(tmp_path / "twin") as twin, contextlib.ExitStack() as stack:
        drill = Drill(tmp_path, twin)
        stack.callback(drill.end)
        drill.start("before")
        yield drill


@pytest.mark.cluster
@pytest.mark.timeout(500)
def test_what_was_accepted_before_the_backup_is_sent_after_the_restore(drill: Drill) -> None:
    """Finished, on its way, held for another attempt, and scheduled; with a broker that is new.

    What was sent between backup and restore is sent again and no more than that, and every phone
    shows it once. What was accepted after the backup is gone.
    """
    twin, tokens = drill.twin, drill.ground.tokens
    done = drill.send("Done", 1, recipients=drill.ground.mails[0])
    _until(lambda: drill.count("state = 'sent'") == 1)
    soon = time.time() + _SOON_SECONDS
    scheduled = [
        drill.send(f"Soon {one}", 1, recipients=mail, send_at=soon)
        for one, mail in enumerate(drill.ground.mails[:20])
    ]
    tomorrow = drill.send("Tomorrow", 1, recipients=drill.ground.mails[0], send_at=soon + 86_400)
    everybody = {"recipients": {"everybody": True}}
    later = drill.send("Later", SESSIONS, **everybody, send_at=soon)
    _limit_rate(drill, _RATE)
    now = drill.send("Now", SESSIONS, **everybody)
    _until(lambda: len(drill.reached(now)) > SESSIONS // 10)
    retried = [_refused_at_first(drill, one) for one in range(5)]
    _until(lambda: drill.count("reason = 'TooManyRequests'") == len(retried))

    kept = drill.back_up()
    at_backup = sum(drill.reached(now).values())
    assert not any(map(drill.reached, retried))
    _until(lambda: all(map(drill.reached, retried)))
    lost = drill.send("After the backup", 1, recipients=drill.ground.mails[2])
    drill.destroy()
    at_end = drill.reached(now)
    assert SESSIONS // 10 < at_backup < sum(at_end.values()) < SESSIONS

    told = drill.restore(kept)
    assert told["shards"] + told["deliveries"] > 0
    recorded = drill.count(f"state = 'sent' AND notification_id = {_row_of(drill, now)}")
    _limit_rate(drill, "none")
    drill.start("after")
    # All but tomorrow's comes to its end, by a broker that knew nothing.
    _until(
        lambda: drill.count(_OPEN) == 1 and drill.ground.read("SELECT id FROM shards") == [],
        seconds=200,
    )
    assert drill.count("state = 'sent'") == 2 * SESSIONS + len(scheduled) + len(retried) + 1
    for name, number in {now: SESSIONS, later: SESSIONS, done: 1}.items():
        assert len(drill.reached(name)) == number, name
    for name in scheduled:
        assert sum(drill.reached(name).values()) == 1
    assert sum(drill.reached(tomorrow).values()) == 0
    again = sum(drill.reached(now).values()) - SESSIONS
    assert 0 < again <= sum(at_end.values()) - recorded
    assert [sum(drill.reached(name).values()) for name in retried] == [2] * len(retried)
    for name in (later, done):
        assert max(drill.reached(name).values()) == 1
    assert not drill.is_known(lost)
    shown = twin.call(lambda twin: [len(phone.cards) for phone in twin.phones.values()])
    distinct = twin.call(lambda twin: [len(twin.accepted_of(token)) for token in tokens])
    assert sum(shown) == sum(distinct)
    for node in drill.nodes:
        assert (node.stop(), node.tracebacks()) == (0, [])


def _refused_at_first(drill: Drill, one: int) -> str:
    token, mail = drill.ground.tokens[one], drill.ground.mails[one]
    drill.twin.add_fault(
        "answer", token=token, reason="TooManyRequests", retry_after=_RETRY_SECONDS
    )
    return drill.send(f"Retried {one}", 1, recipients=mail)


def _limit_rate(drill: Drill, rate: str) -> None:
    system = System(Settings.load(**drill.settings))
    system.app_control.set_rules(system.apps.find(APP), {"rate_limit": rate})
    system.database.close()


def _row_of(drill: Drill, name: str) -> int:
    ((row,),) = drill.ground.read("SELECT id FROM notifications WHERE public_id = %s", name)
    return int(row)
