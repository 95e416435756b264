"""The dashboard asks for metrics that there are, by labels that they have."""

import json
import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
DASHBOARD: Final = json.loads((ROOT / "deploy" / "grafana" / "handbell.json").read_text())
_ROW: Final = re.compile(r"^\| `(handbell_\w+)` \| (\w+) \|([\w, ]*)\|", re.MULTILINE)
_METRIC: Final = re.compile(r"handbell_\w+")
_SUFFIX: Final = re.compile(r"_(bucket|sum|count)$")


def _metrics() -> dict[str, set[str]]:
    """Return the labels of each documented metric; the document is held by a test of its own."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    known = {
        name: {label.strip() for label in labels.split(",") if label.strip()}
        for name, _, labels in _ROW.findall(text)
    }
    known["handbell_requests_total"] = {"method", "route", "status"}
    known["handbell_request_seconds"] = {"route"}
    return known


EXPRESSIONS: Final = [
    (panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize(
    ("title", "expression"), EXPRESSIONS, ids=[f"{n} {t}" for n, (t, _) in enumerate(EXPRESSIONS)]
)
def test_a_panel_asks_for_what_there_is(title: str, expression: str) -> None:
    """Its metric exists, and so does each label that it groups or selects by."""
    (name,) = _METRIC.findall(expression)
    labels = _metrics()[_SUFFIX.sub("", name) if name not in _metrics() else name]
    used = set(re.findall(r"(\w+)=~", expression))
    for group in re.findall(r"by \(([\w, ]+)\)", expression):
        used |= {label.strip() for label in group.split(",")}
    assert used - {"le"} <= labels, title


def test_every_alert_of_the_docs_has_a_panel() -> None:
    """What deserves an alert can be looked at."""
    text = (ROOT / "docs" / "metrics.md").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("What deserves an alert")]
    shown = " ".join(expression for _, expression in EXPRESSIONS)
    assert all(name in shown for name in _METRIC.findall(line))
