"""Inputs of commands: files, standard input, and NAME=VALUE."""

import codecs
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import typer

from handbell._text import json_fault, parse_fault
from handbell.errors import NotificationError

_NUMBER: Final = re.compile(r"[+-]?\d{1,18}")


def number_of(noun: str) -> Callable[[str], int]:
    """Return a parser for the id of a stored object, such as a ``session``.

    For anything else, or a number too large for any database, its error points to the list; for a
    mail address, to that person's list.
    """

    def read(text: str) -> int:
        text = text.strip()
        if _NUMBER.fullmatch(text):
            return int(text)
        listing = f"handbell {noun} list {text}" if "@" in text else f"handbell {noun} list"
        raise typer.BadParameter(f"{text[:80]!r} is no {noun}'s number. See: {listing[:120]}")

    return read


def read_file(file: Path) -> bytes:
    """Return a file's bytes. Raises NotificationError when it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise NotificationError(
            f"{file} cannot be read: {error.strerror}", fix="Name a file with a JSON object"
        ) from None


def read_json(text: bytes, source: str) -> dict[str, Any]:
    """Return the JSON object in a text; ``source`` names its origin in errors."""
    try:
        content = json.loads(text.removeprefix(codecs.BOM_UTF8))
    except UnicodeDecodeError:
        raise NotificationError(f"{source} is not UTF-8", fix="Save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise NotificationError(
            f"{source} is not JSON: {json_fault(text, error)}", fix="Correct it there"
        ) from None
    if not isinstance(content, dict):
        raise NotificationError(
            f"{source} holds no JSON object",
            fix='Write one such as {"title": "Hello", "body": "World"}',
        )
    return content


def read_document(file: Path) -> dict[str, Any]:
    """Return a file's content: TOML if its name ends with ``.toml``, JSON otherwise."""
    text = read_file(file)
    if file.suffix.lower() != ".toml":
        return read_json(text, str(file))
    try:
        return tomllib.loads(text.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError:
        raise NotificationError(f"{file} is not UTF-8", fix="Save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise NotificationError(
            f"{file} cannot be read as TOML: {parse_fault(error)}", fix="Correct it there"
        ) from None


def read_pairs(option: str, parts: list[str] | None) -> dict[str, Any]:
    """Merge NAME=TEXT, NAME:=JSON and JSON objects, the later ones winning."""
    collected: dict[str, Any] = {}
    for part in parts or ():
        if part.lstrip().startswith("{"):
            collected.update(read_json(part.encode(errors="surrogateescape"), option))
            continue
        name, separator, value = part.partition("=")
        if not (name.rstrip(":") and separator):
            raise NotificationError(
                f"{option} {part!r} has no name",
                fix="Write NAME=TEXT, NAME:=JSON or a JSON object",
            )
        if name.endswith(":"):
            collected[name[:-1]] = _read_value(f"{option} {name[:-1]}", value)
        else:
            collected[name] = value
    return collected


def _read_value(source: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotificationError(
            f"{source}:= is not JSON: {json_fault(text, error)}",
            fix='Write a number, true, false, null, "a text" in quotes, a list or an object',
        ) from None
