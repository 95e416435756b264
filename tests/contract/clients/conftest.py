"""All that is in this folder is of the tier ``make test-clients``, and may have to fetch first."""

from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.clients.judgements")

_HERE = Path(__file__).parent
_SECONDS = 400


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, and let them take the time that fetching takes."""
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.timeout(_SECONDS))
