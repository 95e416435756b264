"""The house: data flows one way, and the front door stays light."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

import handbell

ROOT = Path(handbell.__file__).parent
BASE = {
    "_collector",
    "_extras",
    "_files",
    "_background",
    "_icon",
    "_ip",
    "_mail",
    "_paths",
    "_back_off",
    "_chunks",
    "_failures",
    "_proxy",
    "_retry_after",
    "_base64url",
    "_text",
    "_url_target",
    "_thread_pool",
    "_token_bucket",
    "_version",
    "clocks",
    "diagnostic",
    "errors",
    "fixes",
    "setting_values",
    "settings",
    "storage",
}
_PUBLISHED = {
    f"services.{service}.{name}"
    for service in ("apns", "fcm", "webpush")
    for name in ("protocol", "reasons.REASONS")
}
"""What the twin shares with the client: facts of each service, and no logic."""
ALLOWED: dict[str, set[str]] = {
    "storage": set(),
    "services": set(),
    "creation": {
        "services.address",
        "services.fcm.protocol",
        "services.table",
        "services.webpush.address",
        "services.webpush.hosts",
    },
    "apps": {"creation", "services"},
    "registry": {"apps", "creation.languages", "services"},
    "gateways": {"creation", "apps", "services"},
    "delivery": {"creation", "apps", "registry", "gateways", "services"},
    "http_server": set(),
    "twin": {*_PUBLISHED, "http_server"},
    "access": {"apps"},
    "remote": {"_portal", "_send_each", "_variables", "creation", "delivery", "push", "registry"},
    "server": {
        "system",
        "demo_environment",
        "creation",
        "apps",
        "registry",
        "delivery",
        "access",
        "services",
        "gateways.apns.compose",
        "twin.discovery",
        "http_server",
    },
    "cli": {
        "http_server",
        "_portal",
        "network_exposure",
        "shared_systems",
        "system",
        "demo_environment",
        "push",
        "creation",
        "apps",
        "registry",
        "delivery",
        "services",
        "twin",
        "access",
        "server",
    },
}
FLOW: dict[str, set[str]] = {
    "policy": set(),
    "webhooks": set(),
    "observe": {"policy"},
    "queue": {"policy"},
    "work": {"policy", "queue"},
    "record": {"policy", "queue", "work", "webhooks"},
    "ledger": {"policy", "queue", "work", "record"},
    "accept": {"policy", "queue", "work", "ledger"},
    "send": {"policy", "queue", "work", "record", "ledger"},
}
"""The rooms of ``delivery``: each imports the rooms that are named here, and the base."""
HEAVY = {
    "sqlalchemy",
    "alembic",
    "h11",
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
    "httpcore",
    "jinja2",
    "argon2",
}


def _imports(file: Path) -> Iterator[str]:
    """Yield what a file imports of Handbell, as dotted names below the package.

    A name that is imported from a module is told with it: ``errors.HandbellError``.
    """
    package = list(file.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = package[: len(package) - node.level + 1]
            base = ["handbell", *up] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            name.removeprefix("handbell.") for name in names if name.startswith("handbell.")
        )


def _is_allowed(name: str, folder: str, allowed: Iterable[str]) -> bool:
    first = name.split(".", maxsplit=1)[0]
    return (
        first == folder
        or first in BASE
        or any(name == one or name.startswith(one + ".") for one in allowed)
    )


@pytest.mark.parametrize("folder", ALLOWED)
def test_a_folder_imports_only_what_lies_before_it(folder: str) -> None:
    """A folder imports itself, the base modules and the folders before it in the flow."""
    files = sorted((ROOT / folder).rglob("*.py"))
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in _imports(file)
        if not _is_allowed(name, folder, ALLOWED[folder])
        and not (folder == "storage" and name.startswith("storage"))
    ]
    assert files
    assert wrong == []


def test_every_folder_has_its_place_in_the_flow() -> None:
    """No folder of the package escapes the rule above."""
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize("room", FLOW)
def test_a_room_of_delivery_imports_only_what_lies_before_it(room: str) -> None:
    """A room imports itself, the rooms before it, and the modules at the base of delivery."""
    base = {file.stem for file in (ROOT / "delivery").glob("*.py")} - {"__init__", "engine"}
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sorted((ROOT / "delivery" / room).glob("*.py"))
        for name in _imports(file)
        if name.startswith("delivery.") and name.split(".")[1] not in {room, *base, *FLOW[room]}
    ]
    assert wrong == []


def test_the_base_of_delivery_imports_no_room() -> None:
    """What all rooms share imports none of them; the engine, on top, is the exception."""
    wrong = [
        f"{file.name} imports {name}"
        for file in sorted((ROOT / "delivery").glob("*.py"))
        if file.stem not in {"engine", "doctor"}
        for name in _imports(file)
        if name.startswith("delivery.") and name.split(".")[1] in FLOW
    ]
    assert wrong == []


def test_every_room_has_its_place_in_the_flow() -> None:
    """No room of delivery escapes the rule above, and each says what comes in and goes out."""
    rooms = {file.parent.name: file for file in ROOT.glob("delivery/*/__init__.py")}
    assert set(rooms) == set(FLOW)
    for room, file in rooms.items():
        said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        assert all(word in said for word in ("In: ", "Out: ", "Promise: ")), room


def test_no_modules_import_each_other() -> None:
    """There is no circle of imports, not even through those that wait inside of a function."""
    files = {_name(file): file for file in ROOT.rglob("*.py")}
    graph = {
        name: {
            found for one in _imports(file) if (found := _module(one, files)) not in {None, name}
        }
        for name, file in files.items()
    }
    assert list(_circles(graph)) == []


def _name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(name: str, files: Mapping[str, Path]) -> str | None:
    """Return the module that an imported name is, or is in."""
    while name and name not in files:
        name = name.rpartition(".")[0]
    return name or None


def _circles(graph: Mapping[str, Iterable[str | None]]) -> Iterator[list[str]]:
    """Yield the modules that reach themselves, with those that they reach each other by."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for one in graph.get(ahead.pop(), ()):
                if one is not None and one not in seen:
                    seen.add(one)
                    ahead.append(one)
        reached[start] = seen
    told: set[str] = set()
    for start in graph:
        if start in reached[start] and start not in told:
            circle = sorted(one for one in reached[start] if start in reached[one])
            told.update(circle)
            yield circle


