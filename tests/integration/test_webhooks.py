import asyncio
import json
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import func, select
from tests.scene import open_scene
from tests.standing_clock import StandingClock
from tests.stored import stored_in

from handbell.apps.app import App
from handbell.apps.installation_key import InstallationKey
from handbell.apps.reseal import Resealer
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.delivery.events import (
    CircuitOpened,
    DeliveryFailed,
    Event,
    SessionClosed,
)
from handbell.delivery.webhooks.call_target import CallResult
from handbell.delivery.webhooks.safe_http import MOST_ANSWER_BYTES, OutboundOptions
from handbell.delivery.webhooks.sender import KEPT_SECONDS, LEASE_SECONDS, WebhookSender
from handbell.delivery.webhooks.store import Webhook, WebhookStore, signature, store_calls
from handbell.errors import WebhookError
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, webhook_calls
from handbell.twin.certificates import Authority

pytestmark = pytest.mark.databases

NOON = 1_700_000_000.0
KEY = Fernet.generate_key()
LOCAL = OutboundOptions(allow_private=True)


@dataclass(frozen=True)
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that the call tells of."""
        found: list[dict[str, Any]] = json.loads(self.body)["data"]["events"]
        return found


@dataclass
class Receiver:
    """A back end: keeps what it gets, and answers with the next of ``answers``, else 204."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    answer_body: bytes = b""
    calls: list[Received] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    receiver: ClassVar[Receiver]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.receiver.calls.append(Received(self.path, headers, body))
        self.receiver.arrived.set()
        self.receiver.gate.wait(20)
        self.send_response(self.receiver.answers.pop(0) if self.receiver.answers else 204)
        for name, value in self.receiver.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.receiver.answer_body)))
        self.end_headers()
        self.wfile.write(self.receiver.answer_body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_arguments: object) -> None:
        """Say nothing of callers that go away."""


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Run a receiver on a free port of loopback."""
    receiver = Receiver()
    receiver.gate.set()
    handler = type("Handler", (_Handler,), {"receiver": receiver})
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        receiver.url = f"{scheme}://localhost:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield receiver
        finally:
            receiver.gate.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Run a back end without TLS."""
    with running() as one:
        yield one


@dataclass(frozen=True)
class House:
    """A database with an app in it, and a clock."""

    database: Database
    vault: Vault
    app: App
    clock: StandingClock
    url: str

    @property
    def store(self) -> WebhookStore:
        """The webhooks, which may lie on this machine."""
        return WebhookStore(self.database, self.vault, allow_private=True, now=self.clock)

    def sender(self, outbound: OutboundOptions = LOCAL) -> WebhookSender:
        """Return a new sender, as after a restart."""
        return WebhookSender(
            self.database,
            self.vault,
            outbound=outbound,
            poll_seconds=0.02,
            now=self.clock,
            clock=self.clock,
            rng=random.Random(1),  # noqa: S311 - no secret
        )

    def send(self, outbound: OutboundOptions = LOCAL) -> int:
        """Make the calls that are due with a new sender, and return how many."""
        return asyncio.run(self.sender(outbound).send_due())

    def happen(self, *events: Event, gather_seconds: float = 0) -> int:
        """Store the calls for events, due at once unless others may come along."""
        with self.database.write() as connection:
            return store_calls(connection, events, now=self.clock.at, gather_seconds=gather_seconds)

    def failed(self, number: int = 1) -> DeliveryFailed:
        """Return a failure of the app's."""
        return DeliveryFailed(
            app=self.app.id,
            at=self.clock.at,
            notification_id="3f9c2a71b04e5d8",
            number=number,
            mail="test@4d.com",
            state="failed",
            reason="PayloadTooLarge",
            status=413,
            attempts=1,
        )

    def calls(self) -> list[dict[str, Any]]:
        """Return every stored call."""
        with self.database.read() as connection:
            rows = connection.execute(select(webhook_calls).order_by(webhook_calls.c.id))
            return [dict(row) for row in rows.mappings()]


