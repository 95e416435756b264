"""The twin's push service for browsers on the wire: endpoints, faults, and the WebSocket."""

import json
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.made_once import plain_client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from handbell.errors import TwinError
from handbell.twin.threaded import RunningTwin, start_twin

PUSH = Subprotocol("push-notification")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """Run one twin for the file; its browsers take anybody's messages."""
    with start_twin(tmp_path_factory.mktemp("twin")) as running:
        yield running


def post(twin: RunningTwin, endpoint: str, *, http2: bool = True, **headers: str) -> httpx.Response:
    """Post a message without a body to an endpoint."""
    trusted = ssl.create_default_context(cafile=str(twin.ca_file))
    with httpx.Client(http1=not http2, http2=http2, verify=trusted, trust_env=False) as client:
        return client.post(endpoint, headers={"ttl": "60"} | headers)


@pytest.mark.parametrize("http2", [True, False], ids=["HTTP/2", "HTTP/1.1"])
def test_an_endpoint_speaks_both_versions(twin: RunningTwin, *, http2: bool) -> None:
    """An accepted message has a resource of its own; a refused one says why, as autopush does."""
    browser = twin.add_browser()
    answer = post(twin, browser.token, http2=http2)
    assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
    assert (answer.status_code, answer.headers["ttl"], answer.content) == (201, "60", b"")
    assert answer.headers["location"].startswith(f"{twin.webpush_url}/m/")
    refused = post(twin, browser.token, http2=http2, urgency="now")
    assert (refused.status_code, refused.json()["errno"]) == (400, 110)
    assert refused.headers["content-type"] == "application/json"


