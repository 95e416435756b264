"""One HTTP/1.1 connection, on ``h11``, and the injected faults as far as HTTP/1.1 has them.

There are no streams to reset: what ends one ends the connection, and ``goaway`` is
``connection: close``.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final, cast

import h11

from handbell.twin.faults import Fault

from .exchange import Request, TwinResponse
from .http2 import KEPT_BODY_BYTES, MAX_BODY_BYTES
from .side import Port

_BAD_REQUEST: Final = 400
_CUTTING: Final = ("reset", "refuse-stream", "cut")

logger = logging.getLogger(__name__)


class Http1Connection(asyncio.Protocol):
    """One connection, which answers one request after the other."""

    def __init__(self, server: Port) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._h11 = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._size = 0
        self._memory: Any = None
        self._is_answering = self._is_ending = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._heard_at = self._loop.time()
        self._transport: asyncio.Transport | None = None

    # Connection lifecycle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over an open connection."""
        # uvloop's transports have asyncio.Transport's methods but another base class.
        transport = self._transport = cast("asyncio.Transport", transport)
        session = transport.get_extra_info("ssl_object")
        self._memory = self._server.side.connect(session.getpeercert(binary_form=True))
        self._watch_idle()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's name
        """Forget what was pending."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._server.discard(self)

    def shut_down(self) -> None:
        """Close once a request in progress is answered."""
        self._is_ending = True
        if not self._is_answering and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the TCP connection."""
        if self._transport is not None:
            self._transport.abort()

    def _later(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        def run() -> None:
            self._timers.discard(timer)
            function(*args)

        timer = self._loop.call_later(seconds, run)
        self._timers.add(timer)

    def _watch_idle(self) -> None:
        left = self._heard_at + self._server.idle_seconds - self._loop.time()
        if left > 0:
            self._later(left, self._watch_idle)
        else:
            self.shut_down()

    # Received data

    def data_received(self, data: bytes) -> None:
        """Process what the client sent."""
        self._heard_at = self._loop.time()
        self._read_on(data)

    def _read_on(self, data: bytes = b"") -> None:
        try:
            if data:  # h11 takes none of it as the end of the connection
                self._h11.receive_data(data)
            self._read()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint)
        except Exception:
            logger.exception("Twin connection failed on a request")
            self.abort()

    def _read(self) -> None:
        while not self._is_answering:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._write(h11.InformationalResponse(status_code=100, headers=[]))
                return
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                return
            if isinstance(event, h11.Request):
                self._request, self._size = event, 0
                self._body.clear()
            elif isinstance(event, h11.Data):
                self._size += len(event.data)
                self._body += event.data[: max(0, KEPT_BODY_BYTES - len(self._body))]
                if self._size > MAX_BODY_BYTES:
                    self.abort()
                    return
            elif isinstance(event, h11.EndOfMessage):
                self._on_request()

    def _on_request(self) -> None:
        if self._request is None:
            return
        headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in self._request.headers
        )
        request = Request(
            self._request.method.decode("ascii"),
            self._request.target.decode("ascii", "replace"),
            headers,
            bytes(self._body),
            self._size,
            dict(headers).get("host", ""),
        )
        self._is_answering = True
        exchange, self._memory = self._server.side.handle(request, self._memory)
        if exchange.fault is None:
            self._answer(exchange.answer)
        else:
            self._strike(exchange.answer, exchange.fault)

    def _refuse(self, status: int) -> None:
        if self._h11.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            self._is_ending = True
            self._answer(TwinResponse(status or _BAD_REQUEST, ()))
        else:
            self.abort()

    # Sent data

    def _strike(self, answer: TwinResponse | None, fault: Fault) -> None:
        if fault.kind in _CUTTING:
            self.abort()
        elif fault.kind == "slow":
            self._later(fault.seconds or 0.0, self._answer, answer)
        elif fault.kind == "goaway":
            self._is_ending = True
            if fault.graceful:
                self._answer(answer)
            else:
                self.abort()
        elif fault.kind != "silence":
            self._answer(answer, is_cut=fault.kind == "cut-answer")

    def _answer(self, answer: TwinResponse | None, *, is_cut: bool = False) -> None:
        transport = self._transport
        if answer is None or transport is None or transport.is_closing():
            return
        headers = [*answer.headers, ("content-length", str(len(answer.body)))]
        if self._is_ending:
            headers.append(("connection", "close"))
        events: list[h11.Event] = [
            h11.Response(status_code=answer.status, headers=headers, reason=b"")
        ]
        if is_cut:
            events.append(h11.Data(data=answer.body[: len(answer.body) // 2]))
        else:
            if answer.body and self._request is not None and self._request.method != b"HEAD":
                events.append(h11.Data(data=answer.body))
            events.append(h11.EndOfMessage())
        self._write(*events)
        if is_cut:
            transport.close()
            return
        self._is_answering = False
        if self._h11.our_state is h11.MUST_CLOSE or self._is_ending:
            transport.close()
        elif self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            if self._h11.trailing_data[0]:
                self._loop.call_soon(self._read_on)

    def _write(self, *events: h11.Event) -> None:
        """Write at once: the second of two small packets waits for the client's acknowledgement."""
        data = b"".join(self._h11.send(event) or b"" for event in events)
        if data and self._transport is not None:
            self._transport.write(data)
