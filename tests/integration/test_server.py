"""The send server on a real socket."""

from tests.serving import Server, administrator, server

__all__ = ["administrator", "server"]


def test_it_lives(server: Server) -> None:
    """A server answers, with the headers that keep browsers safe."""
    with server.client() as client:
        answer = client.get("/healthz")
    assert answer.json() == {"status": "alive"}
    assert answer.headers["x-content-type-options"] == "nosniff"
