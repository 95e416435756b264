"""Notifications over HTTP: send, read, cancel, replace."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handbell._mail import fold_mail
from handbell.apps.app import App
from handbell.delivery.accept.prepare import URGENCIES
from handbell.delivery.delivery import State
from handbell.delivery.ledger.listing import DeliverySearch, NotificationSearch, NotificationStatus
from handbell.delivery.ledger.reports import Overview
from handbell.errors import HandbellError, InvalidRequestError, MediaTypeError
from handbell.server.access import AppDep, CallerDep, app_of, caller_of
from handbell.server.context import context_of
from handbell.server.pages import (
    CursorQuery,
    LimitQuery,
    ResultPage,
    address_of,
    read_cursor,
    write_cursor,
)
from handbell.server.problems import responses
from handbell.server.requests import header, read_body

from . import notification_models as models
from . import representation
from .acceptance import outcome_of, read_wait
from .entries import check_members, names_costly, read_json, read_recipients
from .many import answer_lines, answer_list, described_header, reader_of
from .streaming import MEDIA_TYPES
from .tokens import told_to

router = APIRouter(prefix="/v1/apps/{app}/notifications", tags=["notifications"])

_JSON: Final = "application/json"
_READ_TOGETHER: Final = 16_384

NotificationId = Annotated[
    str, Path(description="The id that sending answered with", examples=["0f3a5c7e9b1d2f4"])
]
_PREFER: Final = "wait=5 answers with the outcome if it is there within that time (at most 30 s)"
Prefer = Annotated[str | None, Header(description=_PREFER)]
_HEADERS: Final = {
    "Idempotency-Key": "Makes a repeated call return the first one's answer, for at least 30 days",
    "Prefer": _PREFER,
}
When = Annotated[datetime | None, Query(description="ISO 8601 with an offset")]


@router.post(
    "",
    operation_id="sendNotification",
    summary="Send a notification",
    status_code=202,
    response_model=models.OutcomeAnswer,
    responses={
        200: {
            "description": "The outcome, where the call preferred to wait",
            "model": models.OutcomeAnswer,
        },
        **responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 502, 503),
    },
    openapi_extra={
        **models.body(models.SendRequest),
        "parameters": [described_header(name, about) for name, about in _HEADERS.items()],
    },
)
async def send(request: Request) -> Response:
    """Store a notification and send it. After 202 it is stored durably.

    A list of sends and lines with one each are taken here as well, and answered as `/list` and
    `/lines` do.
    """
    # Parameters that FastAPI reads would cost as much as everything else together.
    scope = request.scope
    context, app = context_of(request), app_of(request)
    reader = reader_of(scope, context, app)
    named = header(scope, b"content-type")
    kind = _JSON if named is None else named.partition(";")[0].strip().lower()
    if kind in MEDIA_TYPES:
        return answer_lines(request, context, reader)
    if kind != _JSON:
        raise MediaTypeError(
            f"The body is {kind[:80]!r}", fix="Send application/json or application/x-ndjson"
        )
    body = await read_body(request.receive)
    value = read_json(body)
    if isinstance(value, list):
        return await answer_list(context, reader, value)
    wait = read_wait(header(scope, b"prefer"))
    takes_long = len(body) > _READ_TOGETHER or names_costly(value)
    # What takes long to read is no matter to those who call at the same time.
    send = await context.run(reader.read, value) if takes_long else partial(reader.read, value)
    (accepted,) = await context.system.engine.accept_gathered([send])
    if isinstance(accepted, HandbellError):
        raise accepted
    if wait is not None:
        outcome = await outcome_of(context, accepted, wait)
        if outcome is not None:
            return _outcome(request, outcome, wait)
    return _stored(request, app, accepted.id, accepted.warnings)


async def _serve_send(scope: Scope, receive: Receive, answer: Send) -> None:
    response = await send(Request(scope, receive))
    await response(scope, receive, answer)


# FastAPI describes the route and does not serve it, for a third of the price.
next(route for route in router.routes if isinstance(route, APIRoute)).app = _serve_send


def _stored(request: Request, app: App, name: str, warnings: Sequence[str]) -> Response:
    where = address_of(request, f"/v1/apps/{app.id}/notifications/{name}")
    said = {"id": name, **representation.told("warning", warnings)}
    return _answer(said, status=202, headers={"Location": where})


def _outcome(request: Request, outcome: dict[str, Any], wait: int) -> Response:
    told = told_to(caller_of(request), outcome)
    return _answer(told, headers={"Preference-Applied": f"wait={wait}"})


def _answer(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(to_json(value), status_code=status, headers=headers, media_type=_JSON)


@router.get(
    "",
    operation_id="listNotifications",
    summary="List notifications, the newest first",
    response_model=ResultPage[models.NotificationOverview],
    responses=responses(400, 401, 403, 404, 422),
)
async def list_notifications(
    request: Request,
    app: AppDep,
    caller: CallerDep,
    *,
    state: Annotated[
        NotificationStatus | None,
        Query(
            description="open: in progress; failed: something failed; dead_letter: it has dead "
            "letters; cancelled: it was"
        ),
    ] = None,
    urgency: Annotated[Literal["urgent", "normal", "bulk"] | None, Query()] = None,
    text: Annotated[
        str | None, Query(max_length=200, description="Is part of the content or the recipients")
    ] = None,
    since: When = None,
    until: When = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Response:
    """List the notifications of the app that match all filters."""
    context = context_of(request)
    search = NotificationSearch(
        app=app.id,
        text=text or None,
        standing=state,
        urgency=None if urgency is None else URGENCIES[urgency],
        since=_milliseconds(since),
        until=_milliseconds(until),
        before=None if cursor is None else read_cursor(cursor, int)[0],
    )
    found = await context.run(context.system.reports.page, search, limit=limit + 1)
    return _answer(told_to(caller, _page(found, limit)))


def _page(found: list[Overview], limit: int) -> dict[str, Any]:
    shown = found[:limit]
    following = write_cursor(shown[-1].row) if len(found) > limit else None
    return {"data": [representation.overview(one) for one in shown], "next": following}


def _milliseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    aware = moment if moment.utcoffset() is not None else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)


@router.post(
    "/preview",
    operation_id="previewNotification",
    summary="Show the exact requests that a send would make",
    response_model=list[models.PreviewAnswer],
    responses=responses(400, 401, 403, 404, 413, 422),
    openapi_extra=models.body(models.PreviewRequest),
)
async def preview(request: Request, app: AppDep, caller: CallerDep) -> Response:
    """Return the request for each target with its payload; nothing is stored or sent.

    A broadcast is previewed for its first sessions.
    """
    context = context_of(request)
    value = await _object(request, ("notification", "recipients"))

    def look() -> Any:
        content = context.system.templates.read_notification(app, value["notification"])
        recipients = read_recipients(value["recipients"])
        shown = representation.represent(
            context.system.previewer.requests(app, content, recipients)
        )
        return told_to(caller, shown, named=recipients.addresses)

    return _answer(await context.run(look))


@router.get(
    "/{id}",
    operation_id="getNotification",
    summary="Read a notification with its funnel",
    response_model=models.NotificationAnswer,
    responses=responses(401, 403, 404),
)
async def read(request: Request, app: AppDep, caller: CallerDep, id: NotificationId) -> Response:  # noqa: A002 - the path's name
    """Return the outcome of a notification, with every reason counted and explained."""
    context = context_of(request)
    engine = context.system.engine

    def look() -> dict[str, Any]:
        context.system.ledger.find(app, id)
        return representation.funnel(context.system.reports.funnel(id), engine.response(id))

    return _answer(told_to(caller, await context.run(look)))


@router.get(
    "/{id}/deliveries",
    operation_id="listDeliveries",
    summary="List a notification's deliveries",
    response_model=ResultPage[models.DeliveryAnswer],
    responses=responses(400, 401, 403, 404, 422),
)
async def list_deliveries(
    request: Request,
    app: AppDep,
    caller: CallerDep,
    id: NotificationId,  # noqa: A002 - the path's name
    *,
    state: Annotated[State | None, Query()] = None,
    reason: Annotated[str | None, Query(max_length=80, examples=["Unregistered"])] = None,
    mail: Annotated[str | None, Query(max_length=320)] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> Response:
    """List deliveries that match all filters: sessions first, then addresses without one."""
    context = context_of(request)
    search = DeliverySearch(
        state=state,
        reason=reason,
        mail=None if mail is None else fold_mail(mail),
        after=None if cursor is None else read_cursor(cursor, int)[0],
    )

    def look() -> dict[str, Any]:
        context.system.ledger.find(app, id)
        page = context.system.reports.deliveries(id, search, limit=limit)
        following = None if page.following is None else write_cursor(page.following)
        return {
            "data": [representation.delivery(one) for one in page.deliveries],
            "next": following,
        }

    return _answer(told_to(caller, await context.run(look)))


@router.post(
    "/{id}/cancel",
    operation_id="cancelNotification",
    summary="Cancel what is not sent yet",
    response_model=models.Cancelled,
    responses=responses(401, 403, 404, 503),
)
async def cancel(request: Request, app: AppDep, caller: CallerDep, id: NotificationId) -> Response:  # noqa: A002 - the path's name
    """Cancel the deliveries that are not in flight yet, and return their number."""
    context = context_of(request)
    caught = await context.system.engine.cancel(app, id)
    await context.run(
        context.system.audit.note,
        caller.actor,
        "notification.cancel",
        id,
        app=app.id,
        detail=f"{caught} caught",
    )
    return _answer({"cancelled": caught})


@router.post(
    "/{id}/resend",
    operation_id="resendNotification",
    summary="Send its dead letters again",
    response_model=models.Resent,
    responses=responses(401, 403, 404, 503),
)
async def resend(request: Request, app: AppDep, caller: CallerDep, id: NotificationId) -> Response:  # noqa: A002 - the path's name
    """Let its dead letters wait as if they had just been accepted, and return their number."""
    context = context_of(request)
    number = await context.system.engine.resend(app, id)
    await context.run(
        context.system.audit.note,
        caller.actor,
        "notification.resend",
        id,
        app=app.id,
        detail=f"{number} sent again",
    )
    return _answer({"resent": number})


@router.post(
    "/{id}/replace",
    operation_id="replaceNotification",
    summary="Send new content to those who got it",
    status_code=202,
    response_model=models.OutcomeAnswer,
    responses={
        200: {"description": "The outcome, where preferred", "model": models.OutcomeAnswer},
        **responses(400, 401, 403, 404, 413, 422, 503),
    },
    openapi_extra=models.body(models.ReplaceRequest),
)
async def replace(
    request: Request,
    app: AppDep,
    id: NotificationId,  # noqa: A002 - the path's name
    prefer: Prefer = None,
) -> Response:
    """Send new content under the same collapse id; unsent deliveries of the old are cancelled."""
    context = context_of(request)
    value = await _object(request, ("notification",))
    content = await context.run(
        context.system.templates.read_notification, app, value["notification"]
    )
    accepted = await context.system.engine.accept_replacement(app, id, content)
    if (wait := read_wait(prefer)) is not None:
        outcome = await outcome_of(context, accepted, wait)
        if outcome is not None:
            return _outcome(request, outcome, wait)
    return _stored(request, app, accepted.id, accepted.warnings)


async def _object(request: Request, members: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the body, a JSON object with exactly these members."""
    value = read_json(await request.body())
    if not isinstance(value, Mapping):
        raise InvalidRequestError("The body is no JSON object", fix="Send one")
    check_members(value, members)
    for name in members:
        if value.get(name) is None:
            raise InvalidRequestError(f"The body has no `{name}`", fix="Add it")
    return value
