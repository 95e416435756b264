import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell._ip import is_public
from handbell._url_target import resolve
from handbell.delivery.webhooks.call_target import CallTarget
from handbell.delivery.webhooks.safe_http import OutboundOptions
from handbell.errors import WebhookError

NEVER = threading.Event()


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "93.184.215.14", "172.32.0.1", "11.0.0.1", "2606:4700::1111"),
        *("::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
    ],
)
def test_a_public_address_is_public(address: str) -> None:
    """What the internet routes may be called, also where an IPv6 address carries it."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1"),  # noqa: S104
        *("169.254.169.254", "100.64.0.1", "192.0.0.8", "192.0.2.1", "198.18.0.1", "192.88.99.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::1", "::", "fd00::1", "fc00::1", "fe80::1", "fe80::1%lo", "fec0::1", "ff02::1"),
        *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1"),
        *("64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::808:808"),
        *("2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::", "2001:db8::1", "3fff::1"),
        *("4000::1", "5f00::1", "100::1", "2606:4700::1111%lo"),
        *("", "localhost", "127.1", "2130706433", "0x7f000001", "10.0.0.1/8", "8.8.8.8 "),
    ],
)
def test_any_other_address_is_not(address: str) -> None:
    """Loopback, private, link-local, shared, reserved, and their disguises are not public."""
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_by_itself(inner: object) -> None:
    """Mapped, translated or tunnelled, an IPv4 address is as public as it is alone."""
    number = int(ip_address(str(inner)))
    mapped = ip_address((0xFFFF << 32) | number)
    translated = ip_address((0x64FF9B << 96) | number)
    tunnelled = ip_address((0x2002 << 112) | (number << 80) | 1)
    judged = {is_public(str(one)) for one in (inner, mapped, translated, tunnelled)}
    assert len(judged) == 1


@pytest.mark.parametrize(
    ("url", "built"),
    [
        ("https://backend.example.com", "https://backend.example.com:443/"),
        (
            "https://Backend.Example.com:8443/a/b?c=%20",
            "https://backend.example.com:8443/a/b?c=%20",
        ),
        ("https://8.8.8.8/hook", "https://8.8.8.8:443/hook"),
        ("https://[2606:4700::1111]/hook", "https://[2606:4700::1111]:443/hook"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example:443/"),
        ("HTTPS://x_y.example/@", "https://x_y.example:443/@"),
    ],
)
def test_a_url_is_built_anew_from_its_parts(url: str, built: str) -> None:
    """What is called is made of checked parts, so two parsers cannot read it in two ways."""
    assert CallTarget.read(url).url == built


@pytest.mark.parametrize(
    "url",
    [
        *("", "backend.example.com", "/hook", "ftp://example.com", "file:///etc/passwd"),
        *("http://backend.example.com", "gopher://example.com", "https://", "https:///hook"),
        *("https://user:secret@example.com", "https://user@example.com", "https://a#b"),
        *("https://8.8.8.8#@10.0.0.1/", "https://example.com\\@10.0.0.1/", "https://a b/"),
        *("https://127.0.0.1/", "https://10.0.0.1/", "https://169.254.169.254/latest/meta-data"),
        *("https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[fd00::1]/", "https://0.0.0.0/"),
        *("https://[fe80::1%25eth0]/", "https://[::1", "https://[]/", "https://1.2.3.4.5/"),
        *("https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/"),
        *("https://127.1/", "https://127.0.1/", "https://0/", "https://0x/", "https://1.0x7f/"),
        *(
            "https://localhost/",
            "https://localhost.:8443/",
            "https://LOCALHOST/",
            "https://a.localhost/",
        ),
        *("https://127.0.0.1./", "https://2130706433./", "https://0177.0.0.1/"),
        *("https://example.com:0x50/", "https://example.com:99999/", "https://example..com/"),
        *("https://\uff11\uff12\uff17.0.0.1/", "https://bücher.example/", "https://①.example/"),
        *(
            "https://example.com/\r\nhost: evil",
            "https://example.com/\x00",
            "https://exa%6dple.com/",
        ),
        "https://example.com/" + "a" * 2000,
    ],
)
def test_a_url_that_might_mean_another_place_is_refused(url: str) -> None:
    """Other schemes, users, numbers in disguise and addresses that are not public are errors."""
    with pytest.raises(WebhookError, match="cannot be called"):
        CallTarget.read(url)


@pytest.mark.parametrize("before", ["user:secret", "secret", "a:secret@b", "secret\\"])
def test_what_stands_before_a_host_is_not_repeated(before: str) -> None:
    """A user and a password in a wrong address do not come out again in its error."""
    with pytest.raises(WebhookError) as refused:
        CallTarget.read(f"https://{before}@example.com/hook")
    assert "secret" not in refused.value.what
    assert "example.com/hook" in refused.value.what


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1", "http://localhost:8000/hook", "http://[::1]/", "http://10.1.2.3/"),
        *("https://127.0.0.1/", "https://localhost/", "https://[fd00::1]/", "http://a.localhost"),
    ],
)
def test_a_place_of_ones_own_leads_to_the_setting(url: str) -> None:
    """Whoever tries a webhook on this machine first reads what allows it."""
    with pytest.raises(WebhookError) as refused:
        CallTarget.read(url)
    assert "HANDBELL_WEBHOOK_ALLOW_PRIVATE=1" in refused.value.fix
    assert CallTarget.read(url, allow_private=True).host


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_an_error(text: str) -> None:
    """No text does anything else than give a target or a WebhookError."""
    for url in (text, f"https://{text}", f"https://{text}/x", f"https://a.example/{text}"):
        try:
            target = CallTarget.read(url, allow_private=True)
        except WebhookError:
            continue
        assert CallTarget.read(target.url, allow_private=True) == target


def test_a_loopback_address_is_let_through_when_allowed() -> None:
    """With the setting on, plain http and private addresses can be named."""
    target = CallTarget.read("http://127.0.0.1:8000/hook", allow_private=True)
    assert target.url == "http://127.0.0.1:8000/hook"


@pytest.mark.parametrize(
    "found",
    [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["::ffff:10.0.0.1"], ["fe80::1%lo"]],
)
def test_a_name_that_leads_into_a_private_network_is_not_called(found: list[str]) -> None:
    """One address that is not public is enough to refuse a name, before anything is opened."""
    outbound = OutboundOptions(resolve=lambda _host, _port: found)
    answer = outbound.post("https://inside.example/hook", b"{}", {}, stop=NEVER)
    assert answer.status is None
    assert "not public" in answer.reason


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "127.1"])
def test_the_systems_own_reading_of_numbers_does_not_help(host: str) -> None:
    """What the system takes for loopback is refused by its address, whatever it was written as."""
    found = resolve(host, 443)
    assert found
    assert not any(is_public(one) for one in found)


def _unknown(_host: str, _port: int) -> Iterator[str]:
    raise socket.gaierror(socket.EAI_NONAME, "not known")


def test_a_name_without_an_address_is_a_reason_and_no_error() -> None:
    """A host that does not resolve now may do so later, so it is told and not raised."""
    answer = OutboundOptions(resolve=_unknown).post("https://gone.example/", b"", {}, stop=NEVER)
    assert (answer.status, answer.is_success) == (None, False)
    assert "gone.example has no address" in answer.reason


def test_plain_http_stays_on_this_machine() -> None:
    """Allowed or not, a signed body is never sent over a network without TLS."""
    outbound = OutboundOptions(
        allow_private=True, resolve=lambda _host, _port: ["127.0.0.1", "10.0.0.1"]
    )
    answer = outbound.post("http://inside.example/", b"", {}, stop=NEVER)
    assert "loopback only" in answer.reason
