"""Users: `/v1/apps/{app}/users`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from handbell._text import count
from handbell.errors import UnknownUserError
from handbell.registry.listing import SessionFilter
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import context_of
from handbell.server.pages import (
    CursorQuery,
    LimitQuery,
    ResultPage,
    page,
    read_cursor,
    write_cursor,
)
from handbell.server.path_convertor import PERSON
from handbell.server.problems import responses

from .session_models import UserDetail, UserOut, session_out, user_out

router = APIRouter(prefix="/v1/apps/{app}/users", tags=["users"])

DEVICES_SHOWN = 100

MailPath = Annotated[str, Path(max_length=320, examples=["test@4d.com"])]


@router.get(
    "",
    operation_id="listUsers",
    summary="List users by their mail addresses",
    response_model=ResultPage[UserOut],
    responses=responses(400, 401, 403, 404, 409, 422),
)
async def list_users(
    request: Request,
    app: AppDep,
    containing: Annotated[
        str, Query(max_length=320, description="Only addresses with this in them")
    ] = "",
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> dict[str, Any]:
    """List an app's users by mail address."""
    context = context_of(request)
    after = None if cursor is None else read_cursor(cursor, str)[0]
    found = await context.run(
        context.system.directory.users, app, containing=containing, after=after, limit=limit + 1
    )
    shown = page(found, limit, lambda listed: write_cursor(listed.user.mail))
    return {**shown, "data": [user_out(listed) for listed in shown["data"]]}


@router.get(
    f"/{PERSON}",
    operation_id="getUser",
    summary="Read a user with their sessions",
    response_model=UserDetail,
    responses=responses(401, 403, 404, 409, 422),
)
async def get_user(request: Request, app: AppDep, mail: MailPath) -> dict[str, Any]:
    """Return a user and their newest sessions of any status."""
    directory = context_of(request).system.directory

    def read() -> dict[str, Any]:
        listed = directory.user(app, mail)
        if listed is None:
            raise UnknownUserError(
                f"{app.id} has no user {mail[:100]!r}", fix="Look at the list of its users"
            )
        held = directory.sessions(app, SessionFilter(mail=mail), limit=DEVICES_SHOWN)
        return {**user_out(listed), "devices": [session_out(session) for session in held]}

    return await context_of(request).run(read)


@router.delete(
    f"/{PERSON}",
    operation_id="removeUser",
    summary="Remove a user and what is known of them",
    status_code=204,
    responses=responses(401, 403, 404, 409, 422, 503),
)
async def remove_user(request: Request, app: AppDep, caller: CallerDep, mail: MailPath) -> Response:
    """Erase a user permanently: sessions, mail address, and their name in the ledger.

    When it is answered nothing more is shown on their devices. What stays of the ledger says how
    much was sent, and no longer to whom.
    """
    context = context_of(request)
    erased = await context.run(context.system.eraser.erase, app, mail)
    if erased.sessions:
        await context.system.engine.release(erased.sessions)
    await context.run(
        context.system.audit.note,
        caller.actor,
        "user.remove",
        f"user {erased.user}",
        app=app.id,
        detail=count(len(erased.sessions), "session"),
    )
    return Response(status_code=204)
