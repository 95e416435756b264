"""Simplify the OpenAPI schemas for client generators.

Pydantic's output is correct but generates poor clients: titles of members become classes, nullable
texts become empty ones, and defaults become required members. The wire format is unchanged.
"""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

_REF: Final = "#/components/schemas/"
_NULL: Final[Schema] = {"type": "null"}


def tidy(document: Schema) -> None:
    """Rewrite the schemas of a document in place.

    Members have no titles and no null defaults. An optional member of a request is never null; in
    responses ``"type": ["string", "null"]`` marks a nullable one. Multipart bodies are named after
    their operation. The list form of a body is omitted: lists have their own operations. So is
    ``additionalProperties: false``, which some generators take for a mapping.
    """
    schemas: dict[str, Schema] = document["components"]["schemas"]
    _name_bodies(document, schemas)
    sent = _reached(document, schemas)
    for name, schema in schemas.items():
        _walk(schema, is_sent=name in sent)
        schema.setdefault("title", name)
    for operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            _walk(parameter.get("schema", {}), is_sent=True)


def _operations(document: Schema) -> Iterator[Schema]:
    for item in document["paths"].values():
        yield from (operation for operation in item.values() if isinstance(operation, dict))


def _name_bodies(document: Schema, schemas: dict[str, Schema]) -> None:
    for operation in _operations(document):
        content = operation.get("requestBody", {}).get("content", {})
        for kind, body in content.items():
            schema = body.get("schema", {})
            if _is_one_or_many(schema):
                body["schema"] = schema["anyOf"][0]
            elif kind.endswith("json") and "properties" in schema:
                name = schema.get("title") or f"{_capital(operation['operationId'])}Body"
                schemas[name] = schema
                body["schema"] = {"$ref": _REF + name}


def _is_one_or_many(schema: Schema) -> bool:
    choices = schema.get("anyOf", ())
    return len(choices) == 2 and "$ref" in choices[0] and choices[1].get("items") == choices[0]  # noqa: PLR2004 - the two


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _reached(document: Schema, schemas: dict[str, Schema]) -> set[str]:
    """Return the schemas used only in requests."""
    sent: set[str] = set()
    answered: set[str] = set()
    for operation in _operations(document):
        _reach(operation.get("requestBody", {}), schemas, sent)
        _reach(operation.get("responses", {}), schemas, answered)
    return sent - answered


def _reach(value: Any, schemas: dict[str, Schema], found: set[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _reach(item, schemas, found)
    elif isinstance(value, dict):
        reference = value.get("$ref", "")
        name = reference.removeprefix(_REF)
        if reference.startswith(_REF) and name not in found:
            found.add(name)
            _reach(schemas.get(name, {}), schemas, found)
        for member in value.values():
            _reach(member, schemas, found)


def _walk(schema: Any, *, is_sent: bool) -> None:
    if isinstance(schema, list):
        for item in schema:
            _walk(item, is_sent=is_sent)
        return
    if not isinstance(schema, dict):
        return
    for name, member in schema.items():
        if name not in ("examples", "example", "default", "const", "enum"):
            _walk(member, is_sent=is_sent)
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    for member in _members(schema):
        member.pop("title", None)
        if is_sent or member.get("default", ...) is None:
            member.pop("default", None)
    _join_null(schema, is_sent=is_sent)


def _members(schema: Schema) -> Iterator[Schema]:
    properties = schema.get("properties", {})
    if isinstance(properties, dict):
        yield from (member for member in properties.values() if isinstance(member, dict))
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield schema[name]


def _join_null(schema: Schema, *, is_sent: bool) -> None:
    """Merge a null alternative into the other type, or drop it."""
    choices = schema.get("anyOf")
    if not isinstance(choices, list) or _NULL not in choices:
        return
    others = [choice for choice in choices if choice != _NULL]
    if len(others) > 1:
        schema["anyOf"] = others if is_sent else choices
        return
    (other,) = others
    if not is_sent and not isinstance(other.get("type"), str):
        return
    del schema["anyOf"]
    described: Schema = {
        name: schema.pop(name) for name in ("description", "examples") if name in schema
    }
    schema.update(other)
    schema.update(described)
    if not is_sent:
        schema["type"] = [other["type"], "null"]
        if "enum" in other:
            schema["enum"] = [*other["enum"], None]
        if "const" in other:
            schema["enum"] = [schema.pop("const"), None]
