"""The nodes of a fleet: processes of ``handbell serve`` and ``handbell worker``, on links."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

from bench.chaos.senders import ROOT, clean_environment
from bench.postgresql import free_port

from .link import Link

_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 30.0
_COME_UP_SECONDS: Final = 15.0
_TRACEBACK: Final = "Traceback (most recent call last)"


class Node:
    """One process of the fleet and its links: to the database, and to the broker if there is one.

    ``port`` is where it serves, 0 for a worker. ``settings`` are those of Handbell, by name.
    ``wrong`` is by how many seconds the clock of its machine is.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        settings: dict[str, str],
        *,
        links: Sequence[Link],
        is_server: bool,
        wrong: float = 0.0,
    ) -> None:
        self.name = name
        self.links = links
        self.port = free_port() if is_server else 0
        self._log = folder / f"{name}.log"
        self._settings = settings
        self._wrong = wrong
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0

    def start(self) -> None:
        """Start the process; returns at once."""
        words = ["serve", "--no-worker", "--port", str(self.port)] if self.port else ["worker"]
        self._started = time.monotonic()
        named = {f"HANDBELL_{name.upper()}": value for name, value in self._settings.items()}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.fleet.machine", str(self._wrong), *words],
                cwd=ROOT,
                env=clean_environment() | named,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def await_ready(self) -> None:
        """Return when a server answers; a worker needs no waiting for."""
        deadline = time.monotonic() + _READY_SECONDS
        while self.port and not self._is_ready():
            if time.monotonic() > deadline or not self.is_running:
                raise TimeoutError(f"{self.name} does not serve:\n{self.last_words()}")
            time.sleep(0.1)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/healthz")
                return connection.getresponse().status == 200  # noqa: PLR2004
        return False

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> bool:
        """Kill the process; return False where it had ended by itself."""
        lived = self.is_running
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return lived

    def stop(self) -> int | None:
        """Have the process end in good order; return its code, None where it was not there.

        One that was started just before is let come up: until it listens to signals, SIGTERM ends
        it as any program.
        """
        if self._process is None:
            return None
        time.sleep(max(0.0, self._started + _COME_UP_SECONDS - time.monotonic()))
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGTERM)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def last_words(self) -> str:
        """Return the end of what it said."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-15:])

    def tracebacks(self) -> list[str]:
        """Return what stands around each traceback that it wrote."""
        before, *after = self._log.read_text(errors="replace").split(_TRACEBACK)
        return [f"{before[-300:]}{_TRACEBACK}{one[:3000]}" for one in after]
