"""Who gets into the console, and how: over a real socket, as a browser would ask."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from tests.console import MAIL, PASSWORD, Desk, limited_by, open_console, unhurried

from handbell.server.routes import ROUTES
from handbell.settings import Settings
from handbell.system import System

NO_STORE = "no-store"
CONSOLE = sorted(key for key in ROUTES if key[1].startswith("/console"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One console for the file, with one operator and one app."""
    system = System(Settings.load(home=tmp_path_factory.mktemp("home")))
    # Many of these tests sign in: the limits have tests and consoles of their own.
    with closing(system.database), open_console(system, limiter=unhurried()) as running:
        system.operators.add(MAIL, PASSWORD)
        system.apps.add("TEAM123456", "com.sample.myapp")
        yield running


@pytest.fixture
def own_desk(tmp_path: Path, database_url: str) -> Iterator[Desk]:
    """Give a console of the test's own, on the database that is its turn."""
    system = System(Settings.load(home=tmp_path, database_url=database_url))
    with closing(system.database), open_console(system, limiter=unhurried()) as running:
        system.operators.add(MAIL, PASSWORD)
        yield running


def filled(path: str) -> str:
    """Return a route's path with something in the place of each name."""
    path = path.replace("{app}", "TEAM123456.com.sample.myapp").replace("{rest:path}", "nowhere")
    return re.sub(r"\{[^}]+\}", "1", path)


@pytest.mark.parametrize(
    ("method", "path"), [key for key in CONSOLE if ROUTES[key].kind == "operator"]
)
def test_nobody_gets_in_without_signing_in(desk: Desk, method: str, path: str) -> None:
    """Every route but those of signing in leads there, and tells nothing of its own."""
    with desk.client() as client:
        for cookie in ("", "x" * 43):
            client.cookies.set("handbell", cookie)
            answer = client.request(method, filled(path), data={} if method == "POST" else None)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/console/sign-in")
            assert answer.content == b""


def test_only_signing_in_is_open(desk: Desk) -> None:
    """The table says so: nothing else of the console is reached without an operator."""
    assert desk.url
    assert {key for key in CONSOLE if ROUTES[key].kind != "operator"} == {
        ("GET", "/console/static/{name}"),
        ("GET", "/console/sign-in"),
        ("POST", "/console/sign-in"),
        ("GET", "/console/invitation/{secret}"),
        ("POST", "/console/invitation/{secret}"),
    }


@pytest.mark.parametrize(("method", "path"), [key for key in CONSOLE if key[0] == "POST"])
def test_no_form_is_taken_from_elsewhere(desk: Desk, method: str, path: str) -> None:
    """A form without our origin is refused everywhere, one without its token where one acts."""
    with desk.signed_in() as visitor:
        client, token = visitor.client, visitor.token
        elsewhere = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
        sent = client.request(method, filled(path), data={"token": token}, headers=elsewhere)
        assert sent.status_code == 403
        assert "not sent from a page of this console" in sent.text
        if ROUTES[method, path].kind == "operator":
            for other in ({}, {"token": ""}, {"token": "0" * 64}):
                assert client.request(method, filled(path), data=other).status_code == 403
        assert visitor.get("/console/apps").status_code == 200


def test_a_fragment_is_refused_in_one_word(desk: Desk) -> None:
    """The page's script is not led to a form that it cannot fill in."""
    with desk.client() as client:
        answer = client.get("/console/apps", headers={"x-fragment": "1"})
        assert answer.status_code == 401


