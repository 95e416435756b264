"""Templates over HTTP: stored, looked at, and sent with, against the twin."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tests.conftest import Stage
from tests.serving import Server, server

__all__ = ["server"]

WELCOME = {
    "default_language": "en",
    "notification": {
        "title": "Hello {{ name }}",
        "url": "https://example.com/{{ id | default('home') }}",
        "ttl": 60,
        "languages": {"fr": {"title": "Bonjour {{ name }}"}},
    },
}


class Api:
    """A client at an app's templates and notifications."""

    def __init__(self, client: httpx.Client, app: str) -> None:
        self.client = client
        self.app = f"/v1/apps/{app}"

    def call(self, method: str, tail: str = "", body: Any = None) -> httpx.Response:
        """Call an address of the app's templates."""
        return self.client.request(method, f"{self.app}/templates{tail}", json=body)

    def send(self, notification: Any, to: Any) -> httpx.Response:
        """Send, and wait for the outcome."""
        return self.client.post(
            f"{self.app}/notifications",
            json={"notification": notification, "recipients": to},
            headers={"Prefer": "wait=10"},
        )


@pytest.fixture
def api(server: Server, stage: Stage) -> Iterator[Api]:
    """Give a client that may administer the stage's app."""
    with server.client(server.key("administer", app=stage.app)) as client:
        yield Api(client, stage.app.id)


def test_a_template_is_stored_read_listed_changed_and_removed(api: Api, stage: Stage) -> None:
    """PUT makes it and changes it; what is read is what was written; each change is audited."""
    made = api.call("PUT", "/welcome", WELCOME)
    assert made.status_code == 201
    assert made.json()["variables"] == ["id", "name"]
    assert made.json()["languages"] == ["en", "fr"]
    assert api.call("GET", "/welcome").json() == made.json()
    changed = api.call(
        "PUT", "/welcome", {**WELCOME, "name": "welcome", "variables": ["id", "name"]}
    )
    assert changed.status_code == 200
    api.call("PUT", "/bye", {"notification": {"title": "Bye"}})
    first = api.call("GET", "?limit=1").json()
    assert [one["name"] for one in first["data"]] == ["bye"]
    rest = api.call("GET", f"?cursor={first['next']}").json()
    assert [one["name"] for one in rest["data"]] == ["welcome"]
    assert rest["next"] is None
    assert api.call("DELETE", "/welcome").status_code == 204
    gone = api.call("DELETE", "/welcome")
    assert (gone.status_code, gone.json()["code"]) == (404, "template-unknown")
    actions = [(one.action, one.subject) for one in stage.system.audit.list()]
    assert actions == [
        ("template.remove", "welcome"),
        ("template.put", "bye"),
        ("template.put", "welcome"),
        ("template.put", "welcome"),
    ]


def test_a_preview_shows_each_language_with_its_bytes(api: Api) -> None:
    """The notification as rendered, the payload and its size; a problem stays with its language."""
    api.call("PUT", "/welcome", WELCOME)
    found = api.call("POST", "/welcome/preview", {"variables": {"name": "<b>", "id": "a/b"}})
    assert found.status_code == 200
    english, french = found.json()["languages"]
    assert english["language"] == "en"
    assert english["notification"]["title"] == "Hello <b>"
    assert french["notification"] == {
        "title": "Bonjour <b>",
        "url": "https://example.com/a%2Fb",
        "ttl": 60,
    }
    assert french["size"] == len(french["payload"].encode()) <= french["limit"] == 4096
    assert json.loads(french["payload"])["aps"]["alert"] == {"title": "Bonjour <b>"}
    body = {"variables": {"name": "x" * 5000}, "notification": {"shorten": True, "sound": "bell"}}
    cut = api.call("POST", "/welcome/preview", body).json()["languages"]
    assert all(len(one["cuts"]) == 1 and one["size"] <= one["limit"] for one in cut)
    assert all(one["notification"]["sound"] == "bell" for one in cut)
    body = {"variables": {"name": "x" * 5000}}
    long = api.call("POST", "/welcome/preview", body).json()["languages"]
    assert all(one["problem"] and one["size"] > one["limit"] for one in long)


