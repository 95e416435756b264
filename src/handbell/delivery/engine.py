"""The engine: accepts sends, durably, and runs the worker that finishes them.

A send is stored with everything needed to finish it before the caller hears yes. The same worker
code sends for a blocking ``send`` and for ``handbell worker``; what one process leaves behind, the
next one finishes.
"""

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from time import time
from typing import Any, Final, TypeVar

from handbell._background import forever
from handbell._threads import in_thread
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.plain import PlainSend
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.plain import PlainBatch, PlainStored, event_of
from handbell.delivery.accept.prepare import Entry, Intake, Options, Prepared
from handbell.delivery.accept.resolve import Plan
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.accept.store import Acceptance, Draft, Order
from handbell.delivery.ledger.answer import LISTED_AT_MOST, answer
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.queue.revocations import Revocations, Revoker
from handbell.delivery.queue.waiting import Waiting
from handbell.delivery.send.worker import Worker
from handbell.delivery.webhooks.sender import WebhookSender
from handbell.delivery.work.composed import Composed, is_loud
from handbell.delivery.work.gateway_finder import FindGateway
from handbell.delivery.work.push_batch import Portion
from handbell.delivery.work.session_readings import Reading
from handbell.errors import HandbellError, NotificationError
from handbell.gateways.apns.wording_cache import compose_each
from handbell.registry.store import Registry
from handbell.storage.group_commit import GroupCommit

from .events import NotificationAccepted, SessionsReleased
from .ids import NO_ID
from .response import Response

__all__ = ["LISTED_AT_MOST", "Acceptance", "Engine", "Entry", "Options"]

T = TypeVar("T")

CANCEL_SECONDS: Final = 10.0
"""How long a cancel waits for workers to let go of a broadcast."""

_LOOK_SECONDS: Final = 0.05
_RUSH: Final = 8
_WEBHOOK_SECONDS: Final = 15.0
PlainOne = tuple[str, tuple[str, ...]]
"""The public id of a plain send that is stored, and its warnings."""


