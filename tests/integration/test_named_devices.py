"""Sends to devices that are named by their addresses, of whichever push service."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.services_stage import ServicesStage, open_services

from handbell.server.access import Caller
from handbell.server.api.tokens import told_to

from .test_service_sessions import subscription

pytestmark = pytest.mark.databases

MAIL = "test@4d.com"
FCM = "fGc0_x-:APA91b" + "x" * 140
ENDPOINT = "https://updates.push.services.mozilla.com/wpush/v2/1"


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[ServicesStage]:
    """Give an app of every push service, whose gateways accept everything."""
    with open_services(tmp_path, database_url) as stage:
        yield stage


def test_a_registered_device_is_reached_by_its_address(stage: ServicesStage) -> None:
    """An endpoint is enough: the registry has its keys, and knows whose it is."""
    registry = stage.system.registry
    registry.register(stage.app, MAIL, subscription(ENDPOINT))
    registry.register(stage.app, MAIL, FCM, platform="android")
    response = stage.send([ENDPOINT, FCM, MAIL])
    assert stage.pushed() == {"fcm": 1, "webpush": 1}
    assert [one.mail for one in response.deliveries] == [MAIL, MAIL]


def test_a_device_that_nobody_registered_is_reached_by_its_whole_address(
    stage: ServicesStage,
) -> None:
    """With its keys; without them nothing can be encrypted, and a warning says so."""
    browser = subscription(ENDPOINT)
    response = stage.send([browser, {"service": "fcm", "token": "z" * 152}])
    assert response.success
    assert stage.pushed() == {"fcm": 1, "webpush": 1}
    missing = stage.send(ENDPOINT)
    assert (missing.success, stage.pushed()) == (False, {"fcm": 1, "webpush": 1})
    assert [one.reason for one in missing.warnings] == ["NoDevice"]
    assert "keys" in missing.warnings[0]


def test_what_is_kept_of_a_send_has_no_keys(stage: ServicesStage) -> None:
    """Recipients are shown by endpoint, and to who may only send in short."""
    browser: dict[str, Any] = subscription(ENDPOINT)
    sent = stage.send([browser, FCM]).notification_id or ""
    report = stage.system.reports.funnel(sent)
    assert report.named == {"device_tokens": [ENDPOINT, FCM]}
    sender = Caller(actor="key", scopes=frozenset({"send"}), app=None)
    told = told_to(sender, {"recipients": f"{ENDPOINT} and 1 other", **report.named})
    assert ENDPOINT not in str(told)
    assert FCM not in str(told)
    assert told_to(sender, {"recipients": f"{FCM} x"})["recipients"].endswith("… x")
