"""Apps, their keys, their webhooks and API keys over HTTP."""

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.conftest import APP, Stage
from tests.serving import Server, administrator, server

from handbell.apps.sample_keys import make_key
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit

__all__ = ["administrator", "server"]

KEY_URL = f"/v1/apps/{APP}/credentials"
NAMES = st.sampled_from(["AuthKey_ABC123DEFG.p8", "push.p12", "push.pem", "x", "", "a.P12"])


def actions(server: Server) -> list[str]:
    """Return what the audit trail holds, the oldest first."""
    return [entry.action for entry in reversed(server.system.audit.list())]


def test_an_app_is_added_changed_and_removed(server: Server, administrator: httpx.Client) -> None:
    """The whole life of an app; each change stands in the audit trail with the key's prefix."""
    made = administrator.post("/v1/apps", json={"id": "TEAM123456.com.sample.other", "name": "O"})
    assert (made.status_code, made.json()["name"]) == (201, "O")
    url = made.headers["location"]
    change = {"name": "Other", "quiet_hours": "22:00-07:00", "cap": "5/day", "is_enabled": False}
    changed = administrator.patch(url, json=change).json()
    assert (changed["name"], changed["is_enabled"]) == ("Other", False)
    assert (changed["quiet_hours"], changed["cap"]) == ("22:00-07:00", "5/day")
    mended = administrator.patch(url, json={"cap": None, "is_enabled": True}).json()
    assert (mended["cap"], mended["quiet_hours"]) == (None, "22:00-07:00")
    assert administrator.get("/v1/apps/Other").json() == mended
    wrong = administrator.patch(url, json={"name": "New", "cap": "often"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "app-invalid")
    assert administrator.get(url).json() == mended
    assert administrator.patch(url, json={}).status_code == 422
    assert administrator.delete(url).status_code == 204
    assert administrator.get(url).status_code == 404
    assert actions(server) == ["app.add", "app.set", "app.set", "app.remove"]
    assert all(entry.actor.startswith("key hbk_") for entry in server.system.audit.list())


def test_a_refused_key_beside_another_one_is_told_with_the_app(
    stage: Stage, administrator: httpx.Client
) -> None:
    """It has not stopped the app; once the other one is removed, it has."""
    (key,) = stage.system.apps.credentials(stage.app)
    other = stage.system.apps.add_credential(stage.app, make_key(stage.app.apple.team_id))
    stop = CircuitStop(
        reason="InvalidProviderToken",
        detail="",
        since=1.8e9,
        probe_at=1.8e9,
        environment="production",
    )
    place = CircuitScope(stage.app.id, "production", key.fingerprint, stage.app.apple.bundle_id)
    stage.system.rules_store.note(StoredCircuit(place, None, stop))
    told = administrator.get(f"/v1/apps/{APP}").json()
    assert told["stopped"] is None
    (refused,) = told["refused_keys"]
    assert (refused["key_id"], refused["environment"]) == (key.key_id, "production")
    story = administrator.get(f"/v1/apps/{APP}/users/jane@example.com/why").json()
    assert key.key_id in story["cautions"][0]
    assert f"DELETE /v1/apps/{APP}/credentials/{key.key_id}" in " ".join(story["to_do"])
    assert administrator.delete(f"{KEY_URL}/{other.key_id}").status_code == 204
    told = administrator.get(f"/v1/apps/{APP}").json()
    assert (told["stopped"]["reason"], told["refused_keys"]) == ("InvalidProviderToken", [])


def test_lists_come_in_pages(administrator: httpx.Client) -> None:
    """A list goes on where its cursor says, and ends with null."""
    for number in range(4):
        administrator.post("/v1/apps", json={"id": f"TEAM123456.com.sample.app{number}"})
        administrator.post("/v1/api-keys", json={"name": f"n{number}", "scopes": ["send"]})
    for path, name in (("/v1/apps", "id"), ("/v1/api-keys", "prefix")):
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            params: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
            said = administrator.get(path, params=params).json()
            assert len(said["data"]) <= 2
            seen += [one[name] for one in said["data"]]
            cursor = said["next"]
        assert len(seen) == len(set(seen)) == 5


def test_a_key_goes_in_and_never_comes_out(
    stage: Stage, server: Server, administrator: httpx.Client
) -> None:
    """As JSON and as a file, a key is taken, listed without its text, and removed."""
    key = make_key(stage.app.apple.team_id)
    pem = key.private_key_pem()
    as_json = administrator.post(KEY_URL, json={"key": pem.decode(), "key_id": "JSONKEY123"})
    files = {"file": ("AuthKey_FILEKEY123.p8", pem)}
    as_file = administrator.post(KEY_URL, files=files, data={"environment": "development"})
    certificate = stage.twin.issue_client_certificate([stage.app.apple.bundle_id])
    as_pem = administrator.post(KEY_URL, files={"file": ("push.pem", certificate)})
    assert [one.status_code for one in (as_json, as_file, as_pem)] == [201] * 3, as_pem.text
    listed = administrator.get(KEY_URL)
    kinds = {one["key_id"]: (one["kind"], one["environment"]) for one in listed.json()["data"]}
    assert kinds["JSONKEY123"] == ("key", None)
    assert kinds["FILEKEY123"] == ("key", "development")
    assert [kind for kind, _ in kinds.values()].count("certificate") == 1
    trail = repr(server.system.audit.list())
    for text in (as_json.text, as_file.text, as_pem.text, listed.text, trail):
        assert "PRIVATE KEY" not in text
        assert pem.decode().splitlines()[1] not in text
    assert administrator.delete(f"{KEY_URL}/JSONKEY123").status_code == 204
    assert administrator.delete(f"{KEY_URL}/JSONKEY123").status_code == 404
    assert actions(server) == ["credential.add"] * 3 + ["credential.remove"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "request-invalid"),
        ({"key": "/etc/passwd", "key_id": "ABC123DEFG"}, "credential-invalid"),
        ({"key": "x"}, "credential-invalid"),
        ({"key": "x", "certificate": "x"}, "request-invalid"),
        ({"certificate": "/etc/ssl/private/key.pem"}, "credential-invalid"),
        ({"key": "x", "key_id": "y", "colour": "red"}, "request-invalid"),
    ],
)
def test_what_is_no_key_is_refused(
    administrator: httpx.Client, body: dict[str, str], code: str
) -> None:
    """A text is never taken for the path of a file here, and each refusal says what is wrong."""
    answer = administrator.post(KEY_URL, json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert "No such file" not in answer.text


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=60).map(lambda data: b"-----BEGIN PRIVATE KEY-----\n" + data),
        st.binary(max_size=60).map(lambda data: b"-----BEGIN CERTIFICATE-----\n" + data),
        st.binary(max_size=60).map(lambda data: b"\x30\x82" + data),
    ),
    name=NAMES,
    fields=st.dictionaries(
        st.sampled_from(["key_id", "password", "environment", "other"]), st.text(max_size=20)
    ),
)
def test_no_upload_breaks_the_server(
    administrator: httpx.Client, content: bytes, name: str, fields: dict[str, str]
) -> None:
    """Whatever is dropped on it, the answer is a refusal in words."""
    safe = {field: text.encode("utf-8", "replace") for field, text in fields.items()}
    answer = administrator.post(KEY_URL, files={"file": (name or "x", content)}, data=safe)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["code"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from(
        ["application/json", "multipart/form-data", "multipart/form-data; boundary=x", "text/x"]
    ),
)
def test_no_body_breaks_the_server(administrator: httpx.Client, body: bytes, kind: str) -> None:
    """A body that is neither JSON nor a form is refused too."""
    answer = administrator.post(KEY_URL, content=body, headers={"Content-Type": kind})
    assert 400 <= answer.status_code < 500, answer.text


