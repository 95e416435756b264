"""Checks before a send is stored: is it valid, can it be sent, and to which devices."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time
from typing import Any, Final, NamedTuple

from handbell.apps.app import App
from handbell.creation.notification import Notification, has_any, has_only
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import GatewayName, Target
from handbell.delivery.ledger.listing import TEST_MARK
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.policy.schedule import (
    LocalTime,
    SendAt,
    due_at,
    is_near,
    read_send_at,
    refuse_past,
)
from handbell.delivery.urgency import BULK, NORMAL, URGENT
from handbell.delivery.work.composed import is_loud
from handbell.delivery.work.gateway_finder import FindGateway
from handbell.diagnostic import Diagnostic
from handbell.errors import HandbellError, NotificationError
from handbell.gateways.wordings import Wordings
from handbell.registry.session import Environment
from handbell.registry.store import Registry

from .composing import (
    USUAL_ORDER,
    compose_for,
    compose_for_targets,
    forms_for,
    forms_left_out,
    forms_of_targets,
    reached,
    shares_devices,
)
from .resolve import ResolvedRecipients, resolve_many, sample_locations, sample_targets
from .send_store import SendStore
from .store import Acceptance, Order

URGENCIES: Final = {"urgent": URGENT, "normal": NORMAL, "bulk": BULK}
LONGEST_KEY: Final = 255
"""How long an idempotency key may be, in characters."""

_TEXTS: Final = frozenset({"title", "subtitle", "body", "title_loc_key", "loc_key"})
_ORDINARY: Final = _TEXTS | {
    "subtitle_loc_key",
    "title_loc_args",
    "subtitle_loc_args",
    "loc_args",
    "launch_image",
    "badge",
    "color",
    "sound",
    "url",
    "image_url",
    "thread_id",
    "category",
    "target_content_id",
    "filter_criteria",
    "mutable_content",
    "content_available",
    "user_info",
    "languages",
    "collapse_id",
    "priority",
    "ttl",
    "shorten",
}
_ORDINARY_BYTES: Final = 1500
_APPLES: Final = ["apns"]
_PRIORITIES: Final = frozenset({None, 5, 10})
_COLLAPSE_ID: Final = re.compile(r"[!-~]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of a send: time, urgency, idempotency.

    ``send_at`` is an instant or a local time in each recipient's zone; ``urgency`` is ``urgent``,
    ``normal`` or ``bulk`` and says who goes first (without it: normal for named recipients, bulk
    for everybody). An ``idempotency_key`` makes a repeated call return the first one's answer.
    ``is_test`` marks it in the ledger as one that somebody sent to try it out.
    """

    send_at: SendAt | None = None
    urgency: str | None = None
    idempotency_key: str | None = None
    is_development: bool = False
    is_test: bool = False

    @classmethod
    def read(
        cls,
        *,
        send_at: object = None,
        urgency: str | None = None,
        idempotency_key: str | None = None,
        is_development: bool = False,
        is_test: bool = False,
    ) -> "Options":
        """Parse options. Raises NotificationError for an invalid one."""
        if urgency is not None and urgency not in URGENCIES:
            raise NotificationError(
                f"The urgency is {urgency[:40]!r}", fix=f"Use one of {', '.join(URGENCIES)}"
            )
        if "\0" in (idempotency_key or ""):
            # PostgreSQL stores none, and the sends that are stored with it would fail as well.
            raise NotificationError("The idempotency key holds a zero", fix="Use a UUID, say")
        if idempotency_key is not None and not 1 <= len(idempotency_key) <= LONGEST_KEY:
            raise NotificationError(
                f"The idempotency key is empty or over {LONGEST_KEY} characters",
                fix="Use a UUID, say",
            )
        return cls(
            send_at=None if send_at is None else read_send_at(send_at),
            urgency=urgency,
            idempotency_key=idempotency_key,
            is_development=is_development,
            is_test=is_test,
        )


class Entry(NamedTuple):
    """One send of a batch. ``key`` is the credential of an app that is not registered."""

    app: App
    notification: Notification
    recipients: Recipients
    options: Options = Options()
    key: Any = None


