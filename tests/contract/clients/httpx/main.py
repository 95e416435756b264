"""Sends the pushes that it reads with httpx over HTTP/2, and writes what became of each.

Its input and output are those of every program here; see judgements.py.
"""

import asyncio
import os
import ssl
import sys
import time
from pathlib import Path

import httpx
import jwt

URL = os.environ["CLIENT_URL"]


def bearer() -> str:
    """Return a provider token."""
    return jwt.encode(
        {"iss": os.environ["CLIENT_TEAM_ID"], "iat": int(time.time())},
        Path(os.environ["CLIENT_KEY_FILE"]).read_text(encoding="ascii"),
        algorithm="ES256",
        headers={"kid": os.environ["CLIENT_KEY_ID"]},
    )


async def send(client: httpx.AsyncClient, line: str) -> str:
    """Send one push and return its line of the output."""
    token, topic, push_type, priority, expiration, collapse_id, apns_id, payload = line.split("\t")
    said = {
        "apns-topic": topic,
        "apns-push-type": push_type,
        "apns-priority": priority,
        "apns-expiration": expiration,
        "apns-collapse-id": collapse_id,
        "apns-id": apns_id,
    }
    headers = {name: value for name, value in said.items() if value}
    try:
        answer = await client.post(f"{URL}/3/device/{token}", headers=headers, content=payload)
    except httpx.HTTPError as error:
        return f"0\t{error!r}\t\t"
    body = answer.json() if answer.content else {}
    known = (answer.status_code, body.get("reason", ""), body.get("timestamp", ""))
    return "\t".join([*map(str, known), answer.headers.get("apns-id", "")])


async def main() -> None:
    """Send the first alone, as Apple asks of a new connection, and the others at once."""
    first, *others = sys.stdin.read().splitlines()
    trust = ssl.create_default_context(cafile=os.environ["CLIENT_CA_FILE"])
    async with httpx.AsyncClient(
        http1=False,
        http2=True,
        verify=trust,
        headers={"authorization": f"bearer {bearer()}"},
        limits=httpx.Limits(max_connections=1),
        timeout=30,
        trust_env=False,
    ) as client:
        results = [await send(client, first)]
        if "CLIENT_IN_TURN" in os.environ:
            results += [await send(client, line) for line in others]
        else:
            results += await asyncio.gather(*(send(client, line) for line in others))
    sys.stdout.write("\n".join(results) + "\n")


asyncio.run(main())
