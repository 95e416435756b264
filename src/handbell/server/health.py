"""Whether the server lives, is ready, and how it does."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from .context import context_of

router = APIRouter(tags=["health"])


@router.get("/healthz", operation_id="healthz", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """Answer as long as the process runs."""
    return {"status": "alive"}


@router.get("/metrics", operation_id="metrics", summary="Figures in Prometheus' text format")
async def metrics(request: Request) -> Response:
    """Return what docs/metrics.md lists."""
    context = context_of(request)
    body = await context.run(context.metrics.render)
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")
