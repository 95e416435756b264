"""Export and import of sessions (NDJSON)."""

import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Final

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, ConfigDict, Field, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from handbell._text import json_fault
from handbell.apps.app import App
from handbell.errors import HandbellError, RequestError
from handbell.registry.listing import SessionFilter
from handbell.registry.registration import Registration
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.problems import members_of, responses

from .lines import Line
from .session_models import RegistrationIn, SessionOut, SessionStatus, session_exported
from .streaming import LINES, LINES_BODY, StreamedResponse, type_of_lines, type_wanted

router = APIRouter(prefix="/v1/apps/{app}/sessions", tags=["sessions"])

MOST_REPORTED: Final = 500
"""How many lines with a fault are told one by one; beyond that bad ones are counted.

So much fits into what the network holds: a client that reads after it has sent is not stuck.
"""

_PAGE: Final = 1000
_TOLD_LENGTH: Final = 200
_MOST_WARNINGS: Final = 3


class ImportLine(RegistrationIn):
    """One line of an import, in the format of the export; read-only members are ignored."""

    model_config = ConfigDict(extra="ignore")

    status: SessionStatus = "active"
    registered_at: AwareDatetime | None = None
    mail: str = Field(max_length=320)
    identity_token: None = None
    passed_over: ClassVar[frozenset[str]] = frozenset(SessionOut.model_fields)


@dataclass(slots=True)
class _Tally:
    """The progress of an import."""

    imported: int = 0
    refused: int = 0
    warned: int = 0
    unsent: list[tuple[int, bytes]] = field(default_factory=list)

    def refuse(self, number: int, error: HandbellError) -> None:
        """Count a bad line, and keep the line of the report about it."""
        self.refused += 1
        if self.refused <= MOST_REPORTED:
            problem = members_of(error)
            problem["detail"] = problem["detail"][:_TOLD_LENGTH]
            self.unsent.append((number, to_json({"line": number, "error": problem}) + b"\n"))

    def warn(self, number: int, warnings: Sequence[str]) -> None:
        """Keep the line of the report about one that was imported without some of what it says."""
        if not warnings:
            return
        self.warned += 1
        if self.warned <= MOST_REPORTED:
            kept = [warning[:_TOLD_LENGTH] for warning in warnings[:_MOST_WARNINGS]]
            self.unsent.append((number, to_json({"line": number, "warnings": kept}) + b"\n"))

    def take_unsent(self) -> bytes:
        """Return the lines of the report that were not sent yet, in their order."""
        lines, self.unsent = sorted(self.unsent), []
        return b"".join(text for _, text in lines)

    def closing(self) -> bytes:
        """Return the last line of the report: how many were imported and refused."""
        return to_json({"imported": self.imported, "refused": self.refused}) + b"\n"


@router.post(
    "/import",
    operation_id="importSessions",
    summary="Import sessions, one in each line",
    openapi_extra=LINES_BODY,
    responses={
        200: {
            "description": "A line for each line with a fault, and at last how many there were",
            **LINES,
        },
        **responses(401, 403, 404, 409, 415),
    },
    response_class=Response,
)
async def import_sessions(request: Request, app: AppDep, caller: CallerDep) -> Response:
    """Take sessions as an export writes them: each line a JSON object with `mail` and
    `device_token` or `subscription`, and whatever a registration may have besides.

    Sent as `application/x-ndjson`, of any length. A bad line is reported as `error` and the rest
    goes on; of a line that is imported without something that cannot be stored, `warnings` say
    what. Of each kind only the first 500 are told. The last line counts:
    `{"imported": 2, "refused": 1}`. A repeat changes nothing but the times. Devices get their
    secrets when they register again.
    """  # noqa: D205 - it is shown as text of two lines
    context = context_of(request)
    kind = type_of_lines(request.scope)
    tally = _Tally()

    async def step(lines: Sequence[Line]) -> Awaitable[bytes]:
        return _take(context, app, lines, tally)

    def closing() -> bytes:
        return tally.take_unsent() + tally.closing()

    await context.run(
        context.system.audit.note, caller.actor, "session.import", "sessions", app=app.id
    )
    limit = context.settings.max_body_bytes
    stopping = context.stopping
    return StreamedResponse(step, closing, limit=limit, stopping=stopping, media_type=kind)


