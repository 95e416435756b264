"""What follows from the outcome of one push: a pure decision, tested as a table.

The gateway returns the push service's answer; :func:`decide` returns what it means for the
delivery, the session and the app. No clock is read and nothing is written here.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from handbell.delivery.delivery import State
from handbell.fixes import Action, Fix
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
from handbell.services.table import service_of

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
    answer was incomplete: the push was not accepted, and nothing follows from it.
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
            return Decision("sent", status=200, unique_id=outcome.unique_id, moves_to=moved)
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


_REACH = "check the address, the network, and that this machine may open connections to that port"
_AGAIN = "nothing: it is retried automatically, and the phone shows it once"

MAY_HAVE_ARRIVED: Final = "an earlier attempt got no answer, so it may have arrived"
"""The detail of a delivery that ended without being sent again."""

OWN_REASONS: Final = {
    "NoCredential": (
        "there is no key for this environment",
        Fix(Action.ADD_KEY, "add one"),
    ),
    "CircuitOpen": (
        "sending for this app was stopped, because its configuration was refused",
        Fix(
            Action.CHECK_UP,
            "fix what the check-up names; held notifications go out with the next try",
        ),
    ),
    "ServiceDown": (
        "the push service is unavailable",
        "nothing: one push at a time is tried, and sending resumes once one is accepted",
    ),
    "AppDisabled": ("the app is switched off", Fix(Action.SWITCH_ON, "switch it on")),
    "CannotBeRead": (
        "the stored notification cannot be read",
        "check HANDBELL_SECRET_KEY; it is tried again each quarter of an hour for a day",
    ),
    "Scheduled": ("it waits for its time", Fix(Action.CANCEL, "nothing, or cancel it")),
    "QuietHours": ("it waits for the end of quiet hours", "nothing; urgent levels are not held"),
    "RateLimit": ("it waits its turn under the app's rate limit", "nothing: it goes on by itself"),
    "Capped": (
        "this person has received as many notifications as the app's cap allows",
        Fix(Action.SET_CAP, "raise the cap, or send less often"),
    ),
    "Cancelled": ("it was cancelled before it was sent, or sent again", "nothing"),
    "SessionClosed": (
        "its session was closed before it was sent, or sent again",
        "nothing: the device has logged out, or belongs to somebody else now",
    ),
    "SessionQuarantined": (
        "its session was put in quarantine before it was sent",
        "nothing to do: the session opens again when the app registers",
    ),
    "SessionPending": (
        "its session must be proven again before anything is sent to it",
        "nothing: the next one arrives once the device is proven to be that person's",
    ),
    "Expired": (
        "it expired before it could be sent, or sent again",
        "send it with a longer time to live",
    ),
    "NotForService": (
        "this push service cannot carry such a notification",
        Fix(Action.PREVIEW, "look at what each service takes"),
    ),
    "Interrupted": ("sending was interrupted before an answer arrived", _AGAIN),
    "ConnectionLost": (
        "the connection broke after it was sent, so it may or may not have arrived",
        _AGAIN,
    ),
    "TimedOut": ("no answer came in time, so it may or may not have arrived", _AGAIN),
    "StreamReset": ("the push service reset the request, so it may have arrived", _AGAIN),
    "AnswerCut": ("the push service refused it, but its reason was lost on the way", _AGAIN),
    "AnswerUnreadable": (
        "the answer is not the push service's; it may be a proxy's",
        "check the address, and proxies between this machine and the push service",
    ),
    "GoneAway": ("the push service closed the connection before it accepted the push", _AGAIN),
    "RefusedStream": ("the push service refused the stream; nothing was processed", _AGAIN),
    "Stalled": ("the push service has stopped answering", _AGAIN),
    "ConnectionClosed": (
        "the push service closes connections soon after they open; this push was not sent",
        _AGAIN,
    ),
    "HostNotFound": (
        "the push service's address cannot be found",
        "check the address, and that this machine can resolve names",
    ),
    "CannotConnect": ("the push service could not be reached", _REACH),
    "CertificateNotTrusted": (
        "the push service's certificate is not trusted here",
        "check this machine's clock, or name a PEM file of trusted certificates in SSL_CERT_FILE",
    ),
    "NoTrustedCertificates": (
        "this machine has no file of trusted certificates",
        "install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
    ),
    "ClientCertificateUnusable": (
        "the app's certificate cannot be used for a connection",
        Fix(Action.ADD_KEY, "add it again with its key"),
    ),
    "ClientCertificateRefused": (
        "the push service ended the connection; perhaps it refuses the app's certificate",
        Fix(Action.ADD_KEY, "it may be revoked or expired; add a new one, or better a key"),
    ),
    "HostNotAllowed": (
        "the endpoint's host is not one of the push services that are used",
        "add the host to HANDBELL_WEB_PUSH_HOSTS if you trust it",
    ),
    "AddressNotAllowed": (
        "the push service's name leads to an address that is not public",
        "check the name; for a proxy that looks names up, set HANDBELL_PROXY",
    ),
    "NoSecureConnection": (
        "the server does not support TLS with HTTP/2",
        "check the address and the port",
    ),
    "ProxyUnreachable": (
        "the proxy to the push service could not be reached",
        "check HANDBELL_PROXY, and that the proxy runs; hosts in HANDBELL_NO_PROXY go without it",
    ),
    "ProxyAuthentication": (
        "the proxy to the push service requires a user and a password",
        "set HANDBELL_PROXY to http://user:password@host:port, special characters percent-encoded",
    ),
    "ProxyRefused": (
        "the proxy refuses connections to the push service",
        "have it allow CONNECT to that host and port, or name the host in HANDBELL_NO_PROXY",
    ),
    "ProxyUnreadable": (
        "what HANDBELL_PROXY names does not answer as an HTTP proxy",
        "check its address and port",
    ),
    "RequestUnusable": ("the request cannot be made", Fix(Action.PREVIEW, "look at it")),
    "TwinNotRunning": (
        "the session lives on the twin, and no twin is running",
        Fix(Action.START_TWIN, "start it"),
    ),
    "SimulatorUnavailable": (
        "Xcode's Simulator is only available on a Mac with Xcode 11.4 or newer",
        Fix(Action.START_TWIN, "run this on a Mac, or send to a virtual phone of the twin"),
    ),
    "SimulatorUnsupported": (
        "Xcode's Simulator accepts only ordinary notifications",
        "send this push type to a device",
    ),
    "SimulatorFailed": (
        "Xcode's Simulator refused it",
        "check that the simulator is booted and has the app",
    ),
    "SimulatorTimedOut": (
        "Xcode's Simulator did not answer in time",
        "check that the simulator is booted",
    ),
}
"""Reasons of our own, with their meaning and what to do; each service has a table of its own."""


def reaction_to(reason: str, gateway: str) -> Reaction | None:
    """Return what a reason of a push service calls for; None for one that it does not document."""
    row = service_of(gateway).reasons.get(reason)
    return None if row is None else row.reaction


def meaning(reason: str, detail: str = "", gateway: str = "apns") -> tuple[str, str]:
    """Return the explanation and remedy of a reason; both are clauses without a full stop.

    ``gateway`` is whose reason it is. An undocumented reason is returned unchanged.
    """
    service = service_of(gateway)
    if reason in service.reasons:
        row = service.reasons[reason]
        return detail or row.meaning, service.fix(row)
    if reason in OWN_REASONS:
        words, fix = OWN_REASONS[reason]
        if reason == "ServiceDown" and detail:
            return f"{words} ({detail})", fix
        return detail or words, fix
    return detail or "the push service gave no reason that it documents", ""
