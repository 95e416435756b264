"""Where a fleet works: one PostgreSQL, a twin with all phones, and an installation in it."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psycopg

from bench.chaos.filling import fill
from bench.chaos.home import add_app
from bench.postgresql import PostgresServer
from handbell.apps.vault import KEY_FILE
from handbell.delivery.ids import apns_id
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.system import System
from handbell.twin.threaded import RunningTwin

APP: Final = "TEAM123456.com.sample.fleet"
SWITCHING_APP: Final = "TEAM123456.com.sample.switching"


class Ground:
    """An installation on a PostgreSQL of its own. ``tokens`` are those of the sessions from 1 on.

    ``api_key`` administers; ``mails`` are the people's.
    """

    def __init__(
        self, folder: Path, server: PostgresServer, twin: RunningTwin, *, sessions: int
    ) -> None:
        self.server = server
        self.twin = twin
        self.mails = [f"user{number}@example.com" for number in range(sessions)]
        self._folder = folder
        server.execute("CREATE DATABASE fleet")
        Database.open(self._url(server.port), migrate=True).close()
        first = self._folder / "first"
        system = System(Settings.load(**self.settings(first, server.port)))
        app = add_app(system, twin, APP, "Fleet")
        add_app(system, twin, SWITCHING_APP, "Switching")
        self.api_key = system.api_keys.add("chaos", ["administer"])[1]
        phones = twin.call(lambda twin: [twin.add_phone(app=APP) for _ in range(sessions)])
        self.tokens = [phone.token for phone in phones]
        fill(system.database, app.row or 0, phones)
        system.database.close()

    def _url(self, port: int) -> str:
        return f"postgresql://postgres@127.0.0.1:{port}/fleet"

    def settings(self, home: Path, port: int) -> dict[str, str]:
        """Return the settings of a node whose link to the database is at a port."""
        return {
            "home": str(home),
            "database_url": self._url(port),
            "apns_production_url": self.twin.production_url,
            "apns_development_url": self.twin.development_url,
            "apns_ca_file": str(self.twin.ca_file),
        }

    def settings_of(self, name: str, port: int, engine: str = "") -> dict[str, str]:
        """Return the settings of a node with a home of its own, and the installation's key.

        ``port`` is where the database is, ``engine`` the address of the broker, if there is one.
        """
        home = self._folder / name
        home.mkdir(mode=0o700)
        shutil.copy(self._folder / "first" / KEY_FILE, home / KEY_FILE)
        settings = self.settings(home, port)
        return {**settings, "engine": engine} if engine else settings

    def read(self, query: str, *values: object) -> list[Any]:
        """Return the rows that answer a question to the database; raises OperationalError."""
        with psycopg.connect(self._url(self.server.port), connect_timeout=5) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def accepted(self) -> int:
        """Return how many deliveries of the app with all phones the twin has accepted."""
        return self.twin.call(
            lambda twin: sum(len(twin.accepted_of(token)) for token in self.tokens)
        )

    def duplicates(self) -> int:
        """Return how often the twin accepted what it had accepted before."""
        return self.twin.call(
            lambda twin: sum(
                sum(times - 1 for times in twin.accepted_of(token).values())
                for token in self.tokens
            )
        )

    def unreached(self, sent: Sequence[tuple[str, int]]) -> int:
        """Return how many of these deliveries the twin has never accepted."""
        taken = self.twin.call(
            lambda twin: [twin.accepted_of(token).keys() for token in self.tokens]
        )
        return sum(apns_id(name, number) not in taken[number - 1] for name, number in sent)
