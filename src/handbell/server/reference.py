"""The API reference: an OpenAPI document, and a self-contained HTML page of it."""

import base64
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from handbell._version import __version__

from .api import notification_models
from .context import Context, context_of
from .pages import address_of
from .problems import MEDIA_TYPE, Problem
from .routes import ROUTES, RouteRequirement
from .schemas import tidy

router = APIRouter(include_in_schema=False)

_FOLDER: Final = Path(__file__).parent / "templates"
_METHODS: Final = ("get", "post", "put", "patch", "delete")
_UNDOCUMENTED: Final = ("HTTPValidationError", "ValidationError")
_ABOUT: Final = """\
Push notifications to people, not to tokens.

All bodies are JSON in UTF-8 with members in snake_case; instants are ISO 8601 in UTC. Lists come in
pages: `next` is the cursor of the following page. Errors are problem details (RFC 9457) whose
`code` never changes its meaning; `fix` says what to do next. After 429 and 503 wait as long as
`Retry-After` says.
"""
_TAGS: Final = (
    ("notifications", "Send, track, cancel."),
    ("templates", "Texts with variables, in several languages."),
    ("users", "People, known by mail, and why they saw what they saw."),
    ("sessions", "Devices: register, prove, refresh, log out, report."),
    ("apps", "What notifications are sent for."),
    ("credentials", "What proves to the push services who sends. It goes in and never comes out."),
    ("webhooks", "Addresses of your back end that are told what failed."),
    ("API keys", "Who may use this API."),
    ("health", "Whether the server lives, is ready, and how it does."),
)
_SCHEMES: Final = {
    "apiKey": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hbk_...",
        "description": "An API key. Make one: handbell api-key add NAME --scope send",
    },
    "sessionSecret": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "hbs_...",
        "description": "The secret of a session, with which a device speaks for itself.",
    },
}

ContextDep = Annotated[Context, Depends(context_of)]


@router.get("/")
async def root(request: Request, context: ContextDep) -> RedirectResponse:
    """Redirect the bare address to the console, or to the reference without one."""
    return RedirectResponse(address_of(request, "/console" if context.has_console else "/docs"))


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """Return the OpenAPI document."""
    return Response(_written(request.app).document, media_type="application/json")


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """Return the reference page."""
    written = _written(request.app)
    return HTMLResponse(written.page, headers={"Content-Security-Policy": written.policy})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A cache of what is the same for every caller."""

    document: bytes
    page: bytes
    policy: str


def _written(application: FastAPI) -> _Written:
    state = application.state
    if not hasattr(state, "reference"):
        state.reference = _write(document_of(application), state.context)
    return cast("_Written", state.reference)


def _write(document: dict[str, Any], context: Context) -> _Written:
    style = (_FOLDER / "reference.css").read_text(encoding="utf-8")
    digest = base64.b64encode(sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _with_code
    page = environment.get_template("reference.html").render(
        document=document,
        groups=list(_groups(document)),
        style=style,
        server=context.public_url,
        root=f"{context.public_url}/",
        console=f"{context.public_url}/console",
        openapi=f"{context.public_url}/openapi.json",
        has_console=context.has_console,
    )
    return _Written(
        document=json.dumps(document, ensure_ascii=False).encode(),
        page=page.encode(),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    )


def _with_code(text: str) -> Markup:
    """Return a text with backticks turned into code elements."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 and number < len(parts) - 1 else part
        for number, part in enumerate(parts)
    )