@router.get(
    "/export",
    operation_id="exportSessions",
    summary="Export sessions, one in each line",
    responses={
        200: {"description": "One session in each line", **LINES},
        **responses(401, 403, 404, 409, 422),
    },
    response_class=Response,
)
async def export_sessions(
    request: Request,
    app: AppDep,
    caller: CallerDep,
    status: Annotated[
        SessionStatus | None, Query(description="Without it: all that are not closed")
    ] = None,
) -> Response:
    """Return sessions as an import takes them.

    It contains device tokens and the keys of subscriptions: keep it as safe as the database. The
    secrets of sessions are not exported; devices get new ones when they register again.
    `Accept: application/octet-stream` names the lines so.
    """
    context = context_of(request)
    await context.run(
        context.system.audit.note, caller.actor, "session.export", "sessions", app=app.id
    )
    statuses = [status] if status else ["active", "quarantined", "pending"]
    return StreamingResponse(
        _export(context, app, statuses),
        media_type=type_wanted(request.scope),
        headers={"Content-Disposition": 'attachment; filename="sessions.ndjson"'},
    )


async def _export(context: Context, app: App, statuses: Sequence[str]) -> AsyncIterator[bytes]:
    for status in statuses:
        before: int | None = None
        while True:
            body, before = await context.run(_page, context, app, status, before)
            if before is None:
                break
            yield body


def _page(context: Context, app: App, status: str, before: int | None) -> tuple[bytes, int | None]:
    found = context.system.directory.sessions(
        app, SessionFilter(status=status), before=before, limit=_PAGE
    )
    lines = [to_json(session_exported(session)) + b"\n" for session in found]
    return b"".join(lines), found[-1].id if found else None


async def _take(context: Context, app: App, lines: Sequence[Line], tally: _Tally) -> bytes:
    moved = await context.run(_write, context, app, lines, tally)
    if moved:
        await context.system.engine.release(moved)
    return tally.take_unsent()


def _write(context: Context, app: App, lines: Sequence[Line], tally: _Tally) -> tuple[int, ...]:
    now = int(context.system.now() * 1000)
    good: list[tuple[int, Registration]] = []
    warnings: list[Sequence[str]] = []
    for line in lines:
        try:
            said = _read(line)
            good.append((line.number, _registration(said, now)))
            warnings.append(said.ignored)
        except HandbellError as error:
            tally.refuse(line.number, error)
    if not good:
        return ()
    try:
        admitted = context.system.registry.admit_many(app, [one for _, one in good])
    except HandbellError as error:
        # The whole batch is undone: the database is full, or the app is gone.
        for number, _ in good:
            tally.refuse(number, error)
        return ()
    for place, full in admitted.refused.items():
        tally.refuse(good[place][0], full)
    for place, (number, _) in enumerate(good):
        if place not in admitted.refused:
            tally.warn(number, warnings[place])
    tally.imported += len(good) - len(admitted.refused)
    return admitted.moved


def _read(line: Line) -> ImportLine:
    if line.text is None:
        raise RequestError("The line is too long", fix="Write one session in each line")
    try:
        return ImportLine.model_validate(_object(line.text))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise RequestError(
            f"{where}: {fault['msg']}" if where else str(fault["msg"]),
            fix="Write each line as an export does",
        ) from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(
            f"The line is not JSON: {json_fault(text, error)}",
            fix="Write each line as an export does",
        ) from None
    if not isinstance(found, dict):
        raise RequestError("The line is no object", fix="Write each line as an export does")
    return found


def _registration(line: ImportLine, now: int) -> Registration:
    if line.status == "closed":
        raise RequestError("The session is closed", fix="Leave closed sessions out")
    address = line.reached_at()
    if address is None:
        raise RequestError(
            "device_token: Field required", fix="Give device_token, or a browser's subscription"
        )
    return Registration.read(
        line.mail,
        address,
        service=line.service,
        status="pending" if line.status == "pending" else "active",
        at=_instant(line.registered_at, now),
        **line.about(),
    )


def _instant(given: datetime | None, now: int) -> int:
    return now if given is None else max(0, min(now, int(given.timestamp() * 1000)))
