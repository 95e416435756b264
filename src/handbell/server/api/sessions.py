"""Sessions: `/v1/apps/{app}/sessions`."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from starlette.requests import Request
from starlette.responses import Response

from handbell.registry.addresses import service_of
from handbell.registry.listing import SessionFilter
from handbell.registry.registration import DeviceDescription
from handbell.registry.session import (
    CLOSED_BY_OPERATOR,
    LOGGED_OUT,
    Environment,
    Platform,
)
from handbell.server.access import AppDep, CallerDep, session_secret
from handbell.server.context import context_of
from handbell.server.pages import (
    CursorQuery,
    LimitQuery,
    ResultPage,
    page,
    read_cursor,
    write_cursor,
)
from handbell.server.problems import responses

from . import devices
from .session_models import (
    RegistrationIn,
    RegistrationOut,
    SessionChange,
    SessionChanged,
    SessionOut,
    SessionStatus,
    session_out,
)

router = APIRouter(prefix="/v1/apps/{app}/sessions", tags=["sessions"])

SessionPath = Annotated[
    str,
    Path(
        max_length=40,
        description=f"The session's id; a device may call its own {devices.CURRENT}",
        examples=["7"],
    ),
]


@router.post(
    "",
    operation_id="registerDevice",
    summary="Register a device, or repeat it",
    status_code=201,
    response_model=RegistrationOut,
    responses={
        200: {"model": RegistrationOut, "description": "Refreshed with the session's own secret"},
        202: {"model": RegistrationOut, "description": "Pending: a link is mailed to the address"},
        **responses(400, 401, 403, 404, 409, 413, 422, 429, 503),
    },
)
async def register(
    request: Request, app: AppDep, caller: CallerDep, body: RegistrationIn
) -> Response:
    """Say whose device it is, with a proof; or repeat it at each start of the app.

    With an API key of the scope `register` it is active at once. A device proves it as the app
    asks: with an `identity_token` it is active at once; with a mailed link it is answered 202,
    always the same, and is active once the link was opened. The answer holds the session's
    `secret`, once: by it the device speaks for its session, as `Authorization: Bearer hbs_...`. A
    device that has it repeats itself without a proof, and may bring a new token or subscription.
    """
    answer = await devices.register(request, app, caller, body)
    return JSONResponse(answer.body, answer.status)


@router.get(
    "",
    operation_id="listSessions",
    summary="List sessions, the last made first",
    response_model=ResultPage[SessionOut],
    responses=responses(400, 401, 403, 404, 409, 422),
)
async def list_sessions(
    request: Request,
    app: AppDep,
    *,
    status: Annotated[SessionStatus | None, Query()] = None,
    mail: Annotated[str | None, Query(max_length=320)] = None,
    platform: Annotated[Platform | None, Query()] = None,
    environment: Annotated[Environment | None, Query()] = None,
    service: Annotated[str | None, Query(max_length=40)] = None,
    limit: LimitQuery = 50,
    cursor: CursorQuery = None,
) -> dict[str, Any]:
    """List an app's sessions, filtered by status, user, platform, environment or service."""
    context = context_of(request)
    before = None if cursor is None else read_cursor(cursor, int)[0]
    wanted = SessionFilter(
        status=status,
        mail=mail,
        platform=platform,
        environment=environment,
        service=None if service is None else service_of(service).name,
    )
    found = await context.run(
        context.system.directory.sessions, app, wanted, before=before, limit=limit + 1
    )
    shown = page(found, limit, lambda session: write_cursor(session.id))
    return {**shown, "data": [session_out(session) for session in shown["data"]]}


@router.get(
    "/{session}",
    operation_id="getSession",
    summary="Read a session",
    response_model=SessionOut,
    responses=responses(401, 403, 404, 409, 422, 429),
)
async def get_session(
    request: Request, app: AppDep, caller: CallerDep, session: SessionPath
) -> dict[str, Any]:
    """Return a session. A device reads its own with its secret, to see whether it is proven."""
    context = context_of(request)
    if not caller.scopes:
        return session_out(await devices.own_session(request, app, session))
    find = context.system.registry.session_of_app
    return session_out(await context.run(find, app, devices.session_id(session)))


@router.patch(
    "/{session}",
    operation_id="changeSession",
    summary="Change what is known of a session",
    response_model=SessionChanged,
    responses=responses(400, 401, 403, 404, 409, 413, 422, 429, 503),
)
async def change_session(
    request: Request, app: AppDep, caller: CallerDep, session: SessionPath, body: SessionChange
) -> dict[str, Any]:
    """Change the given members. A change by the device counts as a sign of life."""
    context = context_of(request)
    await devices.check_web_push_key(context, app, body)
    if not caller.scopes:
        await devices.own_session(request, app, session)
        secret = session_secret(request) or ""
        renewed = await devices.renew(request, app, secret, body)
        return {**session_out(renewed.session), "warnings": body.ignored}
    changed = await context.run(
        context.system.registry.change,
        app,
        devices.session_id(session),
        DeviceDescription.read(**body.about()),
        address=body.reached_at(),
        service=body.service,
    )
    await devices.release(context, changed)
    return {**session_out(changed.session), "warnings": body.ignored}


@router.delete(
    "/{session}",
    operation_id="closeSession",
    summary="Log a device out",
    status_code=204,
    responses=responses(401, 403, 404, 409, 422, 429, 503),
)
async def close_session(
    request: Request, app: AppDep, caller: CallerDep, session: SessionPath
) -> Response:
    """Close a session; once this responds, nothing more is shown on the device.

    A device does it when its user logs out. Its secret is void from then on.
    """
    context = context_of(request)
    registry, audit = context.system.registry, context.system.audit
    if caller.scopes:
        find = registry.session_of_app
        found = await context.run(find, app, devices.session_id(session))
        if await context.run(registry.close, found, CLOSED_BY_OPERATOR):
            await context.run(
                audit.note, caller.actor, "session.close", f"session {found.id}", app=app.id
            )
    else:
        found = await devices.own_session(request, app, session)
        await context.run(registry.close, found, LOGGED_OUT)
    await context.system.engine.release([found.id])
    return Response(status_code=204)
