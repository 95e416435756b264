"""Every route of the table, asked by those who may not."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.server.routes import ROUTES, RouteRequirement
from handbell.settings import Settings
from handbell.system import System

KEYED = sorted(key for key, need in ROUTES.items() if need.kind == "key")
DEVICES = sorted(key for key, need in ROUTES.items() if need.kind == "device")
IN_APP = [(method, path) for method, path in KEYED if "{app}" in path]
FIGURES_KEY = "a-key-for-figures-alone"
UNKNOWN = "hbk_00000000_" + "A" * 32
FILLED = {
    "{session}": "1",
    "{id}": "0" * 15,
    "{mail:person}": "test@4d.com",
    "{name}": "welcome",
    "{key_id}": "ABC123DEFG",
    "{prefix}": "hbk_00000000",
    "{webhook}": "1",
}


class Walk:
    """A server with two apps, and a key of each kind."""

    def __init__(self, server: Server, app: App, other: App) -> None:
        self.server, self.app, self.other = server, app, other
        self.client = server.client()
        self.keys = {
            scope: server.key(scope, app=app) for scope in ("send", "register", "administer")
        }

    def ask(
        self, route: tuple[str, str], key: str | None, app: App | None = None
    ) -> httpx.Response:
        """Ask a route, with a key and an empty object."""
        method, path = route
        path = path.replace("{app}", (app or self.app).id)
        for name, value in FILLED.items():
            path = path.replace(name, value)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        body: dict[str, str] | None = {} if method in ("POST", "PUT", "PATCH") else None
        self.server.context.limiter.forget("unauthorized", "127.0.0.1")
        return self.client.request(method, path, headers=headers, json=body)


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Give a server that sends nothing."""
    system = System(Settings.load(home=tmp_path_factory.mktemp("home")))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    other = system.apps.add("TEAM123456", "com.sample.other")
    with start_server(system, with_worker=False, has_console=False) as server:
        walk = Walk(server, app, other)
        yield walk
        walk.client.close()
    system.database.close()


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of a refusal, which is a problem in every respect."""
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert said["status"] == answer.status_code
    assert said["type"].endswith("#" + said["code"])
    assert said["detail"]
    assert said["fix"]
    return answer.status_code, said["code"]


@pytest.mark.parametrize("route", KEYED, ids=" ".join)
def test_no_key_and_a_wrong_key_open_nothing(walk: Walk, route: tuple[str, str]) -> None:
    """Without a key, with an unknown one, and with another scheme a route answers 401."""
    assert code(walk.ask(route, None)) == (401, "unauthorized")
    answer = walk.ask(route, UNKNOWN)
    assert code(answer) == (401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert code(walk.ask(route, "hbs_" + "A" * 32)) == (401, "unauthorized")


@pytest.mark.parametrize("route", KEYED, ids=" ".join)
def test_a_revoked_key_opens_nothing(walk: Walk, route: tuple[str, str]) -> None:
    """A key that was valid a moment ago answers 401 once it is revoked."""
    keys = walk.server.system.api_keys
    key, secret = keys.add("revoked", ["administer"])
    assert keys.check(secret)
    keys.revoke(key.prefix)
    assert code(walk.ask(route, secret)) == (401, "unauthorized")


@pytest.mark.parametrize("route", KEYED + DEVICES, ids=" ".join)
def test_a_lesser_scope_opens_nothing(walk: Walk, route: tuple[str, str]) -> None:
    """A key without the route's scope answers 403, before anything is read."""
    need: RouteRequirement = ROUTES[route]
    lesser = {"send": ["register"], "register": ["send"], "administer": ["send", "register"]}
    for scope in lesser[need.scope] if need.scope else ["administer"]:
        assert code(walk.ask(route, walk.keys[scope])) == (403, "forbidden")


@pytest.mark.parametrize(
    "route", IN_APP + [one for one in DEVICES if ROUTES[one].scope], ids=" ".join
)
def test_a_key_of_another_app_opens_nothing(walk: Walk, route: tuple[str, str]) -> None:
    """A key of one app answers 403 for another one, and for one that is not there."""
    key = walk.keys["administer"]
    assert code(walk.ask(route, key, walk.other)) == (403, "app-forbidden")
    missing = App(team_id="TEAM123456", bundle_id="com.sample.none")
    assert code(walk.ask(route, key, missing)) == (403, "app-forbidden")


@pytest.mark.parametrize("route", IN_APP, ids=" ".join)
def test_the_right_key_gets_past_the_guard(walk: Walk, route: tuple[str, str]) -> None:
    """With its own scope and app a key is heard: whatever is wrong then is not who asks."""
    need = ROUTES[route]
    if route[0] == "DELETE" and route[1].endswith("{app}"):
        return
    answer = walk.ask(route, walk.keys[need.scope or "send"])
    assert answer.status_code not in {401, 403, 405, 500}, answer.text


