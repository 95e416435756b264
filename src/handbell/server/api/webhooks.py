"""Webhooks of an app: `/v1/apps/{app}/webhooks`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from handbell.apps.app import App
from handbell.delivery.webhooks.store import Webhook, WebhookStatus
from handbell.errors import NotFoundError
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.pages import MOST_ID, Instant, ResultPage, address_of, instant
from handbell.server.problems import responses

router = APIRouter(prefix="/v1/apps/{app}/webhooks", tags=["webhooks"])

ContextDep = Annotated[Context, Depends(context_of)]
WebhookId = Annotated[int, Path(ge=1, le=MOST_ID, description="Its number")]

_EXAMPLE: Final = "https://example.com/handbell"


class WebhookOut(BaseModel):
    """A webhook and the state of its calls."""

    id: int
    url: str = Field(examples=[_EXAMPLE])
    events: list[str] = Field(examples=[["delivery.failed", "session.closed"]])
    is_enabled: bool
    waiting: int = Field(description="Calls that wait for an answer that takes them")
    failed: int = Field(description="Calls that were given up")
    last_reason: str | None = Field(description="What the last trouble was")
    created_at: Instant


class NewWebhookOut(WebhookOut):
    """A new webhook. Its secret is shown this once."""

    secret: str = Field(description="What its calls are signed with", examples=["whsec_..."])


class WebhookIn(BaseModel):
    """A new webhook."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"url": _EXAMPLE}]})

    url: str = Field(max_length=2000, description="An https address that is public")
    events: list[str] = Field(
        default=[], max_length=20, description="The events to tell of; without it, all of them"
    )


class WebhookChange(BaseModel):
    """The members to change."""

    model_config = ConfigDict(extra="forbid")

    is_enabled: bool = Field(description="While it is off, what happens is not told")


@router.get(
    "",
    operation_id="listWebhooks",
    summary="List an app's webhooks",
    responses=responses(401, 403, 404, 409),
)
async def list_webhooks(context: ContextDep, app: AppDep) -> ResultPage[WebhookOut]:
    """List webhooks, oldest first."""
    store = context.system.webhooks

    def read() -> list[dict[str, Any]]:
        standings = store.standings()
        return [_describe(item, standings.get(item.id)) for item in store.list(app)]

    return ResultPage[WebhookOut].model_validate({"data": await context.run(read), "next": None})


@router.post(
    "",
    operation_id="addWebhook",
    summary="Add a webhook",
    status_code=201,
    responses=responses(400, 401, 403, 404, 409, 413, 422),
)
async def add_webhook(  # noqa: PLR0917 - FastAPI calls it by name
    context: ContextDep,
    caller: CallerDep,
    app: AppDep,
    body: WebhookIn,
    request: Request,
    response: Response,
) -> NewWebhookOut:
    """Add a webhook. Its signing secret is in this response only."""

    def write() -> NewWebhookOut:
        added, secret = context.system.webhooks.add(app, body.url, events=body.events)
        # The address may carry a secret of the receiver's own.
        context.system.audit.note(caller.actor, "webhook.add", str(added.id), app=app.id)
        return NewWebhookOut.model_validate({**_describe(added, None), "secret": secret})

    added = await context.run(write)
    response.headers["Location"] = address_of(request, f"/v1/apps/{app.id}/webhooks/{added.id}")
    return added


@router.patch(
    "/{webhook}",
    operation_id="changeWebhook",
    summary="Switch a webhook on or off",
    responses=responses(400, 401, 403, 404, 409, 413, 422),
)
async def change_webhook(
    context: ContextDep, caller: CallerDep, app: AppDep, webhook: WebhookId, body: WebhookChange
) -> WebhookOut:
    """Enable or disable a webhook; stored calls resume when it is enabled again."""

    def write() -> WebhookOut:
        store = context.system.webhooks
        _find(context, app, webhook)
        changed = store.set_enabled(webhook, body.is_enabled)
        context.system.audit.note(
            caller.actor,
            "webhook.set",
            str(webhook),
            app=app.id,
            detail="on" if body.is_enabled else "off",
        )
        return WebhookOut.model_validate(_describe(changed, store.standings().get(webhook)))

    return await context.run(write)


@router.delete(
    "/{webhook}",
    operation_id="removeWebhook",
    summary="Remove a webhook",
    status_code=204,
    responses=responses(401, 403, 404, 409, 422),
)
async def remove_webhook(
    context: ContextDep, caller: CallerDep, app: AppDep, webhook: WebhookId
) -> Response:
    """Remove a webhook and its pending calls."""

    def write() -> None:
        _find(context, app, webhook)
        context.system.webhooks.remove(webhook)
        context.system.audit.note(caller.actor, "webhook.remove", str(webhook), app=app.id)

    await context.run(write)
    return Response(status_code=204)


def _find(context: Context, app: App, webhook_id: int) -> Webhook:
    for webhook in context.system.webhooks.list(app):
        if webhook.id == webhook_id:
            return webhook
    raise NotFoundError(f"{app.id} has no webhook {webhook_id}", fix="List what there is with GET")


def _describe(webhook: Webhook, standing: WebhookStatus | None) -> dict[str, Any]:
    standing = standing or WebhookStatus()
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": list(webhook.events),
        "is_enabled": webhook.is_enabled,
        "waiting": standing.waiting,
        "failed": standing.failed,
        "last_reason": standing.last_reason,
        "created_at": instant(webhook.created_at),
    }
