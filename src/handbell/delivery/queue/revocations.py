"""Revocations: workers of other processes release sessions that changed their owner.

A process that takes a session from its owner writes one row for each listed worker. A worker
deletes its row once it has released the session; a dead worker is removed with its rows. A worker
sends under a lease that ends before it can be considered dead, so without rows nothing is in
flight any more, whatever happened to the workers.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import delete, insert, select

from handbell._chunks import chunks
from handbell._failures import log_failure
from handbell._thread_pool import ThreadPool
from handbell.storage.database import Database
from handbell.storage.group_commit import GroupCommit
from handbell.storage.signals import Kind
from handbell.storage.storage_retry import StorageRetry
from handbell.storage.tables import revocations, workers

from .poller import Poller
from .signal_listener import HeardNumbers, SignalListener
from .workers import Workers

LOOK_SECONDS: Final = 0.05
"""The polling interval of waiting callers, and of a busy worker."""

IDLE_LOOK_SECONDS: Final = 0.2
"""The polling interval of a worker with nothing in flight."""

SIGNALLED_LOOK_SECONDS: Final = 1.0
"""The polling interval while signals arrive, in case one is lost."""

_ID_BITS: Final = 53

_log = logging.getLogger(__name__)


class Revocation(NamedTuple):
    """Sessions that one worker must release."""

    id: int
    sessions: list[int]


class Revocations:
    """The revocations in one database. Every method is one transaction."""

    def __init__(self, database: Database, known_workers: Workers) -> None:
        self._database = database
        self._workers = known_workers

    def add(self, session_ids: Collection[int], apart_from: Collection[int] = ()) -> list[int]:
        """Request the release of sessions from every worker; return the rows to wait for.

        Call it once the change of the sessions is committed: what a worker reads afterwards
        reflects that. The workers ``apart_from`` are left out.
        """
        listed = select(workers.c.id).where(workers.c.id.not_in(apart_from))
        with self._database.read() as connection:
            if not session_ids or connection.scalar(listed) is None:
                return []
        named = json.dumps(sorted(session_ids))
        with self._database.write() as connection:
            rows = [
                # A random id: that of a deleted row must not be reused.
                {"id": secrets.randbits(_ID_BITS), "worker_id": worker, "sessions": named}
                # Locked, so that no worker is removed before its row refers to it.
                for worker in connection.scalars(listed.with_for_update(read=True, key_share=True))
            ]
            if rows:
                connection.execute(insert(revocations), rows)
                self._database.signal(Kind.REVOKED, [row["worker_id"] for row in rows])
        return [row["id"] for row in rows]

    def outstanding(self, ids: Collection[int]) -> set[int]:
        """Return which of these are not done yet, by one statement; dead workers do not count."""
        with self._database.read() as connection:
            has_dead = self._workers.has_dead(connection)
        if has_dead:
            self._workers.reclaim()
        with self._database.read() as connection:
            return {
                row
                for chunk in chunks(list(ids))
                for row in connection.scalars(
                    select(revocations.c.id).where(revocations.c.id.in_(chunk))
                )
            }

    def of(self, worker: int) -> list[Revocation]:
        """Return the open revocations of a worker."""
        statement = select(revocations.c.id, revocations.c.sessions).where(
            revocations.c.worker_id == worker
        )
        with self._database.read() as connection:
            return [
                Revocation(id_, json.loads(named)) for id_, named in connection.execute(statement)
            ]

    def confirm(self, ids: Collection[int]) -> None:
        """Record that a worker has nothing in flight to these sessions any more."""
        with self._database.write() as connection:
            connection.execute(delete(revocations).where(revocations.c.id.in_(ids)))
            self._database.signal(Kind.RELEASED, ids)

    def wait(self, session_ids: Collection[int]) -> None:
        """Make every worker release sessions, and return when all have; for commands."""
        left: Collection[int] = self.add(session_ids)
        while left := self.outstanding(left):
            time.sleep(LOOK_SECONDS)


class Revoker:
    """Revokes sessions in the workers of other processes; belongs to one event loop.

    Concurrent calls share a transaction, and waiting ones a query.
    """

    def __init__(
        self,
        store: Revocations,
        threads: ThreadPool,
        own_worker: Callable[[], int],
        *,
        signals: SignalListener,
    ) -> None:
        self._store = store
        self._threads = threads
        self._own_worker = own_worker
        self._signals = signals
        self._group_commit = GroupCommit(self._add)
        self._poller = Poller(
            lambda ids: threads.run(store.outstanding, ids),
            seconds=signals.pace(LOOK_SECONDS, SIGNALLED_LOOK_SECONDS),
        )
        signals.on(Kind.RELEASED, self._poller.tell)

    async def revoke(self, session_ids: Collection[int]) -> None:
        """Return when no other worker has anything in flight to these sessions.

        Raises StorageError if the request cannot be written.
        """
        self._signals.listen()
        told = await self._group_commit.bring(list(session_ids))
        for revocation in set().union(*told):
            await self._poller.until_over(revocation)

    def close(self, error: Exception) -> None:
        """Stop waiting; waiters get the error."""
        self._poller.close(error)

    async def _add(self, session_ids: Sequence[int]) -> list[list[int]]:
        named = set(session_ids)
        told = await self._threads.run(self._store.add, named, [self._own_worker()])
        return [told] * len(session_ids)


class RevocationListener:
    """Applies revocations addressed to one worker, when a signal says so or they are polled for.

    Belongs to its event loop. ``worker`` returns its id, ``release`` returns once nothing is in
    flight to the given sessions, ``is_busy`` tells whether anything is in flight at all.
    """

    def __init__(
        self,
        store: Revocations,
        *,
        storage_retry: StorageRetry,
        worker: Callable[[], int],
        release: Callable[[Collection[int]], Awaitable[None]],
        is_busy: Callable[[], bool],
        signals: SignalListener,
    ) -> None:
        self._store = store
        self._storage_retry = storage_retry
        self._worker = worker
        self._release = release
        self._is_busy = is_busy
        self._signals = signals
        self._told = asyncio.Event()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        signals.on(Kind.REVOKED, self._hear)

    async def run(self) -> None:
        """Apply revocations until cancelled."""
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._told.wait()
                self._told.clear()
                await self._look()
        finally:
            for task in self._tasks.values():
                task.cancel()

    def _pause(self) -> float:
        if self._signals.is_prompt:
            return SIGNALLED_LOOK_SECONDS
        return LOOK_SECONDS if self._is_busy() else IDLE_LOOK_SECONDS

    def _hear(self, workers: HeardNumbers) -> None:
        if workers is None or self._worker() in workers:
            self._told.set()

    async def _look(self) -> None:
        try:
            found = await self._storage_retry.call(self._store.of, self._worker())
        except Exception as error:  # noqa: BLE001 - others wait for the answer to the next one
            log_failure(_log, error, "Revocation check failed; retrying")
            return
        for revocation in found:
            if revocation.id not in self._tasks:
                task = asyncio.create_task(self._apply(revocation))
                self._tasks[revocation.id] = task

    async def _apply(self, revocation: Revocation) -> None:
        try:
            await self._release(revocation.sessions)
            await self._storage_retry.call(self._store.confirm, [revocation.id])
        except Exception as error:  # noqa: BLE001 - it is tried again
            log_failure(_log, error, "Could not apply revocation; retrying")
        finally:
            del self._tasks[revocation.id]
