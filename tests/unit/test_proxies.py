"""What a proxy says of its client, and when it is believed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.server.proxies import Proxies

TRUSTED = "10.0.0.0/8, fd00::/8"


def scope(headers: dict[str, str] | None = None, client: str = "10.0.0.1") -> dict[str, Any]:
    """Return the scope of a request that came from an address."""
    pairs = [(b"host", b"inner:8710")]
    pairs += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "scheme": "http",
        "client": (client, 4711),
        "headers": pairs,
        "path": "/v1/apps",
        "raw_path": b"/v1/apps",
        "root_path": "",
    }


def apply(headers: dict[str, str], client: str = "10.0.0.1", root: str = "") -> dict[str, Any]:
    """Return the scope as it is after the proxies were heard."""
    applied = scope(headers, client)
    Proxies(TRUSTED).apply(applied, root)
    return applied


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7, 10.2.3.4", "203.0.113.7"),
        ("203.0.113.7:5555", "203.0.113.7"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("203.0.113.7, nonsense", "10.0.0.1"),
        ("nonsense, 10.0.0.9", "10.0.0.9"),
        ("", "10.0.0.1"),
    ],
)
def test_the_client_is_the_nearest_address_that_is_no_trusted_proxy(
    chain: str, client: str
) -> None:
    """What a client puts in front of the chain does not count; what cannot be read ends it."""
    assert apply({"x-forwarded-for": chain})["client"][0] == client


def test_a_trusted_proxy_says_scheme_host_and_prefix() -> None:
    """The request is as its client made it, and the forwarded headers are gone."""
    applied = apply(
        {
            "x-forwarded-for": "203.0.113.7",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "push.example.com",
            "x-forwarded-prefix": "/push",
            "accept": "*/*",
        }
    )
    assert applied["scheme"] == "https"
    assert dict(applied["headers"]) == {b"host": b"push.example.com", b"accept": b"*/*"}
    assert (applied["root_path"], applied["path"]) == ("/push", "/push/v1/apps")
    assert applied["raw_path"] == b"/push/v1/apps"


def test_somebody_else_is_not_believed() -> None:
    """From any other address the headers change nothing, and are taken away."""
    applied = apply(
        {
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "evil.example.com",
            "x-forwarded-prefix": "/evil",
            "forwarded": "for=127.0.0.1",
        },
        client="203.0.113.9",
    )
    assert applied["client"] == ("203.0.113.9", 4711)
    assert applied["scheme"] == "http"
    assert dict(applied["headers"]) == {b"host": b"inner:8710"}
    assert (applied["root_path"], applied["path"]) == ("", "/v1/apps")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-forwarded-proto", "javascript"),
        ("x-forwarded-host", "a b"),
        ("x-forwarded-host", "evil.example.com/x"),
        ("x-forwarded-host", 'x"><script>'),
        ("x-forwarded-prefix", "//evil.example.com"),
        ("x-forwarded-prefix", "push"),
        ("x-forwarded-prefix", "/a b"),
        ("x-forwarded-prefix", '/"><script>'),
    ],
)
def test_nonsense_from_a_trusted_proxy_changes_nothing(name: str, value: str) -> None:
    """What is no scheme, host or path is passed over."""
    applied = apply({name: value})
    assert applied["scheme"] == "http"
    assert dict(applied["headers"])[b"host"] == b"inner:8710"
    assert applied["root_path"] == ""


def test_a_prefix_may_have_been_taken_away_or_not() -> None:
    """The path is the same whether the proxy leaves its prefix on or strips it."""
    for path in ("/v1/apps", "/push/v1/apps"):
        applied = scope() | {"path": path, "raw_path": path.encode()}
        Proxies("").apply(applied, "/push")
        assert applied["path"] == "/push/v1/apps"
        assert applied["raw_path"] == b"/push/v1/apps"
        assert applied["root_path"] == "/push"


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("fd12::1", True),
        ("11.0.0.1", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_trust_goes_by_address(address: str, is_trusted: bool) -> None:  # noqa: FBT001 - a row
    """A network stands for all its addresses, also where they are written as IPv6."""
    assert Proxies(TRUSTED).trusts(address) is is_trusted
    assert not Proxies("").trusts(address)


@given(
    st.dictionaries(
        st.sampled_from(["x-forwarded-for", "x-forwarded-prefix", "x-forwarded-host"]),
        st.binary(max_size=60),
    )
)
def test_no_header_breaks_a_request(headers: dict[str, bytes]) -> None:
    """Whatever bytes a proxy sends, the request goes on."""
    applied = scope()
    applied["headers"] += [(name.encode(), value) for name, value in headers.items()]
    Proxies(TRUSTED).apply(applied, "")
    assert applied["client"] is not None
    assert applied["path"].endswith("/v1/apps")
