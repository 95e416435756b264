"""The house: data flows one way, and the front door stays light."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import handbell

ROOT = Path(handbell.__file__).parent
BASE = {
    "_engines",
    "_extras",
    "_forever",
    "_icon",
    "_mail",
    "_paths",
    "_proxy",
    "_text",
    "clocks",
    "_threads",
    "_version",
    "errors",
    "fixes",
    "tables",
    "database",
    "settings",
    "migrations",
}
ALLOWED: dict[str, set[str]] = {
    "creation": set(),
    "apps": {"creation"},
    "registry": {"apps"},
    "gateways": {"creation", "apps"},
    "delivery": {"creation", "apps", "registry", "gateways"},
    "http_server": set(),
    "twin": {"gateways.apns.protocol", "http_server"},
    "access": {"apps"},
    "server": {
        "system",
        "rehearsal",
        "creation",
        "apps",
        "registry",
        "delivery",
        "access",
        "gateways.apns.payload",
        "twin.address",
        "http_server",
    },
    "cli": {
        "http_server",
        "_door",
        "exposure",
        "sharing",
        "system",
        "rehearsal",
        "push",
        "creation",
        "apps",
        "registry",
        "delivery",
        "twin",
        "access",
        "server",
    },
    "migrations": set(),
}
HEAVY = {
    "sqlalchemy",
    "alembic",
    "pycurl",
    "hpack",
    "hyperframe",
    "aiohappyeyeballs",
    "h2",
    "starlette",
    "httptools",
    "pydantic",
    "cryptography",
    "fastapi",
    "httpx",
    "jinja2",
    "argon2",
}


def _imports(file: Path) -> Iterator[str]:
    """Yield the parts of Handbell that a file imports, as dotted names below the package."""
    package = list(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1]
            base = ["handbell", *up] if node.level else []
            names = [".".join([*base, *([node.module] if node.module else [])])]
            if node.module is None:
                names = [f"{names[0]}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name.removeprefix("handbell.") for name in names if name.startswith("handbell.")
        )


def _is_allowed(name: str, folder: str) -> bool:
    first = name.split(".", maxsplit=1)[0]
    return (
        first == folder
        or first in BASE
        or any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[folder])
    )


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_lies_before_it(folder: str) -> None:
    """A folder imports itself, the base modules and the folders before it in the flow."""
    files = sorted((ROOT / folder).rglob("*.py"))
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in _imports(file)
        if not _is_allowed(name, folder)
    ]
    assert files
    assert wrong == []


def test_every_folder_has_its_place_in_the_flow() -> None:
    """No folder of the package escapes the rule above."""
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert folders == set(ALLOWED)


def test_importing_handbell_loads_no_engine() -> None:
    """``import handbell`` loads no server, no twin and no database engine."""
    script = "import sys, handbell; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(run.stdout.split()) == set()
    assert "handbell" in run.stdout.split()


def test_the_public_names_are_one_sorted_list() -> None:
    """``handbell.__all__`` is sorted, and each of its names can be had."""
    assert list(handbell.__all__) == sorted(handbell.__all__)
    assert all(hasattr(handbell, name) for name in handbell.__all__)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    """What is loaded when it is asked for does not turn other names into something."""
    assert not hasattr(handbell, "Responses")
