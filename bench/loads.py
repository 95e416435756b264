"""What the engine does beside one large broadcast: many small apps, and what waits.

Run as ``python -m bench.loads {apps|waits} JOB``, each against the sink that answers at once, with
homes of its own below the job's. Within a run all steps are of one process, so that their ratios
say something on a machine that does other things too.
"""

import asyncio
import json
import resource
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import uvloop

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import Engine, Entry, Options
from handbell.settings import DATABASE_FILE
from handbell.system import System

from . import seed
from .chaos import Clock
from .job import Job

APPS: Final = 200
DEVICES: Final = 50
SINGLES: Final = 200
NAMED: Final = 20_000
ZONES: Final = (
    "Pacific/Auckland",
    "Australia/Sydney",
    "Asia/Tokyo",
    "Asia/Shanghai",
    "Asia/Bangkok",
    "Asia/Dhaka",
    "Asia/Kolkata",
    "Asia/Karachi",
    "Asia/Dubai",
    "Europe/Moscow",
    "Europe/Athens",
    "Europe/Paris",
    "Europe/London",
    "Atlantic/Azores",
    "Atlantic/South_Georgia",
    "America/Sao_Paulo",
    "America/Halifax",
    "America/New_York",
    "America/Chicago",
    "America/Denver",
    "America/Los_Angeles",
    "America/Anchorage",
    "Pacific/Honolulu",
    "Pacific/Pago_Pago",
)

_SPREAD: Final = """
    UPDATE sessions SET time_zone = (SELECT value FROM json_each(?) WHERE key = sessions.id % ?)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step: so many deliveries, the seconds it took and those of CPU; rows that were written.

    ``middle`` is the median wait of those who waited for one, in milliseconds.
    """

    name: str
    deliveries: int
    seconds: float
    cpu_seconds: float
    rows: int = 0
    middle: float = 0.0

    @property
    def microseconds(self) -> float:
        """Microseconds of CPU for each delivery."""
        return 1e6 * self.cpu_seconds / self.deliveries


async def apps(job: Job) -> list[Step]:
    """Return the same pushes over one app and over many, as broadcasts and as single sends."""
    steps = []
    for number in (1, APPS):
        home = Path(job.home) / f"apps-{number}"
        here = replace(job, home=str(home), count=APPS * DEVICES // number)
        made = seed.make_apps(here, number)
        system = System(seed.settings(here))
        await system.engine.start()
        name = "one app" if number == 1 else f"{number} apps"
        steps.append(await _broadcasts(system, made, f"broadcasts, {name}"))
        steps.append(await _singles(system, made, f"single sends, {name}"))
        await system.close()
    return steps


async def _broadcasts(system: System, made: Sequence[App], name: str) -> Step:
    entries = [_entry(app, EVERYBODY) for app in made]

    async def go() -> None:
        await system.engine.accept_many(entries)
        await system.engine.worker.idle()

    return await _timed(system, name, APPS * DEVICES, go)


async def _singles(system: System, made: Sequence[App], name: str) -> Step:
    waits: list[float] = []

    async def send(number: int) -> None:
        began = time.perf_counter()
        app, person = made[number % len(made)], 1 + number // len(made)
        entry = _entry(app, Recipients.read(seed.MAIL.format(person)))
        (accepted,) = await system.engine.accept_many([entry])
        if not isinstance(accepted, Acceptance):
            raise accepted
        await system.engine.worker.settled(accepted.row)
        waits.append(1000 * (time.perf_counter() - began))

    async def go() -> None:
        await asyncio.gather(*map(send, range(SINGLES)))

    step = await _timed(system, name, SINGLES, go)
    return replace(step, middle=median(waits))


async def waits(job: Job) -> list[Step]:
    """Return what deliveries cost that are sent at once, and that wait before: shards and rows."""
    seed.make_home(job)
    _spread(Path(job.home) / DATABASE_FILE)
    clock = Clock()
    settings = seed.settings(job)
    system = System(settings, now=clock, clock=clock.steady, machine=clock.machine)
    app = system.apps.list()[0]
    await system.engine.start()
    named = Recipients.read([seed.MAIL.format(number) for number in range(1, NAMED + 1)])
    steps = []
    for what, to, number in (("a broadcast", EVERYBODY, job.count), ("named", named, NAMED)):
        send = _sending(system.engine, app, to)
        for name, go in (
            ("sent at once", partial(send, {})),
            ("made to wait", partial(send, _tomorrow(clock))),
            ("sent after its wait", _until_sent(system, clock)),
        ):
            steps.append(await _timed(system, f"{what}, {name}", number, go))
    await system.close()
    return steps


def _tomorrow(clock: Clock) -> dict[str, Any]:
    """Return the options of a send at a local time that is to come everywhere."""
    moment = datetime.fromtimestamp(clock(), UTC) + timedelta(days=2)
    return {"send_at": moment.replace(tzinfo=None).isoformat(timespec="seconds")}


def _sending(
    engine: Engine, app: App, to: Recipients
) -> Callable[[dict[str, Any]], Awaitable[None]]:
    async def send(how: dict[str, Any]) -> None:
        (accepted,) = await engine.accept_many([_entry(app, to, how)])
        if not isinstance(accepted, Acceptance):
            raise accepted
        await engine.worker.idle()

    return send


def _until_sent(system: System, clock: Clock) -> Callable[[], Awaitable[None]]:
    """Return what lets time pass from one due time to the next until all is sent."""

    async def go() -> None:
        while (next_at := system.status.read().next_at) is not None:
            clock.move(max(0.0, next_at / 1000 + 1 - clock()))
            system.engine.worker.wake()
            await system.engine.worker.idle()

    return go


def _entry(app: App, to: Recipients, how: dict[str, Any] | None = None) -> Entry:
    return Entry(
        app=app,
        notification=Notification(title="This is title", body="Here is the content"),
        recipients=to,
        options=Options.read(**(how or {})),
    )


async def _timed(
    system: System, name: str, deliveries: int, go: Callable[[], Awaitable[None]]
) -> Step:
    rows, began, used = _rows(system), time.perf_counter(), _cpu_seconds()
    await go()
    seconds, cpu = time.perf_counter() - began, _cpu_seconds() - used
    written = _rows(system) - rows
    return Step(name=name, deliveries=deliveries, seconds=seconds, cpu_seconds=cpu, rows=written)


def _rows(system: System) -> int:
    with system.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM deliveries").scalar() or 0)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _spread(path: Path) -> None:
    """Let the sessions of a home live all over the world."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(_SPREAD, (json.dumps(ZONES), len(ZONES)))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


_PARTS: Final[dict[str, Callable[[Job], Any]]] = {"apps": apps, "waits": waits}

if __name__ == "__main__":
    found = uvloop.run(_PARTS[sys.argv[1]](Job.read(sys.argv[2])))
    print(json.dumps([asdict(step) for step in found]))
