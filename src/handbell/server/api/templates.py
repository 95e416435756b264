"""Templates of an app: `/v1/apps/{app}/templates`."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from handbell.apps.templates import StoredTemplate
from handbell.creation.template import Template
from handbell.delivery.accept.preview import LanguagePreview
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.pages import (
    CursorQuery,
    Instant,
    LimitQuery,
    ResultPage,
    instant,
    page,
    read_cursor,
    write_cursor,
)
from handbell.server.problems import responses

router = APIRouter(prefix="/v1/apps/{app}/templates", tags=["templates"])

ContextDep = Annotated[Context, Depends(context_of)]
Name = Annotated[
    str,
    Path(
        description="Small letters, digits, hyphens and underscores; at most 64",
        examples=["order-shipped"],
    ),
]

_NOTIFICATION: Final[JsonDict] = {
    "title": "Your order {{ number }} is on its way",
    "url": "https://shop.example.com/orders/{{ number }}",
    "ttl": 86400,
    "languages": {"fr": {"title": "Votre commande {{ number }} est en route"}},
}


class TemplateIn(BaseModel):
    """A template: a notification whose texts may hold `{{ expressions }}`."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"notification": _NOTIFICATION}]},
    )

    notification: dict[str, Any] = Field(
        description="As for sending, in one or several languages; any text may hold expressions"
    )
    default_language: str = Field(
        default="en",
        max_length=64,
        description="The language of the notification's own texts, as BCP 47 writes it",
    )
    variables: list[str] | None = Field(
        default=None, description="The names that the texts may speak of; found in them if left out"
    )
    name: str | None = Field(default=None, description="May be left out: it is in the address")


class TemplateOut(BaseModel):
    """A stored template."""

    name: str = Field(examples=["order-shipped"])
    default_language: str = Field(examples=["en"])
    languages: list[str] = Field(description="The default one first", examples=[["en", "fr"]])
    notification: dict[str, Any]
    variables: list[str] = Field(examples=[["number"]])
    created_at: Instant
    updated_at: Instant


class TemplatePreviewIn(BaseModel):
    """The variables of a preview."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"variables": {"number": 4711}}]}
    )

    variables: dict[str, Any] = Field(default={}, description="A value for each variable")
    notification: dict[str, Any] = Field(
        default={}, description="Fields that win over the template's, in every language"
    )


class WordingOut(BaseModel):
    """A template as rendered in one language."""

    language: str = Field(examples=["fr"])
    notification: dict[str, Any] = Field(description="Its fields as they are sent")
    payload: str = Field(
        description="The JSON that the push service would get; empty where it cannot be sent"
    )
    size: int = Field(description="Bytes of the payload")
    limit: int = Field(
        description="Bytes that the push service takes; 0 where that is not what is wrong"
    )
    cuts: list[str] = Field(description="What would be cut to fit")
    problem: str = Field(description="Why it cannot be sent so; empty where it can")


class TemplatePreviewOut(BaseModel):
    """A template as rendered, in each of its languages."""

    name: str
    languages: list[WordingOut] = Field(description="The default language first")


@router.get(
    "",
    operation_id="listTemplates",
    summary="List an app's templates",
    responses=responses(400, 401, 403, 404, 409, 422),
)
async def list_templates(
    context: ContextDep, app: AppDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> ResultPage[TemplateOut]:
    """List templates by name."""
    after = "" if cursor is None else read_cursor(cursor, str)[0]
    stored = await context.run(context.system.templates.list, app)
    rows = [describe(item) for item in stored if item.template.name > after][: limit + 1]
    listed = page(rows, limit, lambda row: write_cursor(row["name"]))
    return ResultPage[TemplateOut].model_validate(listed)


@router.get(
    "/{name}",
    operation_id="readTemplate",
    summary="Read a template",
    responses=responses(401, 403, 404, 409),
)
async def read_template(context: ContextDep, app: AppDep, name: Name) -> TemplateOut:
    """Return a stored template."""
    stored = await context.run(context.system.templates.get, app, name)
    return TemplateOut.model_validate(describe(stored))


@router.put(
    "/{name}",
    operation_id="putTemplate",
    summary="Store a template",
    responses={
        201: {"description": "There was none of this name", "model": TemplateOut},
        **responses(400, 401, 403, 404, 409, 413, 415, 422),
    },
)
async def put_template(
    context: ContextDep,
    caller: CallerDep,
    app: AppDep,
    *,
    name: Name,
    given: TemplateIn,
    response: Response,
) -> TemplateOut:
    """Store a template; one of the same name is replaced.

    It is checked first: an invalid expression, or a text that no values make valid, is refused.
    """

    def write() -> tuple[StoredTemplate, bool]:
        template = Template.read(given.model_dump(exclude_none=True), name=name)
        put = context.system.templates.put(app, template)
        context.system.audit.note(caller.actor, "template.put", template.name, app=app.id)
        return put

    stored, is_new = await context.run(write)
    response.status_code = 201 if is_new else 200
    return TemplateOut.model_validate(describe(stored))


@router.delete(
    "/{name}",
    operation_id="removeTemplate",
    summary="Remove a template",
    status_code=204,
    responses=responses(401, 403, 404, 409),
)
async def remove_template(
    context: ContextDep, caller: CallerDep, app: AppDep, name: Name
) -> Response:
    """Remove a template; what was accepted before goes out as it was rendered."""

    def write() -> None:
        context.system.templates.remove(app, name)
        context.system.audit.note(caller.actor, "template.remove", name, app=app.id)

    await context.run(write)
    return Response(status_code=204)


@router.post(
    "/{name}/preview",
    operation_id="previewTemplate",
    summary="Show what a template comes to",
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422),
)
async def preview_template(
    context: ContextDep, app: AppDep, name: Name, given: TemplatePreviewIn
) -> TemplatePreviewOut:
    """Return the notification in each language, its bytes, and what would be cut.

    Nothing is stored or sent. A language that cannot be sent has a `problem`; the others do not
    depend on it.
    """
    preview = await context.run(
        context.system.previewer.template, app, name, given.variables, given.notification
    )
    return TemplatePreviewOut.model_validate(
        {"name": name, "languages": [wording(item) for item in preview]}
    )


def describe(stored: StoredTemplate) -> dict[str, Any]:
    """Return what is told of a template."""
    template = stored.template
    return {
        **template.to_dict(),
        "languages": list(template.languages),
        "created_at": instant(stored.created_at),
        "updated_at": instant(stored.updated_at),
    }


def wording(one: LanguagePreview) -> dict[str, Any]:
    """Return what is told of one language."""
    return {
        "language": one.language or "",
        "notification": one.notification,
        "payload": one.payload,
        "size": one.size,
        "limit": one.limit,
        "cuts": list(one.cuts),
        "problem": one.problem,
    }
