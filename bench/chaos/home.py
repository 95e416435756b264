"""Where a run takes place: a database with two apps, and a twin with all their phones."""

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.sender import Task, make_system
from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey
from handbell.settings import DATABASE_FILE
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin
from handbell.twin.twin import Twin

from .clock import Clock
from .filling import fill

APP: Final = "TEAM123456.com.sample.myapp"
SWITCHING_APP: Final = "TEAM123456.com.sample.switching"
"""Whose phones change hands; broadcasts go to the other's."""

# Each time that a delivery is kept for another attempt which the twin may have accepted already.
_NOTE_UNKNOWN: Final = """
    CREATE TABLE chaos_unknown (number INTEGER);
    CREATE TRIGGER chaos_unknown_first AFTER INSERT ON deliveries
        WHEN NEW.state = 'held' AND NEW.is_repeat
        BEGIN INSERT INTO chaos_unknown VALUES (NEW.number); END;
    CREATE TRIGGER chaos_unknown_again AFTER UPDATE OF attempts ON deliveries
        WHEN NEW.state = 'held' AND NEW.is_repeat AND NEW.attempts > OLD.attempts
        BEGIN INSERT INTO chaos_unknown VALUES (NEW.number); END;
"""


class Home:
    """A folder with a database, the twin that its senders push to, and the clock they go by.

    ``tokens`` are those of the sessions from 1 on, ``mails`` their people's. ``apple`` are those of
    Apple's devices; of the others two in five are Android phones and browsers.
    """

    def __init__(self, folder: Path, twin: RunningTwin, clock: Clock, *, sessions: int) -> None:
        self.twin = twin
        self.clock = clock
        self.orders: list[dict[str, Any]] = []
        self.mails = [f"user{number}@example.com" for number in range(sessions)]
        self._task = Task(
            home=str(folder / "home"),
            production_url=twin.production_url,
            development_url=twin.development_url,
            ca_file=str(twin.ca_file),
            app=APP,
            request_timeout=5.0,
        )
        system = make_system(self._task, clock)
        app = add_app(system, twin, APP, "Chaos")
        # Where Android phones and browsers find it: as the twin of this home.
        system.twin_folder.symlink_to(Path(twin.ca_file).parent)
        add_services(system, twin, app)
        add_app(system, twin, SWITCHING_APP, "Switching")
        phones = twin.call(lambda twin: [_phone(twin, number) for number in range(sessions)])
        self.tokens = [phone.token for phone in phones]
        self.apple = frozenset(phone.token for phone in phones if phone.service == "apns")
        fill(system.database, app.row or 0, phones)
        system.database.close()
        with contextlib.closing(sqlite3.connect(self.database)) as raw:
            raw.executescript(_NOTE_UNKNOWN)

    @property
    def database(self) -> Path:
        """The database's file."""
        return Path(self._task.home) / DATABASE_FILE

    @property
    def settings(self) -> dict[str, str]:
        """The settings of whoever works here, by name."""
        task = self._task
        return {
            "home": task.home,
            "apns_production_url": task.production_url,
            "apns_development_url": task.development_url,
            "apns_ca_file": task.ca_file,
        }

    def task(self, orders: Sequence[dict[str, Any]] = ()) -> Task:
        """Return what a process of now is to do."""
        clock = self.clock
        return replace(self._task, ahead=clock.ahead, wrong=clock.wrong, orders=list(orders))

    def read(self, query: str, *values: object) -> list[Any]:
        """Return the rows that answer a question to the database."""
        with contextlib.closing(sqlite3.connect(self.database, timeout=30)) as raw:
            return raw.execute(query, values).fetchall()


def _phone(twin: Twin, number: int) -> Phone:
    """Add a phone to a twin: of five, one is an Android phone and one a browser."""
    kinds = {3: "android", 4: "web"}
    return twin.add_phone(app=APP, platform=kinds.get(number % 5, "ios"))


def add_services(system: System, twin: RunningTwin, app: App) -> None:
    """Give an app what it sends to Android phones and browsers by."""
    system.apps.add_credential(app, VapidKey.make())
    account = twin.make_service_account(is_direct=True)
    system.apps.add_credential(app, ServiceAccount.read(account))


def add_app(system: System, twin: RunningTwin, app_id: str, name: str) -> App:
    """Add an app with a key that the twin knows."""
    named = App.read_id(app_id)
    app = system.apps.add(named.team_id, named.bundle_id, name=name)
    key = make_key(app.apple.team_id)
    system.apps.add_credential(app, key)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    return app