@pytest.fixture
def house(database_url: str) -> Iterator[House]:
    """Open a database with an app."""
    database = Database.open(database_url)
    vault, clock = Vault([KEY]), StandingClock(NOON)
    app = AppStore(database, vault, now=clock).add("TEAM123456", "com.sample.myapp")
    yield House(database, vault, app, clock, database_url)
    database.close()


def test_a_call_is_signed_and_told_once(house: House, receiver: Receiver) -> None:
    """The back end gets one POST whose signature it can verify with the secret it was given."""
    _webhook, secret = house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    assert house.send() == 1
    (call,) = receiver.calls
    name, timestamp = call.headers["webhook-id"], call.headers["webhook-timestamp"]
    assert timestamp == str(int(NOON))
    assert call.headers["webhook-signature"] == signature(secret, name, int(NOON), call.body)
    assert call.headers["content-type"] == "application/json; charset=utf-8"
    assert call.path == "/hook"
    assert call.events[0]["data"]["reason"] == "PayloadTooLarge"
    assert house.send() == 0
    (row,) = house.calls()
    assert (row["state"], row["last_status"], row["due_at"]) == ("sent", 204, None)


def test_a_certificate_is_checked(house: House, tmp_path: Path) -> None:
    """Over TLS a call goes to who has a trusted certificate, and to nobody else."""
    authority = Authority.open(tmp_path / "tls")
    tls = authority.server_context()
    tls.set_alpn_protocols(["http/1.1"])
    trusting = OutboundOptions(allow_private=True, ca_file=authority.ca_file)
    with running(tls) as receiver:
        house.store.add(house.app, receiver.url)
        house.happen(house.failed())
        assert house.send() == 1
        assert receiver.calls == []
        assert "certificate" in house.calls()[0]["last_reason"]
        house.clock.at += 120
        assert house.send(trusting) == 1
        assert len(receiver.calls) == 1
    assert house.calls()[0]["state"] == "sent"


def test_many_failures_are_few_calls(house: House, receiver: Receiver) -> None:
    """A broadcast of which a thousand fail makes ten calls, in order."""
    house.store.add(house.app, receiver.url)
    assert house.happen(*(house.failed(number) for number in range(1, 1001))) == 10
    assert house.send() == 10
    told = [event["data"]["session_id"] for call in receiver.calls for event in call.events]
    assert told == list(range(1, 1001))


def test_a_call_that_meets_a_mistake_is_one_attempt_and_the_others_go_on(
    house: House, receiver: Receiver
) -> None:
    """Whatever goes wrong in one call, it is put off like any other, and the next turn comes."""
    mistakes = [TypeError("a mistake")]

    class Mistaken:
        def post(self, *arguments: Any, **named: Any) -> CallResult:
            if mistakes:
                raise mistakes.pop()
            return LOCAL.post(*arguments, **named)

    house.store.add(house.app, receiver.url)
    house.happen(house.failed())

    async def scenario() -> None:
        running = asyncio.create_task(house.sender(cast("Any", Mistaken())).run())
        async with asyncio.timeout(20):
            while not receiver.calls:
                house.clock.at += 90
                await asyncio.sleep(0.02)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(scenario())
    assert len(receiver.calls) == 1


def test_a_call_that_was_stored_is_made_after_a_restart(house: House, receiver: Receiver) -> None:
    """Killed between storing and sending, the next start sends; nobody else has to remember."""
    house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    database = Database.open(house.url)
    sender = WebhookSender(database, house.vault, outbound=LOCAL, now=house.clock)
    assert asyncio.run(sender.send_due()) == 1
    database.close()
    assert len(receiver.calls) == 1


def test_a_call_of_a_killed_sender_is_made_when_its_lease_ends(
    house: House, receiver: Receiver
) -> None:
    """Killed while it called, the call comes again under the same id, but not before the lease."""
    house.store.add(house.app, receiver.url)
    house.happen(house.failed())

    async def die_while_calling() -> None:
        sender = house.sender(OutboundOptions(allow_private=True, resolve=_hang))
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(sender.send_due())), 0.2)

    release = threading.Event()

    def _hang(_host: str, _port: int) -> list[str]:
        release.wait(20)
        return []

    with pytest.raises(TimeoutError):
        asyncio.run(die_while_calling())
    assert house.calls()[0]["state"] == "sending"
    assert house.send() == 0
    house.clock.at += LEASE_SECONDS + 1
    assert house.send() == 1
    release.set()
    assert house.calls()[0]["state"] == "sent"
    assert receiver.calls[0].headers["webhook-id"] == house.calls()[0]["message_id"]


