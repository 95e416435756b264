"""Sends one alert to each device token of a file with aioapns, as its README advises.

One client and one connection, and a coroutine for each notification.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol

from bench.job import Job, Result, Stopwatch, answer


def run(job: Job) -> Result:
    """Return what came of the round."""
    logging.getLogger("aioapns").setLevel(logging.CRITICAL)
    return asyncio.run(_run(job))


async def _run(job: Job) -> Result:
    client = _connect(job)
    tokens = job.read_tokens()
    await _send(client, job, tokens[:1])
    await _send(client, job, tokens[: job.warm_up])
    stopwatch = Stopwatch()
    accepted, refused = await _send(client, job, tokens[job.warm_up :])
    result = stopwatch.result(accepted, refused)
    client.pool.close()
    return result


def _connect(job: Job) -> APNs:
    parts = urlsplit(job.url)

    class Protocol(APNsTLSClientProtocol):
        APNS_SERVER = parts.hostname or ""
        APNS_PORT = parts.port or 0

    trust = ssl.create_default_context(cafile=job.ca_file)
    trust.set_alpn_protocols(["h2"])  # a context of one's own has to say so itself
    client = APNs(
        key=Path(job.key_file).read_text(),
        key_id=job.key_id,
        team_id=job.team_id,
        topic=job.topic,
        max_connections=1,
        ssl_context=trust,
    )
    client.pool.protocol_class = Protocol
    return client


async def _send(client: APNs, job: Job, tokens: list[str]) -> tuple[int, int]:
    message = {"aps": {"alert": {"title": job.title, "body": job.body}}}
    requests = (
        NotificationRequest(device_token=token, message=message, push_type=PushType.ALERT)
        for token in tokens
    )
    answers = await asyncio.gather(*(client.send_notification(request) for request in requests))
    accepted = sum(answer.is_successful for answer in answers)
    return accepted, len(answers) - accepted


if __name__ == "__main__":
    answer(run)
