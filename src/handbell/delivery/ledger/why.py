"""Explain why a person saw a notification or did not, in plain words.

:func:`why` reads registry and ledger for one person and returns facts together with sentences. It
is read-only.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from handbell._mail import fold_mail
from handbell._text import count, moment, sentence
from handbell.apps.app import App
from handbell.delivery.delivery import Delivery
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.meanings import meaning
from handbell.delivery.policy.retry import SERVICE_DOWN
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.policy.schedule import LocalTime
from handbell.delivery.policy.zones import find_zone
from handbell.delivery.queue.workers import Workers
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.composed import Composed
from handbell.errors import HandbellError
from handbell.fixes import Action, Fix, with_app
from handbell.registry.session import Session
from handbell.registry.store import Registry

from .blockers import cautions, obstacles
from .device_stories import (
    DeliveryStory,
    SessionStory,
    answered,
    at_second,
    capital,
    dated,
    first_of_devices,
    fix_sentence,
    goes_on,
    is_to_mend,
    says_more,
    tell_moving,
    tell_sent,
    tell_session,
    tried_until,
)
from .reports import describe, describe_recipients
from .store import Ledger, PendingShard

NOTIFICATIONS: Final = 5
"""The number of notifications that a story covers by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationStory:
    """One notification's deliveries to the person. ``created_at`` is in UNIX milliseconds.

    ``note`` explains a missing delivery: there was no device, or (``is_ahead``) its turn has
    not come.
    """

    id: str
    title: str
    recipients: str
    created_at: int
    deliveries: tuple[DeliveryStory, ...] = ()
    is_ahead: bool = False
    note: str = ""

    @property
    def is_sent(self) -> bool:
        """Return whether the push service accepted it for at least one device."""
        return any(delivery.delivery.state == "sent" for delivery in self.deliveries)

    @property
    def label(self) -> str:
        """Return the notification's text and time, for readers to recognise it."""
        return f"{self.title!r} of {moment(self.created_at)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """The answer and its evidence. ``str()`` returns the whole text.

    ``is_sent`` is whether the last notification was accepted by the push service for at least one
    device. ``obstacles`` are what blocks the whole app, ``to_do`` the fixes, the most pressing
    first; ``cautions`` are refused keys of the app that another one replaces. Sessions and
    notifications come newest first.
    """

    mail: str
    app: str
    is_sent: bool
    answer: str
    to_do: tuple[str, ...]
    obstacles: tuple[str, ...]
    cautions: tuple[str, ...]
    sessions: tuple[SessionStory, ...]
    notifications: tuple[NotificationStory, ...]

    def __str__(self) -> str:
        return "\n".join([self.answer, *self.details()])

    def details(self, worded: Callable[[str], str] = str) -> list[str]:
        """Return the lines below the answer; ``worded`` renders a fix."""
        lines = [*(f"  To do: {worded(item)}" for item in self.to_do)]
        if held := [*self.obstacles, *self.cautions]:
            lines += ["", "Sending", *(f"  {item}" for item in held)]
        lines += ["", "Devices"]
        lines += [f"  {session.what}" for session in self.sessions] or ["  none"]
        for entry in self.notifications:
            lines += [
                "",
                f"{entry.label}, to {entry.recipients} ({entry.id})",
            ]
            lines += [f"  {' '.join(_parts(delivery, worded))}" for delivery in entry.deliveries]
            lines += [f"  {entry.note}"] if entry.note else []
        return lines


def why(
    app: App,
    mail: str,
    *,
    registry: Registry,
    ledger: Ledger,
    rules_store: RulesStore,
    known_workers: Workers,
    now: float,
    limit: int = NOTIFICATIONS,
) -> Story:
    """Explain the last notifications that concerned a person, and what happens next.

    ``limit`` is how many are included, ``now`` is in UNIX seconds.
    """
    mail = fold_mail(mail)
    found = registry.sessions_of(app, mail)
    ids = [session.id for session in found]
    rows = [
        (row, ledger.deliveries_to(ids, row.id)) for row in ledger.concerning(app, mail, ids, limit)
    ]
    sessions = dated(found, [delivery for _, deliveries in rows for delivery in deliveries])
    writer = _StoryWriter(app, mail, sessions, rules_store.rules_of(app.id), now)
    entries = tuple(
        writer.notification(row, deliveries, ledger.ahead(ids, row.id)) for row, deliveries in rows
    )
    return writer.story(entries, workers=known_workers.live_workers())


def _parts(one: DeliveryStory, worded: Callable[[str], str]) -> list[str]:
    parts = (f"{one.delivery.label}:", one.what, one.next, worded(one.fix))
    return [part for part in parts if part]


class _StoryWriter:
    """Builds the sentences about one person."""

    def __init__(
        self, app: App, mail: str, sessions: Sequence[Session], rules: AppRules, now: float
    ) -> None:
        self.app = app
        self.mail = mail
        self.rules = rules
        self.now = now
        self.zones = {session.id: session.time_zone for session in sessions}
        self.locales = {session.id: session.locale for session in sessions}
        firsts = first_of_devices(sessions, rules.service_order)
        self.sessions = tuple(
            tell_session(session, app.id, firsts.get(session.device_id or "", session))
            for session in sessions
        )

    # The whole story

    def story(self, entries: tuple[NotificationStory, ...], *, workers: int) -> Story:
        # Without waiting deliveries a missing worker does not matter.
        working = workers or int(not any(map(_waits, entries)))
        blocked = obstacles(self.app, self.rules, now=self.now, workers=working)
        warned = cautions(self.app, self.rules)
        last = entries[0] if entries else None
        return Story(
            mail=self.mail,
            app=self.app.id,
            is_sent=last is not None and last.is_sent,
            answer=" ".join([self._answer(last), *(item.what for item in blocked)]),
            to_do=self._to_do(last, [fix for item in blocked for fix in item.fixes])
            + tuple(fix for item in warned for fix in item.fixes),
            obstacles=tuple(item.what for item in blocked),
            cautions=tuple(item.what for item in warned),
            sessions=self.sessions,
            notifications=entries,
        )

    def _answer(self, last: NotificationStory | None) -> str:
        reach = self._reach()
        if last is None:
            return f"Nothing was sent to {self.mail} lately. {reach}"
        head = f"The last notification, {last.label},"
        if last.is_sent:
            sent = [delivery for delivery in last.deliveries if delivery.delivery.state == "sent"]
            lead = next((item for item in sent if item.delivery.displayed_at), sent[0])
            where = f"{len(sent):,} of {count(len(last.deliveries), 'device')}"
            answer = f"{head} was sent to {where}. {lead.what}"
            return answer if self._is_reachable else f"{answer} {reach}"
        if not last.deliveries:
            verb = "has not arrived yet" if last.is_ahead else f"was not sent to {self.mail}"
            return f"{head} {verb}. {last.note}"
        lead = last.deliveries[0]
        verb = "has not arrived yet" if not lead.delivery.is_final else "was not sent"
        return " ".join(part for part in (f"{head} {verb}.", lead.what, lead.next) if part)

    @property
    def _is_reachable(self) -> bool:
        return any(session.is_sent_to for session in self.sessions)

    def _reach(self) -> str:
        number = sum(session.is_sent_to for session in self.sessions)
        if number:
            return f"{count(number, 'device')} can be reached."
        if not self.sessions:
            return f"{self.mail} has no device: no session of {self.app.name} was ever registered."
        return f"No device can be reached now. {self.sessions[0].what}"

    def _to_do(self, last: NotificationStory | None, fixes: list[str]) -> tuple[str, ...]:
        if last is not None:
            fixes += [delivery.fix for delivery in last.deliveries]
        if not self._is_reachable:
            fixes += [session.fix for session in self.sessions[:1]]
        if not self.sessions:
            lead = "Let the app register its device token for this mail, or do so by hand"
            fixes.append(Fix(Action.ADD_SESSION, lead, app=self.app.id, about=self.mail, end="."))
        each = dict.fromkeys(fix for fix in fixes if fix)
        return tuple(fix for fix in each if not any(says_more(other, fix) for other in each))

    def _fix(self, words: str, about: str = "") -> str:
        return fix_sentence(with_app(words, self.app.id, about))

    # One notification

    def notification(
        self, row: Any, deliveries: Sequence[Delivery], ahead: PendingShard | None
    ) -> NotificationStory:
        named = json.loads(row.recipients)
        content = json.loads(row.content)
        composed = self._composed(row)
        return NotificationStory(
            id=row.public_id,
            title=describe(content),
            recipients=describe_recipients(named),
            created_at=row.created_at,
            deliveries=tuple(self._delivery(one, composed, content) for one in deliveries),
            is_ahead=ahead is not None,
            note="" if deliveries and ahead is None else self._note(row, composed, ahead),
        )

    def _composed(self, row: Any) -> Composed | None:
        try:
            return Composed.read(row, AppState(self.app, self.rules))
        except HandbellError:
            # An unreadable notification is not sent, and its delivery says so.
            return None

    def _note(self, row: Any, composed: Composed | None, ahead: PendingShard | None) -> str:
        """Return why no delivery was made for the person."""
        if row.cancelled_at is not None:
            return f"It was cancelled at {moment(row.cancelled_at)}, before their turn came."
        if ahead is not None:
            return self._ahead(ahead, composed)
        earliest = min((one.session.created_at for one in self.sessions), default=None)
        if earliest is None:
            return f"{self.mail} has no device: no session was ever registered for this mail."
        if earliest > row.created_at:
            return f"They had no device then; the first was registered at {moment(earliest)}."
        now = "" if self._is_reachable else f" {self.sessions[0].what}"
        return f"They had no active device then.{now}"

    def _ahead(self, ahead: PendingShard, composed: Composed | None) -> str:
        """Return why a broadcast that has not reached the person yet waits."""
        if ahead.due_at <= self.now or ahead.reason is None:
            return "It goes to many, and their turn has not come yet."
        at, zone = at_second(ahead.due_at), ahead.zone or self.rules.time_zone
        match ahead.reason:
            case "Scheduled" if composed is not None and isinstance(composed.send_at, LocalTime):
                wall = datetime.fromtimestamp(ahead.due_at, find_zone(zone, self.rules.time_zone))
                return f"It waits until {wall:%H:%M} in {zone}, {at}."
            case "Scheduled":
                return f"It waits for its time, {at}."
            case "QuietHours" if self.rules.quiet is not None:
                held = f"quiet hours, {self.rules.quiet} in {zone}, hold it"
                return f"It waits: {held}. It is due at {at}."
        words, fix = meaning(ahead.reason)
        entry = f"It waits: {sentence(words)} It is looked at again at {at}. {self._fix(fix)}"
        return entry.strip()

    def _delivery(
        self, delivery: Delivery, composed: Composed | None, content: dict[str, Any]
    ) -> DeliveryStory:
        match delivery.state:
            case "sent":
                return tell_sent(delivery, composed, content, self._language(delivery, composed))
            case "held":
                return self._tell_held(delivery, composed)
            case "queued" | "sending":
                return tell_moving(delivery)
            case _:
                return self._tell_ended(delivery)

    def _language(self, delivery: Delivery, composed: Composed | None) -> str:
        """Return the language it was sent in; empty for a notification in only one."""
        if composed is None or (made := composed.made_by(delivery.gateway)) is None:
            return ""
        languages = made.languages
        if languages is None:
            return ""
        locale = self.locales.get(delivery.number)
        language = languages.wording_for(locale).language
        if language is not None:
            return f", in the language {language}"
        because = f"none of its languages is that of {locale}" if locale else "no locale is known"
        return f", in its own text ({because})"

    def _tell_held(self, delivery: Delivery, composed: Composed | None) -> DeliveryStory:
        reason = delivery.reason or ""
        if reason == SERVICE_DOWN:
            return self._tell_down(delivery, composed)
        words, fix = meaning(reason, gateway=delivery.gateway)
        if delivery.detail:
            is_more = delivery.detail.startswith(words)
            words = delivery.detail if is_more else f"{words}: {delivery.detail}"
        zone = self.zones.get(delivery.number)
        if reason == "QuietHours" and self.rules.quiet is not None:
            where = zone or self.rules.time_zone
            words = f"quiet hours, {self.rules.quiet} in {where}, hold it"
        if not delivery.attempts:
            return DeliveryStory(
                delivery=delivery,
                what=sentence(capital(words) if words.startswith("it ") else f"It waits: {words}"),
                next=goes_on(delivery),
                fix=self._fix(fix),
            )
        return DeliveryStory(
            delivery=delivery,
            what=f"{answered(delivery, words)} That was attempt {delivery.attempts}.",
            next=f"{goes_on(delivery)}{tried_until(composed, zone)}",
            fix=self._fix(fix) if is_to_mend(reason, delivery.gateway) else "",
        )

    def _tell_down(self, delivery: Delivery, composed: Composed | None) -> DeliveryStory:
        words, _ = meaning(SERVICE_DOWN, delivery.detail or "")
        attempts = f" That was attempt {delivery.attempts}." if delivery.attempts else ""
        until = tried_until(composed, self.zones.get(delivery.number))
        return DeliveryStory(
            delivery=delivery,
            what=f"It waits: {sentence(words)}{attempts}",
            next=f"It is sent as soon as pushes are accepted again.{until}",
        )

    def _tell_ended(self, delivery: Delivery) -> DeliveryStory:
        reason = delivery.reason or delivery.state.capitalize()
        words, fix = meaning(reason, gateway=delivery.gateway)
        if reason == "Capped" and self.rules.cap is not None:
            words = f"the cap of {self.rules.cap} was reached, so it was left out"
        detail = delivery.detail or ""
        if detail.startswith(words):
            # It says the same, and what the service said beside it.
            words, detail = detail, ""
        why_no_more = f" {sentence(capital(detail))}" if detail else ""
        what = answered(delivery, words) if delivery.attempts else sentence(capital(words))
        is_dead = delivery.state == "dead_letter"
        at = "" if delivery.finished_at is None else f" It ended at {moment(delivery.finished_at)}"
        attempts = f" after {count(delivery.attempts, 'attempt')}" if delivery.attempts else ""
        return DeliveryStory(
            delivery=delivery,
            what=f"{what}{why_no_more}{at}{attempts}.",
            next="It is a dead letter: kept, and sent no more by itself." if is_dead else "",
            fix=self._fix(fix, delivery.notification_id),
        )


def _waits(entry: NotificationStory) -> bool:
    return entry.is_ahead or any(not delivery.delivery.is_final for delivery in entry.deliveries)