@pytest.mark.parametrize(
    ("method", "tail", "body", "status", "words"),
    [
        ("PUT", "/Welcome", WELCOME, 422, "small letters"),
        ("PUT", "/other", {**WELCOME, "name": "welcome"}, 422, "its name is"),
        ("PUT", "/x", {"notification": {"titel": "x"}}, 422, "Did you mean `title`?"),
        ("PUT", "/x", {"notification": {"title": "{{ a"}}, 422, "`title`"),
        ("PUT", "/x", {"notification": {"title": "{{ ''.__class__ }}"}}, 422, "__class__"),
        ("PUT", "/x", {"notifications": {}}, 422, "notification"),
        (
            "PUT",
            "/x",
            {"notification": {"title": "x"}, "default_language": "french"},
            422,
            "french",
        ),
        ("GET", "/welcom", None, 404, "Did you mean `welcome`?"),
        ("GET", "/%00", None, 404, "no template"),
        ("POST", "/welcome/preview", {"variables": {}}, 422, "needs the variable `name`"),
        ("POST", "/welcome/preview", {"variables": {"nam": 1}}, 422, "Did you mean `name`?"),
        ("POST", "/welcome/preview", {"variables": {"name": [1]}}, 422, "`join`"),
        ("POST", "/nobody/preview", {"variables": {}}, 404, "no template"),
    ],
)
def test_what_is_refused_says_why(  # noqa: PLR0917 - a table's columns
    api: Api, method: str, tail: str, body: Any, status: int, words: str
) -> None:
    """Every refusal is a problem with a stable code, what is wrong and what to do."""
    api.call("PUT", "/welcome", WELCOME)
    answer = api.call(method, tail, body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert words in problem["detail"] + problem["fix"]


def test_a_template_is_sent_to_each_in_their_language(api: Api, stage: Stage) -> None:
    """One call with a template and variables reaches two phones in two languages."""
    api.call("PUT", "/welcome", WELCOME)
    english, french = (stage.add_phone(f"user{one}@example.com") for one in range(2))
    stage.system.registry.register(stage.app, french.mail or "", french.token, locale="fr_FR")
    notification = {"template": "welcome", "variables": {"name": "you"}, "sound": "bell"}
    mails = [english.mail, french.mail]
    outcome = api.send(notification, mails)
    assert outcome.status_code == 200, outcome.text
    assert outcome.json()["reached"] == 2
    told = [stage.twin.phone(phone.id).cards[0] for phone in (english, french)]
    assert [card.title for card in told] == ["Hello you", "Bonjour you"]
    assert {card.sound for card in told} == {"bell"}
    missing = api.send({"template": "welcome"}, mails)
    assert (missing.status_code, missing.json()["code"]) == (422, "template-invalid")
    unknown = api.send({"template": "welcom"}, mails)
    assert (unknown.status_code, unknown.json()["code"]) == (404, "template-unknown")


def test_a_list_has_variables_for_each_person(api: Api, stage: Stage) -> None:
    """Many at once: each line is one person with their own variables, and its own outcome."""
    api.call("PUT", "/welcome", WELCOME)
    phones = [stage.add_phone(f"user{one}@example.com") for one in range(3)]
    lines = [
        {
            "notification": {"template": "welcome", "variables": {"name": phone.name}},
            "recipients": phone.mail,
        }
        for phone in phones
    ]
    lines.append({"notification": {"template": "welcome"}, "recipients": phones[0].mail})
    path = f"{api.app}/notifications"
    answers = api.client.post(path, json=lines).json()
    assert [set(one) for one in answers] == [{"id", "warnings"}] * 3 + [{"error"}]
    text = "\n".join(json.dumps(line) for line in lines)
    kind = {"Content-Type": "application/x-ndjson"}
    streamed = api.client.post(path, content=text, headers=kind)
    assert streamed.status_code == 200
    told = [json.loads(line) for line in streamed.text.splitlines()]
    assert sum("id" in one for one in told) == 3
    assert [one["error"]["code"] for one in told if "error" in one] == ["template-invalid"]


def test_a_lesser_key_may_look_and_not_write(server: Server, stage: Stage, api: Api) -> None:
    """The scope send reads and previews; it takes administer to change a template."""
    api.call("PUT", "/welcome", WELCOME)
    with server.client(server.key("send", app=stage.app)) as client:
        lesser = Api(client, stage.app.id)
        assert lesser.call("GET", "/welcome").status_code == 200
        preview = lesser.call("POST", "/welcome/preview", {"variables": {"name": "x"}})
        assert preview.status_code == 200
        assert lesser.call("PUT", "/welcome", WELCOME).status_code == 403
        assert lesser.call("DELETE", "/welcome").status_code == 403
