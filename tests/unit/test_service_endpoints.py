"""Where each push service is reached: its host, by its proxy, with the authority to trust."""

from pathlib import Path

import pytest

from handbell._proxy import Proxy
from handbell.apps.app import App
from handbell.apps.sample_keys import make_service_account
from handbell.errors import TwinError
from handbell.gateways.http2 import Endpoint
from handbell.service_endpoints import ServiceEndpoints
from handbell.services.fcm.protocol import TOKEN_URI, URL
from handbell.settings import Settings

PROXY = Proxy("proxy.example.com", 3128)


@pytest.mark.parametrize(
    ("exceptions", "of_fcm", "of_tokens"),
    [
        ("", PROXY, PROXY),
        ("fcm.googleapis.com", None, PROXY),
        ("oauth2.googleapis.com", PROXY, None),
        (".googleapis.com", None, None),
    ],
    ids=["all", "fcm", "tokens", "both"],
)
def test_google_is_reached_by_each_hosts_own_way(
    tmp_path: Path, exceptions: str, of_fcm: Proxy | None, of_tokens: Proxy | None
) -> None:
    """An exception for FCM is none for where access tokens are asked for, and vice versa."""
    settings = Settings.load(
        home=tmp_path, proxy="http://proxy.example.com:3128", no_proxy=exceptions
    )
    endpoints = ServiceEndpoints(settings, twin_folder=tmp_path)
    account = make_service_account(App(android_package="com.sample.shop"))
    assert endpoints.endpoint("fcm", "production") == Endpoint(URL, proxy=of_fcm)
    assert endpoints.token_endpoint(account, "production") == Endpoint(TOKEN_URI, proxy=of_tokens)
    with pytest.raises(TwinError, match="not running"):
        endpoints.token_endpoint(account, "twin")
