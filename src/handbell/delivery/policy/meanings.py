"""Every reason in words: what it means, and what to do about it.

A push service's own are in the tables of :mod:`handbell.services`; ours are here.
"""

from typing import Final

from handbell.fixes import Action, Fix
from handbell.services.reactions import Reaction
from handbell.services.table import service_of

_REACH = "check the address, the network, and that this machine may open connections to that port"
_AGAIN = "nothing: it is retried automatically, and the device shows it once"

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
        Fix(
            Action.RESEND,
            "check HANDBELL_SECRET_KEY; it is tried again each quarter of an hour for a day, and "
            "then only by hand",
        ),
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
    "InternalError": (
        "Handbell itself failed to send it, again and again",
        Fix(
            Action.RESEND, "look for the error in the log and report it; once mended, send it again"
        ),
    ),
    "WorkerLost": (
        "the worker that had it ended in the middle, again and again",
        Fix(Action.RESEND, "look why the process ended (memory, a crash); then send it again"),
    ),
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
    "OtherTwin": (
        "the subscription is of a twin that no longer runs",
        "open the page in the browser again, so that it subscribes anew",
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