@dataclass(slots=True, kw_only=True)
class Prepared:
    """A checked entry: ready to be stored, already answered, or refused with an ``error``.

    ``accepted`` is its own answer once it is stored, or that of the send which had its idempotency
    key first. ``targets`` is None for everybody. ``wordings`` are what goes to each push service;
    None where nothing was composed yet.
    """

    entry: Entry
    order: Order
    targets: list[Target] | None
    warnings: list[str]
    wordings: Mapping[str, Wordings] | None = None
    accepted: Acceptance | None = None
    error: HandbellError | None = None

    @property
    def is_stored(self) -> bool:
        """Whether this call stored it: neither refused nor answered before."""
        return self.error is None and self.accepted is not None and not self.accepted.is_former


def is_ordinary(order: Order) -> bool:
    """Return whether an order is for an alert that Apple takes from any app, without a doubt.

    Such a one can be composed without an error, makes a sound where an app's cap counts it, and
    needs no warning; a test holds it to that. Others may be as good.
    """
    content = order.content
    if not (has_only(content, _ORDINARY) and has_any(content, _TEXTS)):
        return False
    collapse_id = content.collapse_id
    return (
        # A URL is written twice, and what is around the texts takes less than the rest.
        len(order.text.encode()) <= _ORDINARY_BYTES
        and (collapse_id is None or _COLLAPSE_ID.fullmatch(collapse_id) is not None)
        and content.priority in _PRIORITIES
    )


def _named(entry: Entry) -> dict[str, Any]:
    """Return the recipients of a send as the ledger stores them."""
    named = entry.recipients.to_record()
    return {**named, TEST_MARK: True} if entry.options.is_test else named


_Problems = dict[tuple[Any, ...], HandbellError | None]
"""Why there is no way for an app, a key, a gateway and an environment; None where there is one."""