FAULTS: dict[str, dict[str, Any]] = {
    "429": {"kind": "answer", "status": 429, "retry_after": 7},
    "503": {"kind": "answer", "status": 503},
    "410": {"kind": "answer", "status": 410, "reason": "Somebody unsubscribed"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_answers_in_place_of_the_service(twin: RunningTwin, fault: dict[str, Any]) -> None:
    """It strikes the endpoint that it is for; 410 ends the subscription as well."""
    browser, other = twin.add_browser(), twin.add_browser()
    twin.add_fault(**fault, side="webpush", token=browser.token)
    assert post(twin, other.token).status_code == 201
    struck = post(twin, browser.token)
    assert struck.status_code == fault["status"]
    assert struck.headers.get("retry-after") == (
        str(fault["retry_after"]) if "retry_after" in fault else None
    )
    assert struck.json()["message"] == fault.get("reason", "A fault on demand.")
    is_gone = fault["status"] == 410
    assert twin.phone(browser.id).is_gone is is_gone
    assert post(twin, browser.token).status_code == (410 if is_gone else 201)
    assert (twin.open_app(browser).token != browser.token) is is_gone


@pytest.mark.parametrize("kind", ["reset", "cut", "goaway"])
def test_a_fault_of_the_wire_loses_the_answer(twin: RunningTwin, kind: str) -> None:
    """The message is delivered all the same where the fault says so."""
    browser = twin.add_browser(is_on=False)
    details: dict[str, Any] = {"graceful": False} if kind == "goaway" else {"delivers": True}
    twin.add_fault(kind, side="webpush", **details)
    with pytest.raises(httpx.TransportError):
        post(twin, browser.token)
    assert len(twin.phone(browser.id).stored) == (0 if kind == "goaway" else 1)


def test_a_service_that_is_away_comes_back(twin: RunningTwin) -> None:
    """Its endpoints are refused meanwhile, and are the same afterwards."""
    browser = twin.add_browser()
    with twin.unreachable(), pytest.raises(httpx.ConnectError):
        post(twin, browser.token)
    assert post(twin, browser.token).status_code == 201


# The WebSocket


class Talk:
    """A browser's side of the protocol."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def ask(self, **frame: Any) -> Any:
        """Send a frame, and return the next one that comes."""
        self.say(**frame)
        return self.hear()

    def say(self, **frame: Any) -> None:
        """Send a frame."""
        self._connection.send(json.dumps(frame))

    def hear(self) -> Any:
        """Return the next frame."""
        return json.loads(self._connection.recv(timeout=5))

    def hello(self, browser: str | None = None) -> str:
        """Greet, and return the browser's id."""
        answer = self.ask(messageType="hello", use_webpush=True, uaid=browser)
        assert (answer["status"], answer["use_webpush"]) == (200, True)
        return str(answer["uaid"])

    def register(self, channel: str, **more: Any) -> Any:
        """Subscribe."""
        return self.ask(messageType="register", channelID=channel, **more)


def talking(twin: RunningTwin, **options: Any) -> ClientConnection:
    """Connect as a browser does."""
    found: ClientConnection = connect(
        twin.webpush_socket_url, subprotocols=[PUSH], proxy=None, **options
    )
    return found


def test_a_message_waits_until_it_is_acknowledged(twin: RunningTwin) -> None:
    """It comes again to the same browser after a lost connection, and not after its ack."""
    channel = str(uuid.uuid4())
    with talking(twin) as connection:
        talk = Talk(connection)
        browser = talk.hello()
        endpoint = talk.register(channel)["pushEndpoint"]
        assert talk.register(channel)["pushEndpoint"] == endpoint
        assert post(twin, endpoint).status_code == 201
        told = talk.hear()
        assert (told["messageType"], told["channelID"], told["ttl"]) == (
            "notification",
            channel,
            60,
        )
    for is_last in (False, True):
        with talking(twin) as connection:
            talk = Talk(connection)
            assert talk.hello(browser) == browser
            assert talk.hear()["version"] == told["version"]
            if is_last:
                talk.say(messageType="ack", updates=[{"version": told["version"], "code": 100}])
                assert talk.ask() == {}
    with talking(twin) as connection:
        talk = Talk(connection)
        talk.hello(browser)
        assert talk.ask() == {}
        assert talk.ask(messageType="unregister", channelID=channel)["status"] == 200
    assert post(twin, endpoint).status_code == 410


def test_a_message_can_be_withdrawn_by_its_sender(twin: RunningTwin) -> None:
    """Its resource is deleted once."""
    with talking(twin) as connection:
        talk = Talk(connection)
        browser = talk.hello()
        endpoint = talk.register(str(uuid.uuid4()))["pushEndpoint"]
    location = post(twin, endpoint).headers["location"]
    trusted = ssl.create_default_context(cafile=str(twin.ca_file))
    with httpx.Client(verify=trusted, trust_env=False) as client:
        assert [client.delete(location).status_code for _ in range(2)] == [204, 404]
    with talking(twin) as connection:
        talk = Talk(connection)
        talk.hello(browser)
        assert talk.ask() == {}


def test_an_unknown_browser_gets_a_new_id(twin: RunningTwin) -> None:
    """As one whose service has lost its data: it subscribes anew."""
    with talking(twin) as connection:
        assert Talk(connection).hello("0" * 32) != "0" * 32


@pytest.mark.parametrize(
    "more",
    [{"key": "AAAA"}, {"key": "!"}, {"channelID": None}, {"channelID": 5}],
    ids=["no point", "no base64", "no channel", "a number"],
)
def test_a_bad_registration_is_refused(twin: RunningTwin, more: dict[str, Any]) -> None:
    """The connection goes on."""
    with talking(twin) as connection:
        talk = Talk(connection)
        talk.hello()
        frame = {"messageType": "register", "channelID": "a"} | more
        assert talk.ask(**frame)["status"] == 400
        assert talk.ask() == {}


@pytest.mark.parametrize(
    "text",
    ["no JSON", "[]", "[" * 5000, '{"messageType": "register", "channelID": "a"}', "x" * 70_000],
    ids=["no JSON", "a list", "nested", "no hello", "large"],
)
def test_a_stranger_is_cut_off(twin: RunningTwin, text: str) -> None:
    """Who does not speak the protocol loses the connection, and others do not."""
    with talking(twin) as connection:
        connection.send(text)
        with pytest.raises(ConnectionClosed):
            connection.recv(timeout=5)
    with talking(twin) as connection:
        Talk(connection).hello()


def test_a_web_page_may_not_pretend_to_be_a_browser(twin: RunningTwin) -> None:
    """What a page connects to carries the page's origin."""
    with (
        pytest.raises(InvalidStatus, match="403"),
        talking(twin, origin=Origin("https://evil.example")),
    ):
        pass


# A real browser as one of the phones


def test_what_a_real_browser_shows_is_a_card(twin: RunningTwin) -> None:
    """The page's worker tells what was shown and opened."""
    with talking(twin) as connection:
        talk = Talk(connection)
        talk.hello()
        endpoint = talk.register(str(uuid.uuid4()))["pushEndpoint"]
    subscription = {"endpoint": endpoint, "keys": {"auth": "a", "p256dh": "p"}}
    with plain_client(twin.page_url) as page:
        for mail in ("user1@example.com", "test@4d.com"):
            made = page.post("/api/browsers", json={"mail": mail, "subscription": subscription})
            assert made.status_code == 201
        (phone,) = [one for one in twin.phones.values() if one.token == endpoint]
        assert phone.mail == "test@4d.com"
        shown = {"notification": {"title": "Hello", "tag": "t"}}
        page.post("/api/browsers/shown", json={"endpoint": endpoint, "message": shown})
        page.post("/api/browsers/opened", json={"endpoint": endpoint, "card": "t"})
        (card,) = twin.phone(phone.id).cards
        assert (card.title, card.opened_at is None) == ("Hello", False)
        for path, body in {
            "/api/browsers": {"subscription": {"endpoint": "https://push.example/1", "keys": {}}},
            "/api/browsers/shown": {"endpoint": endpoint, "message": []},
        }.items():
            assert page.post(path, json=body).status_code in (204, 400)
        other = subscription | {"endpoint": "https://updates.push.example/wpush/v2/abc"}
        refused = page.post("/api/browsers", json={"subscription": other})
        assert (refused.status_code, "no subscription" in refused.text) == (400, True)
    with pytest.raises(TwinError, match="real browser"):
        twin.switch(phone, is_on=False)


def test_the_page_serves_what_a_real_browser_needs(twin: RunningTwin) -> None:
    """The page and its worker are static files; without a key of the app there is none to serve."""
    with plain_client(twin.page_url) as page:
        for name in ("browser.html", "browser.js", "browser-worker.js", "browser.css"):
            assert page.get(f"/static/{name}").status_code == 200
        assert page.get("/api/web-push-key").status_code == 404


def test_browsers_find_the_next_twin_where_the_last_one_was(tmp_path: Path) -> None:
    """The usual port is taken where it is free; a second twin beside it takes another."""
    with (
        start_twin(tmp_path / "first", webpush_socket_port=None) as first,
        start_twin(tmp_path / "second", webpush_socket_port=None) as second,
    ):
        assert second.webpush_socket_url != first.webpush_socket_url
        for twin in (first, second):
            with talking(twin) as connection:
                Talk(connection).hello()
