"""The Kotlin library of clients/android: its own tests, beside a running server and twin."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest
from tests.contract.clients.tools import CACHE, need, run
from tests.device_backend import start_backend

pytestmark = [pytest.mark.clients, pytest.mark.timeout(500)]

LIBRARY: Final = Path(__file__).parents[3] / "clients" / "android"
_NOT_FETCHED: Final = re.compile(r"Could not (?:transfer|resolve|find)|Cannot access|Unknown host")


@pytest.fixture(scope="module")
def library() -> Path:
    """Give a copy of the library, so that nothing is built beside its sources."""
    need("java", "mvn")
    copy = CACHE / "android"
    for part in ("core", "android"):
        # What Maven has compiled stays; a file that is gone from the sources must not.
        shutil.rmtree(copy / part / "src", ignore_errors=True)
    return Path(
        shutil.copytree(LIBRARY, copy, ignore=shutil.ignore_patterns("target"), dirs_exist_ok=True)
    )


@pytest.mark.judge("Kotlin on the JVM")
def test_the_library_passes_its_own_tests(library: Path) -> None:
    """The core does what it promises against a running server; Android's parts compile."""
    maven = ["mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={CACHE / 'maven'}"]
    with start_backend() as address:
        done = run([*maven, "test"], folder=library, env={"HANDBELL_LIVE": address}, seconds=450)
    said = done.stdout + done.stderr
    if done.returncode and (missing := _NOT_FETCHED.search(said)):
        pytest.skip(f"Maven could not fetch it: {said[missing.start() :][:200]}")
    assert done.returncode == 0, said
    reports = (library / "core" / "target" / "surefire-reports").glob("*.LiveTest.txt")
    assert ["Skipped: 0" in report.read_text("utf-8") for report in reports] == [True]
