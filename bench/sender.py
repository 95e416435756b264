"""A process that sends: the real engine on a home, to be killed at any moment.

Run as ``python -m bench.sender TASK``. It says on standard output, one JSON object a line, what was
accepted, what came to its end, and how much was on its way when it was taken for dead. A line on
its standard input is a JSON object with an ``order``, or with the seconds by which the wall's clock
is ``wrong`` from now on; when its standard input ends, it ends in good order.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Engine, Options
from handbell.delivery.send.worker import Worker
from handbell.errors import StorageError
from handbell.settings import DATABASE_FILE, Settings
from handbell.system import System

from .chaos.clock import Clock

_PAUSE_SECONDS = 0.1
_LOOKS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a sender is to do. Its clocks are ``ahead`` of the machine's, the wall's ``wrong`` too.

    ``orders`` are mappings with ``content``, ``to``, an ``app`` if it is another, and what
    :class:`~handbell.delivery.engine.Options` reads. ``works`` starts the worker before anything is
    accepted, ``dies`` kills the process with SIGKILL once everything is.
    """

    home: str
    production_url: str
    development_url: str
    ca_file: str
    app: str
    ahead: float = 0.0
    wrong: float = 0.0
    request_timeout: float = 5.0
    database_url: str = ""
    orders: list[dict[str, Any]] = field(default_factory=list)
    works: bool = True
    dies: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the task of a command line, or of the first line of the standard input."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return the task as one line."""
        return json.dumps(asdict(self))

    def settings(self) -> Settings:
        """Return the settings to send with."""
        home = Path(self.home)
        return Settings.load(
            home=home,
            database_url=self.database_url or f"sqlite:///{home / DATABASE_FILE}",
            apns_production_url=self.production_url,
            apns_development_url=self.development_url,
            apns_ca_file=Path(self.ca_file),
            request_timeout=self.request_timeout,
        )


async def run(task: Task) -> None:
    """Do a task."""
    clock = Clock(task.ahead, task.wrong)
    system = make_system(task, clock)
    engine: Engine = await _persist(_engine_of, system)
    if task.works:
        await _persist(engine.start)
    _tell(ready=os.getpid())
    watching = asyncio.create_task(_watch(engine.worker))
    waiting = [asyncio.create_task(_send(system, engine, task, order)) for order in task.orders]
    if task.dies or not task.works:
        await asyncio.gather(*waiting)
    if task.dies:
        os.kill(os.getpid(), signal.SIGKILL)
    while line := await asyncio.to_thread(sys.stdin.readline):
        said = json.loads(line)
        clock.wrong = said.get("wrong", clock.wrong)
        if "order" in said:
            waiting.append(asyncio.create_task(_send(system, engine, task, said["order"])))
    await asyncio.gather(*waiting)
    watching.cancel()
    await system.close()


def make_system(task: Task, clock: Clock) -> System:
    """Return a system on the home of a task that goes by a clock."""
    return System(task.settings(), now=clock, clock=clock.steady, machine=clock.machine)


async def _watch(worker: Worker) -> None:
    """Say when the worker was taken for dead, and how much it had on its way shortly before."""
    known, on_the_way = worker.id, deque([0], maxlen=_LOOKS)
    while True:
        await asyncio.sleep(_PAUSE_SECONDS)
        if worker.id != known and known:
            _tell(lost=max(on_the_way))
        known = worker.id
        on_the_way.append(worker.app_states.in_flight)


async def _engine_of(system: System) -> Engine:
    return system.engine


async def _send(system: System, engine: Engine, task: Task, order: Mapping[str, Any]) -> None:
    given = dict(order)
    content = Notification.read(given.pop("content"))
    recipients = Recipients.read(given.pop("to"))
    app = await _persist(asyncio.to_thread, system.apps.find, given.pop("app", task.app))
    options = Options.read(**given)
    acceptance, _ = await _persist(engine.accept, app, content, recipients, options)
    _tell(accepted=acceptance.id, is_former=acceptance.is_former)
    if task.works and not task.dies:
        await engine.worker.settled(acceptance.row)
        _tell(settled=acceptance.id)


async def _persist(what: Any, *arguments: Any) -> Any:
    """Call until the database takes it, as a caller with an idempotency key may."""
    while True:
        try:
            return await what(*arguments)
        except StorageError as error:
            _tell(refused=type(error).__name__)
            await asyncio.sleep(_PAUSE_SECONDS)


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    # An argument has an end where many orders have not.
    asked = sys.argv[1:] or [sys.stdin.readline()]
    asyncio.run(run(Task.read(asked[-1])))