def test_a_receiver_that_fails_is_called_again(house: House, receiver: Receiver) -> None:
    """A call is repeated under its id, signed anew, after one minute, then two, until taken."""
    _webhook, secret = house.store.add(house.app, receiver.url)
    receiver.answers = [500, 302]
    house.happen(house.failed())
    assert house.send() == 1
    house.clock.at += 59
    assert house.send() == 0
    house.clock.at += 20
    assert house.send() == 1
    house.clock.at += 119
    assert house.send() == 0
    house.clock.at += 40
    assert house.send() == 1
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert len({call.headers["webhook-timestamp"] for call in receiver.calls}) == 3
    last = receiver.calls[-1]
    name, timestamp = last.headers["webhook-id"], int(last.headers["webhook-timestamp"])
    assert last.headers["webhook-signature"] == signature(secret, name, timestamp, last.body)
    assert house.calls()[0]["attempts"] == 3


def test_a_dead_receiver_is_given_up_after_three_days(house: House, receiver: Receiver) -> None:
    """What nobody took for three days has failed, says why, and is counted."""
    webhook, _secret = house.store.add(house.app, receiver.url)
    receiver.answers = [503] * 100
    house.happen(house.failed())
    attempts = 0
    while house.calls()[0]["state"] != "failed":
        attempts += house.send()
        house.clock.at += 600
    assert 15 <= attempts <= 20
    assert house.clock.at - NOON <= 3 * 24 * 3600 + 600
    standing = house.store.standings()[webhook.id]
    assert (standing.failed, standing.waiting) == (1, 0)
    assert standing.last_reason == "answered 503"


def test_a_failing_receiver_is_not_stormed(house: House, receiver: Receiver) -> None:
    """After one failure the other calls of the webhook wait a minute, and then go out in order."""
    house.store.add(house.app, receiver.url)
    receiver.answers = [503]
    house.happen(*(house.failed(number) for number in range(1, 301)))
    assert house.send() == 1
    house.clock.at += 90
    assert house.send() == 3
    assert {row["state"] for row in house.calls()} == {"sent"}


def test_a_slow_receiver_does_not_hold_another(house: House, receiver: Receiver) -> None:
    """While one back end does not answer, the other has got everything."""
    with running() as slow:
        slow.gate.clear()
        house.store.add(house.app, slow.url)
        house.store.add(house.app, receiver.url)
        house.happen(*(house.failed(number) for number in range(1, 301)))

        async def run() -> None:
            task = asyncio.create_task(house.sender().run())
            await _until(lambda: len(receiver.calls) == 3)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        asyncio.run(run())
        assert len(slow.calls) == 1


def test_a_sender_that_is_stopped_gives_back_its_calls(house: House, receiver: Receiver) -> None:
    """Cancelled in the middle of a call, it ends soon, and the call is due again at once."""
    house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    receiver.gate.clear()

    async def run() -> float:
        task = asyncio.create_task(house.sender().run())
        await asyncio.to_thread(receiver.arrived.wait, 10)
        started = asyncio.get_running_loop().time()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        return asyncio.get_running_loop().time() - started

    assert asyncio.run(run()) < 4
    (row,) = house.calls()
    assert (row["state"], row["lease"]) == ("queued", None)
    receiver.gate.set()
    assert house.send() == 1


@pytest.mark.parametrize("size", [10, MOST_ANSWER_BYTES * 4])
def test_an_answers_body_is_of_no_interest(house: House, receiver: Receiver, size: int) -> None:
    """A back end may answer with a page, however long: its status counts."""
    house.store.add(house.app, receiver.url)
    receiver.answers, receiver.answer_body = [200], b"x" * size
    house.happen(house.failed())
    assert house.send() == 1
    assert house.calls()[0]["state"] == "sent"


