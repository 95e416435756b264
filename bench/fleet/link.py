"""The way between a node and its database, which can be cut and restored."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

_CHUNK: Final = 65_536


class Link:
    """Carries TCP connections from a port of loopback to another one; runs in its own thread."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._carried: set[asyncio.Task[None]] = set()
        self._is_open = asyncio.Event()
        self._is_open.set()

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._listen())
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self, *, silently: bool) -> None:
        """Let nothing through: connections end, or stay open and are silent."""
        self._run(self._cut(silently=silently))

    def restore(self) -> None:
        """Let everything through again; what was silent goes on where it was."""
        self._loop.call_soon_threadsafe(self._is_open.set)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self, *, silently: bool) -> None:
        self._is_open.clear()
        if not silently:
            await self._drop_all()

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        self._is_open.set()
        await self._drop_all()

    async def _drop_all(self) -> None:
        for task in self._carried:
            task.cancel()
        if self._carried:
            await asyncio.wait(self._carried)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - it runs in one
        self._carried.add(task)
        task.add_done_callback(self._carried.discard)
        ends = [writer]
        try:
            await self._is_open.wait()
            onward, back = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(back)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, back))
                both.create_task(self._carry(onward, writer))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            pass  # whoever is connected sees the end
        finally:
            for end in ends:
                _reset(end)

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            await self._is_open.wait()
            to.write(data)
            await to.drain()
        raise ConnectionResetError("one side has ended")


def _reset(end: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        end.close()
