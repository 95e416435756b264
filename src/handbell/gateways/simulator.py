"""Xcode's Simulator as a push service: ``xcrun simctl push`` with the payload on stdin.

Works on a Mac with Xcode 11.4 or later. Anywhere else every push is refused with a detail that
says so; a missing Mac does not affect the other recipients.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from handbell.services.reactions import Reaction

from .gateway import Message, Push, Report
from .outcomes import Accepted, Outcome, Refused, Unknown, Withdrawn

UNAVAILABLE: Final = "SimulatorUnavailable"
"""The reason when this machine has no ``xcrun``."""
UNSUPPORTED: Final = "SimulatorUnsupported"
"""The reason for a push type that the Simulator does not support."""
FAILED: Final = "SimulatorFailed"
"""The reason when ``simctl`` failed; the detail is its output."""
TIMED_OUT: Final = "SimulatorTimedOut"
"""The reason when ``simctl`` timed out."""

TIMEOUT_SECONDS: Final = 30.0
AT_ONCE: Final = 4
PUSH_TYPES_TAKEN: Final = ("alert", "background")

_DETAIL_CHARACTERS = 500
_REST_SECONDS: Final = 0.1


class SimulatorGateway:
    """Delivers to simulators on this Mac. Implements :class:`~handbell.gateways.gateway.Gateway`.

    ``search_path`` is where ``xcrun`` is searched, ``PATH`` by default. Each push has ``timeout``
    seconds, 30 by default; four run at a time.
    """

    def __init__(
        self, *, bundle_id: str, timeout: float = TIMEOUT_SECONDS, search_path: str | None = None
    ) -> None:
        self._bundle_id = bundle_id
        self._timeout = timeout
        self._search_path = search_path
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._may_begin: Callable[[], bool] = lambda: True
        self._waiting: dict[str, Push] = {}

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Push each to its simulator and report each outcome; a push's failure is not raised."""
        xcrun = shutil.which("xcrun", path=self._search_path)
        async with asyncio.TaskGroup() as tasks:
            for push in batch:
                tasks.create_task(self._send_one(xcrun, push, report))

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Begin pushes only while ``may_begin`` returns true; the others wait."""
        self._may_begin = may_begin

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Withdraw pushes that have not begun."""
        for push in [push for push in self._waiting.values() if is_meant(push)]:
            del self._waiting[push.id]

    async def close(self) -> None:
        """Do nothing: each push is its own process, which ends within :meth:`send`."""

    async def _send_one(self, xcrun: str | None, push: Push, report: Report) -> None:
        self._waiting[push.id] = push
        outcome: Outcome = Withdrawn()
        async with self._slots:
            while push.id in self._waiting and not self._may_begin():  # noqa: ASYNC110
                await asyncio.sleep(
                    _REST_SECONDS
                )  # polling: there is no event when the permission returns
            if self._waiting.pop(push.id, None) is not None:
                outcome = await self._outcome(xcrun, push)
        report(push, outcome)

    async def _outcome(self, xcrun: str | None, push: Push) -> Outcome:
        if xcrun is None:
            return _refused(
                UNAVAILABLE,
                "A simulator needs a Mac with Xcode 11.4 or later: no xcrun found here.",
            )
        if not _is_taken(push.message):
            return _refused(
                UNSUPPORTED,
                f"A simulator takes no notifications of the push type {push.message.push_type}.",
            )
        try:
            async with asyncio.timeout(self._timeout):
                return await self._run(Path(xcrun), push)
        except TimeoutError:
            return Unknown(TIMED_OUT, f"simctl did not end within {self._timeout:g} seconds.")
        except OSError as error:
            return _refused(UNAVAILABLE, f"xcrun cannot be run: {error.strerror}.")

    async def _run(self, xcrun: Path, push: Push) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            xcrun,
            "simctl",
            "push",
            push.address,
            self._bundle_id,
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # Its own process group, so that a hanging push is ended with all its children.
            start_new_session=True,
        )
        try:
            output, complained = await process.communicate(push.message.payload)
        finally:
            await _end(process)
        if process.returncode == 0:
            return Accepted(push.id)
        detail = (complained or output).decode(errors="replace").strip()
        return _refused(
            FAILED, detail[:_DETAIL_CHARACTERS] or f"simctl ended with {process.returncode}"
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill a running process and its children, and wait for its end."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()


def _is_taken(message: Message) -> bool:
    return message.push_type in PUSH_TYPES_TAKEN


def _refused(reason: str, detail: str) -> Refused:
    # Never FIX_CONFIGURATION, which would stop the app's real devices as well.
    return Refused(reason, Reaction.FIX_NOTIFICATION, status=0, detail=detail)