def test_a_check_up_says_how_an_app_stands(administrator: httpx.Client) -> None:
    """The check-up talks to both environments and tells the worst; it may not be asked for ever."""
    url = f"/v1/apps/{APP}/check-up"
    said = administrator.post(url).json()
    assert said["verdict"] in {"right", "doubtful"}
    assert said["findings"]
    assert all(one["sentence"] for one in said["findings"])
    statuses = {administrator.post(url).status_code for _ in range(11)}
    assert statuses == {200, 429}


def test_webhooks_are_managed_and_their_secret_is_shown_once(
    server: Server, administrator: httpx.Client
) -> None:
    """A webhook is added, switched and removed; of another app it is not there."""
    url = f"/v1/apps/{APP}/webhooks"
    made = administrator.post(url, json={"url": "https://example.com/hook"})
    assert made.status_code == 201, made.text
    assert made.json()["secret"].startswith("whsec_")
    listed = administrator.get(url)
    assert "whsec_" not in listed.text
    assert [one["url"] for one in listed.json()["data"]] == ["https://example.com/hook"]
    one = made.headers["location"]
    assert administrator.patch(one, json={"is_enabled": False}).json()["is_enabled"] is False
    for address in ("http://example.com/x", "https://127.0.0.1/x", "nonsense"):
        refusal = administrator.post(url, json={"url": address})
        assert (refusal.status_code, refusal.json()["code"]) == (422, "webhook-invalid")
    administrator.post("/v1/apps", json={"id": "TEAM123456.com.sample.other"})
    foreign = one.replace("myapp", "other")
    assert administrator.delete(foreign).status_code == 404
    assert administrator.delete(one).status_code == 204
    assert administrator.delete(one).status_code == 404
    assert "webhook.add" in actions(server)
    assert "example.com" not in repr(server.system.audit.list())


def test_an_api_key_is_made_used_and_revoked(server: Server, administrator: httpx.Client) -> None:
    """A new key works at once, is shown once, and is refused at once when it is revoked."""
    body = {"name": "the shop", "scopes": ["send"], "app": APP}
    made = administrator.post("/v1/api-keys", json=body).json()
    with server.client(made["key"]) as client:
        assert client.get(f"/v1/apps/{APP}").status_code == 200
        listed = administrator.get("/v1/api-keys")
        assert made["key"] not in listed.text
        own = next(one for one in listed.json()["data"] if one["prefix"] == made["prefix"])
        assert own["used_at"]
        assert administrator.delete(f"/v1/api-keys/{made['prefix']}").status_code == 204
        assert client.get(f"/v1/apps/{APP}").status_code == 401
    assert made["key"] not in repr(server.system.audit.list())
    assert administrator.delete("/v1/api-keys/hbk_nothing0").status_code == 404
