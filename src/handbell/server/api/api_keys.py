"""API keys: `/v1/api-keys`."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from handbell.access.api_keys import SCOPES, ApiKey, Scope
from handbell.apps.app import App
from handbell.errors import AppForbiddenError, UnknownKeyError
from handbell.server.access import Caller, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.pages import (
    CursorQuery,
    Instant,
    LimitQuery,
    ResultPage,
    address_of,
    instant,
    page,
    read_cursor,
    write_cursor,
)
from handbell.server.problems import responses

router = APIRouter(prefix="/v1/api-keys", tags=["API keys"])

ContextDep = Annotated[Context, Depends(context_of)]


class ApiKeyOut(BaseModel):
    """An API key without its secret."""

    prefix: str = Field(examples=["hbk_1a2b3c4d"])
    name: str = Field(examples=["the shop's back end"])
    scopes: list[Scope] = Field(description="administer includes the two others")
    app: str | None = Field(description="The only app it serves; null serves every app")
    created_at: Instant
    used_at: Instant | None = Field(description="To the minute; null when it was never used")
    revoked_at: Instant | None = Field(description="Set once it is invalid")


class NewApiKeyOut(ApiKeyOut):
    """A new API key. Its secret is shown this once."""

    key: str = Field(examples=["hbk_1a2b3c4d_..."])


class ApiKeyIn(BaseModel):
    """A new API key."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"name": "the shop's back end", "scopes": ["send"]}]},
    )

    name: str = Field(min_length=1, max_length=200, description="Who holds it")
    scopes: list[Scope] = Field(min_length=1, max_length=10)
    app: str | None = Field(
        default=None, max_length=200, description="The only app it may serve; without it, every app"
    )


@router.get(
    "",
    operation_id="listApiKeys",
    summary="List the API keys",
    responses=responses(400, 401, 403, 422),
)
async def list_api_keys(
    context: ContextDep, caller: CallerDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> ResultPage[ApiKeyOut]:
    """List API keys, newest first. A key of one app sees the keys of that app."""
    before = None if cursor is None else read_cursor(cursor, int)[0]

    def read() -> dict[str, Any]:
        keys = [
            key
            for key in context.system.api_keys.list()
            if caller.app in (None, key.app_row) and (before is None or key.id < before)
        ]
        shown = page(keys[: limit + 1], limit, lambda key: write_cursor(key.id))
        return {**shown, "data": [describe(key) for key in shown["data"]]}

    return ResultPage[ApiKeyOut].model_validate(await context.run(read))


@router.post(
    "",
    operation_id="addApiKey",
    summary="Make an API key",
    status_code=201,
    responses=responses(400, 401, 403, 404, 409, 413, 422),
)
async def add_api_key(
    context: ContextDep, caller: CallerDep, body: ApiKeyIn, request: Request, response: Response
) -> NewApiKeyOut:
    """Create an API key. Only this response has its secret. A key of one app adds keys of it."""

    def write() -> NewApiKeyOut:
        app = _app(context, caller, body.app)
        key, secret = context.system.api_keys.add(body.name, body.scopes, app)
        context.system.audit.note(
            caller.actor,
            "api-key.add",
            key.prefix,
            app=key.app,
            detail=f"{key.name}: {', '.join(scope for scope in SCOPES if scope in key.scopes)}",
        )
        return NewApiKeyOut.model_validate({**describe(key), "key": secret})

    added = await context.run(write)
    response.headers["Location"] = address_of(request, f"/v1/api-keys/{added.prefix}")
    return added


@router.delete(
    "/{prefix}",
    operation_id="revokeApiKey",
    summary="Revoke an API key",
    status_code=204,
    responses=responses(401, 403, 404),
)
async def revoke_api_key(context: ContextDep, caller: CallerDep, prefix: str) -> Response:
    """Revoke an API key permanently; other processes follow within a second."""

    def write() -> None:
        keys = context.system.api_keys
        key = keys.find(prefix)
        if caller.app not in (None, key.app_row):
            # What keys others have is not this one's to know.
            raise UnknownKeyError(
                f"There is no API key {prefix!r}", fix="List what there is with GET"
            )
        keys.revoke(prefix)
        context.system.audit.note(caller.actor, "api-key.revoke", key.prefix, app=key.app)

    await context.run(write)
    return Response(status_code=204)


def _app(context: Context, caller: Caller, reference: str | None) -> App | None:
    if caller.app is None:
        return None if reference is None else context.system.apps.find(reference)
    own = next(app for app in context.system.apps.list() if app.row == caller.app)
    if reference not in {text for _, text in own.references}:
        raise AppForbiddenError(f"This key serves {own.id} only", fix=f"Name that app: {own.id}")
    return own


def describe(key: ApiKey) -> dict[str, Any]:
    """Return what is told of an API key."""
    return {
        "prefix": key.prefix,
        "name": key.name,
        "scopes": [scope for scope in SCOPES if scope in key.scopes],
        "app": key.app,
        "created_at": instant(key.created_at),
        "used_at": instant(key.used_at),
        "revoked_at": instant(key.revoked_at),
    }