def test_who_signs_in_comes_where_they_wanted_to_be(desk: Desk) -> None:
    """The way back is kept through the form, and never leads away."""
    with desk.client() as client:
        wanted = "/console/apps/TEAM123456.com.sample.myapp/person?mail=a%40b.example"
        led = client.get(wanted).headers["location"]
        form = client.get(led)
        assert 'name="next" value="/console/apps/TEAM' in form.text
        sent = {"mail": MAIL, "password": PASSWORD, "next": wanted}
        assert client.post("/console/sign-in", data=sent).headers["location"] == wanted
        sent["next"] = "//evil.example"
        assert client.post("/console/sign-in", data=sent).headers["location"] == "/console"


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(desk: Desk) -> None:
    """HttpOnly, SameSite, bound to the whole host, and gone after its time."""
    with desk.client() as client:
        answer = client.post("/console/sign-in", data={"mail": MAIL, "password": PASSWORD})
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("handbell=")
        assert "HttpOnly" in cookie
        assert "SameSite=lax" in cookie
        assert "Max-Age=43200" in cookie
        assert "Path=/;" in cookie
        assert "Domain" not in cookie


@pytest.mark.databases
def test_each_sign_in_has_a_cookie_of_its_own(own_desk: Desk) -> None:
    """Signing in again ends what the browser had before; signing out ends it at the server."""
    desk = own_desk
    with desk.signed_in() as visitor:
        client = visitor.client
        before = client.cookies["handbell"]
        client.post("/console/sign-in", data={"mail": MAIL, "password": PASSWORD})
        after = client.cookies["handbell"]
        assert before != after
        assert desk.system.operators.signed_in(before) is None
        assert desk.system.operators.signed_in(after) is not None
        answer = visitor.post("/console/sign-out", follow=False)
        assert answer.headers["location"] == "/console/sign-in?said=out"
        assert desk.system.operators.signed_in(after) is None
        assert "handbell" not in client.cookies


@pytest.mark.parametrize(
    "path",
    ["/console/sign-in", "/console/apps", "/console/nowhere", "/console/invitation/x"],
)
def test_every_page_is_closed_to_what_is_not_ours(desk: Desk, path: str) -> None:
    """Policy, frames, caches and types; nothing inline that the policy would have to allow."""
    with desk.signed_in() as visitor:
        if path in ("/console/sign-in", "/console/invitation/x"):
            visitor.client.cookies.clear()
        answer = visitor.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "form-action 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == NO_STORE
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", answer.text)


def test_what_is_wrong_with_a_sign_in_is_not_told(desk: Desk) -> None:
    """An unknown account and a wrong password get the same page."""
    with desk.client() as client:
        known = client.post("/console/sign-in", data={"mail": MAIL, "password": "wrong"})
        unknown = client.post(
            "/console/sign-in", data={"mail": "nobody@example.com", "password": "wrong"}
        )
        assert known.status_code == unknown.status_code == 422
        assert known.text.replace(MAIL, "") == unknown.text.replace("nobody@example.com", "")
        assert "set-cookie" not in known.headers


def test_signing_in_is_written_down_without_what_may_be_a_password(desk: Desk) -> None:
    """The trail has who came in and who did not; what is no address is not in it."""
    with desk.client() as client:
        client.post("/console/sign-in", data={"mail": PASSWORD, "password": ""})
        client.post("/console/sign-in", data={"mail": "who@example.com", "password": PASSWORD})
    refused = desk.system.audit.list(action="operator.sign-in-refused", limit=2)
    assert [one.subject for one in refused] == ["who@example.com", "(no mail address)"]
    assert PASSWORD not in str(desk.system.audit.list(limit=1000))


def test_a_static_file_is_kept_by_its_version(desk: Desk) -> None:
    """Under its version it never changes; otherwise the browser asks, and has it already."""
    with desk.client() as client:
        page = client.get("/console/sign-in").text
        (address,) = re.findall(r'href="([^"]+console\.css[^"]*)"', page)
        exact = client.get(address)
        assert exact.headers["content-type"] == "text/css; charset=utf-8"
        assert "immutable" in exact.headers["cache-control"]
        loose = client.get("/console/static/console.css")
        assert loose.headers["cache-control"] == "no-cache"
        again = client.get(
            "/console/static/console.css", headers={"if-none-match": loose.headers["etag"]}
        )
        assert (again.status_code, again.content) == (304, b"")
        for name in ("nothing.css", "..%2fframe.py", "__init__.py"):
            assert client.get(f"/console/static/{name}").status_code in (303, 404)


