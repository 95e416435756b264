"""What is measured of Handbell itself: the gateway alone, the whole engine, one person's push.

Run as ``python -m bench.ours {gateway|fcm|engine|person} JOB``.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import islice
from pathlib import Path
from typing import Any, Final

import uvloop

from handbell import PushNotification
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY
from handbell.delivery.ids import apns_id, new_notification_id
from handbell.gateways.apns.client import ApnsGateway
from handbell.gateways.apns.compose import compose
from handbell.gateways.composers import Compose
from handbell.gateways.fcm.client import FcmGateway
from handbell.gateways.fcm.compose import compose as compose_fcm
from handbell.gateways.gateway import Message, Push
from handbell.gateways.http2 import Endpoint
from handbell.gateways.outcomes import Accepted, Outcome
from handbell.gateways.push_client import PushClient
from handbell.services.apns.credential import read_auth_key
from handbell.services.fcm.credential import ServiceAccount
from handbell.system import System

from . import seed
from .job import Job, Result, Stopwatch, answer

COLD_SAMPLES: Final = 100
WARM_SAMPLES: Final = 1000
PAGE: Final = 500
FEEDERS: Final = 4


async def run_engine(system: System, app: App, notification: Notification) -> tuple[int, int]:
    """Send to every session of the app and return how many were reached, and how many tried.

    Everything from stored sessions to stored outcomes: the one place that names the engine.
    """
    response = await system.engine.send(app, notification, EVERYBODY)
    return response.reached, response.total


def gateway(job: Job) -> Result:
    """Return what came of a round through the gateway alone: no queue, no database."""
    return _in_loop(job, _gateway(job))


def fcm(job: Job) -> Result:
    """Return what came of a round through the gateway to FCM alone."""
    account = ServiceAccount.read(Path(job.key_file).read_text())
    return _in_loop(job, _fcm(job, account))


def engine(job: Job) -> Result:
    """Return what came of a broadcast to the sessions of the job's home."""
    return _in_loop(job, _engine(job))


def person(job: Job) -> Result:
    """Return when each of many pushes to one person was asked for, and when its call returned.

    Instants are of the machine's monotonic clock, in seconds; ``cold`` pushes find nothing open.
    """
    push = PushNotification(settings=seed.settings(job))
    stopwatch = Stopwatch()
    cold = [_timed(push, job, number, is_cold=True) for number in range(1, COLD_SAMPLES + 1)]
    warm = [_timed(push, job, number, is_cold=False) for number in range(1, WARM_SAMPLES + 1)]
    result = stopwatch.result(len(cold) + len(warm), 0)
    result.samples["cold_asked"], result.samples["cold_returned"] = _columns(cold)
    result.samples["warm_asked"], result.samples["warm_returned"] = _columns(warm)
    return result


async def _gateway(job: Job) -> Result:
    key = read_auth_key(job.key_file, team_id=job.team_id, key_id=job.key_id)
    endpoint = Endpoint(job.url, Path(job.ca_file))
    sender = ApnsGateway(
        credential=key, endpoints={"production": endpoint}, in_flight=job.in_flight
    )
    return await _round(sender, compose, job)


async def _fcm(job: Job, account: ServiceAccount) -> Result:
    sender = FcmGateway(
        credential=account,
        endpoint=Endpoint(job.url, Path(job.ca_file)),
        in_flight=job.in_flight,
    )
    return await _round(sender, compose_fcm, job)


async def _round(sender: PushClient, compose_it: Compose, job: Job) -> Result:
    name = new_notification_id()
    app = App(team_id=job.team_id, bundle_id=job.topic)
    message = compose_it(_notification(job), app=app, now=time.time())
    tokens = job.read_tokens()
    await _send(sender, name, message, tokens[: job.warm_up])
    stopwatch = Stopwatch()
    accepted = await _send(sender, name, message, tokens[job.warm_up :])
    result = stopwatch.result(accepted, job.count - accepted)
    await sender.close()
    return result


async def _send(sender: PushClient, name: str, message: Message, tokens: list[str]) -> int:
    accepted = 0

    def report(_push: Push, outcome: Outcome) -> None:
        nonlocal accepted
        accepted += type(outcome) is Accepted

    numbered = enumerate(tokens)

    async def feed() -> None:
        # In pages, as the engine does: the first ones go out while the next are made.
        while page := list(islice(numbered, PAGE)):
            pushes = [
                Push(number, token, "production", apns_id(name, number), message)
                for number, token in page
            ]
            await sender.send(pushes, report)

    await asyncio.gather(*(feed() for _ in range(FEEDERS)))
    return accepted


async def _engine(job: Job) -> Result:
    system = System(seed.settings(job))
    app = system.apps.list()[0]
    stopwatch = Stopwatch()
    reached, total = await run_engine(system, app, _notification(job))
    result = stopwatch.result(reached, total - reached)
    await system.close()
    return result


def _notification(job: Job) -> Notification:
    return Notification.read({"title": job.title, "body": job.body})


def _timed(push: PushNotification, job: Job, number: int, *, is_cold: bool) -> tuple[float, float]:
    if is_cold:
        push.close()
    asked = time.monotonic()
    push.send({"title": job.title, "body": job.body}, seed.MAIL.format(number))
    return asked, time.monotonic()


def _columns(rows: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [first for first, _ in rows], [second for _, second in rows]


def _in_loop(job: Job, work: Coroutine[Any, Any, Result]) -> Result:
    return uvloop.run(work) if job.loop == "uvloop" else asyncio.run(work)


_PARTS: Final[dict[str, Callable[[Job], Result]]] = {
    "gateway": gateway,
    "fcm": fcm,
    "engine": engine,
    "person": person,
}

if __name__ == "__main__":
    answer(_PARTS[sys.argv[1]])
