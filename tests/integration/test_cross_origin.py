"""What pages of an app's web origin may ask of the server from there."""

import httpx
import pytest
from tests.made_once import plain_client
from tests.serving import Server, server

__all__ = ["server"]

ORIGIN = "https://shop.example"
ALLOWED = "access-control-allow-origin"
PATHS = {
    "web-push": ("GET", "/web-push"),
    "register": ("POST", "/sessions"),
    "change": ("PATCH", "/sessions/current"),
    "log out": ("DELETE", "/sessions/7"),
    "receipts": ("POST", "/sessions/current/receipts/list"),
}


@pytest.fixture
def base(server: Server) -> str:
    """Return the address of an app that is known by a web origin."""
    (app,) = server.system.apps.list()
    server.system.apps.set_ids(app, {"web_origin": ORIGIN})
    return f"{server.url}/v1/apps/{app.id}"


def ask(method: str, address: str, origin: str, *, preflight: bool) -> httpx.Response:
    """Return the answer to what a page of an origin asks, or its browser beforehand."""
    headers = {"origin": origin}
    if preflight:
        headers |= {
            "access-control-request-method": method,
            "access-control-request-headers": "authorization,content-type",
        }
    with plain_client() as client:
        return client.request("OPTIONS" if preflight else method, address, headers=headers)


@pytest.mark.parametrize(("method", "path"), PATHS.values(), ids=PATHS.keys())
def test_a_page_of_the_app_may_register_and_report(base: str, method: str, path: str) -> None:
    """Its browser is told so beforehand, and it may read the answer, also of an error."""
    asked = ask(method, base + path, ORIGIN, preflight=True)
    assert (asked.status_code, asked.headers[ALLOWED]) == (204, ORIGIN)
    assert method in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-headers"] == "authorization, content-type"
    answer = ask(method, base + path, ORIGIN, preflight=False)
    assert (answer.headers[ALLOWED], answer.headers["vary"]) == (ORIGIN, "Origin")
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "access-control-allow-credentials" not in {*asked.headers, *answer.headers}


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://shop.example", "https://shop.example:8443", "null", ""],
    ids=["other", "scheme", "port", "null", "empty"],
)
def test_a_page_of_another_origin_may_not(base: str, origin: str) -> None:
    """It is answered as ever, and its browser keeps the answer from it."""
    asked = ask("POST", base + "/sessions", origin, preflight=True)
    answer = ask("POST", base + "/sessions", origin, preflight=False)
    assert not {ALLOWED, "access-control-allow-methods"} & {*asked.headers, *answer.headers}
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/notifications", "", "/users", "/sessions/1/other"])
def test_nothing_else_is_allowed_across_origins(base: str, path: str) -> None:
    """What needs an API key is no business of a page."""
    for preflight in (True, False):
        assert ALLOWED not in ask("POST", base + path, ORIGIN, preflight=preflight).headers


def test_an_unknown_app_allows_nobody(server: Server) -> None:
    """The answer does not depend on which origin asks."""
    address = f"{server.url}/v1/apps/nothing/sessions"
    assert ALLOWED not in ask("POST", address, ORIGIN, preflight=True).headers
