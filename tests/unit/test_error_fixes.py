"""Each error that reaches a user says what to do about it, wherever it is raised."""

import ast
from pathlib import Path

import pytest

import handbell
from handbell import errors

ROOT = Path(handbell.__file__).parent
FILES = [
    *sorted((ROOT / "cli").glob("*.py")),
    ROOT / "registry" / "import_4d.py",
    ROOT / "registry" / "device_attributes.py",
    ROOT / "demo_environment.py",
    ROOT / "push.py",
    ROOT / "server" / "console" / "person.py",
    ROOT / "storage" / "database.py",
    ROOT / "twin" / "discovery.py",
]
OURS = {name for name, one in vars(errors).items() if isinstance(one, type)}


def without_a_fix(file: Path) -> list[str]:
    """Return the places of a file where an error of ours is made without a fix."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in OURS:
            given = {one.arg for one in node.keywords}
            if not given & {"fix", None}:
                found.append(f"{file.name}:{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda one: str(one.relative_to(ROOT)))
def test_an_error_says_what_to_do(file: Path) -> None:
    """What was wrong alone leaves its reader where they were."""
    assert without_a_fix(file) == []