class Engine:
    """Accepts and sends, within one event loop. ``seal`` closes the key of an unregistered app.

    ``make_sender`` gives what calls the webhooks, or None where there are none. The ``pruner``
    works each hour while the engine runs.
    """

    def __init__(
        self,
        *,
        sends: SendStore,
        ledger: Ledger,
        registry: Registry,
        worker: Worker,
        revocations: Revocations,
        find_gateway: FindGateway,
        seal: Callable[[Any], bytes],
        make_sender: Callable[[], WebhookSender | None],
        pruner: Pruner | None = None,
        now: Callable[[], float] = time,
    ) -> None:
        self.worker = worker
        self._sends = sends
        self._ledger = ledger
        self._intake = Intake(
            sends,
            registry,
            rules_store=worker.rules_store,
            find_gateway=find_gateway,
            seal=seal,
            now=now,
        )
        self._seal = seal
        self._make_sender = make_sender
        self._pruner = pruner
        self._aside: list[asyncio.Task[None]] = []
        self._now = now
        self._starting: asyncio.Task[None] | None = None
        self._storing: set[asyncio.Task[Any]] = set()
        self._gathering = GroupCommit(self.accept_many)
        self._gathering_plain = GroupCommit(self._accept_plain)
        self._revoker = Revoker(revocations, worker.threads, own=lambda: worker.id)
        self._cancelling = Waiting(
            lambda rows: worker.threads.run(ledger.in_hand, rows), seconds=_LOOK_SECONDS
        )

    async def start(self) -> None:
        """Begin to take work; called by itself at the first send.

        Raises what a start meets, StorageError where the database cannot be written; the next call
        tries anew.
        """
        if self._starting is None or _has_failed(self._starting):
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
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
        """Finish what is on its way and give back the rest, also what takes longer than ``within``.

        A start that failed needs no stop, and raises nothing here.
        """
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
        """Accept a send and wait until each of its deliveries has ended, or waits for its time.

        Raises NotificationError when the notification cannot be sent as it stands, and the error of
        the way there (no credential, no twin) when not one target could be reached; nothing is
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
        """Store a send and return at once, with the warnings about who will not be reached.

        A known idempotency key is answered before anything else is looked at.
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
        self, entries: Sequence[Entry]
    ) -> Sequence[Acceptance | HandbellError]:
        """Do as :meth:`accept_many` does, together with whoever calls at the same time."""
        return await self._gathering.bring(entries)

    async def accept_many(self, entries: Sequence[Entry]) -> list[Acceptance | HandbellError]:
        """Store many sends in one transaction and return at once, with the outcome of each.

        An entry that cannot be sent has its error and is no matter to the others. Raises
        StorageError when nothing could be stored.
        """
        return await self._finish(self._accept(entries))

    async def _finish(self, storing: Coroutine[Any, Any, T]) -> T:
        # A caller that gives up waiting must not leave behind what was stored and not begun.
        task = asyncio.create_task(storing)
        self._storing.add(task)
        task.add_done_callback(self._storing.discard)
        return await asyncio.shield(task)

    def has_room(self, app: App) -> bool:
        """Return whether something of what an app sends now would go out at once."""
        return self._starting is not None and self.worker.app_states.room_of(app) > 0

    @property
    def is_rushed(self) -> bool:
        """Whether so many call at once that all are served sooner if what they send waits a moment.

        What is stored as plain meanwhile is taken in larger lots, at a third less work for each.
        """
        return self._gathering.callers + self._gathering_plain.callers >= _RUSH

    async def accept_plain(self, app: App, sends: Sequence[PlainSend]) -> PlainStored | None:
        """Store plain sends in one transaction and return at once; none is begun at once.

        Returns None where they have to be looked at one by one: :meth:`accept_gathered` does that.
        Raises StorageError when nothing could be stored.
        """
        if not sends:
            return PlainStored(ids=(), warnings={})
        (stored,) = await self._finish(self._store_plain([(app, sends)]))
        return stored

    async def accept_plain_gathered(self, app: App, send: PlainSend) -> PlainOne | None:
        """Store a plain send, together with whoever calls at the same time; not begun at once.

        Returns its id and warnings, or None where it has to be looked at as
        :meth:`accept_gathered` does. Raises StorageError when nothing could be stored.
        """
        (stored,) = await self._gathering_plain.bring([(app, send)])
        return stored

    async def _accept_plain(
        self, asked: Sequence[tuple[App, PlainSend]]
    ) -> Sequence[PlainOne | None]:
        if self.is_rushed:
            self.worker.take_in_lots()
        groups: dict[str, tuple[App, list[PlainSend], list[int]]] = {}
        for place, (app, send) in enumerate(asked):
            _, sends, places = groups.setdefault(app.id, (app, [], []))
            sends.append(send)
            places.append(place)
        stored = await self._finish(
            self._store_plain([(app, sends) for app, sends, _ in groups.values()])
        )
        outcomes: list[PlainOne | None] = [None] * len(asked)
        for (_, _, places), of_app in zip(groups.values(), stored, strict=True):
            if of_app is not None:
                for turn, place in enumerate(places):
                    outcomes[place] = (of_app.ids[turn], of_app.of(turn))
        return outcomes

    async def _store_plain(
        self, groups: Sequence[tuple[App, Sequence[PlainSend]]]
    ) -> list[PlainStored | None]:
        batches, stored = await in_thread(self._keep_plain, groups)
        for batch, of_app in zip(batches, stored, strict=True):
            if batch is not None and of_app is not None and self.worker.hooks:
                self.worker.hooks.emit(event_of(batch, of_app, at=self._now()))
        self.worker.wake()
        return stored

    def _keep_plain(
        self, groups: Sequence[tuple[App, Sequence[PlainSend]]]
    ) -> tuple[list[PlainBatch | None], list[PlainStored | None]]:
        batches = [self._intake.prepare_plain(app, sends) for app, sends in groups]
        good = [batch for batch in batches if batch is not None]
        stored = iter(self._sends.accept_plain(*good) if good else ())
        return batches, [None if batch is None else next(stored) for batch in batches]

    async def _accept(self, entries: Sequence[Entry]) -> list[Acceptance | HandbellError]:
        worker, room = None, {}
        if self._starting is not None:
            worker = self.worker.id or None
            apps = {id(entry.app): entry.app for entry in entries}.values()
            room = {app.id: self.worker.app_states.room_of(app) for app in apps}
        with self.worker.releases.begin() as reading:
            # In one step: a thread that has to be woken twice waits twice for the interpreter.
            prepared = await in_thread(self._prepare_and_store, entries, worker, room)
            self._begin([one for one in prepared if one.is_stored], reading)
            return [_outcome(one) for one in prepared]

    def _prepare_and_store(
        self, entries: Sequence[Entry], worker: int | None, room: dict[str, int]
    ) -> list[Prepared]:
        """Look at sends and store what is fresh. ``room`` is the worker's by app, and used up.

        What the worker has no room for waits for its turn.
        """
        is_full = all(places <= 0 for places in room.values())
        prepared = self._intake.prepare(entries, composes=not is_full)
        fresh = [one for one in prepared if one.error is None and one.accepted is None]
        drafts = []
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

    def plan(self, app: App, recipients: Recipients, *, is_development: bool = False) -> Plan:
        """Return whom a send would reach; of everybody, the first ones only."""
        return self._intake.plan(app, recipients, is_development=is_development)

    def look_at_time(self, app: App, recipients: Recipients, options: Options) -> list[str]:
        """Return what a sender should know of the time that a send names, and store nothing.

        Raises NotificationError for a time in the past, as accepting it would.
        """
        if options.send_at is None:
            return []
        plan = self._intake.plan(app, recipients)
        entry = Entry(app=app, notification=Notification(title=app.name), recipients=recipients)
        return self._intake.look_at_time(entry, options.send_at, plan.targets, self._now())

    def _begin(self, stored: Sequence[Prepared], reading: Reading) -> None:
        """Tell of sends that were just stored, and send what the worker has room for."""
        portions = []
        for one in stored:
            self._tell_accepted(one)
            if one.accepted is not None and one.accepted.taken and one.wordings is not None:
                entry, acceptance = one.entry, one.accepted
                app_state = self.worker.app_states.of(entry.app)
                order = one.order
                composed = Composed.fresh(
                    order.content,
                    one.wordings,
                    app_state,
                    row=acceptance.row,
                    public_id=order.public_id,
                    urgency=order.urgency,
                    created_at=order.created_at,
                    send_at=order.send_at,
                    is_development=order.is_development,
                    key=entry.key,
                )
                portions.append(Portion(composed, acceptance.taken))
        self.worker.hand_over(portions, reading)
        if len(portions) < len(stored):
            self.worker.wake()

    def _tell_accepted(self, prepared: Prepared) -> None:
        if prepared.accepted is None or not self.worker.hooks:
            return
        targets = prepared.targets
        self.worker.hooks.emit(
            NotificationAccepted(
                app=prepared.entry.app.id,
                at=self._now(),
                notification_id=prepared.accepted.id,
                targets=None if targets is None else len(targets),
            )
        )

    async def release(self, session_ids: Collection[int]) -> None:
        """Send nothing more to sessions that were just closed or given to somebody else.

        What any worker has in hand for them ends as ``cancelled``. Returns when nothing of it is on
        its way any more, whichever process has it, so that whoever asked for the change may be
        told: nothing comes after. Call it once the change is committed. A worker that does not
        answer holds it up until its lease has run out. Raises StorageError where the workers of
        other processes cannot be told.
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
        """Take back what is not sent yet, and return how many deliveries that caught.

        Waits for workers that are about a broadcast to let go of it, so that the number is right;
        but not longer than :data:`CANCEL_SECONDS` for answers that are slow, which it then leaves
        out. Raises UnknownNotificationError when the app has no such notification.
        """
        ledger = self._ledger
        cancelling = await in_thread(ledger.begin_cancel, app, notification_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self._cancelling.until_over(cancelling.row)
        return await in_thread(ledger.caught, cancelling)

    async def replace(
        self, app: App, notification_id: str, notification: Notification, *, key: Any = None
    ) -> Response:
        """Send new content under the same collapse id to those who got a notification.

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
        """Store new content for those who got a notification, and return at once.

        What of the former one is not sent yet is cancelled. Raises NotificationError when it had
        no collapse id, and UnknownNotificationError.
        """
        former = await in_thread(self._ledger.find, app, notification_id)
        collapse_id = Notification.read(json.loads(former.content)).collapse_id
        if collapse_id is None:
            raise NotificationError(
                f"{notification_id} was sent without a collapse id, so it cannot be replaced",
                fix="Send with collapse_id what may have to be replaced",
            )
        content = dataclasses.replace(notification, collapse_id=collapse_id)
        wordings = compose_each(
            content, bundle_id=app.bundle_id, now=self._now(), notification_id=NO_ID
        )
        await self.cancel(app, notification_id)
        # What was on its way got the former content, and is to get the new one.
        await self.worker.settled(former.id)
        order = Order(
            app=app,
            content=content,
            recipients={"replaces": notification_id},
            urgency=former.urgency,
            is_development=former.is_development,
            is_loud=is_loud(content, wordings.own.message),
            sealed_key=None if key is None else self._seal(key),
            source=former.id,
            replaces=notification_id,
        )
        acceptance = await in_thread(self._sends.accept, order, None)
        self.worker.wake()
        return acceptance.warning(wordings.warnings)

    def response(
        self, notification_id: str, warnings: Iterable[str] = (), *, is_running: bool = False
    ) -> Response:
        """Return the answer for a notification as the ledger stands now."""
        return answer(self._ledger, notification_id, warnings, is_running=is_running)


def _has_failed(task: asyncio.Task[None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _outcome(prepared: Prepared) -> Acceptance | HandbellError:
    if prepared.error is not None:
        return prepared.error
    if prepared.accepted is None:
        raise ValueError("An entry was neither stored nor refused")
    return prepared.accepted.warning(prepared.warnings)
