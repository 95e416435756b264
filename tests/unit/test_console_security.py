"""The pieces that keep the console to its operators, by themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response

from handbell._text import rough_span
from handbell.server.console.security import (
    FLASH_COOKIE,
    form_token,
    is_form_token,
    is_own_form,
    protect,
    read_flash,
    safe_next,
    set_flash,
)

PUBLIC = "https://push.example.com/bells"


def request(**headers: str) -> Request:
    """Return a request with headers; an underscore stands for a hyphen."""
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/",
        "query_string": b"",
        "server": ("127.0.0.1", 80),
        "headers": raw,
    }
    return Request(scope)


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({}, False),
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"origin": "https://push.example.com"}, True),
        ({"origin": "http://internal:8710", "host": "internal:8710"}, True),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://push.example.com"}, False),
        ({"origin": "https://push.example.com.evil.example"}, False),
        ({"origin": "https://behind.a.proxy", "sec_fetch_site": "same-origin"}, True),
        ({"origin": "https://push.example.com", "sec_fetch_site": "cross-site"}, False),
    ],
)
def test_a_form_comes_from_a_page_of_ours(headers: dict[str, str], *, is_own: bool) -> None:
    """A browser says where a form was sent from; where it says nothing the form is refused."""
    assert is_own_form(request(**headers), PUBLIC) is is_own


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/console",
        "/consolex",
        "/console@evil.example",
        "/console/../../v1",
        "/console/\\evil",
        "/console/\r\nset-cookie: x=y",
        "/console/a b",
        '/console/"x',
        "javascript:alert(1)",
        "/v1/apps",
    ],
)
def test_nobody_is_led_away_after_signing_in(wanted: str) -> None:
    """Whatever ``next`` says, it leads to a page of the console."""
    assert safe_next(wanted) == "/console"


@pytest.mark.parametrize(
    "wanted",
    [
        "/console",
        "/console/apps",
        "/console/apps/T.com.x/person?mail=test%404d.com",
        "/console?x=1",
    ],
)
def test_a_page_of_the_console_is_led_to(wanted: str) -> None:
    """Who was sent to sign in comes back to where they wanted to be."""
    assert safe_next(wanted) == wanted


@given(st.text())
def test_where_it_leads_is_always_below_the_console(wanted: str) -> None:
    """For any text the target is a path of the console, in one line, of printable characters."""
    target = safe_next(wanted)
    assert target == "/console" or target.startswith(("/console/", "/console?"))
    assert target.isprintable()
    assert target.isascii()
    assert "\\" not in target


@given(st.text(), st.text())
def test_a_form_token_is_of_one_sign_in(given_token: str, secret: str) -> None:
    """Only the token of this very sign-in is taken; it does not tell the cookie."""
    assert is_form_token(form_token("a secret"), "a secret")
    assert not is_form_token(form_token("another"), "a secret")
    assert not is_form_token(given_token, secret) or given_token == form_token(secret)
    assert "a secret" not in form_token("a secret")


def test_a_flash_is_signed() -> None:
    """What one sign-in says is read by the same one only, unchanged."""
    response = Response()
    set_flash(response, ("good", "It is set: ü."), "a secret", https=True)
    cookie = response.headers["set-cookie"].split(";")[0].partition("=")[2]
    sent = request(cookie=f"{FLASH_COOKIE}={cookie}")
    assert read_flash(sent, "a secret") == ("good", "It is set: ü.")
    assert read_flash(sent, "another") is None
    assert read_flash(request(cookie=f"{FLASH_COOKIE}=x{cookie}"), "a secret") is None
    assert read_flash(request(), "a secret") is None


def test_further_images_are_the_only_thing_that_a_page_may_allow() -> None:
    """A page that previews pictures may show them; scripts and styles stay our own."""
    policy = protect(Response(), images=["https:"]).headers["content-security-policy"]
    assert "img-src 'self' data: https:;" in policy
    assert "default-src 'self';" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "just now"),
        (59, "just now"),
        (-30, "just now"),
        (60, "1 min ago"),
        (7200, "2 h ago"),
        (86_400, "1 day ago"),
        (3 * 86_400, "3 days ago"),
        (-7200, "in 2 h"),
    ],
)
def test_a_distance_in_time_is_told_roughly(seconds: float, said: str) -> None:
    """In the largest unit that fits, behind or ahead."""
    assert rough_span(seconds) == said
