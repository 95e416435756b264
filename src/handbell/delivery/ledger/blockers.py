"""What blocks all sends of an app, and how to fix it."""

from dataclasses import dataclass
from typing import Literal

from handbell._text import moment, sentence
from handbell.apps.app import App
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.circuit import CircuitStop
from handbell.delivery.policy.decision import UNREACHED
from handbell.delivery.policy.meanings import meaning
from handbell.delivery.policy.standing import Key
from handbell.fixes import Action, Fix, as_sentence, with_app
from handbell.services.table import service_of

Kind = Literal["stopped", "outage", "disabled", "no-key", "no-worker", "passed-over"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """A reason why nothing is sent: a headline, details, and the fix, in that order.

    ``since`` is in UNIX seconds, None if unknown.
    """

    kind: Kind
    headline: str
    more: str = ""
    fixes: tuple[str, ...] = ()
    since: float | None = None

    @property
    def what(self) -> str:
        """Return everything except the fix."""
        return f"{self.headline} {self.more}".strip()


def obstacles(
    app: App, rules: AppRules, *, now: float, workers: int, has_key: bool = True
) -> list[Blocker]:
    """Return the obstacles of an app, the most pressing first; ``now`` is in UNIX seconds."""
    found = [] if has_key else [_no_key(app)]
    found += [_stopped(app, stop) for stop in rules.stops]
    found += [_outage(stop) for stop in rules.outages(now)]
    if not rules.is_enabled:
        found.append(_disabled(app))
    if not workers:
        found.append(_no_worker())
    return found


def cautions(app: App, rules: AppRules) -> list[Blocker]:
    """Return problems that block nothing: refused credentials that another one replaces."""
    return [_passed_over(app, *caution) for caution in rules.cautions]


def _passed_over(app: App, key: Key, stop: CircuitStop) -> Blocker:
    words, _ = meaning(stop.reason, gateway=stop.service)
    name = f"the {key.kind} {key.key_id}"
    lead = f"What is sent goes by the other one. Remove {name}"
    remove = Fix(Action.REMOVE_KEY, lead, app=app.id, about=key.key_id, end=".")
    return Blocker(
        kind="passed-over",
        headline=f"{name[:1].upper()}{name[1:]} is refused ({stop.environment}) "
        f"since {_at(stop.since)}:",
        more=sentence(f"{words} ({stop.reason})"),
        fixes=(remove,),
        since=stop.since,
    )


def _no_key(app: App) -> Blocker:
    return Blocker(
        kind="no-key",
        headline=f"{app.name} has no key.",
        more="Nothing can be sent to it.",
        fixes=(Fix(Action.ADD_KEY, "Add one", app=app.id, end="."),),
    )


def _stopped(app: App, stop: CircuitStop) -> Blocker:
    words, fix = meaning(stop.reason, gateway=stop.service)
    where = "" if stop.environment in ("", "production") else f" in {stop.environment}"
    if stop.service != "apns":
        where = f" by {_name(stop)}{where}"
    mend = fix or Fix(Action.CHECK_UP, "fix what the check-up names")
    go_on = Fix(Action.RESUME, "Then resume without waiting", app=app.id, end=".")
    return Blocker(
        kind="stopped",
        headline=f"Sending for {app.name} has been stopped{where} since {_at(stop.since)}:",
        more=f"{sentence(f'{words} ({stop.reason})')} One push is tried at {_at(stop.probe_at)}; "
        "if it is accepted, sending resumes.",
        fixes=(as_sentence(with_app(mend, app.id)), go_on),
        since=stop.since,
    )


def _outage(stop: CircuitStop) -> Blocker:
    words, fix = meaning(stop.reason, gateway=stop.service)
    service = "Apple's push service" if stop.service == "apns" else _name(stop)
    service = "The twin" if stop.environment == "twin" else service
    is_to_mend = stop.reason in UNREACHED and not fix.startswith("nothing")
    return Blocker(
        kind="outage",
        headline=f"{service} ({stop.environment}) has been unavailable since {_at(stop.since)}:",
        more=f"{sentence(f'{words} ({stop.reason})')} One push is tried at {_at(stop.probe_at)}; "
        "as soon as one is accepted, sending resumes.",
        fixes=(as_sentence(fix),) if is_to_mend else (),
        since=stop.since,
    )


def _name(stop: CircuitStop) -> str:
    """Return what is stopped: a push service, and the server where addresses name one."""
    service = service_of(stop.service)
    return service.title if service.origin_of is None else f"{service.title} at {stop.topic}"


def _disabled(app: App) -> Blocker:
    return Blocker(
        kind="disabled",
        headline=f"{app.name} is switched off.",
        more="What is sent waits.",
        fixes=(Fix(Action.SWITCH_ON, "Switch it on", app=app.id, end="."),),
    )


def _no_worker() -> Blocker:
    return Blocker(
        kind="no-worker",
        headline="No worker is running, so what waits does not go on.",
        fixes=(Fix(Action.START_WORKER, "Start one", end="."),),
    )


def _at(seconds: float) -> str:
    return moment(seconds * 1000)
