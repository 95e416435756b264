"""Sends what a generated Python client can say to a running server, and prints what came back."""

import io
import json
import sys

from handbell_client import AuthenticatedClient
from handbell_client.api.notifications import (
    send_notification,
    send_notification_lines,
    send_notifications,
)
from handbell_client.models import NotificationContent, SendRequest
from handbell_client.types import File

server, app, key, mail = sys.argv[1:]


def text(title: str) -> SendRequest:
    """Return a send of one text to one person."""
    return SendRequest(notification=NotificationContent(title=title), recipients=mail)


with AuthenticatedClient(base_url=server, token=key, raise_on_unexpected_status=True) as client:
    outcome = send_notification.sync(app, client=client, body=text("one"), prefer="wait=10")
    print(outcome.success)
    listed = send_notifications.sync(app, client=client, body=[text("two"), text("three")])
    print([bool(answer.id) for answer in listed])
    lines = "".join(f"{json.dumps(text(title).to_dict())}\n" for title in ("four", "five"))
    told = send_notification_lines.sync(app, client=client, body=File(io.BytesIO(lines.encode())))
    print(json.loads(told.payload.read().splitlines()[-1]))
