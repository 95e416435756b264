"""Makes stored webhook calls, with retries for up to three days.

Calls are leased, so that a crash strands none.
"""

import asyncio
import json
import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, func, select, update

from handbell._back_off import BackOff
from handbell._background import forever
from handbell._thread_pool import ThreadPool, in_thread
from handbell.apps.vault import Vault
from handbell.errors import HandbellError, StorageError
from handbell.storage.database import Database
from handbell.storage.leases import Leases
from handbell.storage.tables import webhook_calls as calls_table
from handbell.storage.tables import webhooks as webhooks_table

from .call_target import CallResult
from .safe_http import OutboundOptions
from .store import Webhook, iso, message_id, signature

_log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS: Final = 60
LONGEST_RETRY_SECONDS: Final = 6 * 3600
RETRIES: Final = BackOff(FIRST_RETRY_SECONDS, 2, LONGEST_RETRY_SECONDS)
LIFETIME_SECONDS: Final = 3 * 24 * 3600
"""How long a call is tried; after that it has failed."""
LEASE_SECONDS: Final = 120
"""After this long another sender makes a call whose sender was not heard of again."""
LEASES: Final = Leases(calls_table, "due_at", "lease", seconds=LEASE_SECONDS)
KEPT_SECONDS: Final = 7 * 24 * 3600
"""How long a call that is over is kept."""

_STOP_SECONDS: Final = 5.0
_PRUNE_EVERY_SECONDS: Final = 3600
_PRUNED_AT_ONCE: Final = 1000


