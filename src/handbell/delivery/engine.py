"""The engine: accepts sends, durably, and runs the worker that finishes them.

A send is stored with everything needed to finish it before it is confirmed. The same worker
code sends for a blocking ``send`` and for ``handbell worker``; unfinished sends of one process are
finished by the next one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager
from time import time
from typing import Any, Final, TypeGuard, TypeVar

from handbell._background import forever
from handbell._thread_pool import in_thread
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.accepted_events import accepted_events
from handbell.delivery.accept.prepare import Entry, Options, Prepared, SendPreparer
from handbell.delivery.accept.replacement import replacement_for
from handbell.delivery.accept.resolve import ResolvedRecipients
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.accept.store import Acceptance, Draft
from handbell.delivery.ledger.answer import LISTED_AT_MOST, answer
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.queue.due import Due
from handbell.delivery.queue.poller import Poller
from handbell.delivery.queue.revocations import Revocations, Revoker
from handbell.delivery.queue.signal_listener import SignalListener
from handbell.delivery.send.worker import Worker
from handbell.delivery.webhooks.sender import WebhookSender
from handbell.delivery.work.composed import Composed
from handbell.delivery.work.gateway_finder import FindGateway
from handbell.delivery.work.release_log import SessionSnapshot
from handbell.errors import HandbellError
from handbell.registry.store import Registry
from handbell.storage.group_commit import GroupCommit, Turn

from .events import SessionsReleased
from .response import Response

__all__ = ["LISTED_AT_MOST", "Acceptance", "Engine", "Entry", "Options"]

T = TypeVar("T")

CANCEL_SECONDS: Final = 10.0
"""How long a cancel waits for workers to release a broadcast."""

_LOOK_SECONDS: Final = 0.05
_WEBHOOK_SECONDS: Final = 15.0
_OVERLAPPING: Final = 2

Unread = Entry | Callable[[], Entry]
"""A send of a batch, or a function that parses one; it runs in a thread, so it may block.

