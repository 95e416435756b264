"""Those who call the servers, and call again until they are answered."""

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterable
from http.client import HTTPConnection, HTTPException
from typing import Any, Final

_ANSWER_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1
_REFUSED: Final = 400
_UNAVAILABLE: Final = 500
_TOO_MANY: Final = 429


class RefusedError(Exception):
    """A server refused what it should have taken."""


class Caller:
    """Calls the API of one server after the other, until one of them answers with 2xx.

    What it sends carries an idempotency key, so that a call whose answer was lost may be made
    again. ``retries`` counts the calls that were.
    """

    def __init__(self, ports: Iterable[int], key: str, is_over: threading.Event) -> None:
        self._ports = itertools.cycle(ports)
        self._key = key
        self._is_over = is_over
        self.retries = 0

    def post(self, path: str, body: dict[str, Any], *, key: str = "") -> Any:
        """Return the answer; raises RefusedError for 4xx, TimeoutError when the run is over.

        A call that was begun is repeated for a minute even so: the last thing that went wrong may
        have ended a moment ago.
        """
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        if key:
            headers["Idempotency-Key"] = key
        deadline = time.monotonic() + _ANSWER_SECONDS
        while not self._is_over.is_set() or time.monotonic() < deadline:
            with contextlib.suppress(OSError, HTTPException):
                connection = HTTPConnection("127.0.0.1", next(self._ports), timeout=_ANSWER_SECONDS)
                with contextlib.closing(connection):
                    connection.request("POST", path, json.dumps(body), headers)
                    answer = connection.getresponse()
                    text = answer.read().decode()
                if answer.status < 300:  # noqa: PLR2004
                    return json.loads(text)
                if _REFUSED <= answer.status < _UNAVAILABLE and answer.status != _TOO_MANY:
                    raise RefusedError(f"POST {path}: {answer.status} {text}")
            self.retries += 1
            time.sleep(_PAUSE_SECONDS)
        raise TimeoutError(f"POST {path}: nobody answered before the run was over")
