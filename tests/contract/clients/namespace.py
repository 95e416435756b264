"""Run a command where the push services' names lead to a twin: ``namespace.py FOLDER COMMAND…``.

It is run in a network and a mount namespace of its own. There it starts the loopback interface,
lets ``/etc/hosts`` name an address of loopback for each name, and passes what comes to port 443 of
it on to the socket ``FOLDER/ADDRESS``, behind which the twin is. Nothing outside is changed.
"""

import asyncio
import contextlib
import fcntl
import socket
import struct
import subprocess
import sys
from pathlib import Path

PORT = 443
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


def main() -> int:
    """Prepare the namespace, run the command, and return its exit code."""
    folder = Path(sys.argv[1])
    _raise_loopback()
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)
    return asyncio.run(_run(list(folder.glob("127.*")), sys.argv[2:]))


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack_from("16xh", fcntl.ioctl(any_socket, _GET_FLAGS, asked))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _UP))


async def _run(paths: list[Path], command: list[str]) -> int:
    async with contextlib.AsyncExitStack() as servers:
        for path in paths:
            server = await asyncio.start_server(Relay(path).meet, path.name, PORT)
            await servers.enter_async_context(server)
        process = await asyncio.create_subprocess_exec(*command)
        return await process.wait()


class Relay:
    """Passes what comes on to a Unix socket, or to a port of loopback."""

    def __init__(self, to: Path | int) -> None:
        self._to = to

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until both ends have ended."""
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if isinstance(self._to, Path):
                inner, outer = await asyncio.open_unix_connection(self._to)
            else:
                inner, outer = await asyncio.open_connection("127.0.0.1", self._to)
            with contextlib.closing(outer):
                await asyncio.gather(_pump(reader, outer), _pump(inner, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


if __name__ == "__main__":
    sys.exit(main())
