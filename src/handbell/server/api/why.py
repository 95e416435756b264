"""Explains over HTTP why a user saw notifications or did not."""

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from handbell.server.access import AppDep, CallerDep
from handbell.server.context import context_of
from handbell.server.fix_calls import as_call
from handbell.server.path_convertor import PERSON
from handbell.server.problems import responses

from . import notification_models as models
from . import representation
from .tokens import told_to

router = APIRouter(prefix="/v1/apps/{app}", tags=["users"])


@router.get(
    f"/users/{PERSON}/why",
    operation_id="why",
    summary="Say why somebody saw the last notifications, or did not",
    response_model=models.StoryAnswer,
    responses=responses(401, 403, 404),
)
async def why(
    request: Request,
    app: AppDep,
    caller: CallerDep,
    mail: Annotated[str, Path(max_length=320, examples=["user1@example.com"])],
) -> Response:
    """Explain in words, with the facts; an unknown mail address is explained too."""
    context = context_of(request)

    def tell() -> dict[str, Any]:
        story = context.system.why(app, mail)
        text = "\n".join([story.answer, *story.details(as_call)])
        return {**representation.represent(story), "text": text}

    told = told_to(caller, await context.run(tell))
    return Response(to_json(told), media_type="application/json")
