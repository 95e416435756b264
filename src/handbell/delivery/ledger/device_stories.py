"""What :func:`~handbell.delivery.ledger.why.why` says of one device, and of one delivery to it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from handbell._text import moment, sentence, short_token
from handbell.delivery.delivery import Delivery
from handbell.delivery.policy.meanings import OWN_REASONS, meaning, reaction_to
from handbell.delivery.policy.retry import retry_deadline
from handbell.delivery.work.composed import Composed, push_type_of
from handbell.fixes import Action, Fix, as_sentence, with_app
from handbell.registry.session import CLOSED_WORDS, LOGGED_OUT, Session
from handbell.services.reactions import Reaction
from handbell.services.table import service_of


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStory:
    """A device of the person: whether it is sent to, why not, and the fix."""

    session: Session
    is_sent_to: bool
    what: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStory:
    """The state of one notification on one device, what happens next, and the fix."""

    delivery: Delivery
    what: str
    next: str = ""
    fix: str = ""


# A device


def dated(found: Sequence[Session], deliveries: Sequence[Delivery]) -> list[Session]:
    """Return the sessions with their last acceptance, which broadcasts keep in deliveries only."""
    last = {session.id: session.accepted_at or 0 for session in found}
    for delivery in deliveries:
        if delivery.session_id in last:
            last[delivery.session_id] = max(last[delivery.session_id], delivery.sent_at or 0)
    return [replace(session, accepted_at=last[session.id] or None) for session in found]


def first_of_devices(sessions: Sequence[Session], order: Sequence[str]) -> dict[str, Session]:
    """Return by which active session a device gets its notifications, of those it has.

    ``order`` is that of the push services.
    """
    place = {name: number for number, name in enumerate(order)}
    found: dict[str, Session] = {}
    for session in sorted(sessions, key=lambda one: place.get(one.service, len(place))):
        if session.device_id and session.status == "active":
            found.setdefault(session.device_id, session)
    return found


def tell_session(session: Session, app: str, first: Session) -> SessionStory:
    """Tell about a session; ``first`` is the one by which its device is reached."""
    fix: str
    label = f"{session.device or session.platform} ({short_token(session.token)})"
    match session.status:
        case "active":
            last = (
                "nothing was accepted for it yet"
                if session.accepted_at is None
                else f"last accepted at {moment(session.accepted_at)}"
            )
            what = f"{label} is sent to, in {session.environment}; {last}."
            if first.service != session.service:
                title = service_of(first.service).title
                what = f"{label} is reached by {title}, which comes first; {last}."
                return SessionStory(session=session, is_sent_to=False, what=what)
            return SessionStory(session=session, is_sent_to=True, what=what)
        case "pending":
            what = f"{label} is skipped: it is pending, until it is proven to be theirs."
            lead = "Let them prove that the device is theirs, or accept it if you are sure of it"
            fix = Fix(Action.ADD_SESSION, lead, app=app, about=session.mail, end=".")
        case "quarantined":
            words, fix = meaning(session.reason or "", gateway=session.service)
            what = f"{label} is skipped: it is in quarantine, {session.reason}: {sentence(words)}"
            fix = fix_sentence(with_app(fix, app))
        case _:
            what, fix = _tell_closed(session, label)
    return SessionStory(session=session, is_sent_to=False, what=what, fix=fix)


def _tell_closed(session: Session, label: str) -> tuple[str, str]:
    reason = session.reason or LOGGED_OUT
    words = CLOSED_WORDS.get(reason)
    if words is None:
        is_theirs = reaction_to(reason, session.service) is not None
        words = f"{reason}, {meaning(reason, gateway=session.service)[0]}" if is_theirs else reason
    at = "" if session.closed_at is None else f" at {moment(session.closed_at)}"
    what = f"{label} is skipped: it was closed{at}; {sentence(words)}"
    return what, "Let the app register again: they open it, and sign in."


# A delivery


def tell_sent(
    delivery: Delivery, composed: Composed | None, content: dict[str, Any], language: str
) -> DeliveryStory:
    """Tell about a delivery that its push service accepted."""
    at, service = moment(delivery.sent_at or delivery.created_at), service_of(delivery.gateway)
    what = f"{_service(delivery)} accepted it at {at}{language}"
    if delivery.attempts > 1:
        what += f", at attempt {delivery.attempts}"
    if delivery.displayed_at is not None:
        what += f"; the {service.device} showed it at {moment(delivery.displayed_at)}"
        if delivery.opened_at is not None:
            what += f", and it was opened at {moment(delivery.opened_at)}"
        return DeliveryStory(delivery=delivery, what=f"{what}.")
    if composed is not None and push_type_of(composed.content) == "background":
        what += "; it shows nothing, it wakes the app."
        return DeliveryStory(delivery=delivery, what=what)
    return DeliveryStory(
        delivery=delivery,
        what=f"{what}. That is not yet shown, and no {service.device} has reported it.",
        next=_afterwards(delivery, composed, content),
        fix=f"Look at the {service.device}: {service.unseen} Only apps with Handbell's client code "
        "report what they show.",
    )


def _afterwards(delivery: Delivery, composed: Composed | None, content: dict[str, Any]) -> str:
    """Return what may still keep the phone from showing an accepted push."""
    sentences = []
    expires_at = None if composed is None else composed.expires_at
    service = service_of(delivery.gateway)
    if expires_at == 0:
        sentences.append(f"It was not stored: a {service.device} that is off misses it.")
    elif expires_at:
        sentences.append(
            f"For a {service.device} that is off it is kept until {at_second(expires_at)}."
        )
    if content.get("interruption_level") == "passive":
        sentences.append("It is passive: it appears in the list without a sound.")
    if delivery.unique_id:
        sentences.append(f"{service.vendor}'s delivery log knows it as {delivery.unique_id}.")
    return " ".join(sentences)


def tell_moving(delivery: Delivery) -> DeliveryStory:
    """Tell about a delivery that is on its way, or due."""
    if delivery.state == "sending":
        return DeliveryStory(
            delivery=delivery,
            what="It is on its way.",
            next="If its worker is killed meanwhile, another one sends it.",
        )
    if delivery.due_at is not None and delivery.reason is None and not delivery.attempts:
        return DeliveryStory(
            delivery=delivery,
            what="It is stored and not sent yet.",
            next=f"It is due at {moment(delivery.due_at)}.",
        )
    return DeliveryStory(
        delivery=delivery,
        what="Its worker ended while it was on its way.",
        next="The next worker sends it again, so that the device shows it once.",
    )


def answered(delivery: Delivery, words: str) -> str:
    """Return what the push service answered, as a sentence."""
    reason = delivery.reason or ""
    if delivery.status is None:
        return sentence(capital(words))
    return sentence(f"{_service(delivery)} answered {delivery.status} {reason}: {words}")


def _service(delivery: Delivery) -> str:
    if delivery.gateway == "simulator":
        return "Xcode's Simulator"
    service = service_of(delivery.gateway)
    if delivery.environment == "twin":
        return "The twin" if service.name == "apns" else f"The twin of {service.title}"
    return service.vendor


def goes_on(delivery: Delivery) -> str:
    """Return when a delivery goes on; empty if that is not known."""
    return "" if delivery.due_at is None else f"It is due at {moment(delivery.due_at)}."


def tried_until(composed: Composed | None, zone: str | None) -> str:
    """Return until when a delivery is tried; empty if that is not known."""
    if composed is None:
        return ""
    end = retry_deadline(created_at=composed.starts_at(zone), expires_at=composed.expires_at)
    return f" It is tried until {at_second(end.at)}."


def is_to_mend(reason: str, gateway: str) -> bool:
    """Return whether somebody has to mend what a reason names."""
    return reason in OWN_REASONS or reaction_to(reason, gateway) in _MENDED_BY_HAND


def fix_sentence(words: str) -> str:
    """Return the fix as a sentence; empty if there is none."""
    return "" if words.startswith("nothing") else as_sentence(words)


def says_more(other: str, fix: str) -> bool:
    """Return whether another fix begins with this one and adds to it."""
    return other != fix and other.startswith(fix)


def capital(words: str | None) -> str:
    """Return a text with its first letter in upper case."""
    words = words or ""
    return words[:1].upper() + words[1:]


def at_second(seconds: float) -> str:
    """Return an instant in UNIX seconds as people read it."""
    return moment(seconds * 1000)


_MENDED_BY_HAND: Final = frozenset(
    {Reaction.FIX_CONFIGURATION, Reaction.TRY_OTHER_ENVIRONMENT, Reaction.WRONG_APP}
)
