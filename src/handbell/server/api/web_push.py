"""An app's web push key: `/v1/apps/{app}/web-push`."""

from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from handbell.errors import MissingCredentialError, NotFoundError
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.problems import responses
from handbell.services.webpush.credential import VapidKey

from .credentials import CredentialAdded, add

router = APIRouter(prefix="/v1/apps/{app}/web-push")

ContextDep = Annotated[Context, Depends(context_of)]


class WebPushOut(BaseModel):
    """What a page needs to subscribe."""

    public_key: str = Field(
        description="The page's `applicationServerKey`",
        examples=[
            "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
        ],
    )
    environment: Literal["production", "twin"] = Field(
        description="Where such subscriptions live: to be registered with them"
    )


@router.get(
    "",
    operation_id="getWebPushKey",
    summary="Read the key that pages subscribe with",
    tags=["sessions"],
    responses=responses(404),
)
async def get_web_push_key(context: ContextDep, app: AppDep) -> WebPushOut:
    """Return the public half of the app's web push key; anybody may read it."""
    try:
        key = await context.run(context.system.apps.web_push_key, app)
    except MissingCredentialError as error:
        raise NotFoundError(error.what, fix=error.fix) from None
    return WebPushOut.model_validate(asdict(key))


class WebPushKeyIn(BaseModel):
    """What a new web push key is for."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{}]})

    environment: Literal["production", "twin"] | None = Field(
        default=None, description="The only one it is to serve"
    )
    force: bool = Field(
        default=False, description="Replace the former key though subscriptions are lost with it"
    )


class WebPushKeyMade(CredentialAdded):
    """A new web push key, with its public half."""

    public_key: str = Field(description="What pages subscribe with")


@router.post(
    "",
    operation_id="makeWebPushKey",
    summary="Make a web push key",
    status_code=201,
    tags=["credentials"],
    responses=responses(400, 401, 403, 404, 409, 413, 422),
)
async def make_web_push_key(
    context: ContextDep, caller: CallerDep, app: AppDep, body: WebPushKeyIn
) -> WebPushKeyMade:
    """Make the key that pages subscribe with. It is stored encrypted, and never shown.

    It takes the place of the former one. If browsers have subscribed with that, the answer is 409
    `credential-in-use`, unless `force` is true.
    """
    key = VapidKey.make()
    store = partial(add, context, caller, app, key, body.environment, is_forced=body.force)
    added = await context.run(store)
    return WebPushKeyMade(**added.model_dump(), public_key=key.public_key)
