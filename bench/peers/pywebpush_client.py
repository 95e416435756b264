"""Sends one message to each subscription of a file with pywebpush, over connections that it keeps.

Run as ``python -m bench.peers.pywebpush_client {session|async} JOB``: ``webpush`` with a session of
requests, one message after the other, or ``webpush_async`` with one of aiohttp and many at once.
"""

import asyncio
import json
import sys
from typing import Any

import aiohttp
import requests
from py_vapid import Vapid02
from pywebpush import webpush, webpush_async

from bench.job import Job, Result, Stopwatch, answer

AT_ONCE = 100
SUBJECT = "mailto:push@example.com"


def run(job: Job) -> Result:
    """Return what came of the round."""
    subscriptions = [json.loads(line) for line in job.read_tokens()]
    key = Vapid02.from_file(job.key_file)
    if sys.argv[1] == "async":
        return asyncio.run(_at_once(job, key, subscriptions))
    with requests.Session() as session:

        def send(subscription: dict[str, Any]) -> bool:
            sent = webpush(subscription, requests_session=session, **_arguments(job, key))
            return (
                isinstance(sent, requests.Response) and sent.status_code == requests.codes.created
            )

        for subscription in subscriptions[: job.warm_up]:
            send(subscription)
        stopwatch = Stopwatch()
        accepted = sum(send(each) for each in subscriptions[job.warm_up :])
    return stopwatch.result(accepted, job.count - accepted)


async def _at_once(job: Job, key: Vapid02, subscriptions: list[dict[str, Any]]) -> Result:
    async with aiohttp.ClientSession() as session:
        await _feed(job, key, subscriptions[: job.warm_up], session)
        stopwatch = Stopwatch()
        accepted = await _feed(job, key, subscriptions[job.warm_up :], session)
    return stopwatch.result(accepted, job.count - accepted)


async def _feed(
    job: Job, key: Vapid02, subscriptions: list[dict[str, Any]], session: aiohttp.ClientSession
) -> int:
    waiting = iter(subscriptions)

    async def feed() -> int:
        accepted = 0
        for subscription in waiting:
            sent = await webpush_async(
                subscription, aiohttp_session=session, **_arguments(job, key)
            )
            accepted += getattr(sent, "status", 0) == requests.codes.created
        return accepted

    return sum(await asyncio.gather(*(feed() for _ in range(AT_ONCE))))


def _arguments(job: Job, key: Vapid02) -> dict[str, Any]:
    shown = {"notification": {"title": job.title, "body": job.body}}
    # It writes audience and expiry into the claims, so each call needs its own.
    return {
        "data": json.dumps(shown),
        "vapid_private_key": key,
        "vapid_claims": {"sub": SUBJECT},
        "ttl": 3600,
    }


if __name__ == "__main__":
    answer(run)
