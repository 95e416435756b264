"""The command ``handbell`` without its start: each run is a fork of an interpreter that has begun.

Most tests of the command line are about what a command does and says, in a process, an environment
and a folder of its own; the imports before are the same each time, and cost ten times as much.
:data:`COMMAND` is the command as it is installed, for all that is about the process itself: how it
starts, which signals it takes, what its terminal is.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

COMMAND: Final = Path(sys.executable).with_name("handbell")
"""The command as it is installed."""

_LENGTH: Final = struct.Struct(">I")
_CALLER: Final = """#!{python} -IS
import json, os, socket, struct, sys
asking = socket.socket(socket.AF_UNIX)
asking.connect({address!r})
names = {{key.decode("latin-1"): value.decode("latin-1") for key, value in os.environb.items()}}
arguments = [os.fsencode(argument).decode("latin-1") for argument in sys.argv[1:]]
said = json.dumps([arguments, names, os.getcwd()]).encode()
socket.send_fds(asking, [struct.pack(">I", len(said))], [0, 1, 2])
asking.sendall(said)
for number in (0, 1, 2):
    os.close(number)
code = asking.recv(1)
os._exit(code[0] if code else 99)
"""


@functools.cache
def preloaded() -> Path:
    """Return a command that does as ``handbell`` does; it lives as long as this process."""
    kept = tempfile.TemporaryDirectory(prefix="handbell-tests-", ignore_cleanup_errors=True)
    folder = Path(kept.name)
    address = folder / "asked"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(address))
        listening.listen(64)
        env = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        # Its standard input ends with this process, however that ends.
        server = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            env=env,
            stdin=subprocess.PIPE,
            pass_fds=[listening.fileno()],
        )
    caller = folder / "handbell"
    caller.write_text(_CALLER.format(python=sys.executable, address=str(address)), "utf-8")
    caller.chmod(0o700)

    def end() -> None:
        server.communicate()
        kept.cleanup()

    atexit.register(end)
    return caller


def _serve(listening: socket.socket) -> None:
    """Fork for each command that is asked for, until standard input ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listening.fileno(), 0], [], [])
        if 0 in ready:
            return
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(asked)
        asked.close()


def _answer(asked: socket.socket) -> None:
    """Fork once more and run the command there; tell how it ended."""
    head, numbers, _, _ = socket.recv_fds(asked, _LENGTH.size, 3)
    said = b""
    while len(said) < _LENGTH.unpack(head)[0]:
        said += asked.recv(65536)
    arguments, names, folder = json.loads(said)
    command = os.fork()
    if command == 0:
        asked.close()
        for to, number in enumerate(numbers):
            os.dup2(number, to)
            os.close(number)
        os.environb.clear()
        os.environb.update(
            {name.encode("latin-1"): value.encode("latin-1") for name, value in names.items()}
        )
        os.chdir(folder)
        sys.argv = ["handbell", *(os.fsdecode(one.encode("latin-1")) for one in arguments)]
        _run()
    for number in (*numbers, 0, 1, 2):
        os.close(number)
    _, status = os.waitpid(command, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        asked.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def _run() -> None:
    """Run the command on the standard streams of its caller; the interpreter ends with it."""
    from handbell.cli import main  # noqa: PLC0415 - loaded by now

    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if name == "stderr" else "strict"
        stream = open(number, mode, encoding="utf-8", errors=errors, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    random.seed()
    main()


def _load() -> None:
    """Import what commands import."""
    import alembic.command  # noqa: PLC0415
    import alembic.config  # noqa: PLC0415, F401

    import handbell.cli.application  # noqa: PLC0415
    import handbell.remote  # noqa: PLC0415
    import handbell.system  # noqa: PLC0415, F401


if __name__ == "__main__":
    _load()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
