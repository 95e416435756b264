"""The browser that tests drive: Debian's chromium, by playwright."""

import shutil
from pathlib import Path
from typing import Final

import axe_playwright_python  # type: ignore[import-untyped]
import pytest

CHROMIUM: Final = shutil.which("chromium")
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
        CHROMIUM is None, reason="chromium is missing: install Debian's package 'chromium'"
    ),
)
"""The marks of a test that needs it."""
AXE: Final = (
    Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
)
"""The script that looks for what hinders people; it is run in a page."""
