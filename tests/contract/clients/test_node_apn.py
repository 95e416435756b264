"""Node's @parse/node-apn judges the twin."""

import pytest
from tests.contract.clients.judgements import Judgements, stage
from tests.contract.clients.tools import node_program

__all__ = ["stage"]


@pytest.mark.judge("@parse/node-apn")
class TestNodeApn(Judgements):
    """@parse/node-apn, on Node's http2."""

    untold = frozenset({"InternalServerError"})
    tells_ids = False

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Fetch the modules."""
        return ["node", str(node_program("node-apn"))]