@pytest.mark.parametrize("module", ["handbell", "handbell.cli.application"])
def test_what_is_loaded_each_time_loads_no_engine(module: str) -> None:
    """The library, and a command's help and completion, load no server, twin or database engine."""
    names = "{name.partition('.')[0] for name in sys.modules}"
    script = f"import sys, {module}; print(*{names})"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert HEAVY & set(run.stdout.split()) == set()
    assert "handbell" in run.stdout.split()


def test_the_engine_loads_no_http_client() -> None:
    """What calls webhooks and send servers is loaded with the first call, not with the engine."""
    script = (
        "import sys, handbell.system, handbell.delivery.engine, handbell.delivery.webhooks.sender;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert {"httpx", "httpcore"} & set(run.stdout.split()) == set()


def test_the_public_names_are_one_sorted_list() -> None:
    """``handbell.__all__`` is sorted, and each of its names can be had."""
    assert list(handbell.__all__) == sorted(handbell.__all__)
    assert all(hasattr(handbell, name) for name in handbell.__all__)


def test_a_name_that_there_is_not_is_an_attribute_error() -> None:
    """What is loaded when it is asked for does not turn other names into something."""
    assert not hasattr(handbell, "Responses")


_DIALECT = re.compile(
    r"dialect\.name|sqlalchemy\.dialects|json_each|json_extract|json_group|\bimport sqlite3\b"
)
_READS_OTHER_FILES = {"registry/import_4d.py"}


def test_only_storage_knows_which_database_it_is() -> None:
    """Whatever SQL is of one database alone has its place in storage/."""
    knowing = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if "storage" not in path.relative_to(ROOT).parts and _DIALECT.search(path.read_text())
    }
    assert knowing <= _READS_OTHER_FILES
