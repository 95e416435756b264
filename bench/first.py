"""What a fresh process pays: the import, and the first push. Settings come from the environment.

Nothing but ``time`` is imported before. The answer is three instants of the monotonic clock: before
the import, after it, and when ``send`` has returned.
"""

import time

began = time.monotonic()

from handbell import PushNotification  # noqa: E402

imported = time.monotonic()
PushNotification().send(
    {"title": "This is title", "body": "Here is the content of this notification"},
    "user1@example.com",
)
print(began, imported, time.monotonic())
