"""A process that gives phones to other people, and sends nothing: as ``serve --no-worker`` does.

Run as ``python -m bench.chaos.switcher TASK``. A line on standard input is a JSON list of a mail
and a token; a line on standard output says that the switch is done, as the answer of a server does.
"""

import asyncio
import json
import sys

from bench.sender import Task, make_system
from handbell._thread_pool import in_thread
from handbell.registry.registration import Registration

from .clock import Clock


async def _run(task: Task) -> None:
    clock = Clock(task.ahead, task.wrong)
    system = make_system(task, clock)
    app = system.apps.find(task.app)
    while line := await asyncio.to_thread(sys.stdin.readline):
        mail, token = json.loads(line)
        registration = Registration.read(mail, token, status="active", at=int(clock() * 1000))
        registered = await in_thread(system.registry.admit, app, registration)
        await system.engine.release(registered.moved)
        print(registered.session.id, flush=True)
    await system.close()


if __name__ == "__main__":
    asyncio.run(_run(Task.read(sys.argv[-1])))