@pytest.mark.databases
def test_an_invitation_is_opened_once(own_desk: Desk) -> None:
    """The link of the first start: a password, and the operator is in; the link is spent."""
    desk = own_desk
    secret = desk.system.operators.invite()
    path = f"/console/invitation/{secret}"
    with desk.client() as client:
        assert "Become an operator" in client.get(path).text
        sent = {"mail": "new@example.com", "password": "short", "again": "short"}
        short = client.post(path, data=sent)
        assert short.status_code == 422
        assert "12 characters" in short.text
        sent |= {"password": PASSWORD, "again": "another"}
        assert "differ" in client.post(path, data=sent).text
        sent["again"] = PASSWORD
        done = client.post(path, data=sent)
        assert (done.status_code, done.headers["location"]) == (303, "/console")
        assert client.get("/console", follow_redirects=True).status_code == 200
        assert client.get(path).status_code == 410
        assert client.post(path, data=sent).status_code == 410
    assert [one.mail for one in desk.system.operators.list()].count("new@example.com") == 1


def test_guessing_is_slowed_down(tmp_path: Path) -> None:
    """After some tries an account, and after some more an address, has to wait; both are told."""
    clock = [0.0]
    system = System(Settings.load(home=tmp_path))
    with (
        closing(system.database),
        open_console(system, limiter=limited_by(system, lambda: clock[0])) as desk,
        desk.client() as client,
    ):
        system.operators.add(MAIL, PASSWORD)

        def attempt(mail: str, password: str) -> httpx.Response:
            return client.post("/console/sign-in", data={"mail": mail, "password": password})

        codes = [attempt(MAIL, "wrong").status_code for _ in range(9)]
        assert codes == [422] * 8 + [429]
        for spelling in (
            MAIL.upper(),
            f" {MAIL} ",
            MAIL.replace("@e", "@\uff45"),
            MAIL.replace(".", "\u3002"),
        ):
            assert attempt(spelling, PASSWORD).status_code == 429, spelling
        late = attempt(MAIL, PASSWORD)
        assert int(late.headers["retry-after"]) > 0
        assert "Try again in" in late.text
        # What was refused is not counted.
        codes = [attempt(f"user{one}@example.com", "wrong").status_code for one in range(13)]
        assert codes == [422] * 12 + [429]
        clock[0] += 900
        assert attempt(MAIL, PASSWORD).status_code == 303


def test_behind_a_proxy_every_address_has_the_root_path(tmp_path: Path) -> None:
    """With a public address by HTTPS the cookie is bound to it, and links begin with the path."""
    system = System(Settings.load(home=tmp_path, public_url="https://push.example.com/bells"))
    with closing(system.database), open_console(system) as desk:
        system.operators.add(MAIL, PASSWORD)
        headers = {"origin": "https://push.example.com"}
        with desk.server.client(headers=headers) as client:
            prefix = _prefix(client)
            page = client.get(f"{prefix}/console/sign-in").text
            assert 'action="/bells/console/sign-in"' in page
            assert 'href="/bells/console/static/console.css' in page
            sent = {"mail": MAIL, "password": PASSWORD}
            answer = client.post(f"{prefix}/console/sign-in", data=sent)
            cookie = answer.headers["set-cookie"]
            assert cookie.startswith("__Host-handbell=")
            assert "Secure" in cookie
            assert "Path=/;" in cookie
            assert answer.headers["location"] == "/bells/console"
            value = cookie.partition("=")[2].partition(";")[0]
            shown = client.get(
                f"{prefix}/console/apps", headers={"cookie": f"__Host-handbell={value}"}
            )
            assert shown.status_code == 200
            assert 'href="/bells/console/settings"' in shown.text


def _prefix(client: httpx.Client) -> str:
    """Return the root path where the server wants to see it, else nothing."""
    return "/bells" if client.get("/bells/console/sign-in").status_code == 200 else ""