A HandbellError that it raises is the send's outcome.
"""


class Engine:
    """Accepts and sends, within one event loop. ``seal`` encrypts an unregistered app's key.

    Concurrent sends are parsed within the context ``hold_templates`` returns.
    ``before_start`` is called in a thread before anything is taken; its error prevents the
    start. ``make_sender`` returns the sender of webhooks, or None if there are none. The
    ``pruner`` works each hour while the engine runs.
    """

    def __init__(
        self,
        *,
        sends: SendStore,
        ledger: Ledger,
        registry: Registry,
        worker: Worker,
        revocations: Revocations,
        signals: SignalListener,
        find_gateway: FindGateway,
        seal: Callable[[Any], bytes],
        hold_templates: Callable[[], AbstractContextManager[None]],
        before_start: Callable[[], None] = lambda: None,
        make_sender: Callable[[], WebhookSender | None],
        pruner: Pruner | None = None,
        now: Callable[[], float] = time,
    ) -> None:
        self.worker = worker
        self._sends = sends
        self._ledger = ledger
        self._intake = SendPreparer(
            sends,
            registry,
            rules_store=worker.rules_store,
            find_gateway=find_gateway,
            seal=seal,
            now=now,
        )
        self._seal = seal
        self._hold_templates = hold_templates
        self._before_start = before_start
        self._make_sender = make_sender
        self._pruner = pruner
        self._aside: list[asyncio.Task[None]] = []
        self._now = now
        self._starting: asyncio.Task[None] | None = None
        self._storing: set[asyncio.Task[Any]] = set()
        self._gathering = GroupCommit(self._accept_in_turn, overlapping=_OVERLAPPING)
        self._last_turn: Turn | None = None
        self._signals = signals
        self._revoker = Revoker(
            revocations, worker.threads, own_worker=lambda: worker.id, signals=signals
        )
        self._cancel_poller = Poller(
            lambda rows: worker.threads.run(ledger.in_hand, rows), seconds=_LOOK_SECONDS
        )

    async def start(self) -> None:
        """Begin to take work; called implicitly by the first send.

        Raises the error of a failed start, StorageError if the database cannot be written; the next
        call tries again.
        """
        if self._starting is None or _has_failed(self._starting):
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
        await in_thread(self._before_start)
        await self.worker.start()
        self._aside.append(asyncio.create_task(self._call_webhooks()))
        if self._pruner is not None:
            self._aside.append(asyncio.create_task(self._pruner.run()))

    async def _call_webhooks(self) -> None:
        """Call webhooks once there are any: one may be added while the engine runs."""
        await forever(self._call_webhooks_if_any, name="Calling webhooks", pause=_WEBHOOK_SECONDS)

    async def _call_webhooks_if_any(self) -> float:
        sender = await self.worker.storage_retry.call(self._make_sender)
        if sender is not None:
            await sender.run()
        return _WEBHOOK_SECONDS  # another process may add one

    async def stop(self, *, within: float | None = None) -> None:
        """Finish pushes in flight and release the rest; after ``within`` seconds also those.

        After a failed start this is optional, and raises nothing.
        """
        try:
            await self._stop(within)
        finally:
            self._signals.close()

    async def _stop(self, within: float | None) -> None:
        if self._storing:
            await asyncio.wait(self._storing, timeout=within)
        starting, self._starting = self._starting, None
        if starting is None:
            return
        await asyncio.wait([starting], timeout=within)
        starting.cancel()
        if not _has_failed(starting):
            await self.worker.stop(within=within)
        aside, self._aside = self._aside, []
        for task in aside:
            task.cancel()
        if aside:
            await asyncio.wait(aside, timeout=within)

    async def send(
        self,
        app: App,
        notification: Notification,
        recipients: Recipients,
        options: Options | None = None,
        *,
        key: Any = None,
    ) -> Response:
        """Accept a send and wait until each of its deliveries has ended or is held.

        Raises NotificationError for an invalid notification, and the error of the gateway look-up
        (no credential, no twin) if not a single target could be reached; nothing is
        stored then.
        """
        await self.start()
        acceptance, warnings = await self.accept(app, notification, recipients, options, key=key)
        await self.worker.settled(acceptance.row)
        return await in_thread(self.response, acceptance.id, warnings)

    async def accept(
        self,
        app: App,
        notification: Notification,
        recipients: Recipients,
        options: Options | None = None,
        *,
        key: Any = None,
    ) -> tuple[Acceptance, list[str]]:
        """Store a send and return at once, with warnings about recipients that are not reached.

        A known idempotency key is answered before any other check.
        """
        entry = Entry(
            app=app,
            notification=notification,
            recipients=recipients,
            options=options or Options(),
            key=key,
        )
        (accepted,) = await self.accept_gathered([entry])
        if isinstance(accepted, HandbellError):
            raise accepted
        return accepted, list(accepted.warnings)

    async def accept_gathered(
        self, entries: Sequence[Unread]
    ) -> Sequence[Acceptance | HandbellError]:
        """Like :meth:`accept_many`, in one step with concurrent callers."""
        return await self._gathering.bring(entries)

    async def accept_many(self, entries: Sequence[Unread]) -> list[Acceptance | HandbellError]:
        """Store many sends in one transaction and return at once, with the outcome of each.

        The fault of one entry is its error and does not affect the others. Raises
        StorageError when nothing could be stored.
        """
        return await self._finish(self._accept(entries, Turn()))

    async def _accept_in_turn(self, entries: Sequence[Unread]) -> list[Acceptance | HandbellError]:
        # What comes while a full step is being stored is checked meanwhile, and stored after it.
        self._last_turn = turn = Turn(self._last_turn)
        return await self._finish(self._accept(entries, turn))

    async def _finish(self, storing: Coroutine[Any, Any, T]) -> T:
        # A cancelled caller must not leave stored sends that were not begun.
        task = asyncio.create_task(storing)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return await asyncio.shield(task)

    async def _accept(
        self, entries: Sequence[Unread], turn: Turn
    ) -> list[Acceptance | HandbellError]:
        worker = (self.worker.id or None) if self._starting is not None else None
        with turn, self.worker.release_log.begin() as snapshot:
            # In one step: waking a thread twice waits twice for the interpreter lock.
            outcomes = await in_thread(self._prepare_and_store, entries, worker, turn)
            left = self._begin([one for one in outcomes if _is_stored(one)], snapshot)
            await self.worker.put(left)
            return [_outcome(one) for one in outcomes]

    def _prepare_and_store(
        self, unread: Sequence[Unread], worker: int | None, turn: Turn
    ) -> list[Prepared | HandbellError]:
        """Parse and check sends, and store the new ones.

        What exceeds the worker's capacity waits in the queue.
        """
        with self._hold_templates():
            read = [_read(one) for one in unread]
        entries = [one for one in read if isinstance(one, Entry)]
        prepared = self._store(entries, worker, turn) if entries else []
        following = iter(prepared)
        return [next(following) if isinstance(one, Entry) else one for one in read]

    def _store(self, entries: Sequence[Entry], worker: int | None, turn: Turn) -> list[Prepared]:
        room = self._room_for(entries, worker)
        prepared = self._intake.prepare(entries, is_sent_now=lambda app: room.get(app.id, 0) > 0)
        fresh = [one for one in prepared if one.error is None and one.accepted is None]
        turn.wait()
        # Looked at again, as the former step may have taken some of it.
        room = self._room_for(entries, worker)
        drafts: list[Draft] = []
        for one in fresh:
            left = room.get(one.entry.app.id, 0) - len(one.targets or ())
            room[one.entry.app.id] = left
            is_taken = left >= 0 and one.wordings is not None
            drafts.append(
                Draft(order=one.order, targets=one.targets, worker=worker if is_taken else None)
            )
        stored = self._sends.accept_many(drafts) if drafts else []
        for one, outcome in zip(fresh, stored, strict=True):
            if isinstance(outcome, HandbellError):
                one.error = outcome
            else:
                one.accepted = outcome
        return prepared

    def _room_for(self, entries: Sequence[Entry], worker: int | None) -> dict[str, int]:
        """Return how many pushes of each app the worker can take now, by the app's id."""
        if worker is None:
            return {}
        apps = {entry.app.id: entry.app for entry in entries}
        return {name: self.worker.app_states.room_of(app) for name, app in apps.items()}

    def plan(
        self, app: App, recipients: Recipients, *, is_development: bool = False
    ) -> ResolvedRecipients:
        """Return the targets of a send; for a broadcast a sample of the first sessions."""
        return self._intake.plan(app, recipients, is_development=is_development)

    def check_send_time(self, app: App, recipients: Recipients, options: Options) -> list[str]:
        """Return warnings about a send's time; store nothing.

        Raises NotificationError for a time in the past, as accepting it would.
        """
        if options.send_at is None:
            return []
        plan = self._intake.plan(app, recipients)
        entry = Entry(app=app, notification=Notification(title=app.name), recipients=recipients)
        return self._intake.check_send_time(entry, options.send_at, plan.targets, self._now())

    def _begin(self, stored: Sequence[Prepared], snapshot: SessionSnapshot) -> list[int]:
        """Emit events of sends just stored, and send what the worker has capacity for.

        Returns the rows left to the queue.
        """
        if self.worker.hooks:
            for event in accepted_events(stored, self._now()):
                self.worker.hooks.emit(event)
        taken = [(one, its) for one in stored if (its := self._composed(one)) is not None]
        composed, items = _columns(taken)
        self.worker.hand_over(composed, items, snapshot)
        begun = {id(one) for one, _ in taken}
        return [
            one.accepted.row for one in stored if one.accepted is not None and id(one) not in begun
        ]

    def _composed(self, one: Prepared) -> Composed | None:
        """Return a stored send as the worker sends it; None if it is left to the queue."""
        if one.accepted is None or not one.accepted.taken or one.wordings is None:
            return None
        order = one.order
        return Composed.fresh(
            order.content,
            one.wordings,
            self.worker.app_states.of(one.entry.app),
            row=one.accepted.row,
            public_id=order.public_id,
            urgency=order.urgency,
            created_at=order.created_at,
            send_at=order.send_at,
            is_development=order.is_development,
            key=one.entry.key,
        )

    async def release(self, session_ids: Collection[int]) -> None:
        """Send nothing more to sessions that were just closed or given to somebody else.

        Deliveries of any worker to them end as ``cancelled``. Returns when nothing is in flight to
        them any more, in any process, so that the change can be confirmed. Call it once the
        change is committed. A worker that does not answer delays it until its lease has expired.
        Raises StorageError if the request to other processes cannot be written.
        """
        if not session_ids:
            return
        began = asyncio.get_running_loop().time()
        await asyncio.gather(self.worker.release(session_ids), self._revoker.revoke(session_ids))
        waited = asyncio.get_running_loop().time() - began
        self.worker.hooks.emit(
            SessionsReleased(app="", at=self._now(), sessions=len(session_ids), waited=waited)
        )

    async def cancel(self, app: App, notification_id: str) -> int:
        """Cancel what is not sent yet, and return the number of deliveries that it caught.

        What was sent without an answer is not sent again, and does not count: it may have arrived.
        Waits until workers have released a broadcast, so that the number is exact, but at most
        :data:`CANCEL_SECONDS` for slow answers, which are then left out. Raises
        UnknownNotificationError when the app has no such notification.
        """
        ledger = self._ledger
        cancelling = await in_thread(ledger.begin_cancel, app, notification_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._cancel_poller.until_over(cancelling.row)
        return await in_thread(ledger.caught, cancelling)

    async def resend(self, app: App, notification_id: str | None = None) -> int:
        """Send the dead letters of a notification again, or all of an app; return their number.

        They wait as if they had just been accepted. Raises UnknownNotificationError when the app
        has no such notification.
        """
        resent = await in_thread(self._ledger.resend, app, notification_id)
        await self.worker.put(resent.rows)
        return resent.number

    async def replace(
        self, app: App, notification_id: str, notification: Notification, *, key: Any = None
    ) -> Response:
        """Send new content under the same collapse id to the recipients of a notification.

        Raises as :meth:`accept_replacement` does; waits as :meth:`send` does.
        """
        await self.start()
        acceptance = await self.accept_replacement(app, notification_id, notification, key=key)
        await self.worker.settled(acceptance.row)
        warnings = list(acceptance.warnings)
        return await in_thread(self.response, acceptance.id, warnings)

    async def accept_replacement(
        self, app: App, notification_id: str, notification: Notification, *, key: Any = None
    ) -> Acceptance:
        """Store new content for the recipients of a notification, and return at once.

        Unsent deliveries of the former one are cancelled. Raises NotificationError when it had
        no collapse id, and UnknownNotificationError.
        """
        former = await in_thread(self._ledger.find, app, notification_id)
        replacement = replacement_for(
            former,
            notification,
            app=app,
            other_forms=await in_thread(self._sends.other_forms, app),
            sealed_key=None if key is None else self._seal(key),
            now=self._now(),
        )
        await self.cancel(app, notification_id)
        # Deliveries in flight got the former content, and also get the new one.
        await self.worker.settled(former.id)
        acceptance = await in_thread(self._sends.accept, replacement.order, None)
        await self.worker.put([acceptance.row])
        return acceptance.warning(replacement.warnings)

    def response(
        self, notification_id: str, warnings: Iterable[str] = (), *, is_running: bool = False
    ) -> Response:
        """Return the response for a notification from the current state of the ledger."""
        return answer(self._ledger, notification_id, warnings, is_running=is_running)


def _columns(
    taken: Iterable[tuple[Prepared, Composed]],
) -> tuple[list[Composed], list[Due]]:
    """Return the deliveries that were taken along, and the notification of each."""
    composed: list[Composed] = []
    items: list[Due] = []
    for one, its in taken:
        mine = () if one.accepted is None else one.accepted.taken
        composed += [its] * len(mine)
        items += mine
    return composed, items


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _read(unread: Unread) -> Entry | HandbellError:
    if isinstance(unread, Entry):
        return unread
    try:
        return unread()
    except HandbellError as error:
        return error


def _is_stored(outcome: Prepared | HandbellError) -> TypeGuard[Prepared]:
    return isinstance(outcome, Prepared) and outcome.is_stored


def _outcome(prepared: Prepared | HandbellError) -> Acceptance | HandbellError:
    if isinstance(prepared, HandbellError):
        return prepared
    if prepared.error is not None:
        return prepared.error
    if prepared.accepted is None:
        raise ValueError("An entry was neither stored nor refused")
    return prepared.accepted.warning(prepared.warnings)