def document_of(application: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document of an application, generated on first use."""
    if application.openapi_schema is None:
        application.openapi_schema = _document(application)
    return application.openapi_schema


def _document(application: FastAPI) -> dict[str, Any]:
    routes = [route for route in application.router.routes if isinstance(route, APIRoute)]
    document = get_openapi(
        title="Handbell",
        version=__version__,
        summary="Push notifications to people",
        description=_ABOUT,
        routes=routes,
        tags=[{"name": name, "description": about} for name, about in _TAGS],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": application.state.context.public_url}],
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= notification_models.components()
    schemas |= _problem_schemas()
    for name in _UNDOCUMENTED:
        schemas.pop(name, None)
    components["securitySchemes"] = _SCHEMES
    components["responses"] = {"Problem": _problem("What went wrong, and what to do")}
    for route in routes:
        for method in route.methods or ():
            operation = document["paths"].get(route.path_format, {}).get(method.lower())
            if operation is not None:
                _complete(operation, ROUTES[method, route.path], route.path)
                _name_parameters(operation, route.param_convertors)
    tidy(document)
    return document


def _name_parameters(operation: dict[str, Any], names: Iterable[str]) -> None:
    """Add the path parameters that the guard reads and no handler declares."""
    parameters = operation.setdefault("parameters", [])
    known = {parameter["name"] for parameter in parameters if parameter["in"] == "path"}
    parameters[:0] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": "The app: its id, or a name, bundle id or package that means it alone"
            if name == "app"
            else "",
            "schema": {"type": "string", "minLength": 1},
            **({"example": "TEAM123456.com.sample.myapp"} if name == "app" else {}),
        }
        for name in names
        if name not in known
    ]
    if not parameters:
        del operation["parameters"]


def _complete(operation: dict[str, Any], need: RouteRequirement, path: str) -> None:
    """Add the requirements of an operation's row in the table, and its error responses."""
    operation["security"] = _security(need)
    if need.scope is not None:
        every = " that serves every app" if need.any_app else ""
        words = f"Needs an API key{every} with the scope `{need.scope}`"
        if need.kind == "device":
            words += ", or the device itself"
        elif need.kind == "metrics":
            words += ", except from loopback"
        operation["description"] = f"{operation.get('description', '')}\n\n{words}.".strip()
        operation["x-handbell-scope"] = need.scope
    elif need.kind == "device":
        operation["description"] = (
            f"{operation.get('description', '')}\n\nOnly the device itself may do this, with the "
            "secret of its session."
        ).strip()
    answers = operation["responses"]
    refusal = answers.get("422", {}).get("content", {}).get("application/json", {})
    if refusal.get("schema", {}).get("$ref", "").endswith("HTTPValidationError"):
        answers["422"] = _problem("Unprocessable Content")
    for status in _likely(operation, need, path):
        answers.setdefault(str(status), _problem(HTTPStatus(status).phrase))
    operation["responses"] = dict(sorted(answers.items()))
    operation["responses"]["default"] = {"$ref": "#/components/responses/Problem"}


def _likely(operation: dict[str, Any], need: RouteRequirement, path: str) -> Iterator[int]:
    """Yield the errors that the guard and the body limit add to an operation."""
    if need.kind in ("key", "device", "metrics"):
        yield from (401, 403, 429)
        if "{app}" in path:
            yield from (404, 409)
    if "requestBody" in operation:
        yield from (400, 408, 413, 415)
    yield 503


def _security(need: RouteRequirement) -> list[dict[str, list[str]]]:
    match need.kind:
        case "key":
            return [{"apiKey": []}]
        case "metrics":
            return [{"apiKey": []}, {}]
        case "device" if need.scope is None:
            return [{"sessionSecret": []}]
        case "device":
            return [{"apiKey": []}, {"sessionSecret": []}, {}]
    return []


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


def _problem_schemas() -> dict[str, Any]:
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    return {**schema.pop("$defs", {}), "Problem": schema}


def _groups(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the operations by tag, in the order of the tags, for the page."""
    listed = [
        _described(document, path, method, item[method])
        for path, item in document["paths"].items()
        for method in item
        if method in _METHODS
    ]
    known = [tag["name"] for tag in document["tags"]]
    others = sorted({entry["tag"] for entry in listed} - set(known))
    about = {tag["name"]: tag["description"] for tag in document["tags"]}
    for name in (*known, *others):
        operations = [entry for entry in listed if entry["tag"] == name]
        if operations:
            yield {"name": name, "about": about.get(name, ""), "operations": operations}


def _described(
    document: dict[str, Any], path: str, method: str, operation: dict[str, Any]
) -> dict[str, Any]:
    body = operation.get("requestBody", {}).get("content", {})
    answers = [
        {"status": status, **_followed(document, answer)}
        for status, answer in operation["responses"].items()
        if status != "default"
    ]
    return {
        "id": operation.get("operationId", f"{method} {path}"),
        "tag": (operation.get("tags") or ["other"])[0],
        "method": method.upper(),
        "path": path,
        "summary": operation.get("summary", ""),
        "about": operation.get("description", "").split("\n\n"),
        "parameters": [
            {"name": item["name"], "place": item["in"], "about": item.get("description", "")}
            for item in (_followed(document, each) for each in operation.get("parameters", []))
        ],
        "refusals": ", ".join(
            f"{item['status']} {item.get('description', '')}"
            for item in answers
            if not item["status"].startswith("2")
        ),
        "bodies": [_shape(document, kind, one["schema"]) for kind, one in body.items()],
        "answers": [
            {
                "status": item["status"],
                "words": item.get("description", ""),
                "shapes": [
                    _shape(document, kind, content.get("schema", {}))
                    for kind, content in item.get("content", {}).items()
                    if kind != MEDIA_TYPE
                ],
            }
            for item in answers
        ],
    }


def _shape(document: dict[str, Any], kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema for the page: its members with their types, and an example."""
    choices = [_followed(document, item) for item in schema.get("anyOf", schema.get("oneOf", []))]
    whole = next(
        (choice for choice in choices if "properties" in choice), _followed(document, schema)
    )
    example = (whole.get("examples") or [None])[0]
    needed = whole.get("required", [])
    return {
        "kind": kind,
        "name": whole.get("title", ""),
        "about": whole.get("description", ""),
        "type": words_of(document, schema),
        "members": [
            {
                "name": name,
                "type": words_of(document, member),
                "about": member.get("description", ""),
                "is_needed": name in needed,
            }
            for name, member in whole.get("properties", {}).items()
        ],
        "example": "" if example is None else json.dumps(example, indent=2, ensure_ascii=False),
    }


def _followed(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Resolve a reference."""
    found = schema
    while "$ref" in found:
        place: Any = document
        for step in found["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        found = place
    return found


def _by_type(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a schema of several types as a choice; empty for a single type."""
    types = schema.get("type")
    if not isinstance(types, list):
        return []
    whole = {name: value for name, value in schema.items() if name != "enum" or None not in value}
    return [{"type": item} if item == "null" else {**whole, "type": item} for item in types]


def words_of(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """Describe the type of a value: ``text``, ``list of Session``, ``number or null``."""
    if "$ref" in schema:
        return str(_followed(document, schema).get("title", schema["$ref"].rpartition("/")[2]))
    choices = schema.get("anyOf") or schema.get("oneOf") or _by_type(schema)
    if choices:
        return " or ".join(dict.fromkeys(words_of(document, choice) for choice in choices))
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " | ".join(str(item) for item in schema["enum"])
    kind = schema.get("type", "any")
    if schema.get("format") == "date-time" and kind == "string":
        kind = "instant"
    if kind == "array":
        return f"list of {words_of(document, schema.get('items', {}))}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return words.get(kind, str(kind))
