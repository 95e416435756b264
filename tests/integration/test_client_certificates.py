"""Client certificates are loaded without a disk."""

import sys
import tempfile

import pytest
from tests.http2_server import counting, run, send, serve

from handbell.gateways.http2 import Answer, Endpoint
from handbell.twin.certificates import Authority

TOPICS = ["com.sample.myapp"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make a certificate authority that vouches for loopback."""
    return Authority.open(tmp_path_factory.mktemp("authority"))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems need a folder for it")
def test_a_certificate_needs_no_folder_that_can_be_written(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a read-only root and no /tmp a certificate is used all the same."""
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    pem = authority.issue_client_certificate(TOPICS)

    async def story() -> None:
        async with serve(authority, counting()) as url:
            endpoint = Endpoint(url, authority.ca_file, client_certificate=pem)
            (end,) = await send(endpoint, ["/ok-1"])
        assert isinstance(end, Answer)

    run(story)