def test_a_redirect_is_not_followed(house: House, receiver: Receiver) -> None:
    """A receiver cannot send us on to another address."""
    with running() as other:
        house.store.add(house.app, receiver.url)
        receiver.answers, receiver.headers = [307], {"location": other.url}
        house.happen(house.failed())
        assert house.send() == 1
        assert other.calls == []
    assert house.calls()[0]["last_status"] == 307


def test_a_proxy_of_the_environment_is_not_used(
    house: House, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy would resolve the name for itself, past the check."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:9")
    house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    assert house.send() == 1
    assert len(receiver.calls) == 1


def test_a_private_address_is_not_called_unless_allowed(house: House, receiver: Receiver) -> None:
    """A webhook that was added while it was allowed is not called once it is not."""
    url = receiver.url.replace("http://localhost", "https://backend.example")
    house.store.add(house.app, url)
    house.happen(house.failed())
    assert house.send(OutboundOptions(resolve=lambda _host, _port: ["127.0.0.1"])) == 1
    assert receiver.calls == []
    assert "not public" in house.calls()[0]["last_reason"]


def test_a_call_goes_to_the_address_that_was_checked(house: House, receiver: Receiver) -> None:
    """The name is resolved once, by us; where it leads a moment later does not matter."""
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    url = receiver.url.replace("localhost", "backend.example")
    house.store.add(house.app, url)
    house.happen(house.failed())
    assert house.send(OutboundOptions(allow_private=True, resolve=rebinding)) == 1
    assert asked == ["backend.example"]
    assert receiver.calls[0].headers["host"].startswith("backend.example:")


def test_only_what_was_asked_for_is_told(house: House, receiver: Receiver) -> None:
    """A webhook gets the events it names, of its own app, while it is on."""
    webhook, _secret = house.store.add(house.app, receiver.url, events=["session.closed"])
    closed = SessionClosed(
        app=house.app.id, at=NOON, session_id=7, mail="test@4d.com", reason="Unregistered"
    )
    other = SessionClosed(app="TEAM123456.other", at=NOON, session_id=8, mail=None, reason="x")
    house.happen(house.failed(), closed, other)
    assert house.send() == 1
    assert [event["data"]["session_id"] for event in receiver.calls[0].events] == [7]
    house.store.set_enabled(webhook.id, is_enabled=False)
    assert house.happen(closed) == 0


def test_what_happens_in_a_moment_is_one_call(house: House, receiver: Receiver) -> None:
    """A call takes what comes before it is due, up to a hundred events; the rest is the next one's.

    What is of no interest to a webhook is in none.
    """
    house.store.add(house.app, receiver.url)
    house.store.add(house.app, f"{receiver.url}/stops", events=["circuit.opened"])
    numbers = iter(range(1, 1000))
    for many in (3, 90, 10):
        happened = [house.failed(next(numbers)) for _ in range(many)]
        made = house.happen(*happened, gather_seconds=0.5)
        assert made == (many in (3, 10))
        assert house.send() == 0
    house.clock.at += 0.5
    assert house.send() == 2
    told = [[event["data"]["session_id"] for event in call.events] for call in receiver.calls]
    assert told == [list(range(1, 101)), [101, 102, 103]]
    assert house.happen(house.failed(next(numbers)), gather_seconds=0.5) == 1


def test_what_the_ledger_says_has_its_call(tmp_path: Path) -> None:
    """They are one transaction: no crash comes between an end and the call that tells of it."""
    with open_scene(tmp_path) as scene:
        scene.system.webhooks.add(scene.app, "https://backend.example/hook")
        (phone,) = scene.add_phones(1)
        scene.twin.add_fault("answer", reason="BadMessageId")
        found: list[int] = []

        def has_failed() -> bool:
            with scene.system.database.read() as connection:
                ended = connection.scalar(select(deliveries.c.state))
                found.append(
                    connection.scalar(select(func.count()).select_from(webhook_calls)) or 0
                )
            return ended == "failed"

        async def scenario() -> None:
            async with scene.running() as engine:
                await scene.accept(engine, phone.mail)
                await scene.until(None, has_failed)

        asyncio.run(scenario())
    assert found[-1] == 1


