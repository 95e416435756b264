"""A sink that says when each request came in: for one push at a time, where nginx is too coarse.

Run as ``python -m bench.arrivals FOLDER`` with the folder of a certificate authority. It writes the
port on its first line, then the instant of each request on the machine's monotonic clock.
"""

import asyncio
import sys
import time
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded

from handbell.twin.certificates import Authority


class _Connection(asyncio.Protocol):
    """Answers every request with 200."""

    def __init__(self) -> None:
        self._state = H2Connection(H2Configuration(client_side=False, header_encoding=None))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  for the type alone
        self._transport = transport
        self._state.initiate_connection()
        self._transport.write(self._state.data_to_send())

    def data_received(self, data: bytes) -> None:
        arrived = time.monotonic()
        for event in self._state.receive_data(data):
            if isinstance(event, DataReceived):
                size = event.flow_controlled_length
                self._state.acknowledge_received_data(size, event.stream_id)
            elif isinstance(event, StreamEnded):
                self._state.send_headers(event.stream_id, [(":status", "200")], end_stream=True)
                print(arrived, flush=True)
        self._transport.write(self._state.data_to_send())


async def _serve(folder: Path) -> None:
    context = Authority.open(folder).server_context()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
