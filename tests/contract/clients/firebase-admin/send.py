"""Sends messages with firebase-admin as it is, and writes what became of each.

It reads one JSON object a line: ``token``, further members of a message, ``dry_run`` and ``how``
(``send``, ``each`` or ``async``). It writes the message's name, or the error's class and code.
Google's names are built in: ``HTTPS_PROXY`` leads it to the twin.
"""

import asyncio
import json
import sys
from typing import Any

import firebase_admin
from firebase_admin import credentials, exceptions, messaging
from google.auth.exceptions import RefreshError


def message(said: dict[str, Any]) -> messaging.Message:
    """Return the message that was asked for."""
    return messaging.Message(
        token=said.get("token"),
        notification=messaging.Notification(title="Hello", body="Grüße 👋"),
        data=said.get("data"),
        android=messaging.AndroidConfig(
            ttl=said.get("ttl"),
            collapse_key=said.get("collapse_key"),
            notification=messaging.AndroidNotification(tag=said.get("tag"), channel_id="orders"),
        ),
    )


def send(said: dict[str, Any]) -> list[str]:
    """Send one message in the way that was asked for."""
    how = said.get("how", "send")
    try:
        if how == "send":
            return [messaging.send(message(said), dry_run=said.get("dry_run", False))]
        if how == "each":
            answered = messaging.send_each([message(said)])
        else:
            answered = asyncio.run(messaging.send_each_async([message(said)]))
        (one,) = answered.responses
        if one.exception is not None:
            raise one.exception
    except exceptions.FirebaseError as error:
        return [type(error).__name__, error.code]
    except RefreshError as error:
        return [type(error).__name__, error.args[1]["error"]]
    return [one.message_id]


firebase_admin.initialize_app(credentials.Certificate(sys.argv[1]))
for line in sys.stdin:
    print(json.dumps(send(json.loads(line))), flush=True)  # noqa: T201 - the output
