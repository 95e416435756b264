"""A filled database of Handbell 0.1, as tests/version_01.sql keeps it, and a Handbell upon it."""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from handbell.apps.app import App
from handbell.services.apns.credential import AuthKey
from handbell.settings import DATABASE_FILE, Settings
from handbell.system import System
from handbell.twin.threaded import RunningTwin, start_twin

SQL: Final = Path(__file__).parent / "version_01.sql"
SECRET_KEY: Final = "aGFuZGJlbGwgMC4xIHZhdWx0IGtleSBmb3IgdGVzdHM="
"""The dummy that seals what is in it."""
LEFT_AT: Final = 1_780_315_400.0
"""When 0.1 was stopped for good, a little after its last row, in UNIX seconds."""

APP: Final = "TEAM123456.com.sample.myapp"
SECOND: Final = "TEAM123456.com.sample.second"
THIRD: Final = "TEAM654321.com.sample.myapp"


def session_secret(name: str) -> str:
    """Return the secret of a session: ``name`` is its person's, ``ada-two`` for a second one."""
    return "hbs_" + (name.replace("-", "0") + "A" * 32)[:32]


def lay_out(home: Path) -> Path:
    """Write the database into a home folder, as 0.1 left it, and return its path."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = home / DATABASE_FILE
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(SQL.read_text())
    return path


def clock() -> Callable[[], float]:
    """Return a clock that begins when 0.1 was left, and goes on."""
    began = time.monotonic()
    return lambda: LEFT_AT + time.monotonic() - began


@contextmanager
def open_upgraded(folder: Path) -> Iterator[tuple[System, RunningTwin]]:
    """Give a system on the upgraded database, and a twin that knows its keys and its phones."""
    now = clock()
    lay_out(folder / "home")
    with start_twin(folder / "twin", now=now) as twin:
        settings = Settings.load(
            home=folder / "home",
            secret_key=SECRET_KEY,
            apns_production_url=twin.production_url,
            apns_development_url=twin.development_url,
            apns_ca_file=twin.ca_file,
            request_timeout=5,
        )
        system = System(settings, now=now)
        with closing(system.database):
            for app in system.apps.list():
                _introduce(system, twin, app)
            yield system, twin


def _introduce(system: System, twin: RunningTwin, app: App) -> None:
    twin.add_app(app.id, app.name)
    for stored in system.apps.credentials(app):
        key = system.apps.auth_key(app.apple.team_id, stored.key_id)
        assert isinstance(key, AuthKey)
        twin.add_key(key.team_id or "", key.key_id, key.public_key_pem)
    known: set[str] = set()
    for session in system.registry.sessions(app):
        if session.environment == "production" and session.token not in known:
            known.add(session.token)
            twin.add_phone(mail=session.mail, app=app.id, token=session.token)
