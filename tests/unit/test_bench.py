"""The arithmetic behind the bench's tables; nothing here is timed."""

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from bench import plot
from bench.figures import figure, percentile, ratio
from bench.job import Job, Result
from bench.report import Table, document, fleets, throughput
from bench.scaling import Fleet

GO, AIOAPNS = "Go, sideshow/apns2", "Python, aioapns"


def rounds(*seconds: float) -> list[Result]:
    """Return rounds of a thousand pushes, one of a hundred refused."""
    return [
        Result(accepted=990, refused=10, seconds=each, cpu_seconds=0.02, sink_cpu=each / 4)
        for each in seconds
    ]


def fleet(workers: int, rate: int) -> Fleet:
    """Return what so many workers came to in a second."""
    return Fleet(
        name=f"fleet{workers}",
        workers=workers,
        pushes=rate,
        seconds=1.0,
        worker_cpu=0.01,
        database_cpu=0.01,
        broker_cpu=0.01,
    )


def test_a_figure_is_the_median_of_its_rounds() -> None:
    """One disturbed round changes the slowest, and not the figure."""
    found = figure("ours", rounds(1.0, 0.5, 10.0))
    assert (found.rate, found.slowest, found.fastest) == (1000, 100, 2000)
    assert (found.cpu, found.microseconds) == (20, 1000)
    assert (found.sink_busy, found.refused, found.rounds) == (0.25, 0.01, 3)


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([4.0, 3.0, 2.0, 1.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([7.0], 0.99, 7.0),
    ],
)
def test_percentile(values: list[float], share: float, expected: float) -> None:
    """It is a value that was measured, never one in between."""
    assert percentile(values, share) == expected


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [(1300, 1000, "1.30"), (950, 1000, "0.95"), (26_000, 1000, "26"), (1000, None, "-")],
)
def test_ratio(ours: float, theirs: float | None, expected: str) -> None:
    """A peer that was left out leaves a dash."""
    assert ratio(ours, theirs) == expected


def test_the_main_table_compares_with_both_peers() -> None:
    """Each row has its ratio to Go's apns2 and to aioapns."""
    figures = [figure("ours", rounds(0.5)), figure(GO, rounds(1.0)), figure(AIOAPNS, rounds(25.0))]
    table = throughput(figures)
    compared = [
        row[table.header.index("x Go") : table.header.index("x aioapns") + 1] for row in table.rows
    ]
    assert compared == [("2.00", "50"), ("1.00", "25"), ("0.04", "1.00")]


def test_markdown() -> None:
    """A table is Markdown with its figures to the right, and its notes below."""
    table = Table("Speed", ("", "rate"), [("ours", "2")], ("As measured.",))
    expected = "## Speed\n\n|  | rate |\n| :-- | --: |\n| ours | 2 |\n\nAs measured.\n"
    assert table.markdown() == expected


def test_a_job_survives_its_way_to_a_program() -> None:
    """What a program reads is what it was asked."""
    job = Job(url="https://127.0.0.1:1", ca_file="ca", key_file="key", tokens="t", count=3)
    assert Job.read(job.text()) == job


def test_the_plot_shows_each_ratio_of_the_results() -> None:
    """A bar's width is its ratio to the longest; what has no ratio has no bar."""
    results = throughput(
        [
            figure("Handbell & engine", rounds(0.5)),
            figure(GO, rounds(1.0)),
            figure(AIOAPNS, rounds(4.0)),
        ]
    ).markdown()
    bars = [
        float(one.attrib["width"])
        for one in ET.fromstring(plot.draw(results)).iter("{http://www.w3.org/2000/svg}rect")  # noqa: S314 - our own
    ]
    assert len(bars) == 3
    assert [round(one / bars[0], 2) for one in bars] == [1, 0.5, 0.12]
    assert "Handbell &amp; engine" in plot.draw(results)


def test_the_plot_shows_a_fleet_beside_one_worker() -> None:
    """Four workers that send 3.6 times as much have a bar 3.6 times as long."""
    results = throughput([figure(GO, rounds(1.0))]).markdown()
    results += "\n" + fleets([fleet(1, 1000), fleet(4, 3600)]).markdown()
    *_, one, four = ET.fromstring(plot.draw(results)).iter("{http://www.w3.org/2000/svg}rect")  # noqa: S314 - our own
    assert float(four.attrib["width"]) / float(one.attrib["width"]) == pytest.approx(3.6, abs=0.01)


def test_a_run_of_some_parts_leaves_the_other_tables() -> None:
    """A table is exchanged in its place, a new one follows; below each stands its run."""
    first, second = Table("One", ("", "n"), [("a", "1")]), Table("Two", ("", "n"), [("b", "2")])
    former = document([first, second], [("cores", "2")], "Remarks.", run="day 1")
    anew = Table("One", ("", "n"), [("a", "3")])
    third = Table("Three", ("", "n"), [("c", "4")])
    results = document([anew, third], [("cores", "4")], "Remarks.", run="day 2", former=former)
    assert [line for line in results.splitlines() if line[:1] in {"#", "-"} or "Run" in line] == [
        "# Results of the bench",
        "- cores: 4",
        "## One",
        "Run: day 2.",
        "## Two",
        "Run: day 1.",
        "## Three",
        "Run: day 2.",
    ]
    assert "| a | 3 |" in results
    assert "| a | 1 |" not in results


def test_results_without_a_ratio_are_not_drawn() -> None:
    """Where Go's client was not measured there is nothing to compare with."""
    for results in ("", throughput([figure(AIOAPNS, rounds(1.0))]).markdown()):
        with pytest.raises(ValueError, match="in the results"):
            plot.draw(results)


def test_the_committed_plot_is_of_the_committed_results() -> None:
    """Nobody reads one and sees the other."""
    drawn = Path(plot.__file__).with_name("RESULTS.svg").read_text(encoding="utf-8")
    assert drawn == plot.draw(plot.RESULTS.read_text(encoding="utf-8"))
