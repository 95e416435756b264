"""How far a caller reaches: names of other apps, what a removed app leaves, and what is told."""

from collections.abc import Iterator

import httpx
import pytest
from tests.conftest import Stage
from tests.serving import Server, server, start_server

from handbell.apps.app import App

__all__ = ["server"]

MAIL = "user1@example.com"
OTHER = "TEAM654321.com.sample.second"


@pytest.fixture
def other(stage: Stage) -> App:
    """Add another team's app."""
    return stage.system.apps.add("TEAM654321", "com.sample.second", "Second")


@pytest.fixture
def limited(stage: Stage, other: App) -> Iterator[httpx.Client]:
    """Give a client of a server, whose key may do everything with the other app alone."""
    with (
        start_server(stage.system, has_console=False) as running,
        running.client(running.key("administer", app=other)) as client,
    ):
        yield client


def code(answer: httpx.Response) -> tuple[int, str]:
    """Return an answer's status and its problem's code."""
    return answer.status_code, answer.json().get("code", "")


@pytest.mark.parametrize(
    "name",
    ["My App", "my app", "com.sample.myapp", "TEAM123456.com.sample.myapp"],
)
def test_a_key_of_one_app_takes_no_name_of_another(
    limited: httpx.Client, stage: Stage, name: str
) -> None:
    """What another app is called by stays its own; nothing else of the request is done either."""
    body = {"name": name, "cap": "5/day", "store_url": "https://apps.example.com/id1"}
    assert code(limited.patch(f"/v1/apps/{OTHER}", json=body)) == (409, "name-taken")
    told = limited.get(f"/v1/apps/{OTHER}").json()
    assert (told["name"], told["cap"], told["store_url"]) == ("Second", None, None)
    assert stage.system.apps.find(name).id == stage.app.id


@pytest.mark.parametrize("own", [OTHER, "Second", "com.sample.second", "SECOND"])
def test_a_key_of_one_app_is_resolved_within_it(limited: httpx.Client, own: str) -> None:
    """Its app is found by whatever means it; of all others nothing is told, near or not."""
    assert limited.get(f"/v1/apps/{own}").json()["id"] == OTHER
    for foreign in ("My App", "TEAM123456.com.sample.myapp", "com.sample.myap", "nothing"):
        answer = limited.get(f"/v1/apps/{foreign}")
        assert code(answer) == (403, "app-forbidden")
        assert "TEAM123456.com.sample.myapp" not in answer.text.replace(foreign, "")


def test_a_domain_is_given_by_who_administers_every_app(
    limited: httpx.Client, stage: Stage
) -> None:
    """With one, an app takes the universal links of all others from them."""
    for domain in ("links.example.com", None):
        body = {"associated_domain": domain}
        assert code(limited.patch(f"/v1/apps/{OTHER}", json=body)) == (403, "app-forbidden")
    (app,) = (app for app in stage.system.apps.list() if app.id == OTHER)
    assert stage.system.identities.of(app).associated_domain is None


@pytest.mark.parametrize("guess", ["My Ap", "com.sample.myap", "TEAM123456.com.sample.myap", "x"])
def test_who_has_no_key_learns_of_no_app(server: Server, stage: Stage, guess: str) -> None:
    """Neither what is near nor the candidates: not by registering, reading, or a wrong secret."""
    stage.system.apps.add("TEAM654321", "com.sample.myapp", "Another")
    device = {"mail": MAIL, "device_token": "ab" * 32}
    for named in (guess, "com.sample.myapp"):
        with server.client() as anybody, server.client("hbs_" + "a" * 32) as device_client:
            answers = [
                client.request(method, f"/v1/apps/{named}/sessions{path}", json=body)
                for client in (anybody, device_client)
                for method, path, body in (
                    ("POST", "", device),
                    ("GET", "/current", None),
                    ("PATCH", "/current", {}),
                    ("DELETE", "/current", None),
                )
            ]
        assert {answer.status_code for answer in answers} <= {401, 404}
        for answer in answers:
            said = answer.text.replace(named, "")
            assert "TEAM" not in said
            assert "candidates" not in said


def test_a_removed_apps_key_serves_no_later_app(server: Server, stage: Stage) -> None:
    """The next app has a row of its own, and the key is void at once, though it was just used."""
    first = stage.system.apps.add("TEAM654321", "com.sample.second")
    key = server.key("administer", app=first)
    with server.client(key) as client, server.client(server.key()) as everything:
        assert client.get(f"/v1/apps/{first.id}").status_code == 200
        assert everything.delete(f"/v1/apps/{first.id}").status_code == 204
        assert everything.post("/v1/apps", json={"id": "TEAM000000.com.new"}).status_code == 201
        assert code(client.get("/v1/apps/TEAM000000.com.new")) == (401, "unauthorized")
        assert code(client.get("/v1/apps")) == (401, "unauthorized")
        assert everything.post("/v1/apps", json={"id": first.id}).status_code == 201
        assert code(client.get(f"/v1/apps/{first.id}")) == (401, "unauthorized")


def test_who_only_sends_sees_no_whole_token_of_a_person(server: Server, stage: Stage) -> None:
    """Not in outcomes, lists, previews or why; who may register sees them, and bare ones stay."""
    phone = stage.add_phone(MAIL)
    sent = f"/v1/apps/{stage.app.id}/notifications"
    hello = {"notification": {"title": "Hello"}, "recipients": [MAIL, "cd" * 32]}
    named = {"notification": {"title": "Hello"}, "recipients": phone.token}
    for scopes, sees in ((["send"], False), (["send", "register"], True), (["administer"], True)):
        with server.client(server.key(*scopes)) as client:
            outcome = client.post(sent, json=hello, headers={"Prefer": "wait=10"})
            by_token = client.post(sent, json=named, headers={"Prefer": "wait=10"})
            answers = [
                outcome,
                client.get(f"{sent}/{outcome.json()['id']}"),
                client.get(f"{sent}/{outcome.json()['id']}/deliveries"),
                by_token,
                client.get(f"{sent}/{by_token.json()['id']}"),
                client.get(f"{sent}/{by_token.json()['id']}/deliveries"),
                client.get(sent),
                client.post(f"{sent}/preview", json=hello),
                client.get(f"/v1/apps/{stage.app.id}/users/{MAIL}/why"),
            ]
            assert {answer.status_code for answer in answers} == {200}
            whole = [str(answer.url) for answer in answers if phone.token in answer.text]
            assert bool(whole) is sees, whole
            assert any(phone.token[:12] in answer.text for answer in answers)
            assert "cd" * 32 in answers[2].text
