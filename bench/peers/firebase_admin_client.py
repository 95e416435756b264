"""Sends one message to each registration token of a file with firebase-admin, as its docs advise.

Run as ``python -m bench.peers.firebase_admin_client {threads|async} JOB``: ``send_each`` or
``send_each_async``, 500 messages a call, the most that they take.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from itertools import islice

import firebase_admin
from firebase_admin import credentials, messaging

from bench.job import Job, Result, Stopwatch, answer

CALL = 500

Send = Callable[[list[messaging.Message]], Awaitable[messaging.BatchResponse]]


async def _in_threads(messages: list[messaging.Message]) -> messaging.BatchResponse:
    return messaging.send_each(messages)


WAYS: dict[str, Send] = {"threads": _in_threads, "async": messaging.send_each_async}


def run(job: Job) -> Result:
    """Return what came of the round."""
    # The one place where it names its host; it has no setting for it.
    messaging._MessagingService.FCM_URL = job.url + "/v1/projects/{0}/messages:send"  # noqa: SLF001
    firebase_admin.initialize_app(credentials.Certificate(job.key_file))
    return asyncio.run(_run(job, WAYS[sys.argv[1]]))


async def _run(job: Job, send: Send) -> Result:
    tokens = job.read_tokens()
    await _send(job, tokens[: job.warm_up], send)
    stopwatch = Stopwatch()
    accepted = await _send(job, tokens[job.warm_up :], send)
    return stopwatch.result(accepted, job.count - accepted)


async def _send(job: Job, tokens: list[str], send: Send) -> int:
    accepted = 0
    numbered = iter(tokens)
    while page := list(islice(numbered, CALL)):
        shown = messaging.Notification(title=job.title, body=job.body)
        batch = await send([messaging.Message(notification=shown, token=one) for one in page])
        accepted += batch.success_count
    return accepted


if __name__ == "__main__":
    answer(run)
