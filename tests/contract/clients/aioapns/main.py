"""Sends the pushes that it reads with aioapns, and writes what became of each.

Its input and output are those of every program here; see judgements.py. It goes to Apple's own
name, which is mapped to the twin; OpenSSL's ``SSL_CERT_FILE`` tells it whom to trust.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from aioapns import APNs, NotificationRequest, PushType

KEY = Path(os.environ["CLIENT_KEY_FILE"]).read_text(encoding="ascii")


async def send(client: APNs, line: str) -> str:
    """Send one push and return its line of the output."""
    token, topic, push_type, priority, expiration, collapse_id, apns_id, payload = line.split("\t")
    request = NotificationRequest(
        device_token=token,
        message=json.loads(payload),
        notification_id=apns_id or None,
        priority=int(priority) if priority else None,
        collapse_key=collapse_id or None,
        push_type=PushType(push_type) if push_type else None,
        apns_topic=topic or None,
    )
    if expiration:
        # It takes seconds from now on, and adds the time itself.
        request.time_to_live = int(expiration) - int(time.time())
    result = await client.send_notification(request)
    known = (result.status, result.description or "", result.timestamp or "")
    return "\t".join([*map(str, known), result.notification_id])


async def main() -> None:
    """Send the first alone, as Apple asks of a new connection, and the others at once."""
    first, *others = sys.stdin.read().splitlines()
    client = APNs(
        key=KEY,
        key_id=os.environ["CLIENT_KEY_ID"],
        team_id=os.environ["CLIENT_TEAM_ID"],
        topic="com.sample.myapp",
        max_connections=1,
    )
    lines = [await send(client, first)]
    lines += await asyncio.gather(*(send(client, line) for line in others))
    print("\n".join(lines))  # noqa: T201 - the program's output


asyncio.run(main())
