"""What is measured of Handbell itself: the gateway alone, the whole engine, one person's push.

Run as ``python -m bench.ours {gateway|fcm|webpush|primitives|engine|person} JOB``.
"""

import asyncio
import hmac
import json
import sys
import time
from collections.abc import Callable, Coroutine
from itertools import islice
from pathlib import Path
from typing import Any, Final

import uvloop
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
from handbell.gateways.webpush.client import WebPushGateway
from handbell.gateways.webpush.compose import compose as compose_web_push
from handbell.services.address import Address
from handbell.services.apns.credential import read_auth_key
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.address import SubscriptionKeys, read_subscription
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.hosts import PushHosts
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


def webpush(job: Job) -> Result:
    """Return what came of a round through the gateway to push services of browsers alone."""
    return _in_loop(job, _webpush(job, VapidKey.read(Path(job.key_file).read_text())))


def primitives(job: Job) -> Result:
    """Return what it takes to encrypt the round's messages with bare calls of the library."""
    text = compose_web_push(_notification(job), app=_web_app(job), now=time.time()).payload
    keys = [SubscriptionKeys.of(address.details or "") for address in _addresses(job)]
    for each in keys[: job.warm_up]:
        encrypt_bare(text, each)
    stopwatch = Stopwatch()
    for each in keys[job.warm_up :]:
        encrypt_bare(text, each)
    return stopwatch.result(job.count, 0)


def encrypt_bare(text: bytes, keys: SubscriptionKeys) -> bytes:
    """Make each call of RFC 8291 once, and nothing of what it returns."""
    curve = ec.SECP256R1()
    receiver = ec.EllipticCurvePublicKey.from_encoded_point(curve, keys.public_key)
    sender = ec.generate_private_key(curve)
    shared = sender.exchange(ec.ECDH(), receiver)
    sender.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    for _ in range(5):
        digest = hmac.digest(keys.secret, shared, "sha256")
    return AESGCM(digest[:16]).encrypt(digest[:12], text, None)


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


async def _webpush(job: Job, key: VapidKey) -> Result:
    sender = WebPushGateway(
        credential=key,
        subject="mailto:push@example.com",
        hosts=PushHosts.read("", twin=job.url),  # loopback is allowed for a twin alone
        ca_file=Path(job.ca_file),
        in_flight=job.in_flight,
    )
    message = compose_web_push(_notification(job), app=_web_app(job), now=time.time())
    return await _send_round(sender, message, job, _addresses(job), "twin")


def _web_app(job: Job) -> App:
    return App(name=job.topic, web_origin="https://shop.example.com")


def _addresses(job: Job) -> list[Address]:
    return [read_subscription(json.loads(line)) for line in job.read_tokens()]


async def _round(sender: PushClient, compose_it: Compose, job: Job) -> Result:
    app = App(team_id=job.team_id, bundle_id=job.topic)
    message = compose_it(_notification(job), app=app, now=time.time())
    addresses = [Address("", token) for token in job.read_tokens()]
    return await _send_round(sender, message, job, addresses, "production")


async def _send_round(
    sender: PushClient,
    message: Message,
    job: Job,
    addresses: list[Address],
    environment: str,
) -> Result:
    name = new_notification_id()
    await _send(sender, name, message, addresses[: job.warm_up], environment)
    stopwatch = Stopwatch()
    accepted = await _send(sender, name, message, addresses[job.warm_up :], environment)
    result = stopwatch.result(accepted, job.count - accepted)
    await sender.close()
    return result


async def _send(
    sender: PushClient, name: str, message: Message, addresses: list[Address], environment: str
) -> int:
    accepted = 0

    def report(_push: Push, outcome: Outcome) -> None:
        nonlocal accepted
        accepted += type(outcome) is Accepted

    numbered = enumerate(addresses)

    async def feed() -> None:
        # In pages, as the engine does: the first ones go out while the next are made.
        while page := list(islice(numbered, PAGE)):
            pushes = [
                Push(
                    number,
                    address.token,
                    environment,
                    apns_id(name, number),
                    message,
                    details=address.details,
                )
                for number, address in page
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
    "webpush": webpush,
    "primitives": primitives,
    "engine": engine,
    "person": person,
}

if __name__ == "__main__":
    answer(_PARTS[sys.argv[1]])
