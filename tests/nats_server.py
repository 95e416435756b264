"""A real NATS server with JetStream for tests: one per process, a stream of its own per test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from bench.nats import NatsServer
from bench.postgresql import Unavailable


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give a server; a test that needs it is skipped where there can be none."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        server.start()
    except Unavailable as error:
        pytest.skip(str(error))
    yield server
    server.stop()


@pytest.fixture
def broker_url(nats_server: NatsServer) -> str:
    """Give the address of an empty stream of the test's own."""
    return nats_server.url(f"test-{uuid4().hex[:12]}")
