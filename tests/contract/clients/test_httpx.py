"""httpx over HTTP/2 judges the twin."""

import sys

import pytest
from tests.contract.clients.judgements import Judgements, stage
from tests.contract.clients.tools import HERE

__all__ = ["stage"]


@pytest.mark.judge("httpx")
class TestHttpx(Judgements):
    """httpx, on httpcore and h2."""

    after_goaway = frozenset({0})

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Return the program; all that it needs is in .venv."""
        return [sys.executable, str(HERE / "httpx" / "main.py")]
