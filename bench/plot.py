"""The throughput table of RESULTS.md as a plot: how many times Go's rate each program has.

``python -m bench.plot`` draws it anew from the results that are there.
"""

from html import escape
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).parent / "RESULTS.md"
TITLE: Final = "## Throughput"

_WIDTH, _LEFT, _BAR, _ROW, _TOP = 760, 290, 330, 30, 62
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


def draw(results: str) -> str:
    """Return the plot, as SVG, of the results as Markdown.

    Raises ValueError where they have no throughput table, or no ratio to Go's client in it.
    """
    rates = _ratios(results)
    if not rates:
        raise ValueError("There is no ratio to Go's client in the results")
    longest = max(value for _, value in rates)
    height = _TOP + _ROW * len(rates) + 14
    lines = [
        _OPENING.format(width=_WIDTH, height=height),
        '<title id="title">Pushes a second, as multiples of Go\'s client</title>',
        f"<style>{_STYLE}\n</style>",
        '<text class="title" x="12" y="24">Pushes a second, Go\'s client = 1</text>',
        '<text class="note" x="12" y="44">One machine, one run; medians of the rounds</text>',
    ]
    for place, (name, value) in enumerate(rates):
        top = _TOP + place * _ROW
        width = max(1.0, _BAR * value / longest)
        kind = "bar ours" if name.startswith("Handbell") else "bar"
        lines += [
            f'<text x="{_LEFT - 10}" y="{top + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="21"/>',
            f'<text x="{_LEFT + width + 8:.1f}" y="{top + 15}">{value:.2f}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def write(results: Path = RESULTS) -> Path:
    """Draw the plot beside the results, and return where."""
    path = results.with_suffix(".svg")
    path.write_text(draw(results.read_text(encoding="utf-8")), encoding="utf-8")
    return path


def _ratios(results: str) -> list[tuple[str, float]]:
    _, found, rest = results.partition(f"{TITLE}\n")
    if not found:
        raise ValueError("There is no throughput table in the results")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in rest.partition("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    column = rows[0].index("x Go")
    told = [(row[0], row[column]) for row in rows[2:]]
    return [(name, float(value.replace(",", ""))) for name, value in told if value[:1].isdigit()]


if __name__ == "__main__":
    print(write())
