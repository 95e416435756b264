"""Previews: the exact requests a send would make."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic_core import from_json, to_json

from handbell._text import sentence, short_token
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.delivery.delivery import Target
from handbell.delivery.ids import NO_ID
from handbell.errors import HandbellError, NotForServiceError, PayloadTooLargeError
from handbell.gateways.composers import composer
from handbell.gateways.gateway import Message
from handbell.gateways.wordings import Wording, compose_each
from handbell.services.apns.protocol import APNS_ID, AUTHORIZATION, DEVICE_PATH, PUSH_TYPES
from handbell.services.fcm.address import is_fid
from handbell.services.fcm.protocol import send_path
from handbell.services.forms import service_name, title_of
from handbell.services.table import SERVICES, service_of

from .composing import USUAL_ORDER, compose_for, compose_for_targets, forms_for, reached
from .resolve import ResolvedRecipients

_LATER: Final = "(made when it is stored)"

_HIDDEN: Final = ((AUTHORIZATION, "bearer (hidden)"),)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The request a send would make for one target, or a warning why there is none.

    ``headers`` are those of the request, but for the secret in ``authorization`` and for the
    ``apns-id``, which a delivery gets when it is stored. ``payload`` is what the push service gets,
    but a browser's before it is encrypted. ``language`` is None for the
    notification's own text; ``size`` and ``limit`` are in bytes.
    """

    recipient: str
    warning: str | None = None
    method: str = "POST"
    url: str = ""
    headers: Headers = ()
    payload: str = ""
    size: int = 0
    limit: int = 0
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePreview:
    """A notification as sent in one language; ``None`` is its own text.

    ``notification`` holds its fields as they are sent, ``size`` and ``limit`` are in bytes, and
    ``cuts`` says what had to be cut. ``problem`` is empty, or why it cannot be sent so; then there
    is no payload, and ``size`` is 0 unless size is what is wrong.
    """

    language: str | None
    notification: dict[str, Any]
    payload: str = ""
    size: int = 0
    limit: int = 0
    cuts: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePreview:
    """A notification in the ``form`` in which some devices get it: a push service's, or a variant.

    ``languages`` has its own text first. ``unsupported`` are sentences about what is set and does
    nothing there. ``refusal`` is empty, or why the service cannot carry it at all; then there are
    no languages, and its sessions are left out of a send.
    """

    form: str
    languages: tuple[LanguagePreview, ...] = ()
    unsupported: tuple[str, ...] = ()
    refusal: str = ""


def preview_services(
    app: App, notification: Notification, forms: Iterable[str], *, now: float
) -> list[ServicePreview]:
    """Return a preview for each of the forms. Nothing is stored or sent."""
    return [_in_form(app, notification, form, now) for form in forms]


def _in_form(app: App, notification: Notification, form: str, now: float) -> ServicePreview:
    try:
        composer(form).compose(notification, app=app, now=now, notification_id=NO_ID)
    except NotForServiceError as error:
        return ServicePreview(form=form, refusal=str(error))
    except HandbellError:
        # It says in which language.
        pass
    return ServicePreview(
        form=form,
        languages=tuple(preview_languages(app, notification, form=form, now=now)),
        unsupported=tuple(composer(form).unsupported(notification)),
    )


def preview_languages(
    app: App, notification: Notification, *, form: str, now: float
) -> list[LanguagePreview]:
    """Return a preview of each language of a notification, its own text first.

    A fault of one language is its ``problem`` and does not affect the others. Nothing is
    stored or sent.
    """
    return [
        _in_language(app, tag, notification, form, now)
        for tag in (None, *(notification.languages or ()))
    ]


