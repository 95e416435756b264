"""Where each push service is reached: its host, by its proxy, with the authority to trust."""

import socket
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from handbell._base64url import base64url
from handbell._proxy import Proxy
from handbell.apps.app import App
from handbell.apps.sample_keys import make_service_account
from handbell.errors import TwinError
from handbell.gateways.http2 import Endpoint
from handbell.service_endpoints import ServiceEndpoints
from handbell.services.fcm.protocol import TOKEN_URI, URL
from handbell.services.webpush.address import read_address
from handbell.settings import Settings
from handbell.twin.discovery import Address, write_address

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


def public_point() -> bytes:
    """Return a browser's public key."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def test_an_address_of_a_browsers_vendor_asks_no_twin(tmp_path: Path) -> None:
    """Only what is said to be the twin's connects to it, and that once for many."""
    keys = {"p256dh": base64url(public_point()), "auth": base64url(bytes(16))}
    real = read_address("https://updates.push.services.mozilla.com/wpush/v2/a", keys)
    with socket.create_server(("127.0.0.1", 0)) as page:
        url = f"http://127.0.0.1:{page.getsockname()[1]}"
        twin = "https://127.0.0.1:1"
        where = Address(
            production_url=twin,
            development_url=twin,
            page_url=url,
            ca_file="ca.pem",
            pid=1,
            webpush_url=twin,
        )
        write_address(tmp_path, where)
        endpoints = ServiceEndpoints(Settings.load(home=tmp_path), twin_folder=tmp_path)
        page.setblocking(False)
        for _ in range(20):
            endpoints.check_address(real, "production")
        with pytest.raises(BlockingIOError):
            page.accept()
        for _ in range(20):
            endpoints.check_address(read_address(f"{twin}/wpush/v2/a", keys), "twin")
        page.accept()[0].close()
        with pytest.raises(BlockingIOError):
            page.accept()
