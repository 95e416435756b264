"""h2spec judges the twin's HTTP/2."""

import re
from urllib.parse import urlsplit

import pytest
from tests.contract.clients.tools import go_program, run

from handbell.twin.threaded import start_twin


@pytest.mark.judge("h2spec")
@pytest.mark.parametrize("side", ["production", "development", "fcm"])
def test_every_case_of_h2spec_passes(side: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All 145 cases, those of HPACK among them, on APNs and on FCM."""
    program = go_program("h2spec", "github.com/summerwind/h2spec/cmd/h2spec")
    with start_twin(tmp_path_factory.mktemp("twin")) as twin:
        url = {
            "production": twin.production_url,
            "development": twin.development_url,
            "fcm": twin.fcm_url,
        }[side]
        port = str(urlsplit(url).port)
        done = run([program, "--tls", "--insecure", "--port", port, "--timeout", "5"])
    counted = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", done.stdout)
    assert counted is not None, done.stderr
    assert counted.groups() == ("145", "145", "0", "0"), done.stdout
