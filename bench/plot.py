"""Two tables of RESULTS.md as a plot: the throughput beside Go's, and a fleet beside one worker.

``python -m bench.plot`` draws it anew from the results that are there.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
TITLE: Final = "## Throughput"
FLEET_TITLE: Final = "## A fleet"

_WIDTH, _LEFT, _BAR, _ROW, _TOP, _GAP = 760, 290, 330, 30, 62, 14
_NOTE: Final = "One machine, one run; medians of the rounds"
_OPENING: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
    'width="{width}" height="{height}" role="img" aria-labelledby="title">'
)
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.note { fill: #59636e }
.bar { fill: #a0aab4 }
.ours { fill: #0a6c74 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .note { fill: #9198a1 } .bar { fill: #59636e } .ours { fill: #3fb6c0 }
}"""


class _Bar(NamedTuple):
    name: str
    value: float
    is_ours: bool


def draw(results: str) -> str:
    """Return the plot, as SVG, of the results as Markdown; of a fleet where one was measured.

    Raises ValueError where they have no throughput table, or no ratio to Go's client in it.
    """
    rates = [_Bar(name, value, name.startswith("Handbell")) for name, value in _ratios(results)]
    if not rates:
        raise ValueError("There is no ratio to Go's client in the results")
    panels = [_panel(0, "Pushes a second, Go's client = 1", rates)]
    height = _height(rates)
    if fleet := _fleet(results):
        panels.append(_panel(height, "Pushes a second of a fleet, one worker = 1", fleet))
        height += _height(fleet)
    lines = [
        _OPENING.format(width=_WIDTH, height=height),
        '<title id="title">Pushes a second, as multiples of Go\'s client</title>',
        f"<style>{_STYLE}\n</style>",
    ]
    return "\n".join([*lines, *(line for panel in panels for line in panel), "</svg>", ""])


def _height(bars: Sequence[_Bar]) -> int:
    return _TOP + _ROW * len(bars) + _GAP


def _panel(start: int, title: str, bars: Sequence[_Bar]) -> list[str]:
    longest = max(bar.value for bar in bars)
    lines = [
        f'<text class="title" x="12" y="{start + 24}">{title}</text>',
        f'<text class="note" x="12" y="{start + 44}">{_NOTE}</text>',
    ]
    for place, bar in enumerate(bars):
        top = start + _TOP + place * _ROW
        width = max(1.0, _BAR * bar.value / longest)
        kind = "bar ours" if bar.is_ours else "bar"
        lines += [
            f'<text x="{_LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="21"/>',
            f'<text x="{_LEFT + width + 8:.1f}" y="{top + 15}">{bar.value:.2f}</text>',
        ]
    return lines


def write(results: Path = RESULTS) -> Path:
    """Draw the plot beside the results, and return where."""
    path = results.with_suffix(".svg")
    path.write_text(draw(results.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def _ratios(results: str) -> list[tuple[str, float]]:
    rows = _rows(results, TITLE)
    if not rows:
        raise ValueError("There is no throughput table in the results")
    column = rows[0].index("x Go")
    cells = [(row[0], row[column]) for row in rows[2:]]
    return [(name, _number(value)) for name, value in cells if value[:1].isdigit()]


def _fleet(results: str) -> list[_Bar]:
    rows = _rows(results, FLEET_TITLE)
    if not rows:
        return []
    column = rows[0].index("pushes/s")
    rates = [_number(row[column]) for row in rows[2:]]
    names = [f"{row[0]} worker{'s' if row[0] != '1' else ''}" for row in rows[2:]]
    return [
        _Bar(name, rate / rates[0], is_ours=True) for name, rate in zip(names, rates, strict=True)
    ]


def _rows(results: str, title: str) -> list[list[str]]:
    _, _, rest = results.partition(f"{title}\n")
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rest.partition("\n## ")[0].splitlines()
        if line.startswith("|")
    ]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


if __name__ == "__main__":
    print(write())
