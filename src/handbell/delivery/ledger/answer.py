"""The response to a sender: counts, warnings and errors of one notification."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from handbell._text import count, moment, sentence
from handbell.delivery.deliveries import LedgerDeliveries
from handbell.delivery.delivery import STATES, Delivery, State
from handbell.delivery.policy.decision import CERTIFICATE_REASONS
from handbell.delivery.policy.meanings import meaning, reaction_to
from handbell.delivery.response import Response
from handbell.diagnostic import Diagnostic
from handbell.errors import HandbellError
from handbell.fixes import with_app
from handbell.services.reactions import Reaction

from .store import UNSENT, Ledger, ShardWait

LISTED_AT_MOST: Final = 100
"""The number of deliveries a response lists; the rest is counted."""

_BENIGN: Final = frozenset({"SimulatorUnavailable", "Capped", "Scheduled", "QuietHours"})
_REFUSED_STATUSES: Final = frozenset({400, 401, 403, 404})
_SOON_OVER: Final = frozenset({"AnswerCut", "ServiceDown"})
_TO_MEND: Final = CERTIFICATE_REASONS | {
    "CircuitOpen",
    "NoCredential",
    "TwinNotRunning",
    "AppDisabled",
}


def answer(
    ledger: Ledger,
    notification_id: str,
    warnings: Iterable[str] = (),
    *,
    is_running: bool = False,
) -> Response:
    """Return the response for a notification from the current state of the ledger.

    ``warnings`` are those of the acceptance.
    """
    counts: Counter[State] = Counter()
    for (state, _), number in ledger.counts(notification_id).items():
        counts[state] += number
    unsent = ledger.unsent(notification_id, LISTED_AT_MOST)
    errors: list[Diagnostic] = []
    told = [Diagnostic.read(warning) for warning in warnings]
    for delivery in unsent:
        (told if _is_warning(delivery) else errors).append(_tell(delivery))
    for wait in ledger.waits(notification_id):
        (errors if wait.reason in _TO_MEND else told).append(_tell_wait(wait))
    if (left := sum(counts[state] for state in UNSENT) - len(unsent)) > 0:
        (errors or told).append(_not_listed(notification_id, left))
    return Response(
        success=counts["sent"] > 0 and not errors,
        warnings=tuple(told),
        errors=tuple(errors),
        notification_id=notification_id,
        reached=counts["sent"],
        total=counts.total(),
        states={state: counts[state] for state in STATES if counts[state]},
        is_running=is_running,
        _source=LedgerDeliveries(
            lambda: sum(ledger.counts(notification_id).values()),
            lambda number, limit: ledger.deliveries_after(notification_id, number, limit),
        ),
    )


def refused(error: HandbellError) -> Response:
    """Return the response to a send of a batch that was not accepted."""
    said = Diagnostic(str(error), reason=error.code, fix=error.fix)
    return Response(success=False, errors=(said,))


def still_running(notification_id: str, seconds: float) -> Diagnostic:
    """Return the warning that a wait timed out before everything was sent."""
    return Diagnostic(
        f"Not everything was sent within {seconds:g} s; sending continues: "
        f"handbell notification show {notification_id}",
        reason="StillRunning",
    )


def _not_listed(notification_id: str, number: int) -> Diagnostic:
    return Diagnostic(
        f"And {count(number, 'more delivery', 'more deliveries')} not listed here: "
        f"handbell notification show {notification_id}",
        reason="NotListed",
    )


def _is_warning(delivery: Delivery) -> bool:
    reason = delivery.reason or ""
    reaction = reaction_to(reason, delivery.gateway)
    if delivery.state == "held":
        is_answer = delivery.status in _REFUSED_STATUSES and reason not in _SOON_OVER
        is_refused = is_answer or reaction is Reaction.FIX_CONFIGURATION
        return not is_refused and reason not in _TO_MEND
    return (
        reaction is Reaction.CLOSE_SESSION
        or reason in _BENIGN
        or delivery.state in {"cancelled", "expired"}
    )


def _tell(delivery: Delivery) -> Diagnostic:
    reason = delivery.reason or delivery.state
    words, fix = meaning(reason, delivery.detail or "", delivery.gateway)
    fix = with_app(fix, "", delivery.notification_id)
    what = sentence(f"{delivery.label}: {reason}: {words}")
    if reason == "Scheduled":
        fix = ""
    elif delivery.due_at is not None:
        # The console and the check-up say separately whether a worker runs.
        what += f" The next attempt is due at {moment(delivery.due_at)}."
        # The sender need not send it again.
        fix = "" if fix.startswith("send it again") else fix
    if fix.startswith("nothing"):
        fix = ""
    to_do = sentence(fix[:1].upper() + fix[1:])
    return Diagnostic(
        f"{what} {to_do}" if to_do else what,
        recipient=delivery.mail or delivery.address,
        reason=reason,
        fix=to_do,
    )


def _tell_wait(wait: ShardWait) -> Diagnostic:
    words, fix = meaning(wait.reason)
    verb = "waits" if wait.number == 1 else "wait"
    what = sentence(f"{count(wait.number, 'device')} {verb}: {wait.reason}: {words}")
    what += f" It goes on at {moment(wait.due_at)}."
    to_do = sentence(fix[:1].upper() + fix[1:]) if wait.reason in _TO_MEND else ""
    return Diagnostic(f"{what} {to_do}" if to_do else what, reason=wait.reason, fix=to_do)
