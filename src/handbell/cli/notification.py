"""``handbell notification``: sent notifications, their progress and cancellation."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from handbell._text import count, moment, sentence

from .api_key import ACTOR
from .context import system
from .output import Json, local_time, say, write_json, write_table
from .progress import NO_WORKER, watch

if TYPE_CHECKING:
    from handbell.delivery.ledger.reports import Funnel, Overview, ReasonCount

commands = typer.Typer(
    help="Sent notifications, their progress and cancellation.", no_args_is_help=True
)

NotificationId = Annotated[
    str, typer.Argument(metavar="ID", help="The id that `send` and `notification list` show.")
]


@commands.command("list")
def list_notifications(
    *,
    app: Annotated[
        str | None,
        typer.Option("--app", envvar="HANDBELL_APP", help="Only this app's."),
    ] = None,
    state: Annotated[
        Literal["open", "failed", "dead_letter", "cancelled"] | None,
        typer.Option(help="Only those in this state."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """List notifications, the newest first, with their deliveries by state."""
    from handbell.delivery.ledger.listing import (  # noqa: PLC0415 - loads the database
        NotificationSearch,
    )

    parts = system()
    named = app or parts.settings.app
    search = NotificationSearch(app=parts.apps.find(named).id if named else None, standing=state)
    found = parts.reports.page(search, limit=limit)
    if as_json:
        write_json([{**_plain(item), "total": item.total} for item in found])
        return
    write_table(
        ["id", "written", "says", "to", "deliveries"],
        (
            [item.id, local_time(item.created_at), item.title, item.recipients, _states(item)]
            for item in found
        ),
        "Nothing was sent yet. Send with: handbell send test@4d.com --title Hello"
        if state is None
        else "There is no such notification.",
    )


@commands.command()
def show(
    notification_id: NotificationId,
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Show the progress until it is sent.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a notification and its funnel: accepted, sent, displayed, opened, and failures."""
    parts = system()
    reports = parts.reports

    def has_worker() -> bool:
        return parts.known_workers.live_workers() > 0

    if follow:
        asyncio.run(watch(reports, notification_id, has_worker=has_worker))
    funnel = reports.funnel(notification_id)
    if as_json:
        write_json({**_plain(funnel), "accepted": funnel.accepted, "sent": funnel.sent})
        return
    for line in _lines(funnel, has_worker=has_worker()):
        say(line)


@commands.command()
def cancel(notification_id: NotificationId, *, as_json: Json = False) -> None:
    """Cancel what is not sent yet, and print the number of cancelled deliveries."""
    parts = system()
    app = parts.app_of(notification_id)
    caught = asyncio.run(parts.engine.cancel(app, notification_id))
    parts.audit.note(
        ACTOR, "notification.cancel", notification_id, app=app.id, detail=f"{caught} caught"
    )
    if as_json:
        write_json({"cancelled": caught})
        return
    left = parts.reports.funnel(notification_id)
    say(
        f"Cancelled {count(caught, 'delivery', 'deliveries')} of {left.accepted:,}; "
        f"{left.sent:,} had been sent."
    )


@commands.command()
def resend(
    notification_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The id that `notification list` shows; without it, all of an app."
        ),
    ] = None,
    *,
    app: Annotated[
        str | None,
        typer.Option("--app", envvar="HANDBELL_APP", help="The app, where no id is given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send dead letters again: deliveries on which Handbell itself failed again and again.

    They wait as if they had just been accepted; the next free worker sends them.
    """
    parts = system()
    of = parts.apps.find(app) if notification_id is None else parts.app_of(notification_id)

    async def send_again() -> int:
        try:
            return await parts.engine.resend(of, notification_id)
        finally:
            await parts.close_gateways()

    number = asyncio.run(send_again())
    about = notification_id or of.id
    parts.audit.note(ACTOR, "notification.resend", about, app=of.id, detail=f"{number} sent again")
    if as_json:
        write_json({"resent": number})
        return
    say(
        f"{count(number, 'dead letter')} of {about} {'waits' if number == 1 else 'wait'} again."
        if number
        else f"There is no dead letter of {about}."
    )


def _plain(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _states(overview: "Overview") -> str:
    parts = [f"{number:,} {state}" for state, number in overview.states.items()]
    if overview.ahead:
        parts.append(f"{overview.ahead:,} to come")
    return ", ".join(parts) or "none"


def _lines(funnel: "Funnel", *, has_worker: bool) -> list[str]:
    overview = funnel.overview
    to = f"to {overview.recipients} of {overview.app}, {funnel.urgency}"
    lines = [
        f"{overview.id}  {overview.title}",
        f"  {to}, written at {moment(overview.created_at)}",
    ]
    if funnel.send_at is not None:
        lines.append(f"  to go out at {funnel.send_at}")
    if overview.cancelled_at is not None:
        lines.append(f"  cancelled at {moment(overview.cancelled_at)}")
    lines += ["", *_funnel_lines(funnel)]
    lines += _outlook(funnel, has_worker=has_worker)
    if funnel.reasons:
        lines.append("")
    for reason in funnel.reasons:
        lines += _reason_lines(reason)
    content = json.dumps(dict(funnel.content), ensure_ascii=False)
    return [*lines, "", f"Content: {content}"]


def _outlook(funnel: "Funnel", *, has_worker: bool) -> list[str]:
    """Return what is still to come, and whether a worker is missing for it."""
    overview, lines = funnel.overview, list[str]()
    if overview.is_running:
        outlook = "It is going out now" if has_worker else "It waits to go out"
        lines += ["", f"{outlook}: {_states(overview)}."]
    if funnel.next_due_at is not None:
        outlook = "What waits goes on by itself, the next" if has_worker else "More is to go out"
        lines += ["", f"{outlook} at {moment(funnel.next_due_at)}."]
    if lines and not has_worker:
        lines.append(NO_WORKER)
    return lines


def _funnel_lines(funnel: "Funnel") -> list[str]:
    steps = (
        ("accepted", funnel.accepted),
        ("sent", funnel.sent),
        ("displayed", funnel.displayed),
        ("opened", funnel.opened),
    )
    width = len(f"{funnel.accepted:,}")
    return [f"  {name:10}{number:>{width},}{_share(number, funnel)}" for name, number in steps]


def _share(number: int, funnel: "Funnel") -> str:
    return f"  {number / funnel.accepted:6.1%}" if funnel.accepted else ""


def _reason_lines(reason: "ReasonCount") -> list[str]:
    lines = [f"  {reason.number:,} {reason.state}, {reason.reason}: {sentence(reason.meaning)}"]
    if reason.fix and not reason.fix.startswith("nothing"):
        lines.append(f"    To do: {sentence(reason.fix)}")
    return lines
