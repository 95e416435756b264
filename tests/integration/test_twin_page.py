"""The page's server: its JSON API, its events, and whom it lets in."""

import contextlib
import http.client
import json
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update
from tests.conftest import Stage
from tests.made_once import plain_client

from handbell.demo_environment import DemoEnvironment
from handbell.errors import RegistryError, TwinError
from handbell.storage.tables import apps
from handbell.twin.discovery import read_address
from handbell.twin.hooks import TwinHooks
from handbell.twin.phone import Card, Phone
from handbell.twin.threaded import RunningTwin, start_twin
from handbell.twin.twin import Twin

APP = "TEAM123456.com.sample.myapp"


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """One twin for the file."""
    with start_twin(tmp_path_factory.mktemp("twin")) as running:
        running.add_app(APP, "My App")
        yield running


def ask(
    twin: RunningTwin, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any]:
    """Return status and JSON of one request to the page's server."""
    where = urlsplit(twin.page_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    connection.request(method, path, sent, headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content) if content else None


def show(twin: RunningTwin, phone: Phone, text: str, collapse_id: str) -> Card:
    """Push a card to a phone, with a client certificate as the proof, and return it."""
    file = twin.ca_file.with_name("client.pem")
    file.write_bytes(twin.issue_client_certificate([phone.bundle_id]))
    tls = ssl.create_default_context(cafile=str(twin.ca_file))
    tls.load_cert_chain(file)
    with httpx.Client(http2=True, verify=tls, trust_env=False) as client:
        answer = client.post(
            f"{twin.production_url}/3/device/{phone.token}",
            headers={"apns-push-type": "alert", "apns-collapse-id": collapse_id},
            content=json.dumps({"aps": {"alert": text}}),
        )
    assert answer.status_code == 200
    return twin.phone(phone.id).cards[0]


def test_a_phone_is_made_changed_and_removed(twin: RunningTwin) -> None:
    """The life of a phone by the API; removed, it is gone."""
    status, made = ask(
        twin, "POST", "/api/phones", {"name": "My phone", "mail": "user1@example.com"}
    )
    assert status == 201
    assert (made["name"], made["app"], made["app_name"]) == ("My phone", APP, "My App")
    assert (made["side"], made["is_on"], made["waiting"]) == ("production", True, 0)
    assert len(made["token"]) == 64
    path = f"/api/phones/{made['id']}"
    assert ask(twin, "PATCH", path, {"is_on": False, "badge": 4})[1]["is_on"] is False
    assert twin.phone(made["id"]).badge == 4
    assert ask(twin, "DELETE", path) == (204, None)
    assert ask(twin, "DELETE", path)[0] == 404


def test_a_card_is_opened_and_dismissed(twin: RunningTwin) -> None:
    """A card is named by its id, whatever characters the sender's collapse id has."""
    phone = twin.add_phone()
    card = show(twin, phone, "Hello", "a/b c?%")
    path = f"/api/phones/{phone.id}/cards/{quote(card.id, safe='')}"
    status, opened = ask(twin, "POST", f"{path}/open")
    assert status == 200
    assert opened["cards"][0]["opened_at"] is not None
    assert ask(twin, "DELETE", path)[1]["cards"] == []
    assert ask(twin, "DELETE", path)[0] == 404


def test_half_a_surrogate_pair_does_no_harm(twin: RunningTwin) -> None:
    """A text that UTF-8 cannot hold still leaves the page with an answer."""
    phone = twin.add_phone("half \ud83d")
    show(twin, phone, "half \ud83d", "one")
    state = ask(twin, "GET", "/api/state")[1]
    shown = next(one for one in state["phones"] if one["id"] == phone.id)
    assert (shown["name"], shown["cards"][0]["body"]) == ("half \ud83d", "half \ud83d")


def test_faults_are_planned_and_forgotten(twin: RunningTwin) -> None:
    """Faults are posted, listed and removed, one or all."""
    status, fault = ask(twin, "POST", "/api/faults", {"kind": "answer", "reason": "Unregistered"})
    assert (status, fault["status"], fault["left"]) == (201, 410, 1)
    assert ask(twin, "GET", "/api/state")[1]["faults"] == [fault]
    assert ask(twin, "DELETE", f"/api/faults/{fault['id']}") == (204, None)
    assert ask(twin, "DELETE", f"/api/faults/{fault['id']}")[0] == 404
    ask(twin, "POST", "/api/faults", {"kind": "cut", "count": 3})
    assert ask(twin, "DELETE", "/api/faults") == (204, None)
    assert twin.faults == []


def test_a_key_is_told(twin: RunningTwin) -> None:
    """A key is taken from its .p8, and never comes out."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    told = {"team_id": "TEAM123456", "key_id": "KEY1234567"}
    assert ask(twin, "POST", "/api/keys", {**told, "key": pem}) == (201, told)
    state = ask(twin, "GET", "/api/state")[1]
    assert told in state["keys"]
    assert "PRIVATE" not in json.dumps(state)


def test_the_state_is_all_that_the_page_shows(twin: RunningTwin) -> None:
    """Addresses, apps, phones, requests, faults, keys and Apple's reasons."""
    state = ask(twin, "GET", "/api/state")[1]
    assert sorted(state) == sorted(
        [
            *("address", "apps", "faults", "keys", "links", "phones", "reasons", "requests"),
            "service_accounts",
        ]
    )
    assert state["address"]["page_url"] == twin.page_url
    assert {"id": APP, "name": "My App"} in state["apps"]
    assert {
        "service": "apns",
        "name": "BadPath",
        "status": 404,
        "meaning": "the path is not valid",
    } in state["reasons"]
    assert {reason["service"] for reason in state["reasons"]} == {"apns", "fcm", "oauth"}


def test_an_android_phone_is_made_and_its_channels_switched(twin: RunningTwin) -> None:
    """A phone of the platform android has a registration token, and the channels of its app."""
    wishes = {"platform": "android", "project": "shop-4711", "channels": ["orders", "a/b"]}
    status, made = ask(twin, "POST", "/api/phones", wishes)
    assert (status, made["service"], made["platform"]) == (201, "fcm", "android")
    assert ":APA91b" in made["token"]
    path = f"/api/phones/{made['id']}/channels"
    status, changed = ask(twin, "PATCH", f"{path}/{quote('a/b', safe='')}", {"is_on": False})
    assert (status, [one["is_on"] for one in changed["channels"]]) == (200, [True, False])
    assert ask(twin, "PATCH", f"{path}/none", {"is_on": False})[0] == 404


def test_a_service_account_is_made(twin: RunningTwin) -> None:
    """Its key file comes out once; the state names the account alone."""
    status, file = ask(twin, "POST", "/api/service-accounts", {"project": "shop-4711"})
    assert (status, file["type"], file["project_id"]) == (201, "service_account", "shop-4711")
    state = ask(twin, "GET", "/api/state")[1]
    told = {"client_email": file["client_email"], "project": "shop-4711"}
    assert told in state["service_accounts"]
    assert "PRIVATE" not in json.dumps(state)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "word"),
    [
        ("POST", "/api/phones", {"side": "sandbox"}, 400, "sandbox"),
        ("POST", "/api/phones", {"app": "nonsense"}, 400, "TEAM123456"),
        ("POST", "/api/phones", {"nam": "x"}, 400, "'name'"),
        ("POST", "/api/phones", {"is_on": "yes"}, 400, "is_on"),
        ("POST", "/api/phones", {"name": 5}, 400, "name"),
        ("POST", "/api/phones", b"[]", 400, "JSON object"),
        ("POST", "/api/phones", b"{", 400, "JSON object"),
        ("POST", "/api/phones", b" " * 70_000, 413, "bytes"),
        ("PATCH", "/api/phones/none", {}, 404, "phone"),
        ("POST", "/api/faults", {"kind": "boom"}, 400, "boom"),
        ("POST", "/api/faults", {"self": 1}, 400, "self"),
        ("POST", "/api/phones", {"platform": "palm"}, 400, "palm"),
        ("POST", "/api/phones", {"platform": "android", "channels": "x"}, 400, "channels"),
        ("POST", "/api/service-accounts", {"project": "My Shop"}, 400, "Google project"),
        ("POST", "/api/keys", {"team_id": "T"}, 400, "key_id"),
        ("POST", "/api/keys", {"team_id": "T", "key_id": "K", "key": "no"}, 400, "P-256"),
        ("GET", "/api/nothing", None, 404, "Not Found"),
        ("PUT", "/api/state", None, 405, "Method"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(
    twin: RunningTwin, *, method: str, path: str, body: Any, status: int, word: str
) -> None:
    """What cannot be done is answered with its status and one sentence."""
    answered, said = ask(twin, method, path, body)
    assert answered == status
    assert word in said["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_strangers_are_turned_away(twin: RunningTwin, headers: dict[str, str]) -> None:
    """Another host name, or another site's page, gets nothing changed."""
    before = len(twin.phones)
    assert ask(twin, "POST", "/api/phones", {}, **headers)[0] == 403
    assert len(twin.phones) == before


def test_the_own_page_is_let_in(twin: RunningTwin) -> None:
    """The page's own origin may change things, under each loopback name."""
    port = urlsplit(twin.page_url).port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
        origin = {"Host": name, "Origin": f"http://{name}"}
        assert ask(twin, "POST", "/api/phones", {}, **origin)[0] == 201


def test_answers_carry_the_security_headers(twin: RunningTwin) -> None:
    """Nothing but this host's own scripts and styles; images from wherever the sender says."""
    where = urlsplit(twin.page_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    connection.request("GET", "/api/state")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.headers["content-security-policy"] == "default-src 'self'; img-src * data:"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_events_tell_what_changes(twin: RunningTwin) -> None:
    """A listener hears of phones and faults as they change, as JSON."""
    where = urlsplit(twin.page_url)
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
    connection.request("GET", "/api/events")
    answer = connection.getresponse()
    assert answer.headers["content-type"].startswith("text/event-stream")
    _next_event(answer)
    phone = twin.add_phone("Berta's phone")
    fault = twin.add_fault("cut")
    twin.clear_faults()
    twin.remove_phone(phone)
    events = [_next_event(answer) for _ in range(4)]
    connection.close()
    assert [name for name, _ in events] == ["phone", "fault", "fault-removed", "phone-removed"]
    assert events[0][1]["name"] == "Berta's phone"
    assert (events[1][1], events[2][1]) == (fault.to_dict(), {"id": fault.id})
    assert events[3][1] == {"id": phone.id}


def _next_event(answer: http.client.HTTPResponse) -> tuple[str, Any]:
    lines = []
    while line := answer.readline().decode().strip():
        lines.append(line.partition(": ")[2])
    return lines[0], json.loads(lines[1]) if len(lines) > 1 else None


# The twin's life


def test_the_address_is_there_while_the_twin_runs(tmp_path: Path) -> None:
    """The address file comes with the start and goes with the stop; the authority stays."""
    with start_twin(tmp_path) as running:
        assert read_address(tmp_path) == running.address
        first = running.ca_file.read_bytes()
    assert read_address(tmp_path) is None
    assert not (tmp_path / "address.json").exists()
    with start_twin(tmp_path) as running:
        assert running.ca_file.read_bytes() == first


def test_a_twin_that_is_away_refuses_connections_and_comes_back(tmp_path: Path) -> None:
    """Both sides are cut and refuse for as long as it lasts, then answer on the ports of before."""
    with start_twin(tmp_path) as running:
        context = ssl.create_default_context(cafile=str(running.ca_file))
        sides = [urlsplit(url) for url in (running.production_url, running.development_url)]
        for side in sides:
            where = (side.hostname or "", side.port or 0)
            plain = socket.create_connection(where, timeout=5)
            known = context.wrap_socket(plain, server_hostname=side.hostname)
            with known, running.unreachable():
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(where, timeout=5)
                assert running.connections == 0
                with contextlib.suppress(ConnectionResetError):
                    assert known.recv(1) == b""
            with socket.create_connection(where, timeout=5) as again:
                context.wrap_socket(again, server_hostname=side.hostname).close()


def test_a_listening_page_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """Streams of events end with the twin."""
    with start_twin(tmp_path) as running:
        where = urlsplit(running.page_url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=5)
        connection.request("GET", "/api/events")
        answer = connection.getresponse()
        _next_event(answer)
        began = time.monotonic()
    assert answer.read() == b""
    assert time.monotonic() - began < 2
    connection.close()


def test_a_stopped_twin_says_so(tmp_path: Path) -> None:
    """Whoever asks a stopped twin is told, and does not wait for ever."""
    with start_twin(tmp_path) as running:
        pass
    with pytest.raises(TwinError, match="not running"):
        running.add_phone()
    with pytest.raises(TwinError, match="not running"):
        _ = running.page_url


def test_a_port_in_use_is_named(tmp_path: Path, twin: RunningTwin) -> None:
    """The error names the port, and nothing is left behind."""
    taken = urlsplit(twin.production_url).port or 0
    with pytest.raises(TwinError, match=str(taken)), start_twin(tmp_path, development_port=taken):
        pass
    assert not (tmp_path / "address.json").exists()


def test_only_loopback_is_served(tmp_path: Path) -> None:
    """The twin is not for a network."""
    with pytest.raises(TwinError, match="loopback"):
        Twin(tmp_path, host="0.0.0.0")  # noqa: S104  it is refused


def test_hooks_hear_and_may_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each hook is called once for what it stands for; one that raises is logged."""
    heard: list[tuple[str, str]] = []

    def fail(phone: Phone) -> None:
        raise ValueError(phone.name)

    hooks = TwinHooks(
        on_phone=lambda phone: heard.append(("phone", phone.name)),
        on_displayed=lambda phone, card: heard.append(("shown", f"{phone.name} {card.body}")),
        on_opened=lambda phone, card: heard.append(("opened", f"{phone.name} {card.id}")),
        on_phone_removed=fail,
    )
    with start_twin(tmp_path, hooks=hooks) as running:
        phone = running.add_phone("My phone")
        show(running, phone, "Hello", "one")
        running.open_card(phone, "one")
        running.open_card(phone, "one")
        running.remove_phone(phone)
        assert running.phones == {}
    assert heard == [
        ("phone", "My phone"),
        ("shown", "My phone Hello"),
        ("opened", "My phone one"),
    ]
    assert "Twin hook failed" in caplog.text


def test_a_phone_names_its_app_as_the_back_end_does(stage: Stage, tmp_path: Path) -> None:
    """Also an app that was added, or renamed, while the twin ran."""
    with (
        DemoEnvironment(stage.system) as environment,
        start_twin(tmp_path / "beside", hooks=environment.hooks()) as running,
    ):
        late = stage.system.apps.add("TEAM123456", "com.sample.late", name="Bistro")
        assert running.add_phone(app=late.id).to_dict()["icon"]["letter"] == "B"
        stage.system.apps.rename(late, "Trattoria")
        assert running.add_phone(app=late.id).app_name == "Trattoria"


def test_a_back_end_can_say_no_to_a_phone(tmp_path: Path) -> None:
    """Whom the hook does not take gets its error, also on the page, and there is no phone."""

    def refuse(phone: Phone) -> None:
        raise RegistryError(f"{phone.mail} is nobody", fix="Ask somebody else")

    with start_twin(tmp_path, hooks=TwinHooks(on_phone=refuse)) as running:
        with pytest.raises(RegistryError, match="nobody"):
            running.add_phone("My phone", mail="a@@b")
        status, answer = ask(running, "POST", "/api/phones", {"mail": "a@@b"})
        assert (status, answer) == (400, {"error": "a@@b is nobody. Ask somebody else."})
        assert running.phones == {}


def _fail() -> bool:
    raise ValueError


@pytest.mark.parametrize("guards", [lambda: True, _fail])
def test_a_guarded_page_wants_the_token_of_its_link(
    tmp_path: Path, guards: Callable[[], bool]
) -> None:
    """Whoever has not opened the link, as other users of the machine, sees and changes nothing."""
    with start_twin(tmp_path, hooks=TwinHooks(guards_page=guards)) as running:
        base, token = running.page_url, running.address.page_token
        file = tmp_path / "address.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        phone = running.add_phone("First", mail="a@example.com")
        ways = [
            ("GET", "/"),
            ("GET", "/~wrong"),
            ("GET", "/~wrong/api/state"),
            ("GET", "/~"),
            ("GET", "/static/page.js"),
            ("GET", "/api/state"),
            ("GET", "/api/events"),
            ("GET", "/api/phones"),
            ("POST", "/api/phones"),
            ("PATCH", f"/api/phones/{phone.id}"),
            ("DELETE", f"/api/phones/{phone.id}"),
            ("POST", "/api/faults"),
            ("DELETE", "/api/faults"),
            ("POST", "/api/keys"),
        ]
        with plain_client(base) as anybody:
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": "handbell_twin=x"}):
                for method, path in ways:
                    answer = anybody.request(method, path, json={}, headers=headers)
                    assert answer.status_code == 403, (method, path)
                    assert token not in answer.text
            assert [one.id for one in running.phones.values()] == [phone.id]
            bearer = {"Authorization": f"Bearer {token}"}
            assert anybody.post("/api/phones", json={}, headers=bearer).status_code == 201
        with plain_client(follow_redirects=True) as owner:
            opened = owner.get(running.page_link)
            assert (opened.status_code, str(opened.url)) == (200, f"{base}/")
            told = owner.get(f"{base}/api/state")
            assert told.status_code == 200
            assert token not in told.text
        with plain_client() as script:
            assert script.get(f"{running.page_link}/api/phones").status_code == 200


@pytest.mark.parametrize(("proof", "status"), [("key", 201), ("link", 403), ("token", 403)])
def test_phones_beside_a_server_are_made_by_who_has_the_link(
    stage: Stage, tmp_path: Path, proof: str, status: int
) -> None:
    """A phone of the page is active at once: where an app asks for proof, not for anybody."""
    with stage.system.database.write() as connection:
        connection.execute(update(apps).values(proof=proof))
    with (
        DemoEnvironment(stage.system) as demo_environment,
        start_twin(tmp_path / "beside", hooks=demo_environment.hooks()) as running,
        plain_client(running.page_url) as anybody,
    ):
        body = {"mail": "victim@example.com", "app": stage.app.id}
        assert anybody.post("/api/phones", json=body).status_code == status
        held = stage.system.registry.sessions_of(stage.app, "victim@example.com")
        assert len(held) == (status == 201)


def test_an_ipv6_loopback_serves_too(tmp_path: Path) -> None:
    """The certificate is good for ::1."""
    with start_twin(tmp_path, host="::1") as running:
        where = urlsplit(running.production_url)
        trust = ssl.create_default_context(cafile=str(running.ca_file))
        trust.set_alpn_protocols(["h2"])
        connection = http.client.HTTPSConnection("::1", where.port, context=trust, timeout=5)
        connection.connect()
        connection.close()


def test_the_token_of_a_removed_app_may_come_back(twin: RunningTwin) -> None:
    """A token is free again once its app is gone, and not before."""
    phone = twin.add_phone("First")
    with pytest.raises(TwinError, match="token"):
        twin.add_phone("Second", token=phone.token.upper())
    twin.remove_phone(phone)
    assert twin.add_phone("Second", token=phone.token).token == phone.token


def test_long_tokens_can_be_asked_for(twin: RunningTwin) -> None:
    """A token need not have 64 digits."""
    assert len(twin.add_phone(token_digits=160).token) == 160
