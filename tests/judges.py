"""Which judges a run had: the last lines say who ran, and who was skipped and why.

A judge is somebody else's program or library that tells whether ours does right: a client, a
checker, a browser. Its tests carry ``pytest.mark.judge("name")``, or ``browser`` for Chromium.
"""

from collections import defaultdict
from collections.abc import Generator

import pytest

_KEY = "judge"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", "judge(name): who tells whether it is right, not being ours")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each report carry its judges, also from another process."""
    for item in items:
        names = [mark.args[0] for mark in item.iter_markers("judge")]
        names += ["Chromium" for _ in item.iter_markers("browser")]
        item.user_properties += [(_KEY, name) for name in dict.fromkeys(names)]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter,
) -> Generator[None, None, None]:
    """List the judges that ran and those that were skipped, behind all else."""
    yield
    ran, skipped = _judges(terminalreporter)
    if ran or skipped:
        terminalreporter.section("judges")
        told = ", ".join(f"{name} ({count})" for name, count in sorted(ran.items()))
        terminalreporter.write_line(f"ran: {told or 'none'}")
    for name, why in sorted(skipped.items()):
        terminalreporter.write_line(f"SKIPPED {name}: {why}")


def _judges(reporter: pytest.TerminalReporter) -> tuple[dict[str, int], dict[str, str]]:
    """Return how many tests each judge has run, and why others have run none."""
    ran: dict[str, int] = defaultdict(int)
    skipped: dict[str, str] = {}
    for kind in ("passed", "failed", "error", "skipped"):
        for report in reporter.stats.get(kind, []):
            for name in (
                value for key, value in getattr(report, "user_properties", ()) if key == _KEY
            ):
                if kind != "skipped":
                    ran[name] += 1
                elif isinstance(report.longrepr, tuple):
                    skipped.setdefault(name, report.longrepr[2].removeprefix("Skipped: "))
    return ran, {name: why for name, why in skipped.items() if name not in ran}