def _in_language(
    app: App, tag: str | None, notification: Notification, form: str, now: float
) -> LanguagePreview:
    told = notification.in_language(tag)
    try:
        wordings = compose_each(
            composer(form).compose, told, app=app, now=now, notification_id=NO_ID
        )
    except HandbellError as error:
        sizes = error if isinstance(error, PayloadTooLargeError) else None
        return LanguagePreview(
            language=tag,
            notification=told.to_dict(),
            size=0 if sizes is None else sizes.size,
            limit=0 if sizes is None else sizes.limit,
            problem=str(error),
        )
    message = wordings.own.message
    return LanguagePreview(
        language=tag,
        notification=wordings.own.notification.to_dict(),
        payload=message.payload.decode(),
        size=len(message.payload),
        limit=_limit(form, message),
        cuts=tuple(wordings.warnings),
    )


def _limit(form: str, message: Message) -> int:
    if form == "apns":
        return PUSH_TYPES[message.push_type].max_payload_bytes
    return SERVICES[service_name(form)].max_payload_bytes


def preview(
    app: App,
    notification: Notification,
    plan: ResolvedRecipients,
    *,
    describe_host: Callable[[str, str], str],
    has_token: Callable[[str], bool],
    project_of: Callable[[str], str | None],
    now: float,
    order: Sequence[str] = USUAL_ORDER,
) -> list[Preview]:
    """Return the exact request per target, and a warning for each recipient without one.

    ``describe_host`` gives the address of a push service in an environment, ``has_token`` says
    whether the app proves itself to Apple by a provider token there, and not by a certificate,
    ``project_of`` by which of Google's projects it sends there, if by any; ``order`` that of push
    services for a device with several.
    Raises NotificationError when the notification cannot be sent. Nothing is stored or sent.
    """
    how: dict[str, Any] = {"app": app, "now": now, "notification_id": NO_ID}
    composed = (
        compose_for_targets(plan.targets, notification, **how, order=order)
        if plan.targets
        else compose_for(forms_for(app), notification, **how)
    )
    targets, left_out = reached(plan.targets, composed, order)
    ignored = [
        sentence(f"{title_of(form)}: {said}")
        for form in composed.wordings
        for said in composer(form).unsupported(notification)
    ]
    warnings = [*plan.warnings, *left_out, *composed.warnings, *ignored]
    return [
        *(Preview(recipient="", warning=warning) for warning in warnings),
        *(
            _preview(
                app,
                target,
                composed.wording_for(target),
                describe_host=describe_host,
                has_token=has_token,
                project_of=project_of,
            )
            for target in targets
        ),
    ]


def _preview(
    app: App,
    target: Target,
    wording: Wording,
    *,
    describe_host: Callable[[str, str], str],
    has_token: Callable[[str], bool],
    project_of: Callable[[str], str | None],
) -> Preview:
    message = wording.message
    label = f"{target.mail} ({short_token(target.address)})" if target.mail else target.address
    common = Preview(
        recipient=label,
        payload=message.payload.decode(),
        size=len(message.payload),
        limit=_limit(service_of(target.gateway).name, message),
        language=wording.language,
    )
    match target.gateway:
        case "simulator":
            command = f"xcrun simctl push {target.address} {app.bundle_id} -"
            return replace(common, method="run", url=command)
        case "apns":
            host = describe_host("apns", target.environment)
            proof = _HIDDEN if has_token(target.environment) else ()
            return replace(
                common,
                url=f"{host}{DEVICE_PATH}{target.address}",
                headers=(*proof, (APNS_ID, _LATER), *message.headers),
            )
        case "fcm":
            host = describe_host("fcm", target.environment)
            form = "fid" if is_fid(target.address) else "token"
            body = {"message": {form: target.address, **from_json(message.payload)}}
            return replace(
                common,
                url=f"{host}{send_path(project_of(target.environment) or 'PROJECT')}",
                headers=(*_HIDDEN, *message.headers),
                payload=to_json(body).decode(),
            )
        case _:
            # Its address is a URL. What is shown is what the device decrypts.
            hidden = ((AUTHORIZATION, "vapid (hidden)"),)
            return replace(common, url=target.address, headers=(*hidden, *message.headers))
