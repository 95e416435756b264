"""How failures are logged: what Handbell says in words, what nobody expected with a traceback."""

import logging

import pytest

from handbell._failures import log_failure
from handbell.errors import DatabaseUnavailableError

LOG = logging.getLogger("test")


def test_a_database_that_is_away_is_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """One line with the fix; and everything of an error that has none."""
    away = DatabaseUnavailableError("It is away", fix="Start it")
    log_failure(LOG, away, "Turn of %s failed", "work")
    log_failure(LOG, KeyError("x"), "Turn of %s failed", "work")
    expected, unexpected = caplog.records
    assert expected.getMessage() == "Turn of work failed: It is away. Start it."
    assert not expected.exc_info
    assert unexpected.getMessage() == "Turn of work failed"
    assert unexpected.exc_info