class SendPreparer:
    """Checks sends before they are stored. Reads the database, writes nothing; methods block."""

    def __init__(
        self,
        sends: SendStore,
        registry: Registry,
        *,
        rules_store: RulesStore,
        find_gateway: FindGateway,
        seal: Callable[[Any], bytes],
        now: Callable[[], float] = time,
    ) -> None:
        self._sends = sends
        self._rules_store = rules_store
        self._registry = registry
        self._find_gateway = find_gateway
        self._seal = seal
        self._now = now

    def prepare(
        self,
        entries: Sequence[Entry],
        *,
        is_sent_now: Callable[[App], bool] = lambda _: True,
    ) -> list[Prepared]:
        """Check sends. A fault of one is its ``error`` and does not affect the others.

        A known idempotency key is answered before any other check. For an app of which
        nothing ``is_sent_now``, what is certain to fit is not composed for the look alone.
        """
        at = int(self._now() * 1000)
        orders = [self._order(entry, at) for entry in entries]
        plans = self._plans(
            [(one.app, one.recipients, one.options.is_development) for one in entries],
            sample=sample_locations,
        )
        prepared = [
            Prepared(entry=entry, order=order, targets=plan.targets, warnings=plan.warnings)
            for entry, order, plan in zip(entries, orders, plans, strict=True)
        ]
        gateways: _Problems = {}
        for one, former in zip(prepared, self._sends.former(orders), strict=True):
            if isinstance(former, HandbellError):
                one.error = former
            elif former is not None:
                one.accepted = former
            else:
                self._check(one, at / 1000, gateways, composes=is_sent_now(one.entry.app))
            if one.entry.recipients.everybody:
                if not one.targets:
                    one.warnings.append(
                        Diagnostic(
                            f"Nobody has a device: {one.entry.app.id} has no active session.",
                            reason="NoDevice",
                        )
                    )
                one.targets = None
        return prepared

    def _order(self, entry: Entry, at: int) -> Order:
        options, everybody = entry.options, entry.recipients.everybody
        return Order(
            app=entry.app,
            content=entry.notification,
            recipients=_named(entry),
            created_at=at,
            urgency=URGENCIES[options.urgency or ("bulk" if everybody else "normal")],
            send_at=options.send_at,
            is_development=options.is_development,
            sealed_key=None if entry.key is None else self._seal(entry.key),
            idempotency_key=options.idempotency_key,
        )

    def _check(
        self,
        one: Prepared,
        now: float,
        gateways: _Problems,
        *,
        composes: bool,
    ) -> None:
        entry, send_at = one.entry, one.entry.options.send_at
        starts = now if send_at is None else max(now, due_at(send_at, None))
        try:
            forms = self._forms(one)
            if composes or forms != _APPLES or not is_ordinary(one.order):
                self._compose(one, forms, starts)
            if send_at is not None:
                one.warnings.extend(self.check_send_time(entry, send_at, one.targets or (), now))
            self._require_a_way(entry, one.targets or (), gateways)
        except HandbellError as error:
            one.error = error

    def _forms(self, one: Prepared) -> list[str]:
        """Return the forms in which a send may go out."""
        app = one.entry.app
        if one.entry.recipients.everybody:
            return forms_for(app, self._sends.other_forms(app))
        return forms_of_targets(one.targets or ()) or forms_for(app)

    def _compose(self, one: Prepared, forms: Sequence[str], starts: float) -> None:
        entry, named = one.entry, one.targets
        what: dict[str, Any] = {
            "app": entry.app,
            "now": starts,
            "notification_id": one.order.public_id,
        }
        order = self._service_order(entry.app, named or ())
        if named and not entry.recipients.everybody:
            composed = compose_for_targets(named, entry.notification, **what, order=order)
        else:
            composed = compose_for(forms, entry.notification, **what)
        one.wordings = composed.wordings
        one.warnings.extend(composed.warnings)
        if not is_loud(entry.notification):
            one.order = replace(one.order, is_loud=False)
        if entry.recipients.everybody:
            one.warnings.extend(forms_left_out(composed))
        elif one.targets is not None and len(forms) > 1:
            one.targets, left_out = reached(one.targets, composed, order)
            one.warnings.extend(left_out)

    def _service_order(self, app: App, targets: Sequence[Target]) -> Sequence[str]:
        """Return the order of push services for devices with several; few sends need to ask."""
        if not shares_devices(targets):
            return USUAL_ORDER
        return self._rules_store.rules_of(app.id).service_order

    def check_send_time(
        self, entry: Entry, send_at: SendAt, targets: Iterable[Target], now: float
    ) -> list[str]:
        """Return warnings about a send time. Raises NotificationError for one in the past."""
        if not isinstance(send_at, LocalTime):
            return refuse_past(send_at, (), now)
        zones: Iterable[str | None] = {target.time_zone for target in targets}
        # Of everybody the targets are the first ones only, and a sample where the zone matters.
        if entry.recipients.everybody and is_near(send_at, now):
            zones = self._registry.time_zones(entry.app)
        default = self._rules_store.rules_of(entry.app.id).time_zone
        return refuse_past(send_at, zones, now, default)

    def _require_a_way(
        self,
        entry: Entry,
        targets: Iterable[Target],
        gateways: _Problems,
    ) -> None:
        problem: HandbellError | None = None
        for name, environment in {(target.gateway, target.environment) for target in targets}:
            fingerprint = None if entry.key is None else entry.key.fingerprint
            way = (entry.app.id, fingerprint, name, environment)
            if way not in gateways:
                gateways[way] = self._problem_of(entry.app, entry.key, name, environment)
            problem = gateways[way]
            if problem is None:
                return
        if problem is not None:
            raise problem

    def _problem_of(
        self, app: App, key: Any, name: GatewayName, environment: Environment
    ) -> HandbellError | None:
        try:
            self._find_gateway(app, key, name, environment)
        except HandbellError as error:
            return error
        return None

    def plan(
        self, app: App, recipients: Recipients, *, is_development: bool = False
    ) -> ResolvedRecipients:
        """Return the targets of a send; for a broadcast a sample of the first sessions."""
        (plan,) = self._plans([(app, recipients, is_development)])
        return plan

    def _plans(
        self,
        wanted: Sequence[tuple[App, Recipients, bool]],
        sample: Callable[..., list[Target]] = sample_targets,
    ) -> list[ResolvedRecipients]:
        plans: dict[int, ResolvedRecipients] = {}
        named: dict[tuple[str, bool], list[int]] = {}
        for place, (app, recipients, is_development) in enumerate(wanted):
            if recipients.everybody:
                targets = sample(app, self._registry, is_development=is_development)
                plans[place] = ResolvedRecipients(targets)
            else:
                named.setdefault((app.id, is_development), []).append(place)
        for (_, is_development), places in named.items():
            found = resolve_many(
                wanted[places[0]][0],
                [wanted[place][1] for place in places],
                self._registry,
                environment="development" if is_development else "production",
                is_development=is_development,
            )
            plans.update(zip(places, found, strict=True))
        return [plans[place] for place in range(len(wanted))]
