"""The browser that tests drive: Debian's chromium, by playwright."""

import shutil
from pathlib import Path
from typing import Any, Final

import axe_playwright_python  # type: ignore[import-untyped]
import pytest
from playwright.sync_api import Page, expect

CHROMIUM: Final = shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""The shell without the desktop's parts needs a third of the time for a page."""
SWITCHES: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
IN_A_BROWSER: Final = (
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="chromium is missing: install Debian's package 'chromium-headless-shell'",
    ),
)
"""The marks of a test that needs it."""
_AXE: Final = Path(axe_playwright_python.__file__).with_name("axe.min.js")


def serious_findings(page: Page, *only: str) -> list[tuple[str, list[str]]]:
    """Return what axe finds serious or critical on a page, by all its rules or by some."""
    # What is at work is pale until the answer is there.
    expect(page.locator("[aria-busy=true]")).to_have_count(0)
    if not page.evaluate("'axe' in window"):
        page.evaluate(_AXE.read_text(encoding="utf-8"))
    # What passes would be described at length too, for nobody.
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if only:
        options["runOnly"] = list(only)
    found = page.evaluate("(options) => axe.run(document, options)", options)["violations"]
    return [
        (one["id"], [f"{node['html'][:120]}: {node['failureSummary']}" for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
