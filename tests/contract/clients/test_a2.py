"""Rust's a2 judges the twin under Apple's own name."""

from collections.abc import Iterator, Mapping

import pytest
from tests.contract.clients.judgements import CoreJudgements, Push, Stage, Verdict, stage
from tests.contract.clients.mapped import mapped
from tests.contract.clients.tools import rust_program

__all__ = ["stage"]


@pytest.mark.judge("Rust's a2 under Apple's name")
class TestA2(CoreJudgements):
    """a2, on hyper and rustls: Apple's name, port 443 and the roots are built in.

    The roots are a crate of their own, for which one of ours stands that reads them from a file.
    """

    # Its own types keep one from making these.
    cannot = frozenset(
        {
            "a collapse id of 65 bytes",
            "a priority of 7",
            "no such push type",
            *(f"{kind} to the app's own token" for kind in ("complication", "controls", "widgets")),
        }
    )
    untold = frozenset(
        {
            "BadEnvironmentKeyIdInToken",
            "BadEnvironmentKeyInToken",
            "ExpiredToken",
            "InvalidPushType",
            "UnrelatedKeyIdInToken",
        }
    )

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls, stage: Stage) -> Iterator[list[str]]:
        """Build the program, and yield it in a namespace."""
        program = rust_program("a2")
        with mapped(stage.twin) as before:
            yield [*before, str(program)]

    def send(self, program: list[str], pushes: list[Push], env: Mapping[str, str]) -> list[Verdict]:
        """Name the authority of the names to the crate with the roots."""
        return super().send(program, pushes, {**env, "SSL_CERT_FILE": env["CLIENT_HOSTS_CA_FILE"]})
