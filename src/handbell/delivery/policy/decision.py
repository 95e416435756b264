"""What follows from the outcome of one push: a pure decision, tested as a table.

The gateway returns the push service's answer; :func:`decide` returns what it means for the
delivery, the session and the app. No clock is read and nothing is written here.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from handbell.delivery.delivery import State
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
    Unknown,
    Withdrawn,
)
from handbell.registry.session import Environment
from handbell.services import apns
from handbell.services.reactions import Reaction
from handbell.services.service import PushService

OTHER_ENVIRONMENT: Final[dict[Environment, Environment]] = {
    "production": "development",
    "development": "production",
}
"""The other environment a token may belong to, of a service that has two. The twin has none."""


class Suspect(Enum):
    """Who is at fault for a failed delivery, as far as one answer can tell."""

    NOBODY = "nobody"
    TOKEN = "token"  # noqa: S105 - a device token's fault, not a secret
    CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from one outcome.

    ``state`` is the delivery's next state: ``sent``, ``failed``, or ``held`` when it may be sent
    again later (``after``: the wait the service asked for, in seconds, or None for our own).
    ``environment`` names the environment to try next, at once. The session is closed if it has not
    registered since ``gone_since`` (UNIX milliseconds; ``closes`` without it closes for certain),
    put in quarantine, or found to be in another environment (``moves_to``). ``doubt`` feeds the
    circuit of the app's configuration, in the environment ``doubted``. ``is_lost`` means that the
    answer was incomplete: the push was not accepted, and nothing follows from it. ``is_ours`` means
    that our own code failed.
    """

    state: State
    reason: str | None = None
    status: int | None = None
    detail: str = ""
    unique_id: str | None = None
    environment: Environment | None = None
    after: float | None = None
    reaction: Reaction | None = None
    closes: bool = False
    gone_since: int | None = None
    quarantines: bool = False
    moves_to: Environment | None = None
    is_unknown: bool = False
    is_lost: bool = False
    is_ours: bool = False
    doubt: Suspect = Suspect.NOBODY
    doubted: str | None = None


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """The answer of the environment that was tried first.

    ``reason`` is why the other environment was tried.
    """

    environment: Environment
    reason: str


def decide(
    outcome: Outcome,
    environment: Environment,
    tried: FirstAnswer | None = None,
    *,
    service: PushService = apns.SERVICE,
    is_of_its_kind: bool = True,
) -> Decision:
    """Return what follows from the outcome of a push by ``service`` to ``environment``.

    ``tried`` is given when this was the second environment for the same delivery. A token is put
    in quarantine only when both refused the token itself: a key that fits only one environment, or
    an environment that could not be asked, proves nothing about it.

    ``is_of_its_kind`` means that the push is of the kind that the session's token is for. A
    refusal of another kind of push (a VoIP push to a token for alerts) concerns that push only:
    the session is not closed, moved or quarantined.
    """
    decision = _decide(outcome, environment, tried, service)
    if is_of_its_kind:
        return decision
    doubt = Suspect.NOBODY if decision.doubt is Suspect.TOKEN else decision.doubt
    return replace(
        decision, closes=False, gone_since=None, quarantines=False, moves_to=None, doubt=doubt
    )


def _decide(
    outcome: Outcome, environment: Environment, tried: FirstAnswer | None, service: PushService
) -> Decision:
    match outcome:
        case Accepted():
            moved = environment if tried is not None else None
            status = service.accepted_status
            return Decision("sent", status=status, unique_id=outcome.unique_id, moves_to=moved)
        case DeviceGone():
            return _decide_gone(outcome, service)
        case RetryLater() | LostVerdict() | Unknown():
            held = _decide_held(outcome)
            if outcome.reason in CERTIFICATE_REASONS:
                return replace(held, doubt=Suspect.CONFIGURATION, doubted=environment)
            return held
        case Withdrawn():
            return Decision("cancelled", reason="SessionClosed")
        case Refused():
            return _decide_refused(outcome, environment, tried, service)


def _decide_held(outcome: RetryLater | LostVerdict | Unknown) -> Decision:
    match outcome:
        case RetryLater():
            return Decision(
                "held",
                reason=outcome.reason,
                status=outcome.status or None,
                detail=outcome.detail,
                after=outcome.after,
                reaction=outcome.reaction,
            )
        case LostVerdict():
            return Decision(
                "held",
                reason=outcome.reason,
                status=outcome.status,
                detail=outcome.detail,
                after=outcome.after,
                is_lost=True,
            )
        case Unknown():
            return Decision("held", reason=outcome.reason, detail=outcome.detail, is_unknown=True)


