"""Python's aioapns judges the twin under Apple's own name."""

import sys
from collections.abc import Iterator, Mapping

import pytest
from tests.contract.clients.judgements import CoreJudgements, Push, Stage, Verdict, stage
from tests.contract.clients.mapped import mapped
from tests.contract.clients.tools import HERE

__all__ = ["stage"]


@pytest.mark.judge("aioapns under Apple's name")
class TestAioapns(CoreJudgements):
    """aioapns, on h2: ``api.push.apple.com`` and port 443 are built in."""

    # It takes the answer to a push by its apns-id, and so waits for ever where that was not taken.
    cannot = frozenset(
        {
            "an apns-id that is none",
            "no topic",
            "no such push type",
            *(
                f"{kind} to the app's own token"
                for kind in ("location", "pushtotalk", "controls", "widgets")
            ),
        }
    )
    expires_within = 2

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls, stage: Stage) -> Iterator[list[str]]:
        """Yield the program in a namespace; all that it needs is in .venv."""
        with mapped(stage.twin) as before:
            yield [*before, sys.executable, str(HERE / "aioapns" / "main.py")]

    def send(self, program: list[str], pushes: list[Push], env: Mapping[str, str]) -> list[Verdict]:
        """Let OpenSSL trust the authority of the names."""
        return super().send(program, pushes, {**env, "SSL_CERT_FILE": env["CLIENT_HOSTS_CA_FILE"]})
