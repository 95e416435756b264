"""The last lines of a run say which judges there were."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
    import pytest

    @pytest.mark.judge("Go apns2")
    def test_one(): pass

    @pytest.mark.judge("Go apns2")
    def test_two(): pytest.skip("not today")

    @pytest.mark.judge("pushy")
    def test_three(): pytest.skip("mvn is not installed")

    @pytest.mark.judge("curl")
    @pytest.mark.skipif(True, reason="needs HTTP/2")
    def test_four(): pass

    @pytest.mark.judge("h2spec")
    def test_five(): assert False

    def test_six(): pass
"""


@pytest.fixture(autouse=True)
def _is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run of its own import the plugin, and none of all those that are installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize("processes", [0, 2])
def test_a_run_lists_its_judges(pytester: pytest.Pytester, processes: int) -> None:
    """Who ran is counted, who was skipped is told with the reason, and others are left out."""
    pytester.makepyfile(TESTS)
    told = pytester.runpytest_subprocess(
        "-p", "tests.judges", "-p", "xdist", "-n", str(processes), "-p", "no:cacheprovider"
    )
    told.stdout.fnmatch_lines(
        [
            "*= judges =*",
            "ran: Go apns2 (1), h2spec (1)",
            "SKIPPED curl: needs HTTP/2",
            "SKIPPED pushy: mvn is not installed",
            "*1 failed*",
        ],
        consecutive=True,
    )


def test_a_run_without_judges_says_nothing_of_them(pytester: pytest.Pytester) -> None:
    """There is no empty list."""
    pytester.makepyfile("def test_one(): pass")
    told = pytester.runpytest_subprocess("-p", "tests.judges")
    assert "= judges =" not in told.stdout.str()
