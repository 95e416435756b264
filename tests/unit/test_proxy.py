"""Which proxy leads to which host: a table."""

import pytest

from handbell._proxy import Proxies, Proxy
from handbell.errors import SettingsError
from handbell.settings import Settings
from handbell.system import System

APPLE = "https://api.push.apple.com"
PROXY = "http://proxy.example.com:3128"
USUAL = {"HTTPS_PROXY": "http://usual.example.com:8080", "NO_PROXY": "internal.example,10.0.0.0/8"}


@pytest.mark.parametrize(
    "url",
    [
        "https://localhost:2197",
        "https://push.localhost",
        "https://LOCALHOST.",
        "https://127.0.0.1",
        "https://127.8.8.8:8443",
        "https://[::1]:8443",
        "https://[::ffff:127.0.0.1]",
        "https://0.0.0.0:8443",
    ],
)
def test_this_machine_is_never_asked_through_a_proxy(url: str) -> None:
    """Loopback in any spelling is reached directly, whatever is set."""
    assert Proxies.read(PROXY, "", {}).to(url) is None
    assert Proxies.read("environment", "", USUAL).to(url) is None


@pytest.mark.parametrize(
    ("exceptions", "url", "is_direct"),
    [
        ("", APPLE, False),
        ("*", APPLE, True),
        ("api.push.apple.com", APPLE, True),
        ("push.apple.com", APPLE, True),
        (".apple.com", APPLE, True),
        ("*.apple.com", APPLE, True),
        ("APPLE.com.", APPLE, True),
        ("le.com", APPLE, False),
        ("api.push.apple.com.example.com", APPLE, False),
        ("api.push.apple.com:443", APPLE, True),
        ("api.push.apple.com:2197", APPLE, False),
        ("api.push.apple.com:2197", f"{APPLE}:2197", True),
        ("example.com, 17.0.0.0/8", "https://17.188.1.1", True),
        ("17.188.1.1:2197", "https://17.188.1.1", False),
        ("2001:db8::/32", "https://[2001:db8::5]:443", True),
        ("[2001:db8::5]:443", "https://[2001:db8::5]", True),
        ("17.0.0.0/8", APPLE, False),
    ],
)
def test_exceptions_name_hosts_domains_networks_and_ports(
    exceptions: str,
    url: str,
    is_direct: bool,  # noqa: FBT001 - a row of the table
) -> None:
    """What the list covers is asked directly; the same list means the same in NO_PROXY."""
    assert (Proxies.read(PROXY, exceptions, {}).to(url) is None) is is_direct
    usual = {"https_proxy": PROXY, "no_proxy": exceptions}
    assert (Proxies.read("environment", "", usual).to(url) is None) is is_direct


def test_the_usual_variables_count_only_where_the_setting_says_so() -> None:
    """Without the setting, or with an address in it, nobody looks at them."""
    assert Proxies.read("", "", USUAL).to(APPLE) is None
    assert Proxies.read(PROXY, "", USUAL).to("https://internal.example") is not None
    among = Proxies.read("Environment", "mine.example", USUAL)
    assert among.to(APPLE) == Proxy("usual.example.com", 8080)
    assert among.to("https://a.internal.example") is None
    assert among.to("https://mine.example") is None
    assert Proxies.read("environment", "", {}).to(APPLE) is None
    # What other programs put into NO_PROXY is no reason not to start.
    odd = {**USUAL, "NO_PROXY": "<local>;x, ,apple.com"}
    assert Proxies.read("environment", "", odd).to(APPLE) is None


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize(
    "value", ["socks5://h:1", "http://me:hunter2@h:99999", "http://me:hunter2@", "http://[::1"]
)
def test_a_usual_variable_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The error names both variables and repeats no password."""
    for usual in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(usual, raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setenv("HANDBELL_PROXY", "environment")
    with pytest.raises(SettingsError) as caught:
        Settings.load()
    assert name in str(caught.value)
    assert "HANDBELL_PROXY" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_apples_hosts_go_through_the_proxy_and_exceptions_do_not() -> None:
    """Each environment's endpoint carries the way that leads to its own host."""
    settings = Settings.load(
        proxy="http://me:hunter2@[2001:db8::1]:3128", no_proxy="sandbox.push.apple.com"
    )
    system = System(settings)
    proxy = system.endpoints.endpoint("apns", "production").proxy
    assert proxy is not None
    assert proxy.authority == "[2001:db8::1]:3128"
    assert "hunter2" not in repr(system.endpoints.endpoint("apns", "production"))
    assert system.endpoints.endpoint("apns", "development").proxy is None
