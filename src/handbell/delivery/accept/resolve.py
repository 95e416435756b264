"""Resolves recipients to targets: one per active session, a warning for those without."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from handbell._text import count, short_token
from handbell.apps.app import App
from handbell.creation.recipients import Recipients
from handbell.delivery.delivery import GatewayName, Target
from handbell.diagnostic import Diagnostic
from handbell.registry.recipient_lookup import RecipientSession
from handbell.registry.session import (
    CLOSED_WORDS,
    LOGGED_OUT,
    ActiveSession,
    Environment,
    SessionLocation,
)
from handbell.registry.store import Registry
from handbell.services.address import Address
from handbell.services.table import SERVICES

SAMPLE: Final = 50
"""How many of everybody are looked at before a broadcast is accepted."""


@dataclass(slots=True)
class ResolvedRecipients:
    """The targets of one send, and warnings for recipients that are left out."""

    targets: list[Target] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def resolve_many(
    app: App,
    recipients: Sequence[Recipients],
    registry: Registry,
    *,
    environment: Environment,
    is_development: bool = False,
) -> list[ResolvedRecipients]:
    """Return for each send the targets of its named recipients, each device once.

    A pending session is never a target. ``environment`` is assumed for device tokens that no
    session holds; ``is_development`` makes a session that was never reached start there. However
    many sends there are, the registry is asked once for mails and once for tokens.
    """
    mails = [mail for one in recipients for mail in one.mails]
    tokens = [token for one in recipients for token in one.addresses]
    by_mail = registry.recipient_sessions(app, mails) if mails else {}
    by_token = registry.holders(app, tokens) if tokens else {}
    plans = []
    for one in recipients:
        plan = ResolvedRecipients()
        _add_mails(plan, one.mails, by_mail, is_development=is_development)
        _add_tokens(plan, one, by_token, environment)
        plan.targets.extend(
            Target(gateway="simulator", address=device, environment=environment)
            for device in one.simulators
        )
        if len(plan.targets) > 1:
            plan.targets = list({target.address: target for target in plan.targets}.values())
        plans.append(plan)
    return plans


def sample_targets(app: App, registry: Registry, *, is_development: bool = False) -> list[Target]:
    """Return the targets of an app's first active sessions, as a sample of everybody."""
    sample = registry.page_of_active(app, limit=SAMPLE)
    return [_session_target(session, is_development=is_development) for session in sample]


def sample_locations(app: App, registry: Registry, *, is_development: bool = False) -> list[Target]:
    """Return a target for each place of those of :func:`sample_targets`, which name no device."""
    return [
        Target(
            gateway=cast("GatewayName", place.service),
            address="",
            environment=_environment(place, is_development=is_development),
            time_zone=place.time_zone,
        )
        for place in registry.locations_of_active(app, limit=SAMPLE)
    ]


def _environment(place: SessionLocation, *, is_development: bool) -> Environment:
    is_new = not place.was_reached and place.environment == "production"
    return "development" if is_development and is_new else place.environment


def _add_mails(
    plan: ResolvedRecipients,
    mails: Iterable[str],
    found: Mapping[str, list[RecipientSession]],
    *,
    is_development: bool,
) -> None:
    for mail in mails:
        sessions = found.get(mail, [])
        active = [session for session in sessions if session.status == "active"]
        if not active:
            plan.warnings.append(nobody(mail, sessions))
        plan.targets.extend(
            _session_target(session, is_development=is_development) for session in active
        )


def nobody(mail: str, sessions: list[RecipientSession]) -> Diagnostic:
    """Return the warning for a mail address without an active session."""
    reason, why = _why_nobody(sessions)
    return Diagnostic(f"{mail} {why}", recipient=mail, reason=reason)


def _why_nobody(sessions: list[RecipientSession]) -> tuple[str, str]:
    """Return reason and explanation why none of a user's sessions is active."""
    if not sessions:
        return (
            "NoDevice",
            "has no device: no session of this app was ever registered for this mail.",
        )
    by_status: dict[str, list[RecipientSession]] = {}
    for session in sessions:
        by_status.setdefault(session.status, []).append(session)
    if pending := by_status.get("pending"):
        number = count(len(pending), "session")
        proof = "waiting for the proof that the device is theirs"
        return "SessionPending", f"was not reached: {number} still pending, {proof}."
    if quarantined := by_status.get("quarantined"):
        number, why = count(len(quarantined), "session"), quarantined[0].reason
        until = "until the app registers again"
        return "SessionQuarantined", f"was not reached: {number} in quarantine ({why}) {until}."
    closed = by_status["closed"][0]
    reason = closed.reason or LOGGED_OUT
    why = CLOSED_WORDS.get(reason, reason)
    return "SessionClosed", f"was not reached: their last session is closed ({why})."


def _add_tokens(
    plan: ResolvedRecipients,
    named: Recipients,
    known: Mapping[str, RecipientSession],
    environment: Environment,
) -> None:
    others = {device.token: device for device in named.devices}
    for token in named.addresses:
        session = known.get(token)
        if session is None and (device := others.get(token)) is not None:
            _add_device(plan, device, environment)
        elif session is None:
            plan.targets.append(Target(gateway="apns", address=token, environment=environment))
        elif session.status == "active":
            plan.targets.append(_session_target(session))
        else:
            plan.warnings.append(
                Diagnostic(
                    f"Nothing was sent to {short_token(token)}: its session is {session.status}.",
                    recipient=token,
                    reason=f"Session{session.status.capitalize()}",
                )
            )


def _add_device(plan: ResolvedRecipients, device: Address, environment: Environment) -> None:
    """Add the address of another service that no session holds."""
    service = SERVICES[device.service]
    if device.kind == "subscription" and device.details is None:
        plan.warnings.append(
            Diagnostic(
                f"Nothing was sent to {short_token(device.token)}: no session has this "
                "subscription, and without its keys nothing can be encrypted.",
                recipient=device.token,
                reason="NoDevice",
                fix="Register the subscription, or name it whole, with its keys",
            )
        )
        return
    plan.targets.append(
        Target(
            gateway=cast("GatewayName", device.service),
            address=device.token,
            environment=environment if environment in service.environments else "production",
            details=device.details,
        )
    )


def _session_target(
    session: ActiveSession | RecipientSession, *, is_development: bool = False
) -> Target:
    starts_in_development = (
        is_development and session.accepted_at is None and session.environment == "production"
    )
    return Target(
        gateway=cast("GatewayName", session.service),
        address=session.token,
        environment="development" if starts_in_development else session.environment,
        session_id=session.id,
        mail=session.mail,
        user_id=None if isinstance(session, ActiveSession) else session.user_id,
        time_zone=session.time_zone,
        locale=session.locale,
        details=session.details,
        device_id=session.device_id,
    )
