"""Java's pushy judges the twin."""

import pytest
from tests.contract.clients.judgements import Judgements, stage
from tests.contract.clients.tools import java_classes

__all__ = ["stage"]


@pytest.mark.judge("pushy")
class TestPushy(Judgements):
    """com.eatthepath.pushy, on Netty."""

    cannot = frozenset(
        {
            "a priority of 7",
            "no such push type",
            "an apns-id that is none",
            "controls to the app's own token",
            "widgets to the app's own token",
        }
    )

    # It closes the connection when it reads GOAWAY, so that it reads what is answered behind it if
    # both came at once, and else calls the stream closed. Apple's servers owe it no other order.
    after_goaway = frozenset({0, 200})

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Fetch pushy and compile the program."""
        return ["java", "-cp", java_classes("pushy"), "Main"]
