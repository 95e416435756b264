"""A Handbell home with an app, its key and as many sessions as wanted, past the registry."""

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from sqlalchemy import text

from handbell.apps.app import App
from handbell.services.address import Address
from handbell.services.apns.credential import read_auth_key
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.address import read_subscription
from handbell.services.webpush.credential import VapidKey
from handbell.settings import DATABASE_FILE, Settings
from handbell.storage.database import Database
from handbell.system import System
from handbell.twin.discovery import Address as TwinAddress
from handbell.twin.discovery import write_address

from .job import Job

_Device = tuple[Address, str, str]  # with platform and name

MAIL: Final = "user{}@example.com"

_USERS: Final = "INSERT INTO users (id, app_id, mail, created_at) VALUES (?, ?, ?, ?)"
_SESSIONS: Final = """
INSERT INTO sessions (id, app_id, user_id, token, platform, environment, status, locale, time_zone,
                      device, created_at, registered_at)
VALUES (?, ?, ?, ?, 'ios', 'production', 'active', 'en', 'Europe/Paris', 'iPhone', ?, ?)
"""

_OTHER_SESSIONS: Final = """
INSERT INTO sessions (id, app_id, user_id, token, service, kind, address, platform, environment,
                      status, locale, time_zone, device, created_at, registered_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'twin', 'active', 'en', 'Europe/Paris', ?, ?, ?)
"""

_FILL_SERVER: Final = (
    """
    INSERT INTO users (id, app_id, mail, created_at)
    SELECT n, :app, 'user' || n || '@example.com', :at FROM generate_series(1, :count) AS n
    """,
    """
    INSERT INTO sessions (id, app_id, user_id, token, platform, environment, status, locale,
                          time_zone, device, created_at, registered_at)
    SELECT n, :app, n, md5(n::text) || md5(random()::text), 'ios', 'production', 'active', 'en',
           'Europe/Paris', 'iPhone', :at, :at
    FROM generate_series(1, :count) AS n
    """,
    "SELECT setval(pg_get_serial_sequence('users', 'id'), :count), :app, :at",
    "SELECT setval(pg_get_serial_sequence('sessions', 'id'), :count), :app, :at",
)


def settings(job: Job) -> Settings:
    """Return the settings of a home for one of the sinks."""
    home = Path(job.home)
    return Settings.load(
        home=home,
        database_url=job.database or f"sqlite:///{home / DATABASE_FILE}",
        apns_production_url=job.url,
        # The same sink under its other name, so that it is another host to the engine.
        apns_development_url=job.url.replace("127.0.0.1", "localhost"),
        apns_ca_file=Path(job.ca_file),
        in_flight=job.in_flight,
    )


def make_home(job: Job) -> None:
    """Make the job's home, with ``job.count`` users who have one active session each."""
    system = System(settings(job))
    app = system.apps.add(job.team_id, job.topic, name="Bench")
    key = read_auth_key(job.key_file, team_id=job.team_id, key_id=job.key_id)
    system.apps.add_credential(app, key)
    if job.database:
        _fill_server(system.database, app.row or 0, job.count)
    system.database.close()
    if not job.database:
        _fill(Path(job.home) / DATABASE_FILE, app.row or 0, job.count)


def make_web_push_home(job: Job) -> None:
    """Make the job's home, with ``job.count`` users who have one subscription each."""
    key = VapidKey.read(Path(job.key_file).read_text())
    system = System(settings(job))
    app = system.apps.add(name="Bench", web_origin="https://shop.example.com")
    _finish_twin_home(system, app, key, job)
    _fill_with(job, app, _browsers(job))


def make_fcm_home(job: Job) -> None:
    """Make the job's home, with ``job.count`` users who have one Android phone each."""
    account = ServiceAccount.read(Path(job.key_file).read_text())
    system = System(settings(job))
    app = system.apps.add(name="Bench", android_package=job.topic)
    _finish_twin_home(system, app, account, job)
    _fill_with(job, app, _androids(job))


