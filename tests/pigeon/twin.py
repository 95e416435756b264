"""The other side: a loft on a port of loopback, which answers as a test says."""

import asyncio
from types import TracebackType
from typing import Self

from .protocol import FLOWN


class Loft:
    """Knows one tune, and pigeons that have moved; ``flown`` holds what arrived, by ring."""

    def __init__(self, tune: str) -> None:
        self.tune = tune
        self.moved: set[str] = set()
        self.is_moulting = False
        self.flown: list[tuple[str, str]] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Open it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode().rstrip("\n"):
            writer.write(f"{self._answer(*line.split(' ', 2))}\n".encode())
        writer.close()

    def _answer(self, tune: str, ring: str, message: str) -> str:
        if tune != self.tune:
            return "WrongTune"
        if self.is_moulting:
            return "Moulting"
        if ring in self.moved:
            return "NeverCameBack"
        self.flown.append((ring, message))
        return FLOWN
