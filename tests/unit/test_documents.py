"""What can go stale in the documents is checked here."""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import handbell
from handbell import errors
from handbell.delivery.policy.meanings import OWN_REASONS, meaning
from handbell.services.apns.reasons import REASONS
from handbell.services.fcm.reasons import REASONS as FCM_REASONS
from handbell.services.webpush.reasons import REASONS as WEB_PUSH_REASONS

ROOT = Path(__file__).parents[2]
ERRORS = (ROOT / "docs/errors.md").read_text(encoding="utf-8")


def _tree(root: type[errors.HandbellError]) -> Iterator[type[errors.HandbellError]]:
    for child in root.__subclasses__():
        yield child
        yield from _tree(child)


@pytest.mark.parametrize("error", list(_tree(errors.HandbellError)), ids=lambda kind: kind.__name__)
def test_an_error_is_documented_with_its_code_and_status(error: type[errors.HandbellError]) -> None:
    """Every error of the tree has its row in docs/errors.md, and its place in the drawing."""
    assert f"| `{error.code}` | `{error.__name__}` | {error.status} |" in ERRORS
    assert error.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("reason", [*REASONS, *OWN_REASONS])
def test_a_reason_is_documented_with_its_meaning_and_fix(reason: str) -> None:
    """Every reason of Apple's and of our own stands in docs/errors.md as the code tells it."""
    words, fix = meaning(reason)
    row = next(line for line in ERRORS.splitlines() if line.startswith(f"| `{reason}` |"))
    assert row.endswith(f"| {words} | {fix} |")


@pytest.mark.parametrize("reason", FCM_REASONS)
def test_errors_md_explains_every_reason_of_fcm(reason: str) -> None:
    """Every reason of Google's stands in docs/errors.md as the code tells it."""
    words, fix = meaning(reason, gateway="fcm")
    assert f"| `{reason}` | {FCM_REASONS[reason].status} | {words} | {fix} |" in ERRORS


@pytest.mark.parametrize("reason", WEB_PUSH_REASONS)
def test_a_reason_of_web_push_is_documented_with_its_meaning_and_fix(reason: str) -> None:
    """So does every reason of the push services of browsers, in a table of their own."""
    words, fix = meaning(reason, gateway="webpush")
    table = ERRORS.partition("## Reasons of Web Push")[2].partition("\n## ")[0]
    row = next(line for line in table.splitlines() if line.startswith(f"| `{reason}` |"))
    assert row.endswith(f"| {words} | {fix} |")


def test_error_codes_are_unique() -> None:
    """No two errors share a code."""
    codes = [error.code for error in _tree(errors.HandbellError)]
    assert len(codes) == len(set(codes))


def test_the_changelog_names_the_version() -> None:
    """The newest entry of the changelog is the version of the code."""
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == handbell.__version__


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: page.name
)
def test_links_within_the_project_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file or a folder that is there."""
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_cli_reference_is_what_the_command_says() -> None:
    """docs/cli.md is what ``make docs`` writes from the command itself."""
    written = runpy.run_path(str(ROOT / "docs/write_cli.py"))["cli_reference"]()
    assert (ROOT / "docs/cli.md").read_text(encoding="utf-8") == written