def make_mixed_home(apple: Job, fcm: Job, web_push: Job) -> None:
    """Make the home of the first job, with users of each kind of device in turn."""
    system = System(settings(apple))
    app = system.apps.add(
        apple.team_id,
        apple.topic,
        name="Bench",
        android_package=apple.topic,
        web_origin="https://shop.example.com",
    )
    key = read_auth_key(apple.key_file, team_id=apple.team_id, key_id=apple.key_id)
    system.apps.add_credential(app, key)
    system.apps.add_credential(app, VapidKey.read(Path(web_push.key_file).read_text()))
    account = ServiceAccount.read(Path(fcm.key_file).read_text())
    _finish_twin_home(system, app, account, apple)
    iphones = [(Address("apns", one), "ios", "iPhone") for one in apple.read_tokens()]
    in_turn = zip(iphones, _androids(fcm), _browsers(web_push), strict=False)
    _fill_with(apple, app, list(chain.from_iterable(in_turn))[: apple.count])


def _androids(job: Job) -> list[_Device]:
    return [(Address("fcm", one), "android", "Pixel") for one in job.read_tokens()[: job.count]]


def _browsers(job: Job) -> list[_Device]:
    lines = job.read_tokens()[: job.count]
    return [(read_subscription(json.loads(line)), "web", "Firefox") for line in lines]


def _finish_twin_home(
    system: System, app: App, credential: ServiceAccount | VapidKey, job: Job
) -> None:
    """Give a home its credential, and a twin for its devices, in whose place the sink stands.

    No other endpoint of a browser may be on loopback, and FCM's own is spared a sudden rise.
    """
    system.apps.add_credential(app, credential)
    system.twin_folder.mkdir(exist_ok=True)
    write_address(
        system.twin_folder,
        TwinAddress(
            production_url=job.url,
            development_url=job.url,
            page_url=job.url,
            ca_file=job.ca_file,
            pid=os.getpid(),
            fcm_url=job.url,
            oauth_url=f"{job.url}/token",
            webpush_url=job.url,
        ),
    )
    system.database.close()


def _fill_with(job: Job, app: App, devices: Sequence[_Device]) -> None:
    at = int(time.time() * 1000) - 60_000
    rows = list(enumerate(devices, 1))
    connection = sqlite3.connect(Path(job.home) / DATABASE_FILE, isolation_level=None)
    connection.execute("BEGIN")
    connection.executemany(_USERS, ((n, app.row, MAIL.format(n), at) for n, _ in rows))
    connection.executemany(
        _OTHER_SESSIONS,
        (
            (n, app.row, n, one.token, one.service, one.kind, one.details, platform, device, at, at)
            for n, (one, platform, device) in rows
        ),
    )
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _fill_server(database: Database, app: int, count: int) -> None:
    """Fill a PostgreSQL by itself: millions of rows need not travel."""
    values = {"app": app, "count": count, "at": int(time.time() * 1000) - 60_000}
    with database.write() as connection:
        for statement in _FILL_SERVER:
            connection.execute(text(statement), values)


def make_apps(job: Job, number: int) -> list[App]:
    """Make the job's home with so many apps of one team and key, of ``job.count`` users each."""
    system = System(settings(job))
    key = read_auth_key(job.key_file, team_id=job.team_id, key_id=job.key_id)
    made = [system.apps.add(job.team_id, f"{job.topic}{one}") for one in range(number)]
    for app in made:
        system.apps.add_credential(app, key)
    system.database.close()
    for place, app in enumerate(made):
        _fill(Path(job.home) / DATABASE_FILE, app.row or 0, job.count, place * job.count)
    return made


def _fill(path: Path, app: int, count: int, former: int = 0) -> None:
    at = int(time.time() * 1000) - 60_000
    numbers = range(1, count + 1)
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("synchronous = OFF", "cache_size = -1000000", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("BEGIN")
    connection.executemany(_USERS, ((former + n, app, MAIL.format(n), at) for n in numbers))
    rows = ((former + n, app, former + n, secrets.token_hex(32), at, at) for n in numbers)
    connection.executemany(_SESSIONS, rows)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def copy_home(source: Path, target: Path) -> Path:
    """Copy a home, so that each round begins with the same."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))