def test_a_call_that_was_tried_takes_nothing_more(house: House, receiver: Receiver) -> None:
    """Its repeat has to say what the first said: the receiver knows it by its id."""
    house.store.add(house.app, receiver.url)
    receiver.answers = [503]
    house.happen(house.failed(1))
    house.send()
    assert house.happen(house.failed(2), gather_seconds=0.5) == 1
    house.clock.at += 200
    house.send()
    told = [[event["data"]["session_id"] for event in call.events] for call in receiver.calls]
    assert told == [[1], [1], [2]]


def test_old_calls_are_pruned(house: House, receiver: Receiver) -> None:
    """A call that was over for a week is forgotten; one that waits is not."""
    house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    house.send()
    receiver.answers = [503] * 9
    house.clock.at += KEPT_SECONDS + 1
    house.happen(house.failed())
    house.send()
    assert [row["state"] for row in house.calls()] == ["queued"]


def test_a_test_call_is_made_at_once(house: House, receiver: Receiver) -> None:
    """Trying a webhook out calls it with the event test, and keeps nothing."""
    webhook, _secret = house.store.add(house.app, receiver.url)
    assert house.sender().send_test(webhook).status == 204
    assert json.loads(receiver.calls[0].body)["type"] == "test"
    assert house.calls() == []


@pytest.mark.databases("sqlite")
def test_a_webhook_is_kept_without_its_secret(house: House, receiver: Receiver) -> None:
    """The secret is told once; neither the database nor a listing shows it."""
    webhook, secret = house.store.add(house.app, receiver.url)
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert house.store.list() == [webhook]
    path = house.database.path
    assert path is not None
    assert secret.encode() not in stored_in(path.parent)
    assert secret[6:] not in repr(house.store.list())


@pytest.mark.parametrize(
    ("url", "events", "why"),
    [
        ("https://backend.example/hook", ["delivery.fail"], "Did you mean delivery.failed"),
        ("https://backend.example/hook", ["moon"], "Use some of delivery.failed"),
        ("ftp://backend.example/hook", [], "does not begin with"),
        ("https://backend.example/taken", [], "Remove it first"),
    ],
)
def test_a_wrong_webhook_is_refused(house: House, url: str, events: list[str], why: str) -> None:
    """An address that cannot be called, an unknown event and a second of the same are errors."""
    house.store.add(house.app, "https://backend.example/taken")
    with pytest.raises(WebhookError, match=why):
        house.store.add(house.app, url, events=events)


@pytest.mark.parametrize(
    "act",
    [
        WebhookStore.find,
        WebhookStore.remove,
        lambda store, number: store.set_enabled(number, is_enabled=True),
    ],
)
def test_a_webhook_that_is_not_there_is_named(
    house: House, act: Callable[[WebhookStore, int], Webhook | None]
) -> None:
    """Whatever is asked of a number that no webhook has says so."""
    with pytest.raises(WebhookError, match="no webhook 9"):
        act(house.store, 9)


def test_a_removed_webhook_takes_its_calls(house: House, receiver: Receiver) -> None:
    """Nothing is sent for a webhook that was removed."""
    webhook, _secret = house.store.add(house.app, receiver.url)
    house.happen(house.failed())
    house.store.remove(webhook.id)
    assert house.send() == 0
    assert house.calls() == []


def test_secrets_survive_a_change_of_the_secret_key(house: House, receiver: Receiver) -> None:
    """Sealing everything anew covers webhooks, so that the old key can be given up."""
    _webhook, secret = house.store.add(house.app, receiver.url)
    house.happen(CircuitOpened(app=house.app.id, at=NOON, reason="x", detail="", probe_at=NOON))
    new = Fernet.generate_key()
    assert replace(house, vault=Vault([new])).send() == 1
    assert receiver.calls == []
    assert "another key" in house.calls()[0]["last_reason"]
    both = Vault([new, KEY])
    Resealer(house.database, both, InstallationKey(house.database, both)).run()
    house.clock.at += 120
    assert replace(house, vault=Vault([new])).send() == 1
    (call,) = receiver.calls
    name, timestamp = call.headers["webhook-id"], int(call.headers["webhook-timestamp"])
    assert call.headers["webhook-signature"] == signature(secret, name, timestamp, call.body)


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what is waited for happens elsewhere
            await asyncio.sleep(0.01)