def _decide_gone(outcome: DeviceGone, service: PushService) -> Decision:
    row = service.reasons.get(outcome.reason)
    if row is None or row.reaction is not Reaction.CLOSE_SESSION:
        # Not the push service's own answer: an intermediary has answered.
        return Decision("held", reason=outcome.reason, status=outcome.status, is_lost=True)
    return Decision(
        "failed",
        reason=outcome.reason,
        status=outcome.status,
        closes=True,
        gone_since=outcome.since,
    )


def _decide_refused(
    outcome: Refused, environment: Environment, tried: FirstAnswer | None, service: PushService
) -> Decision:
    failed = Decision("failed", reason=outcome.reason, status=outcome.status, detail=outcome.detail)
    match outcome.reaction:
        case Reaction.TRY_OTHER_ENVIRONMENT:
            return _decide_misplaced(failed, environment, tried, service)
        case Reaction.WRONG_APP:
            return replace(failed, quarantines=True, doubt=Suspect.TOKEN, doubted=environment)
        case Reaction.FIX_CONFIGURATION:
            return replace(failed, doubt=Suspect.CONFIGURATION, doubted=environment)
        case _:
            return failed


def _decide_misplaced(
    failed: Decision, environment: Environment, tried: FirstAnswer | None, service: PushService
) -> Decision:
    is_of_token = failed.reason in service.token_reasons
    other = OTHER_ENVIRONMENT.get(environment) if service.has_environments else None
    if tried is None and other is not None:
        return replace(failed, environment=other)
    both_refused_token = is_of_token and (tried is None or tried.reason in service.token_reasons)
    if both_refused_token:
        # The session's last known environment vouches for its token.
        doubted = environment if tried is None else tried.environment
        return replace(failed, quarantines=True, doubt=Suspect.TOKEN, doubted=doubted)
    # One environment refused the key, so the token is not in doubt; the other environment's key is
    # right.
    if tried is not None and is_of_token:
        failed, environment = replace(failed, reason=tried.reason), tried.environment
    return replace(failed, doubt=Suspect.CONFIGURATION, doubted=environment)


class HealthSignal(Enum):
    """What the outcome of a push says about the push service itself."""

    ANSWERED = "answered"
    TROUBLE = "trouble"
    UNREACHED = "unreached"
    NOTHING = "nothing"


UNREACHED: Final = frozenset(
    {
        "CannotConnect",
        "HostNotFound",
        "CertificateNotTrusted",
        "NoTrustedCertificates",
        "NoSecureConnection",
        "ProxyUnreachable",
        "ProxyAuthentication",
        "ProxyRefused",
        "ProxyUnreadable",
        "AddressNotAllowed",
    }
)
"""No connection can be made, which no single push can cause."""

CERTIFICATE_REASONS: Final = frozenset({"ClientCertificateUnusable", "ClientCertificateRefused"})
"""No connection can be made with the app's certificate: the configuration is at fault."""

_SERVER_ERROR: Final = 500
_OUR_OWN: Final = frozenset({"RequestUnusable", "Interrupted"})


def health_signal(outcome: Outcome, service: PushService = apns.SERVICE) -> HealthSignal:
    """Return what an outcome tells about its push service: whether it accepts pushes.

    A server error, a lost connection, a timeout and an intermediary's answer are trouble; any
    other complete answer shows that the service works, whatever it says about the push.
    """
    match outcome:
        case Accepted():
            return HealthSignal.ANSWERED
        case Refused() | DeviceGone():
            is_its_own = outcome.reason in service.reasons
            return HealthSignal.ANSWERED if is_its_own else HealthSignal.NOTHING
        case Withdrawn():
            return HealthSignal.NOTHING
        case LostVerdict():
            is_foreign = outcome.reason == "AnswerUnreadable"
            is_trouble = is_foreign or outcome.status >= _SERVER_ERROR
            return HealthSignal.TROUBLE if is_trouble else HealthSignal.NOTHING
        case RetryLater() | Unknown():
            return _sign_of_later(outcome, service)


def _sign_of_later(outcome: RetryLater | Unknown, service: PushService) -> HealthSignal:
    if outcome.reason in CERTIFICATE_REASONS:
        return HealthSignal.NOTHING
    if isinstance(outcome, Unknown):
        return HealthSignal.TROUBLE
    if outcome.status >= _SERVER_ERROR:
        return HealthSignal.TROUBLE
    if outcome.status:
        is_its_own = outcome.reason in service.reasons
        return HealthSignal.ANSWERED if is_its_own else HealthSignal.NOTHING
    if outcome.reason in UNREACHED:
        return HealthSignal.UNREACHED
    return HealthSignal.NOTHING if outcome.reason in _OUR_OWN else HealthSignal.TROUBLE
