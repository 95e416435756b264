"""What outlives a twin's process: the subscriptions of its push service, in one file.

Virtual browsers have their keys there, which no session has. Whoever starts the twin again finds
its browsers by it, real ones as well.
"""

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from .encryption import BrowserKeys
from .subscriptions import Subscription

SAVED_FILE: Final = "subscriptions.json"


class Saved(NamedTuple):
    """The subscriptions of a former twin, whose endpoints began with ``origin``."""

    origin: str
    subscriptions: tuple[Subscription, ...]

    @property
    def port(self) -> int:
        """Return the port of the origin, 0 for none."""
        with contextlib.suppress(ValueError):
            return urlsplit(self.origin).port or 0
        return 0

    def moved_to(self, origin: str) -> tuple[Subscription, ...]:
        """Return the subscriptions with endpoints of another origin.

        A real browser goes on to name the endpoint that it was given, so it is left out.
        """
        if origin == self.origin:
            return self.subscriptions
        return tuple(
            replace(one, endpoint=origin + one.endpoint.removeprefix(self.origin))
            for one in self.subscriptions
            if one.keys is not None
        )


def read_saved(folder: Path) -> Saved:
    """Return what a former twin of this folder has saved; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        written = json.loads((folder / SAVED_FILE).read_text(encoding="utf-8"))
        found = tuple(_read(item) for item in written["subscriptions"])
        return Saved(str(written["origin"]), found)
    return Saved("", ())


def write_saved(folder: Path, origin: str, subscriptions: Iterable[Subscription]) -> None:
    """Write the file atomically, for this user alone. Raises OSError."""
    content = {"origin": origin, "subscriptions": [_written(one) for one in subscriptions]}
    passing = folder / f".{SAVED_FILE}.{os.getpid()}"
    passing.unlink(missing_ok=True)
    made = os.open(passing, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(made, "w", encoding="utf-8") as file:
        file.write(json.dumps(content, indent=2) + "\n")
    passing.replace(folder / SAVED_FILE)


def _written(one: Subscription) -> dict[str, Any]:
    keys = None if one.keys is None else one.keys.pack()
    members = {name: getattr(one, name) for name in ("endpoint", "browser", "channel", "key")}
    return {**members, "keys": keys}


def _read(item: dict[str, Any]) -> Subscription:
    keys = item["keys"]
    return Subscription(
        endpoint=str(item["endpoint"]),
        browser=str(item["browser"]),
        channel=str(item["channel"]),
        key=None if item["key"] is None else str(item["key"]),
        keys=None if keys is None else BrowserKeys.unpack(keys),
    )
