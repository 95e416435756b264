"""A part of ``make chaos``: front doors that come and go, in processes beside commands.

Two processes hold two senders and ``Sessions`` each, whose threads send, ask and close at will,
while commands of others open and close the same database. In the end the file is whole, and every
send that was answered is there and arrived. Run as ``python -m bench.doors HOME SECONDS`` it is one
of the processes; it says the id of each send that was accepted.
"""

import contextlib
import random
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from handbell import PushNotification, Sessions
from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.settings import DATABASE_FILE, Settings
from handbell.system import System
from handbell.twin.threaded import RunningTwin

APP: Final = "TEAM654321.com.sample.doors"
MAILS: Final = tuple(f"door{number}@example.com" for number in range(8))
PROCESSES: Final = 2
THREADS: Final = 3
FINISH_SECONDS: Final = 60.0

_OPEN: Final = "state NOT IN ('sent', 'failed', 'dead_letter', 'expired', 'cancelled')"


@dataclass(slots=True)
class DoorFigures:
    """What came of it, and what is wrong with that."""

    sends: int = 0
    commands: int = 0
    problems: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the figures as they are printed."""
        what = f"{self.sends:,} sends by {PROCESSES} processes that opened and closed them"
        return [f"front doors: {what}, {self.commands} commands beside"]


class Doors:
    """One run of the front doors against a twin, in a home of their own."""

    def __init__(self, home: Path, twin: RunningTwin) -> None:
        self.figures = DoorFigures()
        self._home = home
        self._settings = {
            "home": str(home),
            "apns_production_url": twin.production_url,
            "apns_development_url": twin.development_url,
            "apns_ca_file": str(twin.ca_file),
        }
        system = System(Settings.load(**self._settings))
        named = App.read_id(APP)
        app = system.apps.add(named.team_id, named.bundle_id, name="Doors")
        key = make_key(app.apple.team_id)
        system.apps.add_credential(app, key)
        twin.add_key(key.team_id, key.key_id, key.public_key_pem)
        twin.add_app(app.id, app.name)
        for mail in MAILS:
            system.registry.register(app, mail, twin.add_phone(mail=mail, app=APP).token)
        system.database.close()

    def run(self, seconds: float) -> DoorFigures:
        """Open, send, ask and close for so long, then look at what is there."""
        environment = {
            "PATH": "/usr/bin:/bin",
            **{f"HANDBELL_{name.upper()}": value for name, value in self._settings.items()},
        }
        command = [sys.executable, "-m", "bench.doors", str(self._home), str(seconds)]
        running = [
            subprocess.Popen(
                command,
                cwd=Path(__file__).parent.parent,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(PROCESSES)
        ]
        while any(process.poll() is None for process in running):
            self._command(environment, "notification", "list", "--app", APP)
        told = [process.communicate() for process in running]
        self._command(environment, "worker", "--until-idle")  # what they handed back as they ended
        self._judge([line for out, _ in told for line in out.split()])
        self.figures.problems += [
            f"a process with front doors said: {err}" for _, err in told if err
        ]
        return self.figures

    def _command(self, environment: dict[str, str], *words: str) -> None:
        handbell = Path(sys.executable).with_name("handbell")
        done = subprocess.run(
            [handbell, *words],
            timeout=FINISH_SECONDS,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        self.figures.commands += 1
        if done.returncode:
            self.figures.problems.append(f"a command failed: {done.stderr}")

    def _judge(self, ids: list[str]) -> None:
        self.figures.sends = len(ids)
        wrong = self.figures.problems
        with contextlib.closing(sqlite3.connect(self._home / DATABASE_FILE, timeout=30)) as raw:
            wrong += integrity(raw)
            known = {name for (name,) in raw.execute("SELECT public_id FROM notifications")}
            ((left,),) = raw.execute(f"SELECT count(*) FROM deliveries WHERE {_OPEN}")  # noqa: S608
            ((sent,),) = raw.execute("SELECT count(*) FROM deliveries WHERE state = 'sent'")
        if lost := set(ids) - known:
            wrong.append(f"{len(lost)} accepted sends are nowhere")
        if left or sent != len(known) or not ids:
            wrong.append(f"of {len(known)} sends through front doors {sent} arrived, {left} wait")


def integrity(raw: sqlite3.Connection) -> list[str]:
    """Return what is wrong with a database file, nothing if it is whole."""
    told = [line for (line,) in raw.execute("PRAGMA integrity_check")]
    return [] if told == ["ok"] else [f"the database is damaged: {line}" for line in told]


def _work(sessions: Sessions, seed: int, until: float) -> None:
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    push = PushNotification(APP)
    while time.monotonic() < until:
        response = push.send({"title": f"Door {seed}"}, rng.choice(MAILS))
        print(response.notification_id, flush=True)
        if rng.random() < 0.3:  # noqa: PLR2004
            push.close()
        if rng.random() < 0.3:  # noqa: PLR2004
            push = PushNotification(APP)
        if sorted(sessions.all_mail_addresses()) != list(MAILS):
            sys.stderr.write("Sessions does not know everybody\n")


def _serve(seconds: float) -> None:
    sessions, until = Sessions(APP), time.monotonic() + seconds
    threads = [
        threading.Thread(target=_work, args=(sessions, seed, until)) for seed in range(THREADS)
    ]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    _serve(float(sys.argv[2]))
