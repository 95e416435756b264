"""The page of a mailed link: a button confirms, so that opening the link proves nothing."""

from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from handbell.errors import SessionLimitError
from handbell.registry.proofs import VALID_SECONDS, LinkRefusal
from handbell.server.access import client_network
from handbell.server.context import Context, context_of
from handbell.server.limits import Limit

from .templating import page

router = APIRouter(include_in_schema=False)

PER_CLIENT: Final = Limit(number=60, seconds=60, step=6)
"""The rate limit for opening links, valid or not, per network address."""

_DEVICES: Final = {
    "ios": "An iPhone",
    "ipados": "An iPad",
    "macos": "A Mac",
    "tvos": "An Apple TV",
    "visionos": "An Apple Vision Pro",
    "watchos": "An Apple Watch",
}
_REFUSALS: Final[dict[LinkRefusal, tuple[int, str, str]]] = {
    "unknown": (
        404,
        "This link is not known",
        "Check that the whole address was opened, or ask for a new link in the app.",
    ),
    "used": (
        410,
        "This link was used already",
        "If that was you, there is nothing left to do. Otherwise ask for a new link in the app.",
    ),
    "late": (
        410,
        "This link has expired",
        f"A link is valid for {VALID_SECONDS // 60} minutes. Ask for a new one in the app.",
    ),
}

ContextDep = Annotated[Context, Depends(context_of)]
Secret = Annotated[str, Path(max_length=200)]


@router.get("/prove/{secret}")
async def ask(request: Request, context: ContextDep, secret: Secret) -> Response:
    """Ask whether the device is the reader's; the link stays valid."""
    if (limited := await _limited(request, context)) is not None:
        return limited
    question = await context.run(context.system.proofs.look, secret)
    if isinstance(question, str):
        return _refused(question)
    asked_at = datetime.fromtimestamp(question.asked_at / 1000, UTC)
    return page(
        "prove.html",
        app=question.app.name,
        mail=question.mail,
        device=_DEVICES.get(question.platform, "A device"),
        asked_at=asked_at.strftime("%-d %B %Y at %H:%M"),
    )


@router.post("/prove/{secret}")
async def prove(request: Request, context: ContextDep, secret: Secret) -> Response:
    """Prove it: the session becomes active and takes the token from any former owner.

    The response is sent once no notification for the former owner can arrive any more.
    """
    if (limited := await _limited(request, context)) is not None:
        return limited
    question = await context.run(context.system.proofs.look, secret)
    try:
        proven = await context.run(context.system.proofs.prove, secret)
    except SessionLimitError:
        return page(
            "refused.html",
            409,
            heading="You have too many devices",
            text="Sign out on a device that you no longer use, then open this link again.",
        )
    if isinstance(proven, str) or isinstance(question, str):
        return _refused(proven if isinstance(proven, str) else "late")
    if proven.moved:
        await context.system.engine.release(proven.moved)
    return page("proven.html", app=question.app.name)


def _refused(refusal: LinkRefusal) -> Response:
    status, heading, text = _REFUSALS[refusal]
    return page("refused.html", status, heading=heading, text=text)


async def _limited(request: Request, context: Context) -> Response | None:
    wait = await context.run(context.limiter.take, "links", client_network(request), PER_CLIENT)
    if wait <= 0:
        return None
    answer = page("refused.html", 429, heading="Too many requests", text="Try again in a minute.")
    answer.headers["Retry-After"] = str(max(1, round(wait)))
    return answer
