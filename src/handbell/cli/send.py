"""``handbell send``: write a notification and send it to people."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from handbell._text import count
from handbell._thread_pool import in_thread
from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.creation.template import read_template_use
from handbell.errors import NotificationError, RecipientsError

from . import context
from .inputs import read_file, read_json, read_pairs
from .output import AppOption, Json, console, say, write_json, write_lines
from .progress import NO_WORKER, watch
from .template import write_languages

if TYPE_CHECKING:
    from handbell.delivery.accept.preview import LanguagePreview, Preview
    from handbell.delivery.response import Response
    from handbell.push import SendOptions


_RULES: Final = {
    "Scheduled": "It is stored and waits for its time",
    "QuietHours": "It is stored and waits for the end of the quiet hours",
    "RateLimit": "It is stored and waits for its turn, by the app's rate",
    "Capped": "It was not sent, by the app's cap per person",
}
"""The message when an operator's rule, or the requested time, holds all of a send."""

_SAYS_SOMETHING: Final = frozenset(
    ("title", "body", "subtitle", "badge", "sound", "silent", "template", "payload")
)
"""The options that are content by themselves; the others add to a file or standard input."""

Written = Notification | dict[str, Any]
"""A notification, or the use of an app's template."""


def send(
    recipients: Annotated[
        list[str] | None,
        typer.Argument(
            help="Mail addresses, device tokens, endpoints of subscriptions or simulators."
        ),
    ] = None,
    *,
    title: Annotated[str | None, typer.Option(help="First line.")] = None,
    body: Annotated[str | None, typer.Option(help="The text.")] = None,
    subtitle: Annotated[str | None, typer.Option(help="Second line.")] = None,
    badge: Annotated[int | None, typer.Option(help="Number on the icon; 0 clears it.")] = None,
    sound: Annotated[str | None, typer.Option(help="Sound file in the app, or default.")] = None,
    url: Annotated[str | None, typer.Option(help="What a tap opens.")] = None,
    image: Annotated[
        str | None,
        typer.Option("--image-url", "--image", help="Address of a picture to show."),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(help="For the app: NAME=TEXT, NAME:=2 for any JSON value, or a JSON object."),
    ] = None,
    payload: Annotated[
        str | None,
        typer.Option(help="Raw members of the payload, a JSON object; also within aps."),
    ] = None,
    android: Annotated[
        str | None,
        typer.Option(help="Members of FCM's object android, a JSON object; for Android alone."),
    ] = None,
    web: Annotated[
        str | None,
        typer.Option(help="Members of a browser's notification, a JSON object; for Web Push."),
    ] = None,
    collapse_id: Annotated[
        str | None, typer.Option(help="Replaces an earlier notification with the same id.")
    ] = None,
    ttl: Annotated[
        int | None,
        typer.Option(help="Seconds to keep it for a phone that is off; 0: now or never."),
    ] = None,
    silent: Annotated[bool, typer.Option("--silent", help="Wake the app, show nothing.")] = False,
    file: Annotated[
        Path | None,
        typer.Option(help="Notification as JSON, - for standard input; options override it."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="A stored template; options override its members.")
    ] = None,
    variable: Annotated[
        list[str] | None,
        typer.Option(
            help="For the template: NAME=TEXT, NAME:=2 for any JSON value, or a JSON object."
        ),
    ] = None,
    shorten: Annotated[
        bool, typer.Option("--shorten", help="Cut texts that are too long instead of failing.")
    ] = False,
    to_all: Annotated[bool, typer.Option("--all", help="Send to every active session.")] = False,
    send_at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="When: 2026-12-24T18:00 for that time wherever each recipient is, "
            "2026-12-24T18:00+01:00 for one moment.",
        ),
    ] = None,
    urgency: Annotated[
        Literal["urgent", "normal", "bulk"] | None,
        typer.Option(help="Priority in the queue.", show_default="normal, and bulk with --all"),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A repeated key sends nothing and returns the first answer."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show headers and payload per recipient; send nothing."),
    ] = False,
    app: AppOption = None,
    as_json: Json = False,
) -> None:
    """Send a notification. JSON is read from standard input when no option gives the content."""
    given = {
        "title": title,
        "body": body,
        "subtitle": subtitle,
        "badge": badge,
        "sound": sound,
        "url": url,
        "image_url": image,
        "user_info": read_pairs("--data", data) or None,
        "payload": None if payload is None else read_json(payload.encode(), "--payload"),
        "android": None if android is None else read_json(android.encode(), "--android"),
        "web": None if web is None else read_json(web.encode(), "--web"),
        "collapse_id": collapse_id,
        "ttl": ttl,
        "silent": silent or None,
        "template": template,
        "variables": read_pairs("--variable", variable) or None,
        "shorten": shorten or None,
    }
    content = {name: value for name, value in given.items() if value is not None}
    written = _read_content(file, content)
    # A template is rendered once its app is known; all else is checked before a file is opened.
    notification = written if read_template_use(written) else Notification.read(written)
    named = _read_recipients(recipients, to_all=to_all)
    send_options: SendOptions = {
        "send_at": send_at,
        "urgency": urgency,
        "idempotency_key": idempotency_key,
    }
    if dry_run:
        _show(*_preview(app, notification, named, send_options), as_json=as_json)
        return
    response = _send(app, notification, named, send_options)
    waits = _waits(response, is_scheduled=send_at is not None, to_all=to_all)
    _tell(response, waits=waits, as_json=as_json)
    if not response.success and not waits:
        raise typer.Exit(1)