def next_attempt(
    attempts: int,
    *,
    created_at: float,
    now: float,
    rng: random.Random,
    retry_after: float | None = None,
) -> float | None:
    """Return when a failed call is retried (UNIX seconds), or None to give up.

    ``attempts`` is how many were made. The delay is ``60 * 2 ** (attempts - 1)`` seconds, at most
    six hours, plus up to a quarter by chance, and not less than what the receiver asked for (at
    most six hours). Nothing is tried later than three days after ``created_at``.
    """
    asked = min(retry_after or 0, LONGEST_RETRY_SECONDS)
    at = now + RETRIES.spread(max(attempts - 1, 0), rng, at_least=asked)
    return at if at <= created_at + LIFETIME_SECONDS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A leased call. ``attempts`` includes this one; instants are UNIX milliseconds."""

    id: int
    webhook_id: int
    message_id: str
    body: str
    attempts: int
    created_at: int
    url: str
    sealed_secret: bytes


class WebhookSender:
    """Makes the calls that are due, in threads: at most one at a time for each webhook.

    Run :meth:`run` as a task, and cancel it to stop: calls on their way are broken off within a
    second or so and are due again at once. Several senders may share a database. ``outbound`` says
    which addresses may be called, ``at_once`` how many webhooks are called at the same time,
    ``now`` returns UNIX seconds.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        *,
        outbound: OutboundOptions | None = None,
        at_once: int = 16,
        poll_seconds: float = 1.0,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._vault = vault
        self._outbound = outbound or OutboundOptions()
        self._at_once = at_once
        self._poll_seconds = poll_seconds
        self._now = now
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._lease = uuid4().hex
        self._stop = threading.Event()
        self._threads = ThreadPool(at_once + 1, "handbell-webhook")
        self._running: dict[int, asyncio.Task[None]] = {}
        self._taking: asyncio.Future[list[_Call]] | None = None
        self._pruned_at = float("-inf")

    async def run(self) -> None:
        """Make calls as they become due, until cancelled. A sender runs once."""
        try:
            await forever(self._turn, name="Calling webhooks", pause=self._poll_seconds)
        finally:
            await self._end()

    async def send_due(self) -> int:
        """Make every call that is due, the next of a webhook after the last; return how many."""
        made = 0
        while started := await self._start_due():
            made += started
            await asyncio.gather(*self._running.values())
        return made

    def send_test(self, webhook: Webhook) -> CallResult:
        """Call a webhook at once with the event ``test`` and return the result.

        It is neither stored nor retried. Blocks until the call ends.
        """
        with self._database.read() as connection:
            statement = select(webhooks_table.c.sealed_secret).where(
                webhooks_table.c.id == webhook.id
            )
            sealed = connection.execute(statement).scalar_one()
        now = self._now()
        content = {"type": "test", "timestamp": iso(now), "data": {"app": webhook.app}}
        call = _Call(
            id=0,
            webhook_id=webhook.id,
            message_id=message_id(),
            body=json.dumps(content, separators=(",", ":")),
            attempts=1,
            created_at=int(now * 1000),
            url=webhook.url,
            sealed_secret=sealed,
        )
        return self._post(call)

    # -- in the event loop -----------------------------------------------------------------------

    async def _end(self) -> None:
        self._stop.set()
        ending: list[asyncio.Future[Any]] = list(self._running.values())
        if self._taking is not None:
            ending.append(self._taking)
        if ending:
            # A resolver may hang for longer; a thread that is in it only finds the stop.
            await asyncio.wait(ending, timeout=_STOP_SECONDS)
        try:
            await in_thread(self._give_back)
        except Exception as error:  # noqa: BLE001 - the lease ends by itself
            _log.warning("Could not release webhook calls: %s", error)

    async def _turn(self) -> float:
        if not await self._start_due():
            await self._rest()
        return 0.0

    async def _start_due(self) -> int:
        room = self._at_once - len(self._running)
        if not room:
            return 0
        self._taking = asyncio.ensure_future(
            self._threads.run(self._take, room, list(self._running))
        )
        # What a thread has taken is given back at the end, so it must be known when it is done.
        taken = await asyncio.shield(self._taking)
        for call in taken:
            self._running[call.webhook_id] = asyncio.create_task(self._carry(call))
        return len(taken)

    async def _carry(self, call: _Call) -> None:
        try:
            await self._threads.run(self._make, call)
        except StorageError as error:
            # Its lease ends, and it is made again under the same id.
            _log.warning(
                "Could not record webhook call: webhook=%d error=%s", call.webhook_id, error
            )
        except Exception:  # noqa: BLE001 - the others go on
            _log.exception("Webhook call failed; retrying: webhook=%d", call.webhook_id)
        finally:
            del self._running[call.webhook_id]

    async def _rest(self) -> None:
        if self._running:
            await asyncio.wait(
                list(self._running.values()),
                timeout=self._poll_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
        else:
            await asyncio.sleep(self._poll_seconds)

    # -- in threads ------------------------------------------------------------------------------

    def _take(self, room: int, busy: Iterable[int]) -> list[_Call]:
        """Take the oldest due call of each webhook that is not busy, under a lease."""
        now = self._milliseconds()
        self._prune()
        due = (
            select(func.min(calls_table.c.id))
            .join_from(calls_table, webhooks_table)
            .where(LEASES.is_due(now), webhooks_table.c.is_enabled)
            .where(calls_table.c.webhook_id.not_in(list(busy)))
            .group_by(calls_table.c.webhook_id)
            .limit(room)
        )
        with self._database.read() as connection:
            ids = list(connection.execute(due).scalars())
        if not ids:
            return []
        with self._database.write() as connection:
            return self._lease_calls(connection, ids, now)

    def _lease_calls(self, connection: Connection, ids: list[int], now: int) -> list[_Call]:
        # Another sender may have been faster since they were read.
        more = {"state": "sending", "attempts": calls_table.c.attempts + 1}
        taken = LEASES.take(connection, ids, self._lease, now, **more)
        columns = [calls_table.c[name] for name in _Call.__slots__ if name in calls_table.c]
        statement = (
            select(*columns, webhooks_table.c.url, webhooks_table.c.sealed_secret)
            .join_from(calls_table, webhooks_table)
            .where(calls_table.c.id.in_(taken))
        )
        return [_Call(**row) for row in connection.execute(statement).mappings()]

    def _make(self, call: _Call) -> None:
        try:
            answer = self._post(call)
        except Exception as error:  # noqa: BLE001 - it counts as an attempt, as any other
            _log.exception("Could not make webhook call: webhook=%d", call.webhook_id)
            answer = CallResult(None, f"internal error of Handbell: {type(error).__name__}")
        now = self._now()
        if answer.is_success:
            self._write(call, answer, state="sent", due_at=None)
        elif answer.status is None and self._stop.is_set():
            self._write(call, answer, state="queued", due_at=now)
        else:
            self._put_off(call, answer, now)

    def _post(self, call: _Call) -> CallResult:
        try:
            secret = self._vault.unseal(call.sealed_secret).decode()
        except HandbellError as error:
            return CallResult(None, error.what)
        body = call.body.encode()
        timestamp = int(self._now())
        headers = {
            "content-type": "application/json; charset=utf-8",
            "webhook-id": call.message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, call.message_id, timestamp, body),
        }
        return self._outbound.post(call.url, body, headers, stop=self._stop)

    def _put_off(self, call: _Call, answer: CallResult, now: float) -> None:
        again = next_attempt(
            call.attempts,
            created_at=call.created_at / 1000,
            now=now,
            rng=self._rng,
            retry_after=answer.retry_after,
        )
        if again is None:
            _log.error(
                "Webhook call given up: webhook=%d reason=%s", call.webhook_id, answer.reason
            )
        state = "failed" if again is None else "queued"
        self._write(call, answer, state=state, due_at=again)

    def _write(self, call: _Call, answer: CallResult, *, state: str, due_at: float | None) -> None:
        """Store the result of a call; after a failure delay the webhook's other calls."""
        now = self._milliseconds()
        values = {
            "state": state,
            "lease": None,
            "finished_at": now if due_at is None else None,
            "last_status": answer.status,
            "last_reason": answer.reason,
        }
        due = None if due_at is None else int(due_at * 1000)
        with self._database.write() as connection:
            LEASES.settle(connection, call.id, self._lease, due, **values)
            if state != "sent" and not self._stop.is_set():
                _hold_others(connection, call, now + FIRST_RETRY_SECONDS * 1000)

    def _give_back(self) -> None:
        """Release this sender's leases: the calls are due at once."""
        with self._database.write() as connection:
            LEASES.give_back(
                connection, self._lease, self._milliseconds(), state="queued", lease=None
            )

    def _prune(self) -> None:
        now, at = self._now(), self._clock()
        if at - self._pruned_at < _PRUNE_EVERY_SECONDS:
            return
        old = select(calls_table.c.id).where(
            calls_table.c.finished_at < int((now - KEPT_SECONDS) * 1000)
        )
        statement = delete(calls_table).where(calls_table.c.id.in_(old.limit(_PRUNED_AT_ONCE)))
        with self._database.write() as connection:
            removed = connection.execute(statement).rowcount
        if removed < _PRUNED_AT_ONCE:
            self._pruned_at = at

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def _hold_others(connection: Connection, call: _Call, until: int) -> None:
    """Delay the other calls of the same webhook by a minute, to spare a dead receiver.

    No longer, so that one call which the receiver never takes does not keep the others.
    """
    waiting = and_(
        calls_table.c.webhook_id == call.webhook_id,
        calls_table.c.state == "queued",
        calls_table.c.due_at < until,
    )
    connection.execute(update(calls_table).where(waiting).values(due_at=until))
