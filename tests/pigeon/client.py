"""The gateway to a loft: pushes in, outcomes out, a line for each."""

import asyncio
from collections.abc import Callable, Sequence

from handbell.gateways.gateway import Push, Report
from handbell.gateways.outcomes import RetryLater, Withdrawn
from handbell.services.reactions import Reaction

from .credential import Whistle
from .verdict import judge


class PigeonGateway:
    """A loft on this machine, reached with one whistle; implements ``Gateway``."""

    def __init__(self, *, credential: Whistle, port: int, now: Callable[[], float]) -> None:
        self.fingerprint = credential.fingerprint
        self._tune = credential.tune
        self._port = port
        self._now = now
        self._may_begin: Callable[[], bool] = lambda: True

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Let a pigeon go for each push, and report how each ended."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            for push in batch:
                report(push, RetryLater("CannotConnect", Reaction.RECONNECT))
            return
        for push in batch:
            if not self._may_begin():
                report(push, Withdrawn())
                continue
            line = f"{self._tune} {push.address} ".encode() + push.message.payload + b"\n"
            sent_at = int(self._now() * 1000)
            writer.write(line)
            answer = (await reader.readline()).decode().strip()
            report(push, judge(answer, push.id, sent_at))
        writer.close()
        await writer.wait_closed()

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Begin only while ``may_begin`` returns true."""
        self._may_begin = may_begin

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Withdraw nothing: whatever was let go has flown."""

    async def close(self) -> None:
        """Have nothing open."""
