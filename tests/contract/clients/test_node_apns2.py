"""Node's apns2 judges the twin under Apple's own name."""

from collections.abc import Iterator, Mapping

import pytest
from tests.contract.clients.judgements import CoreJudgements, Push, Stage, Verdict, stage
from tests.contract.clients.mapped import mapped
from tests.contract.clients.tools import node_program

__all__ = ["stage"]


@pytest.mark.judge("Node's apns2 under Apple's name")
class TestNodeApns2(CoreJudgements):
    """apns2 for Node, on undici: ``api.push.apple.com`` and port 443 are built in."""

    # A priority of 10 is its own default, and it sends no apns-id.
    cannot = frozenset({"an apns-id that is none", "no topic"})
    sends_ids = tells_ids = False

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls, stage: Stage) -> Iterator[list[str]]:
        """Fetch the modules, and yield the program in a namespace."""
        program = node_program("apns2")
        with mapped(stage.twin) as before:
            yield [*before, "node", str(program)]

    def send(self, program: list[str], pushes: list[Push], env: Mapping[str, str]) -> list[Verdict]:
        """Let Node trust the authority of the names."""
        trust = {"NODE_EXTRA_CA_CERTS": env["CLIENT_HOSTS_CA_FILE"]}
        return super().send(program, pushes, {**env, **trust})
