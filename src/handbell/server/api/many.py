"""Many sends in one call: a list answered at its end, or lines answered as they arrive.

Each has an address of its own, so that a description has one shape for each; the address of a
single send takes both as well.
"""

from typing import Any, Final

from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from handbell.apps.app import App
from handbell.delivery.accept.prepare import LONGEST_KEY
from handbell.errors import InvalidRequestError
from handbell.server.access import app_of
from handbell.server.context import Context, context_of
from handbell.server.problems import responses
from handbell.server.requests import header, read_body

from . import notification_models as models
from .acceptance import accept_list, prefers_minimal
from .entries import EntryReader, read_json
from .line_sender import LineSender
from .streaming import LINES, LINES_BODY, MEDIA_TYPE, StreamedResponse, type_of_lines

router = APIRouter(prefix="/v1/apps/{app}/notifications", tags=["notifications"])

_KEY: Final = "Idempotency-Key"
_ABOUT_KEY: Final = (
    "Makes a repeated call return the first one's answers, for at least 30 days; each send gets it "
    "with its place behind"
)
_ABOUT_PREFER: Final = "return=minimal leaves out the answers to lines that were accepted"


def described_header(name: str, about: str) -> dict[str, Any]:
    """Return a header as a description names it; handlers read it themselves."""
    return {"name": name, "in": "header", "description": about, "schema": {"type": "string"}}


@router.post(
    "/list",
    operation_id="sendNotifications",
    summary="Send a list of notifications",
    response_model=list[models.SendAnswer],
    responses=responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    openapi_extra={
        **models.body(models.SendRequest, is_list=True),
        "parameters": [described_header(_KEY, _ABOUT_KEY)],
    },
)
async def send_list(request: Request) -> Response:
    """Store the sends of a list and return their answers in order.

    A refused send has an `error` and does not affect the others.
    """
    context = context_of(request)
    reader = reader_of(request.scope, context, app_of(request))
    value = read_json(await read_body(request.receive))
    if not isinstance(value, list):
        raise InvalidRequestError(
            "The body is no list",
            fix="Send a list of sends here, or one send to the address without /list",
        )
    return await answer_list(context, reader, value)


@router.post(
    "/lines",
    operation_id="sendNotificationLines",
    summary="Send notifications, one in each line",
    responses={
        200: {"description": "An answer in each line, and at last how many there were", **LINES},
        **responses(400, 401, 403, 404, 409, 413, 415, 422, 429, 503),
    },
    response_class=Response,
    openapi_extra={
        **LINES_BODY,
        "parameters": [
            described_header(_KEY, _ABOUT_KEY),
            described_header("Prefer", _ABOUT_PREFER),
        ],
    },
)
async def send_lines(request: Request) -> Response:
    """Store the sends of a stream, each line a JSON object as a single send is, of any length.

    Each line is answered by one with `id` and `warnings`, or with `line` and `error`, while the
    stream is still coming. The last line counts: `{"accepted": 2, "refused": 1}`. The answer has
    the media type of the request.
    """
    context = context_of(request)
    kind = type_of_lines(request.scope)
    reader = reader_of(request.scope, context, app_of(request))
    return answer_lines(request, context, reader, media_type=kind)


def reader_of(scope: Scope, context: Context, app: App) -> EntryReader:
    """Return the reader of a request's sends. Raises for an invalid idempotency key."""
    key = header(scope, b"idempotency-key")
    if key is not None and not 1 <= len(key) <= LONGEST_KEY:
        raise InvalidRequestError(
            f"The header Idempotency-Key is empty or over {LONGEST_KEY} characters",
            fix="Use a UUID, say",
        )
    return EntryReader(app=app, key=key, render=context.system.templates.read_notification)


async def answer_list(context: Context, reader: EntryReader, values: list[object]) -> Response:
    """Accept a list of sends and answer it."""
    return Response(
        to_json(await accept_list(context, reader, values)), media_type="application/json"
    )


def answer_lines(
    request: Request, context: Context, reader: EntryReader, *, media_type: str = MEDIA_TYPE
) -> Response:
    """Return what accepts the lines of a request as they come, and answers them."""
    is_brief = prefers_minimal(header(request.scope, b"prefer"))
    lines = LineSender(context=context, reader=reader, is_brief=is_brief)
    return StreamedResponse(
        lines.step,
        lines.closing,
        limit=context.settings.max_body_bytes,
        stopping=context.stopping,
        media_type=media_type,
    )
