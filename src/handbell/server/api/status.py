"""The status of the installation: `/v1/status`."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.responses import Response

from handbell.delivery.queue.nodes import NodeKind
from handbell.delivery.urgency import Urgency
from handbell.server.context import Context, context_of
from handbell.server.pages import Instant
from handbell.server.problems import responses

from .representation import represent

router = APIRouter(prefix="/v1", tags=["health"])


class NodeOut(BaseModel):
    """A running server or worker."""

    name: str = Field(description="Its host and the number of its process", examples=["web1:4711"])
    kind: NodeKind
    version: str = Field(description="The version of Handbell that it runs", examples=["0.2.0"])
    revision: str = Field(description="The newest schema that it knows", examples=["0006"])
    started_at: Instant
    seen_at: Instant = Field(description="Its last heartbeat")
    is_sending: bool = Field(description="Whether it takes work from the queue")
    is_gone: bool = Field(
        description="It has not been seen for long, and has not said that it stops"
    )
    broker_away_since: Instant | None = Field(
        description="Since when the broker does not answer it: it sends nothing meanwhile"
    )
    figures: dict[str, float] = Field(
        description="What it accepted, sent and failed to send in the last `seconds`",
        examples=[{"seconds": 300.0, "accepted": 1200, "sent": 1180, "failed": 3}],
    )


class DepthOut(BaseModel):
    """The work of one urgency that waits."""

    urgency: Urgency
    due: int = Field(description="Deliveries that are due")
    later: int = Field(description="Deliveries that are held, or planned for later")
    shards_due: int = Field(description="Parts of broadcasts that are due")
    shards_later: int = Field(description="Parts of broadcasts for later")
    oldest_due_at: Instant | None = Field(description="When the first of what is due became it")
    next_at: Instant | None = Field(description="When the first of the rest is due")


class RatesOut(BaseModel):
    """What all nodes did in the last five minutes."""

    accepted: int = Field(description="Notifications accepted")
    sent: int = Field(description="Pushes that a push service accepted")
    failed: int = Field(description="Deliveries that failed or expired")
    accepted_per_second: float
    sent_per_second: float
    failed_per_second: float


class OpenCircuitOut(BaseModel):
    """What is stopped, and why."""

    app: str = Field(description="The app id; empty where a push service is down")
    environment: str
    topic: str
    reason: str
    detail: str
    stopped_at: Instant
    probe_at: Instant = Field(description="When the next push is let through, to see if it helps")
    probes: int = Field(description="How many were let through without success")


class WebhookBacklogOut(BaseModel):
    """Calls of webhooks that wait."""

    waiting: int
    due: int = Field(description="How many of them are due")
    oldest_due_at: Instant | None


class MessageCountsOut(BaseModel):
    """The messages of one urgency; each names up to 500 deliveries, or a part of a broadcast."""

    urgency: Urgency
    waiting: int = Field(description="To be handed out")
    held: int = Field(description="With workers, or given back by one for a while")
    redelivered: int = Field(description="Held ones that were handed out more than once")


class BrokerStateOut(BaseModel):
    """The broker that hands out the work, as this server sees it."""

    address: str = Field(
        description="Its servers, without user and password", examples=["nats.example.com:4222"]
    )
    stream: str = Field(examples=["handbell"])
    is_reachable: bool
    problem: str = Field(description="Why it is not reachable, else empty")
    away_since: Instant | None = Field(
        description="Since when it does not answer the nodes, where it does not answer here either"
    )
    messages: int = Field(description="Messages in its stream")
    bytes: int = Field(description="Their bytes")
    by_urgency: list[MessageCountsOut] = Field(description="The most urgent first")
    unpublished: int | None = Field(
        description="Due deliveries and parts of broadcasts that should have been taken and have "
        "no message; null while the broker cannot be asked"
    )
    oldest_unpublished_at: Instant | None = Field(description="When the first of them fell due")


class StatusOut(BaseModel):
    """The state of the installation, in one snapshot."""

    read_at: Instant
    database: str = Field(description="Its address without the password")
    database_kind: str = Field(examples=["sqlite", "postgresql"])
    revision: str = Field(description="The schema's revision", examples=["0006"])
    nodes: list[NodeOut]
    queue: list[DepthOut] = Field(description="By urgency, the most urgent first")
    rates: RatesOut
    circuits: list[OpenCircuitOut] = Field(description="The open ones")
    webhooks: WebhookBacklogOut
    dead_letters: int = Field(
        description="Deliveries on which Handbell itself failed again and again, or that their "
        "workers did not survive; they are sent again by `resend`"
    )
    broker: BrokerStateOut | None = Field(description="Null where the database hands out the work")


@router.get(
    "/status",
    operation_id="status",
    summary="Say how the installation is",
    response_model=StatusOut,
    responses=responses(401, 403),
)
async def status(context: Annotated[Context, Depends(context_of)]) -> Response:
    """Return who runs, what waits and since when, how fast it goes, and what is stopped."""
    found = await context.run(context.system.status.read)
    return Response(to_json(represent(found)), media_type="application/json")
