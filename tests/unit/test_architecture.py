"""The page that shows the house names what is there."""

import ast
import re
from pathlib import Path

import pytest

import handbell
from handbell.services.table import SERVICES

ROOT = Path(handbell.__file__).parent
PAGE = ROOT.parents[1] / "docs" / "architecture.md"
TEXT = PAGE.read_text(encoding="utf-8")

_PATH = re.compile(r"`([a-z_0-9]+(?:/[a-z_0-9]+)*\.py)`")
_OF_EACH = re.compile(r"`((?:services|gateways|twin)/\*/[a-z_]+\.py)`")
_NAMED = re.compile(r"`([a-z_0-9/]+\.py)` `([A-Za-z_.]+)`")
_ALSO = re.compile(r"`([A-Z]\w+\.[a-z_]+)`")


def _names(file: Path) -> set[str]:
    """Return what a file defines: classes, functions, assigned names, and members of classes."""
    found: set[str] = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            members = [one for one in node.body if hasattr(one, "name")]
            found |= {node.name, *(f"{node.name}.{one.name}" for one in members)}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {one.id for one in node.targets if isinstance(one, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return found


@pytest.mark.parametrize("path", sorted(set(_PATH.findall(TEXT))))
def test_a_file_that_the_page_names_is_there(path: str) -> None:
    """Each path of the page is a file below src/handbell."""
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("path", sorted(set(_OF_EACH.findall(TEXT))))
def test_a_file_of_each_push_service_is_there(path: str) -> None:
    """A path with an asterisk is a file of every push service that does what it says."""
    found = {file.parent.name for file in ROOT.glob(path)}
    # The token of Web Push is of another kind, and the page names its file.
    assert found == set(SERVICES) - ({"webpush"} if path == "gateways/*/token.py" else set())


@pytest.mark.parametrize(("path", "name"), sorted(set(_NAMED.findall(TEXT))))
def test_a_name_that_the_page_gives_is_in_its_file(path: str, name: str) -> None:
    """What stands behind a path is defined in that file."""
    assert name in _names(ROOT / path)


def test_each_method_that_the_page_names_is_somewhere() -> None:
    """A method named without its file is one of the package's."""
    every = set().union(*(_names(file) for file in ROOT.rglob("*.py")))
    assert set(_ALSO.findall(TEXT)) <= every


def test_the_page_shows_every_folder_and_room() -> None:
    """No folder of the package and no room of delivery is missing from the tables."""
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")}
    rooms = {file.parent.name for file in ROOT.glob("delivery/*/__init__.py")}
    assert folders | rooms <= set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))


def test_its_drawing_is_there() -> None:
    """The drawing of the page is a file beside it."""
    (drawing,) = re.findall(r"\]\((\w+\.svg)\)", TEXT)
    assert (PAGE.parent / drawing).is_file()
