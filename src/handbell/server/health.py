"""Health endpoints: liveness, readiness, metrics."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from starlette.responses import Response

from handbell.errors import HandbellError, UnavailableError

from .context import Context, context_of
from .problems import responses

router = APIRouter(tags=["health"])

_TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"

ContextDep = Annotated[Context, Depends(context_of)]


class Alive(BaseModel):
    """The process is alive."""

    status: str = Field(description="alive", examples=["alive"])


class Ready(BaseModel):
    """The server accepts requests and sends them."""

    status: str = Field(description="ready", examples=["ready"])
    schema_revision: str = Field(description="The database's schema", examples=["0001"])
    worker: int | None = Field(description="The worker of this process, null where it has none")


@router.get(
    "/healthz",
    operation_id="health",
    summary="Say whether the process lives",
    responses=responses(),
)
async def healthz() -> Alive:
    """Answer as long as the process runs, without further checks."""
    return Alive(status="alive")


@router.get(
    "/readyz",
    operation_id="readiness",
    summary="Say whether the server can do its work",
    responses=responses(503),
)
async def readyz(context: ContextDep) -> Ready:
    """Answer 200 when the database can be written, its schema is current and the worker lives.

    While the broker is away, a worker without a lease is no reason not to accept sends.
    """
    try:
        return await context.run(check, context)
    except UnavailableError:
        raise
    except HandbellError as error:
        raise UnavailableError(error.what, fix=error.fix) from error


@router.get(
    "/metrics",
    operation_id="metrics",
    summary="Read the figures in Prometheus' text format",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **responses(401, 403),
    },
)
async def metrics(context: ContextDep) -> Response:
    """Return the metrics in docs/metrics.md, for the metrics key or an admin API key."""
    body = await context.run(lambda: context.metrics.render() + context.requests.render())
    return Response(body, media_type=_TEXT)


def check(context: Context) -> Ready:
    """Return the server's state. Raises UnavailableError, or StorageError, with the reason."""
    database = context.system.database
    revision = database.usable_revision()
    context.system.installation_key.note()
    # A write transaction begins only if the file is writable and not locked for long.
    with database.write() as connection:
        if not context.has_worker:
            return Ready(status="ready", schema_revision=revision, worker=None)
        worker = context.system.engine.worker.id
        lives = context.system.known_workers.lives(connection, worker)
    if not lives and context.system.broker_away_since is None:
        raise UnavailableError(
            "The worker of this process has not been able to say that it lives",
            fix="Look at the log: the database or broker is unavailable, or the worker has ended",
        )
    return Ready(status="ready", schema_revision=revision, worker=worker)
