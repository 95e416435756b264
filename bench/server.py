"""The send server as it accepts: single calls, one stream of lines, and clients that mean no good.

Run as ``python -m bench.server {serve|work|calls|stream|slow} TASK``. The server is a process of
its own, and so are its clients: raw sockets with requests made beforehand, so that the client is
not the bound. Each send names another person, and says something of its own.
"""

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

import uvloop

from handbell._collector import settle
from handbell.server.application import create_application
from handbell.server.asgi_server import bind, make_context, serving
from handbell.system import System

from . import seed
from .figures import percentile
from .job import Job
from .programs import ROOT, output

CONNECTIONS: Final = 16
CALLS: Final = 10_000
LINES: Final = 100_000
SLOW_CLIENTS: Final = 200
PEOPLE: Final = 20_000
_PIECE: Final = 65_536
_DRIP_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a process of this bench is to do: ``count`` sends to the server at ``port``."""

    port: int = 0
    key: str = ""
    app: str = ""
    count: int = 0
    connections: int = CONNECTIONS
    works: bool = False
    job: dict[str, Any] | None = None

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the task of a command line."""
        return cls(**json.loads(text))

    def text(self) -> str:
        """Return the task as an argument of a command line."""
        return json.dumps(asdict(self))

    @property
    def head(self) -> str:
        """The first lines of each request."""
        return (
            f"POST /v1/apps/{self.app}/notifications HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Bearer {self.key}\r\n"
        )

    def line(self, number: int) -> bytes:
        """Return one send: a person of their own, and words of their own."""
        value = {
            "notification": {
                "title": f"Order {number}",
                "body": f"Hello user{number}, your order {number} is on its way",
            },
            "recipients": seed.MAIL.format(1 + number % PEOPLE),
        }
        return json.dumps(value, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What came of one round: ``milliseconds`` from a send's writing to its answer."""

    name: str
    sends: int
    seconds: float
    p50: float
    p99: float
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Sends accepted per second."""
        return self.sends / self.seconds


# -- the server ----------------------------------------------------------------------------------


async def serve(task: Task) -> None:
    """Serve a home until standard input ends; say where, then what it took of the CPU."""
    job = Job(**(task.job or {}))
    system = System(seed.settings(job))
    app = system.apps.list()[0]
    _, key = system.api_keys.add("bench", ["send"], app)
    with bind("127.0.0.1:0") as bound:
        port = bound.getsockname()[1]
        context = make_context(
            system, public_url=f"http://127.0.0.1:{port}", has_worker=task.works, has_console=False
        )
        if task.works:
            await system.engine.start()
        async with serving(create_application(context), bound, settings=system.settings):
            settle()
            _tell(port=port, key=key, app=app.id)
            before = 0.0
            while line := await asyncio.to_thread(sys.stdin.readline):
                # Each line asks for the CPU since the one before.
                used = resource.getrusage(resource.RUSAGE_SELF)
                total = used.ru_utime + used.ru_stime
                _tell(cpu=total - before, asked=line.strip())
                before = total
    await system.close()


async def work(task: Task) -> None:
    """Send what is stored in a home until standard input ends."""
    system = System(seed.settings(Job(**(task.job or {}))))
    await system.engine.start()
    _tell(works=True)
    await asyncio.to_thread(sys.stdin.read)
    await system.close()


# -- its clients ---------------------------------------------------------------------------------


class _Caller(asyncio.Protocol):
    """One connection kept alive: a request, its answer, the next request."""

    def __init__(self, requests: Iterator[bytes], taken: list[float]) -> None:
        self._requests = requests
        self._taken = taken
        self._buffer = b""
        self._written = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(rest) < length:
            return
        if not head.startswith(b"HTTP/1.1 202"):
            self.done.set_exception(RuntimeError(f"refused: {self._buffer[:300]!r}"))
            return
        self._taken.append(time.perf_counter() - self._written)
        self._buffer = rest[length:]
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(RuntimeError("the server closed a connection"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._written = time.perf_counter()
        self._transport.write(request)


async def calls(task: Task) -> None:
    """Make single calls on several connections and say how long each took."""
    requests = iter([_request(task, task.line(number)) for number in range(task.count)])
    taken: list[float] = []
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    callers = [
        (await loop.create_connection(lambda: _Caller(requests, taken), "127.0.0.1", task.port))[1]
        for _ in range(task.connections)
    ]
    await asyncio.gather(*(caller.done for caller in callers))
    _tell(seconds=time.perf_counter() - started, taken=taken)


def _request(task: Task, body: bytes) -> bytes:
    head = f"{task.head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def stream(task: Task) -> None:
    """Send one stream of lines while its answers are read, and say how long each line took."""
    body = b"".join(task.line(number) + b"\n" for number in range(task.count))
    pieces = [body[start : start + _PIECE] for start in range(0, len(body), _PIECE)]
    written: list[tuple[int, float]] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", task.port, limit=1 << 20)
    started = time.perf_counter()

    async def write() -> None:
        head = (
            f"{task.head}Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        writer.write(head.encode())
        lines = 0
        for piece in pieces:
            lines += piece.count(b"\n")
            written.append((lines, time.perf_counter()))
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    writing = asyncio.create_task(write())
    taken = await _read_answers(reader, task.count, written)
    seconds = time.perf_counter() - started
    await writing
    writer.close()
    _tell(seconds=seconds, taken=taken)


async def _read_answers(
    reader: asyncio.StreamReader, count: int, written: list[tuple[int, float]]
) -> list[float]:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"refused: {head!r}")
    taken: list[float] = []
    place = 0
    while size := int(await reader.readline(), 16):
        piece = (await reader.readexactly(size + 2))[:size]
        if b'"error"' in piece:
            raise RuntimeError(f"refused: {piece[:300]!r}")
        now = time.perf_counter()
        for _ in range(piece.count(b'"id"')):
            while written[place][0] <= len(taken):
                place += 1
            taken.append(now - written[place][1])
    if len(taken) != count:
        raise RuntimeError(f"{len(taken)} of {count} lines were accepted")
    return taken


async def slow(task: Task) -> None:
    """Drip requests that never end, until killed: headers, bodies and lines, a byte at a time."""
    await asyncio.gather(*(_drip(task, number) for number in range(task.count)))


async def _drip(task: Task, number: int) -> None:
    kind = ("application/json", "application/x-ndjson")[number % 2]
    head = f"{task.head}Content-Type: {kind}\r\nContent-Length: 100000\r\n\r\n".encode()
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", task.port)
            writer.write(head[: 40 + number % 3 * 1000])
            while not reader.at_eof() and not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(_DRIP_SECONDS)
        await asyncio.sleep(_DRIP_SECONDS)


# -- what is measured ----------------------------------------------------------------------------


class Server:
    """A server process over a home, while it is entered."""

    def __init__(self, job: Job, *, works: bool) -> None:
        task = Task(job=asdict(job), works=works)
        self._process = subprocess.Popen(
            _command("serve", task),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.task = replace(task, job=None, **self._answer())

    def __enter__(self) -> Self:
        self.cpu()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def cpu(self) -> float:
        """Return the seconds of CPU that the server used since this was asked before."""
        if self._process.stdin is not None:
            self._process.stdin.write("cpu\n")
            self._process.stdin.flush()
        return float(self._answer()["cpu"])

    def measure(self, name: str, part: str, count: int) -> Accepted:
        """Return what came of some sends, made by a client process of their own."""
        warm_up = replace(self.task, count=count // 10)
        output(_command(part, warm_up))
        self.cpu()
        answer = json.loads(output(_command(part, replace(self.task, count=count))))
        return Accepted(
            name=name,
            sends=count,
            seconds=answer["seconds"],
            p50=1000 * percentile(answer["taken"], 0.5),
            p99=1000 * percentile(answer["taken"], 0.99),
            cpu=1e6 * self.cpu() / count,
        )

    @contextmanager
    def beside_slow_clients(self) -> Iterator[None]:
        """Keep slow clients busy while the block runs."""
        task = replace(self.task, count=SLOW_CLIENTS)
        process = subprocess.Popen(_command("slow", task), cwd=ROOT)
        try:
            time.sleep(1)
            yield
        finally:
            process.kill()
            process.wait()

    def _answer(self) -> dict[str, Any]:
        said = self._process.stdout.readline() if self._process.stdout else ""
        answer: dict[str, Any] = json.loads(said)
        return answer


@contextmanager
def worker_beside(job: Job) -> Iterator[None]:
    """Run a worker over the job's home, in a process of its own, while the block runs."""
    command = _command("work", Task(job=asdict(job)))
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if process.stdout is not None:
            process.stdout.readline()
        yield
    finally:
        process.communicate(timeout=60)


def measure(job: Job, *, works: bool = False, is_beside: bool = False) -> list[Accepted]:
    """Return what a server over the job's home accepts: calls, a stream, calls beside slow ones.

    With ``works`` it sends what it accepts to the sink meanwhile; with ``is_beside`` a worker
    beside it does.
    """
    beside_it = worker_beside(job) if is_beside else nullcontext()
    with beside_it, Server(job, works=works) as server:
        figures = [
            server.measure("single calls", "calls", CALLS),
            server.measure("one stream of lines", "stream", LINES),
        ]
        with server.beside_slow_clients():
            beside = f"single calls beside {SLOW_CLIENTS} slow clients"
            figures.append(server.measure(beside, "calls", CALLS))
    return figures


def middle(rounds: Sequence[Accepted]) -> Accepted:
    """Return the round whose rate is the median."""
    return sorted(rounds, key=lambda one: one.rate)[len(rounds) // 2]


def _command(part: str, task: Task) -> list[str]:
    return [sys.executable, "-m", "bench.server", part, task.text()]


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


_PARTS: Final[dict[str, Callable[[Task], Coroutine[Any, Any, None]]]] = {
    "serve": serve,
    "work": work,
    "calls": calls,
    "stream": stream,
    "slow": slow,
}

if __name__ == "__main__":
    uvloop.run(_PARTS[sys.argv[1]](Task.read(sys.argv[2])))