@pytest.mark.parametrize("route", DEVICES, ids=" ".join)
def test_a_device_without_proof_gets_nothing(walk: Walk, route: tuple[str, str]) -> None:
    """No secret, and the secret of no session, change nothing."""
    for key in (None, "hbs_" + "A" * 32):
        answer = walk.ask(route, key)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.status_code in {401, 403, 404, 422}


def test_what_needs_every_app_refuses_a_key_of_one(walk: Walk) -> None:
    """Who administers one app cannot add another."""
    # Loopback reads the figures without a key.
    routes = [key for key, need in ROUTES.items() if need.any_app and need.kind == "key"]
    assert routes
    for route in routes:
        assert code(walk.ask(route, walk.keys["administer"])) == (403, "app-forbidden")


def test_a_list_shows_a_key_what_is_its_own(walk: Walk) -> None:
    """Apps and API keys of others are not listed, found or revoked."""
    server = walk.server
    foreign, _ = server.system.api_keys.add("foreign", ["send"], walk.other)
    everything, _ = server.system.api_keys.add("everything", ["send"])
    with server.client(walk.keys["administer"]) as client:
        apps = client.get("/v1/apps").json()["data"]
        keys = client.get("/v1/api-keys", params={"limit": 200}).json()["data"]
        refused = [client.delete(f"/v1/api-keys/{key.prefix}") for key in (foreign, everything)]
        made = client.post("/v1/api-keys", json={"name": "x", "scopes": ["send"]})
        foreign_made = client.post(
            "/v1/api-keys", json={"name": "x", "scopes": ["send"], "app": walk.other.id}
        )
    assert [app["id"] for app in apps] == [walk.app.id]
    assert {key["app"] for key in keys} == {walk.app.id}
    assert [code(answer) for answer in refused] == [(404, "api-key-unknown")] * 2
    assert code(made) == (403, "app-forbidden")
    assert code(foreign_made) == (403, "app-forbidden")
    assert server.system.api_keys.find(everything.prefix).revoked_at is None


def test_figures_are_for_who_administers_every_app(walk: Walk) -> None:
    """No address is trusted with the figures; a key of one app learns nothing of the others."""
    assert code(walk.client.get("/metrics")) == (401, "unauthorized")
    proxied = {"X-Forwarded-For": "127.0.0.1"}
    assert code(walk.client.get("/metrics", headers=proxied)) == (401, "unauthorized")
    keys = {"send": 403, "administer": 403}
    for scope, status in keys.items():
        headers = {"Authorization": f"Bearer {walk.keys[scope]}"}
        assert walk.client.get("/metrics", headers=headers).status_code == status, scope
    with walk.server.client(walk.server.key("administer")) as client:
        assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize(
    ("settings", "key", "status"),
    [
        ({}, None, 401),
        ({}, FIGURES_KEY, 401),
        ({"metrics_key": FIGURES_KEY}, None, 401),
        ({"metrics_key": FIGURES_KEY}, FIGURES_KEY[:-1], 401),
        ({"metrics_key": FIGURES_KEY}, FIGURES_KEY, 200),
        ({"metrics_public": True}, None, 200),
        ({"metrics_public": True, "metrics_key": FIGURES_KEY}, None, 200),
    ],
)
def test_figures_follow_their_settings(
    settings: dict[str, Any], key: str | None, status: int, tmp_path: Path
) -> None:
    """The metrics key opens the figures and nothing else; they are public where that is set."""
    system = System(Settings.load(home=tmp_path, **settings))
    with (
        closing(system.database),
        start_server(system, with_worker=False, has_console=False) as server,
        server.client(key) as client,
    ):
        assert client.get("/metrics").status_code == status
        assert client.get("/v1/apps").status_code == 401


def test_who_guesses_keys_is_slowed_down(walk: Walk) -> None:
    """After a hundred wrong keys an address waits; a valid key from there is not refused."""
    walk.server.context.limiter.forget("unauthorized", "127.0.0.1")
    wrong = {"Authorization": f"Bearer {UNKNOWN}"}
    answers = [walk.client.get("/v1/apps", headers=wrong) for _ in range(100)]
    assert {answer.status_code for answer in answers} == {401}
    # Some come back while a slow machine asks.
    more = (walk.client.get("/v1/apps", headers=wrong) for _ in range(300))
    refused = next(answer for answer in more if answer.status_code != 401)
    assert code(refused) == (429, "rate-limited")
    assert int(refused.headers["retry-after"]) >= 1
    with walk.server.client(walk.keys["send"]) as client:
        assert client.get("/v1/apps").status_code == 200
    walk.server.context.limiter.forget("unauthorized", "127.0.0.1")
