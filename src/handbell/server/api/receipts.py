"""Receipts: a device reports that a notification was displayed or opened."""

import asyncio
from typing import Annotated, Final, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from handbell.apps.app import App
from handbell.delivery.ledger.receipts import Receipt
from handbell.errors import InvalidRequestError, NotFoundError
from handbell.server.access import AppDep
from handbell.server.context import Context, context_of
from handbell.server.problems import responses

from . import devices
from .sessions import SessionPath

router = APIRouter(prefix="/v1/apps/{app}/sessions/{session}", tags=["sessions"])

MOST_RECEIPTS: Final = 100

_PAUSES: Final = (0.1, 0.3, 0.6)
_APNS_ID: Final = "7c5e8f0a-1b2c-8d3e-8000-000000000007"


class ReceiptIn(BaseModel):
    """One report. It names its delivery by ``id``, or its notification."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"notification_id": "7c5e8f0a1b2cd3e", "event": "opened"}]},
    )

    event: Literal["displayed", "opened"]
    id: str | None = Field(
        default=None, max_length=100, description="The delivery's id", examples=[_APNS_ID]
    )
    apns_id: str | None = Field(default=None, max_length=100, description="The same as id")
    notification_id: str | None = Field(
        default=None,
        max_length=100,
        description="What the payload carries as handbell",
        examples=["7c5e8f0a1b2cd3e"],
    )
    at: AwareDatetime | None = Field(default=None, description="When; without it: now")


class ReceiptsOut(BaseModel):
    """For each report whether the session received that notification."""

    noted: list[bool]


_Receipts = Annotated[list[ReceiptIn], Field(min_length=1, max_length=MOST_RECEIPTS)]


@router.post(
    "/receipts/list",
    operation_id="reportReceipts",
    summary="Report many that were displayed or opened",
    response_model=ReceiptsOut,
    responses=responses(400, 401, 403, 404, 409, 413, 422, 429, 503),
)
async def report_list(
    request: Request, app: AppDep, session: SessionPath, body: _Receipts
) -> Response:
    """Store reports, and return for each whether the session received that notification.

    A repeat changes nothing: the first report of an event counts. `opened` implies `displayed`.
    """
    context = context_of(request)
    own = await devices.own_session(request, app, session)
    return JSONResponse(
        {"noted": await _note(context, app, own.id, [_read(item) for item in body])}
    )


@router.post(
    "/receipts",
    operation_id="reportReceipt",
    summary="Report what was displayed or opened",
    status_code=204,
    responses=responses(400, 401, 403, 404, 409, 413, 422, 429, 503),
    response_class=Response,
)
async def report(
    request: Request,
    app: AppDep,
    session: SessionPath,
    body: ReceiptIn | _Receipts,
) -> Response:
    """Store a report; only the session that received a notification may report on it.

    A repeat changes nothing: the first report of an event counts. `opened` says `displayed` too.
    A list of reports is accepted here too, and answered as by `/list`.
    """
    if isinstance(body, list):
        return await report_list(request, app, session, body)
    context = context_of(request)
    own = await devices.own_session(request, app, session)
    noted = await _note(context, app, own.id, [_read(body)])
    if not noted[0]:
        raise NotFoundError(
            "This session has no such notification", fix="Report on what this device got"
        )
    return Response(status_code=204)


async def _note(context: Context, app: App, session: int, receipts: list[Receipt]) -> list[bool]:
    """Write receipts; a phone can be faster than the ledger, so what is missing is tried again."""
    book = context.system.receipts
    noted = await context.run(book.note, receipts, app, session)
    for pause in _PAUSES:
        missing = [one for one, is_noted in zip(receipts, noted, strict=True) if not is_noted]
        if not missing or not await context.run(book.may_follow, missing, app, session):
            break
        await asyncio.sleep(pause)
        noted = await context.run(book.note, receipts, app, session)
    return noted


def _read(receipt: ReceiptIn) -> Receipt:
    at = None if receipt.at is None else int(receipt.at.timestamp() * 1000)
    if receipt.id is not None and receipt.apns_id not in (None, receipt.id):
        raise InvalidRequestError(
            "id and apns_id are the same, and two were given", fix="Give one of them"
        )
    return Receipt.read(
        event=receipt.event,
        at=at,
        delivery_id=receipt.apns_id if receipt.id is None else receipt.id,
        notification_id=receipt.notification_id,
    )
