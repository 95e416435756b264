"""The document of the API, held against the API: what it says is what the server does."""

import copy
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import validate
from schemathesis import Case, SerializationContext
from schemathesis.core.failures import FailureGroup
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
from tests.conftest import Stage
from tests.console import unhurried
from tests.serving import Server, start_server

from handbell.server.routes import ROUTES

EXAMPLES: Final = int(os.environ.get("HANDBELL_TEST_EXAMPLES", "3"))
"""How many requests are made up for each operation and mode; set it to hundreds for a long run."""

MAIL: Final = "user1@example.com"
HOOK: Final = "https://hooks.example.invalid/handbell"
LINES: Final = "application/x-ndjson"
PROBLEM: Final = "application/problem+json"
TAKE_LISTS: Final = ("/notifications", "/receipts")
"""What takes a list as well, beside the operation that is described for it."""
ORDER: Final = ("GET", "PATCH", "PUT", "POST", "DELETE")
CHECKS: Final = (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@schemathesis.serializer(LINES)
def as_lines(_: SerializationContext, value: Any) -> bytes:
    """Write a body as lines of JSON: a list has a line for each of its items."""
    if isinstance(value, bytes):
        return value
    rows = value if isinstance(value, list) else [value]
    return "".join(json.dumps(row, default=str) + "\n" for row in rows).encode()


@dataclass(frozen=True)
class House:
    """A server with something in each of its tables; ``known`` fills the places of a path."""

    server: Server
    document: dict[str, Any]
    known: Mapping[str, str]
    bearers: Mapping[str, str | None]


@pytest.fixture
def house(stage: Stage) -> Iterator[House]:
    """Give a server in which the ids of the paths are those of something."""
    with start_server(stage.system, has_console=False, limiter=unhurried()) as server:
        path = f"/v1/apps/{stage.app.id}"
        administering = server.key()
        phone = stage.twin.add_phone(mail=MAIL, app=stage.app.id)
        with server.client(administering) as client:

            def made(method: str, where: str, body: Any, how: str = "") -> dict[str, Any]:
                headers = {"Prefer": how} if how else {}
                answer = client.request(method, path + where, json=body, headers=headers)
                assert answer.is_success, answer.text
                found: dict[str, Any] = answer.json()
                return found

            session = made("POST", "/sessions", {"mail": MAIL, "device_token": phone.token})
            hook = made("POST", "/webhooks", {"url": HOOK})
            made("PUT", "/templates/hello", {"notification": {"title": "Hello"}})
            said = {"notification": {"title": "Hello"}, "recipients": [MAIL]}
            sent = made("POST", "/notifications", said, "wait=10")
            (key,) = client.get(f"{path}/credentials").json()["data"]
            document = client.get("/openapi.json").json()
        known = {
            "app": stage.app.id,
            "session": str(session["id"]),
            "webhook": str(hook["id"]),
            "name": "hello",
            "id": sent["id"],
            "mail": MAIL,
            "key_id": key["key_id"],
        }
        bearers = {
            "no key": None,
            "an invalid key": f"hbk_{'a' * 8}_{'a' * 32}",
            "a key that may only send": server.key("send"),
            "a device": session["secret"],
            "an administering key": administering,
        }
        yield House(server, document, known, bearers)


OPEN: Final = {
    "android",
    "attributes",
    "content_state",
    "languages",
    "named",
    "notification",
    "payload",
    "user_info",
    "variables",
    "web",
}
"""Members whose value is the caller's own, of whatever shape."""


def test_a_generated_client_finds_every_shape(house: House) -> None:
    """No answer is an object of unknown members but where the content is the caller's own."""

    def shapeless(schema: Any, where: str) -> Iterator[str]:
        if isinstance(schema, list):
            for one in schema:
                yield from shapeless(one, where)
        elif isinstance(schema, dict):
            is_free = schema.get("additionalProperties", True) is True
            if schema.get("type") == "object" and "properties" not in schema and is_free:
                yield where
            for name, one in schema.items():
                yield from shapeless(one, f"{where}/{name}")

    schemas = house.document["components"]["schemas"]
    found = [*shapeless(schemas, ""), *shapeless(house.document["paths"], "")]
    assert [where for where in found if not OPEN & set(where.split("/"))] == []
    instants = {
        f"{name}.{member}": json.dumps(schema)
        for name, model in schemas.items()
        for member, schema in model.get("properties", {}).items()
        # A later time may be one without a zone: wherever each recipient is.
        if member.endswith("_at") and member != "send_at"
    }
    assert [name for name, schema in instants.items() if '"date-time"' not in schema] == []


@pytest.mark.judge("openapi-spec-validator")
def test_the_document_is_valid_and_names_each_route_of_the_api(house: House) -> None:
    """The document passes a validator; its operations are the table's of routes below /v1."""
    validate(house.document)
    named = {
        (method.upper(), path)
        for path, item in house.document["paths"].items()
        for method in item
        if path.startswith("/v1")
    }
    assert named == {
        (method, path.replace(":person", "")) for method, path in ROUTES if path.startswith("/v1")
    }


def _can_be_wrong(operation: Any) -> bool:
    """Return whether a request can miss the document: any text may name an app, for anybody."""
    parameters = list(operation.iter_parameters())
    return bool(operation.body or (parameters and operation.definition.raw["security"]))


@pytest.mark.judge("Schemathesis")
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_is_answered_in_a_way_that_the_document_does_not_name(
    house: House, mode: GenerationMode
) -> None:
    """Requests made up from the document, with keys of each kind, find only what it names."""
    api = schemathesis.openapi.from_dict(_with_lines(house.document), config=schemathesis.Config())
    operations = [found.ok() for found in api.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == sum(len(item) for item in house.document["paths"].values())
    operations.sort(key=lambda one: (ORDER.index(one.method.upper()), -one.path.count("/")))
    wrong: dict[str, str] = {}
    cases, reached = itertools.count(1), 0
    with requests.Session() as session:
        session.trust_env = False
        for operation in operations:
            if mode is GenerationMode.NEGATIVE and not _can_be_wrong(operation):
                continue

            @settings(
                max_examples=EXAMPLES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Case[Any]) -> None:
                nonlocal reached
                # Each third case keeps its made-up ids; the others get as far as the work itself.
                if next(cases) % 3:
                    made_up = case.path_parameters
                    case.path_parameters = {n: house.known.get(n, v) for n, v in made_up.items()}
                _keep_webhooks_at_home(case)
                for who, bearer in house.bearers.items():
                    reached += 1
                    if found := _complaint(house, session, case, bearer):
                        wrong.setdefault(f"{case.operation.label} with {who}: {found}", repr(case))

            ask()
    assert reached > EXAMPLES * len(operations)
    assert wrong == {}


def _with_lines(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with what its texts of lines consist of, so that lines are made up."""
    told = copy.deepcopy(document)
    lines_of = {
        "/v1/apps/{app}/notifications/lines": "/v1/apps/{app}/notifications",
        "/v1/apps/{app}/sessions/import": "/v1/apps/{app}/sessions",
    }
    for lines, one in lines_of.items():
        content = told["paths"][lines]["post"]["requestBody"]["content"]
        of_one = told["paths"][one]["post"]["requestBody"]["content"]["application/json"]
        content[LINES]["schema"] = {"type": "array", "items": of_one["schema"]}
    return told


def _keep_webhooks_at_home(case: Case[Any]) -> None:
    """Let a made-up webhook that could be called have no address: a test calls nobody."""
    body = case.body
    if "/webhooks" not in case.path or not isinstance(body, dict):
        return
    url = body.get("url")
    if isinstance(url, str):
        case.body = {**body, "url": f"https://hooks{len(url)}.example.invalid/"}


def _complaint(
    house: House, session: requests.Session, case: Case[Any], bearer: str | None
) -> str | None:
    """Ask as somebody, and return what is wrong with the answer, if anything is."""
    case.headers.pop("Authorization", None)
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    answer = case.call(base_url=house.server.url, session=session, headers=headers, timeout=20)
    status = answer.status_code
    told = answer.headers.get("content-type", [""])[0]
    if status >= 500:
        return f"{status} {answer.text[:300]}"
    if status < 400 and isinstance(case.body, list) and case.path.endswith(TAKE_LISTS):
        return None
    documented = case.operation.definition.raw["responses"]
    if str(status) not in documented and status < 400:
        return f"{status} is not documented"
    if status >= 400 and told != PROBLEM:
        return f"{status} comes as {told}"
    try:
        case.validate_response(answer, checks=list(CHECKS))
    except (AssertionError, FailureGroup) as error:
        return f"{status} {error}"
    return None
