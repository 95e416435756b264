"""Go's apns2 judges the twin."""

import pytest
from tests.contract.clients.judgements import Judgements, stage
from tests.contract.clients.tools import go_program

__all__ = ["stage"]


@pytest.mark.judge("Go apns2")
class TestApns2(Judgements):
    """github.com/sideshow/apns2, on golang.org/x/net/http2."""

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Build the program."""
        return [str(go_program("apns2"))]
