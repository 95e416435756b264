"""The remote client and the usual variables of proxies and certificates: mistakes are named."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.proxy import proxying
from tests.serving import Server, server

from handbell import PushNotification
from handbell.errors import SettingsError, UnavailableError
from handbell.remote.client import RemoteApp
from handbell.twin.certificates import Authority

__all__ = ["server"]

USUAL = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in USUAL:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@h:99999",
        "http://me:hunter2@h:port",
        "http://me:hunter2@",
        "ftp://me:hunter2@h:1",
        "socks5://me:hunter2@h:1",
        "http://[::1",
        "http://a b:1",
        "://",
    ],
)
def test_a_proxy_that_cannot_be_one_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error comes before any call, names the variable, and repeats no password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as caught:
        PushNotification(url="https://push.example.com", api_key="hbk_x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("SSL_CERT_FILE", lambda folder: folder / "missing.pem"),
        ("SSL_CERT_FILE", lambda folder: folder),
        ("SSL_CERT_FILE", lambda folder: _written(folder / "a.pem", "no certificate")),
        ("SSL_CERT_DIR", lambda folder: folder / "missing"),
        ("SSL_CERT_DIR", lambda folder: _written(folder / "b.pem", "a file")),
    ],
)
def test_certificates_that_cannot_be_read_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, make: Callable[[Path], Path]
) -> None:
    """A file that is missing or holds none, a folder that is none."""
    monkeypatch.setenv(name, str(make(tmp_path)))
    with pytest.raises(SettingsError, match=name):
        RemoteApp("https://push.example.com", "hbk_x")


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_list_of_exceptions_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY with a bracket too few."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "[::1")
    with pytest.raises(SettingsError, match="NO_PROXY"):
        asyncio.run(RemoteApp("https://push.example.com", "hbk_x").find())


@pytest.mark.parametrize("url", ["http://push.example.com", "https://push.example.com"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"])
def test_a_proxy_that_asks_for_a_password_is_named(
    monkeypatch: pytest.MonkeyPatch, url: str, answer: bytes
) -> None:
    """At once, without another try; with a tunnel and without."""
    name = f"{url.partition(':')[0].upper()}_PROXY"

    async def story() -> None:
        async with proxying(lambda _: answer) as proxy:
            monkeypatch.setenv(name, proxy.url())
            remote = RemoteApp(url, "hbk_x", pauses=(9.0,))
            with pytest.raises(SettingsError, match=name):
                await remote.find()
            await remote.close()
            assert len(proxy.heads) == 1

    asyncio.run(story())


def test_a_proxy_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come back, so it is no setting's fault for certain; the variable is named."""
    monkeypatch.setenv("ALL_PROXY", "127.0.0.1:9")
    remote = RemoteApp("https://push.example.com", "hbk_x", pauses=())
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(remote.find())
    assert "ALL_PROXY" in caught.value.fix


def test_good_variables_change_nothing(
    monkeypatch: pytest.MonkeyPatch, server: Server, tmp_path: Path
) -> None:
    """Certificates that can be read, an empty proxy, a list of exceptions."""
    monkeypatch.setenv("SSL_CERT_FILE", str(Authority.open(tmp_path).ca_file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("https_proxy", "")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1, .example.com")

    async def story() -> None:
        remote = RemoteApp(server.url, server.key("send"))
        assert (await remote.find())["id"]
        await remote.close()

    asyncio.run(story())
