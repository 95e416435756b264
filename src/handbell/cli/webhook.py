"""``handbell webhook``: webhooks of apps' own back ends."""

from typing import TYPE_CHECKING, Annotated

import typer

from handbell._text import count

from .api_key import ACTOR
from .context import system
from .inputs import number_of
from .output import AppOption, Json, local_time, say, write_json, write_table

if TYPE_CHECKING:
    from handbell.delivery.webhooks.store import WebhookStatus, WebhookStore
    from handbell.system import System

commands = typer.Typer(
    help="Webhooks: URLs of your back end that receive events.", no_args_is_help=True
)

WebhookId = Annotated[
    int,
    typer.Argument(
        parser=number_of("webhook"),
        metavar="webhook_id",
        help="The webhook's number, as `webhook list` shows it.",
    ),
]


@commands.command()
def add(
    url: Annotated[str, typer.Argument(help="The https address to call.")],
    *,
    app: AppOption = None,
    events: Annotated[
        str,
        typer.Option(
            help="Events to send: delivery.failed, session.closed, session.quarantined, "
            "circuit.opened, circuit.closed, service.down, service.up; separated by commas.",
            show_default="all of them",
        ),
    ] = "",
    as_json: Json = False,
) -> None:
    """Add a webhook. Its secret is shown once."""
    parts = system()
    found = parts.apps.find(app or parts.settings.app)
    names = [name for name in events.split(",") if name.strip()]
    webhook, secret = _store(parts).add(found, url, events=names)
    # The URL may contain a secret of the receiver.
    parts.audit.note(ACTOR, "webhook.add", str(webhook.id), app=found.id)
    if as_json:
        write_json({"webhook": webhook, "secret": secret})
        return
    say(f"Webhook {webhook.id} of {found.id} is called for {', '.join(webhook.events)}.")
    say(f"Secret: {secret}")
    say(f"Next: handbell webhook test {webhook.id}")


@commands.command("list")
def list_webhooks(*, app: AppOption = None, as_json: Json = False) -> None:
    """List webhooks and the state of their calls; of all apps unless one is given."""
    parts = system()
    store = _store(parts)
    webhooks = store.list(parts.apps.find(app) if app else None)
    standings = store.standings()
    if as_json:
        write_json(
            [{"webhook": webhook, "calls": standings.get(webhook.id)} for webhook in webhooks]
        )
        return
    write_table(
        ["webhook", "app", "address", "state", "waiting", "given up", "last answer", "added"],
        (
            [
                webhook.id,
                webhook.app,
                webhook.url,
                "on" if webhook.is_enabled else "off",
                *_calls(standings.get(webhook.id)),
                local_time(webhook.created_at),
            ]
            for webhook in webhooks
        ),
        "There is no webhook yet. Add one with: handbell webhook add URL",
    )


@commands.command()
def remove(webhook_id: WebhookId) -> None:
    """Remove a webhook and its pending calls."""
    parts = system()
    store = _store(parts)
    webhook = store.find(webhook_id)
    store.remove(webhook_id)
    parts.audit.note(ACTOR, "webhook.remove", str(webhook_id), app=webhook.app)
    say(f"Removed webhook {webhook_id}.")


@commands.command("test")
def call_once(webhook_id: WebhookId, *, as_json: Json = False) -> None:
    """Call a webhook once with the event `test`, and print its answer."""
    from handbell.delivery.webhooks.sender import WebhookSender  # noqa: PLC0415 - heavy

    parts = system()
    webhook = _store(parts).find(webhook_id)
    sender = WebhookSender(parts.database, parts.vault, outbound=parts.outbound, now=parts.now)
    answer = sender.send_test(webhook)
    if as_json:
        write_json({"taken": answer.is_success, "status": answer.status, "reason": answer.reason})
    else:
        taken = "took it" if answer.is_success else "did not take it"
        say(f"{webhook.url} {taken}: {answer.reason}")
    if not answer.is_success:
        raise typer.Exit(1)


@commands.command()
def enable(webhook_id: WebhookId) -> None:
    """Enable a webhook."""
    parts = system()
    webhook = _store(parts).set_enabled(webhook_id, is_enabled=True)
    parts.audit.note(ACTOR, "webhook.set", str(webhook_id), app=webhook.app, detail="on")
    say(f"Webhook {webhook.id} is on.")


@commands.command()
def disable(webhook_id: WebhookId) -> None:
    """Disable a webhook: events in the meantime are dropped."""
    parts = system()
    store = _store(parts)
    webhook = store.set_enabled(webhook_id, is_enabled=False)
    parts.audit.note(ACTOR, "webhook.set", str(webhook_id), app=webhook.app, detail="off")
    standing = store.standings().get(webhook.id)
    waiting = count(standing.waiting if standing else 0, "call")
    say(f"Webhook {webhook.id} is off; {waiting} will wait until it is on again.")


def _store(parts: "System") -> "WebhookStore":
    from handbell.delivery.webhooks.store import WebhookStore  # noqa: PLC0415 - heavy

    return WebhookStore(
        parts.database,
        parts.vault,
        allow_private=parts.settings.webhook_allow_private,
        now=parts.now,
    )


def _calls(standing: "WebhookStatus | None") -> list[object]:
    if standing is None:
        return [0, 0, ""]
    return [standing.waiting, standing.failed, standing.last_reason]