def _send(
    app: str | None, notification: Written, recipients: Recipients, send_options: "SendOptions"
) -> "Response":
    from handbell._portal import portal  # noqa: PLC0415 - starts a thread

    return portal().run(_send_in_loop(app, notification, recipients, send_options))


async def _send_in_loop(
    app: str | None, written: Written, recipients: Recipients, send_options: "SendOptions"
) -> "Response":
    from handbell.delivery.engine import Options  # noqa: PLC0415 - heavy
    from handbell.shared_systems import using  # noqa: PLC0415

    # Open until the process ends, which releases other work it has taken.
    async with using(context.settings(), _send_in_loop) as parts:
        found = await in_thread(parts.apps.find, app or parts.settings.app)
        notification = await in_thread(parts.templates.read_notification, found, written)
        options = Options.read(**send_options)
        if not (recipients.everybody and console.is_terminal):
            return await parts.engine.send(found, notification, recipients, options)
        await parts.engine.start()
        accepted, warnings = await parts.engine.accept(found, notification, recipients, options)
        await asyncio.gather(
            watch(parts.reports, accepted.id), parts.engine.worker.settled(accepted.row)
        )
        return await in_thread(parts.engine.response, accepted.id, warnings)


def _preview(
    app: str | None, written: Written, recipients: Recipients, send_options: "SendOptions"
) -> "tuple[list[Preview], list[LanguagePreview]]":
    from handbell.delivery.engine import Options  # noqa: PLC0415 - heavy

    parts = context.system()
    found = parts.apps.find(app or parts.settings.app)
    for warning in parts.engine.check_send_time(found, recipients, Options.read(**send_options)):
        say(f"warning: {warning}", err=True)
    notification = parts.templates.read_notification(found, written)
    languages = parts.previewer.languages(found, notification) if notification.languages else []
    return parts.previewer.requests(found, notification, recipients), languages


def _read_recipients(recipients: list[str] | None, *, to_all: bool) -> Recipients:
    if to_all and recipients:
        raise RecipientsError("--all was given together with recipients", fix="Give one of them")
    if not to_all and not recipients:
        raise RecipientsError(
            "No recipients were named",
            fix="Name a mail address such as test@4d.com, or use --all",
        )
    return EVERYBODY if to_all else Recipients.read(recipients or [])


def _read_content(file: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    if file is not None and str(file) != "-":
        return {**read_json(read_file(file), str(file)), **given}
    if file is not None or (_SAYS_SOMETHING.isdisjoint(given) and not sys.stdin.isatty()):
        text = sys.stdin.buffer.read()
        if file is not None or text.strip():
            return {**read_json(text, "standard input"), **given}
    if not given:
        raise NotificationError(
            "Nothing was written", fix="Give --title and --body, --file, or JSON on standard input"
        )
    return given


def _waits(response: "Response", *, is_scheduled: bool, to_all: bool) -> str:
    """Return the message when nothing was sent because of a rule or a time; else "".

    The deliveries of a broadcast are not read: there may be millions, or none before the time.
    """
    if response.reached or response.errors:
        return ""
    if to_all:
        return _RULES["Scheduled"] if is_scheduled else ""
    reasons = {delivery.reason or "" for delivery in response.deliveries}
    if not reasons or not reasons <= _RULES.keys():
        return ""
    return _RULES[next(reason for reason in _RULES if reason in reasons)]


def _is_reached(response: "Response") -> bool:
    return 0 < response.total <= response.reached


def _is_stranded(response: "Response") -> bool:
    """Return whether something is still to be sent, and no other process would send it."""
    parts = context.system()
    funnel = parts.reports.funnel(response.notification_id or "")
    is_moving = funnel.overview.is_running or funnel.next_due_at is not None
    return is_moving and not parts.known_workers.live_workers(elsewhere=True)


def _tell(response: "Response", *, waits: str, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "success": response.success,
                "notification_id": response.notification_id,
                "warnings": response.warnings,
                "errors": response.errors,
                "deliveries": list(response.deliveries),
            }
        )
        return
    is_stranded = _is_stranded(response) if waits or not _is_reached(response) else False
    if is_stranded and not response.total:
        waits = waits or "It is stored and waits to go out"
    reached = f"for {count(response.reached, 'device')} of {response.total:,}"
    say(f"{waits or f'Accepted {reached}'}. Id: {response.notification_id}")
    write_lines(response.warnings, "warning: ", "yellow")
    write_lines(response.errors, "error: ", "red")
    if is_stranded:
        write_lines([NO_WORKER], "warning: ", "yellow")


def _show(previews: "list[Preview]", languages: "list[LanguagePreview]", *, as_json: bool) -> None:
    if as_json:
        write_json(previews)
        return
    for preview in previews:
        if preview.warning:
            write_lines([preview.warning], "warning: ", "yellow")
            continue
        spoken = f", in {preview.language}" if preview.language else ""
        say(f"{preview.recipient}{spoken}")
        say(f"  {preview.method} {preview.url}")
        for name, value in preview.headers:
            say(f"  {name}: {value}")
        say("", f"  {preview.payload}", f"  ({count(preview.size, 'byte')})", "")
    write_languages(languages)
