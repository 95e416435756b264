"""The twin on the wire, seen by a client that reads every HTTP/2 frame."""

import contextlib
import functools
import json
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes
from hyperframe.frame import Frame, GoAwayFrame

from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.sample.myapp"
APP = f"{TEAM}.{BUNDLE}"
KEY = ec.generate_private_key(ec.SECP256R1())
PUBLIC = (
    KEY.public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
HELLO = b'{"aps":{"alert":"Hello"}}'
PATIENCE = 5.0
FRAME_HEAD = 9


@dataclass
class Reply:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        """The HTTP status, 0 while there is none."""
        return int(self.headers.get(":status", "0"))

    @property
    def said(self) -> Any:
        """The JSON body."""
        return json.loads(self.body)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes on this stream."""
        return self.is_ended or self.reset is not None


class Client:
    """A raw HTTP/2 client: what it sends and when is up to the test."""

    def __init__(
        self,
        url: str,
        ca_file: Path,
        certificate: Path | None = None,
        alpn: Sequence[str] = ("h2",),
    ) -> None:
        context = ssl.create_default_context(cafile=str(ca_file))
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if alpn:
            context.set_alpn_protocols(alpn)
        if certificate:
            context.load_cert_chain(certificate)
        parts = urlsplit(url)
        raw = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.replies: dict[int, Reply] = {}
        self.limits: list[int] = []
        self.goaway: GoAwayFrame | None = None
        self.unread = b""
        self.is_closed = False
        self.h2.initiate_connection()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Put on the wire what is due."""
        self.socket.sendall(self.h2.data_to_send())

    def begin(self, token: str, body: bytes | None = HELLO, **headers: str | None) -> int:
        """Send a push without waiting; a body of None leaves the stream open."""
        number = self.h2.get_next_available_stream_id()
        said = {
            ":method": "POST",
            ":scheme": "https",
            ":authority": "127.0.0.1",
            ":path": f"/3/device/{token}",
            "authorization": bearer(),
            "apns-topic": BUNDLE,
            "apns-push-type": "alert",
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        kept = [(name, value) for name, value in said.items() if value is not None]
        self.h2.send_headers(number, kept, end_stream=body == b"")
        if body:
            self.h2.send_data(number, body, end_stream=True)
        self.replies[number] = Reply()
        self.flush()
        return number

    def push(self, token: str, body: bytes = HELLO, **headers: str | None) -> Reply:
        """Send a push and wait for its answer."""
        number = self.begin(token, body, **headers)
        self.wait(lambda: self.replies[number].is_over)
        return self.replies[number]

    def wait(self, until: Any, *, seconds: float = PATIENCE) -> None:
        """Read frames until something holds, or the connection ends; fail when neither happens."""
        deadline = time.monotonic() + seconds
        while not until() and not self.is_closed:
            assert time.monotonic() < deadline, "the twin did not do it in time"
            self.read()

    def wait_closed(self) -> None:
        """Read until the twin has closed the connection."""
        self.wait(lambda: False)

    def read(self) -> None:
        """Read what is there, or notice that the connection has ended."""
        try:
            data = self.socket.recv(65536)
        except (ConnectionError, ssl.SSLError):
            data = b""
        if not data:
            self.is_closed = True
            return
        self.unread += data
        for frame in self.frames():
            for event in self.h2.receive_data(frame):
                self.on_event(event)
        with contextlib.suppress(OSError):
            self.flush()

    def frames(self) -> Iterator[bytes]:
        """Yield whole frames but GOAWAY, after which h2 would take no answer any more."""
        while len(self.unread) >= FRAME_HEAD:
            frame, size = Frame.parse_frame_header(memoryview(self.unread[:FRAME_HEAD]))
            whole = self.unread[: FRAME_HEAD + size]
            if len(whole) < FRAME_HEAD + size:
                return
            self.unread = self.unread[FRAME_HEAD + size :]
            if isinstance(frame, GoAwayFrame):
                frame.parse_body(memoryview(whole[FRAME_HEAD:]))
                self.goaway = frame
            else:
                yield whole

    def on_event(self, event: Event) -> None:
        """Note what happened."""
        match event:
            case ResponseReceived():
                self.replies[event.stream_id].headers = _texts(event.headers)
            case DataReceived():
                self.replies[event.stream_id].body += event.data
            case StreamEnded():
                self.replies[event.stream_id].is_ended = True
            case StreamReset():
                self.replies[event.stream_id].reset = int(event.error_code)
            case RemoteSettingsChanged():
                changed = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
                if changed:
                    self.limits.append(changed.new_value)


def _texts(headers: Iterable[tuple[Any, Any]]) -> dict[str, str]:
    return {str(name): str(value) for name, value in headers}


@functools.cache
def bearer() -> str:
    """Return the header with the provider token that all these tests share."""
    claims = {"iss": TEAM, "iat": int(time.time())}
    return "bearer " + jwt.encode(claims, KEY, algorithm="ES256", headers={"kid": KEY_ID})


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """One twin for the file; each test has a phone of its own."""
    with start_twin(tmp_path_factory.mktemp("twin")) as running:
        running.add_key(TEAM, KEY_ID, PUBLIC)
        yield running


@pytest.fixture
def phone(twin: RunningTwin) -> Iterator[Phone]:
    """Make a phone on the production side; faults are forgotten afterwards."""
    yield twin.add_phone("My phone", app=APP)
    twin.clear_faults()


@pytest.fixture
def client(twin: RunningTwin) -> Iterator[Client]:
    """Connect to the production side."""
    with Client(twin.production_url, twin.ca_file) as connected:
        yield connected


def test_a_push_is_accepted_with_an_empty_body(
    twin: RunningTwin, phone: Phone, client: Client
) -> None:
    """200, an apns-id that the twin made, a date, nothing else; and the phone shows it."""
    reply = client.push(phone.token)
    assert (reply.status, reply.body) == (200, b"")
    assert set(reply.headers) == {":status", "date", "apns-id"}
    card = twin.phone(phone.id).cards[0]
    assert (card.body, card.push_id) == ("Hello", reply.headers["apns-id"])
    assert twin.shown(phone.token) == {card.push_id: 1}
    assert twin.accepted_of(phone.token) == {card.push_id: 1}


def test_the_development_side_adds_a_unique_id_and_has_its_own_tokens(
    twin: RunningTwin, phone: Phone
) -> None:
    """A token lives on one side; apns-unique-id comes on the development side only."""
    mine = twin.add_phone(app=APP, side="development")
    given = "9a1959ed-1058-4b56-99d4-ca1459786122"
    with Client(twin.development_url, twin.ca_file) as development:
        reply = development.push(mine.token, apns_id=given)
        refused = development.push(phone.token)
    assert reply.headers["apns-id"] == given
    assert len(reply.headers["apns-unique-id"]) == len(given)
    assert (refused.status, refused.said) == (400, {"reason": "BadDeviceToken"})
    with Client(twin.production_url, twin.ca_file) as production:
        assert production.push(mine.token).said == {"reason": "BadDeviceToken"}


def test_a_removed_app_answers_410_with_milliseconds(
    twin: RunningTwin, phone: Phone, client: Client
) -> None:
    """An uninstalled app's token is Unregistered, since when in milliseconds."""
    before = int(time.time() * 1000)
    twin.remove_phone(phone)
    reply = client.push(phone.token)
    assert (reply.status, reply.headers["content-type"]) == (410, "application/json")
    assert reply.said["reason"] == "Unregistered"
    assert before <= reply.said["timestamp"] <= int(time.time() * 1000)


def test_one_stream_until_a_valid_token_then_a_thousand(phone: Phone, client: Client) -> None:
    """The limit is 1, stays 1 after a refused token, and widens before the first answer."""
    client.wait(lambda: client.limits)
    assert client.limits == [1]
    refused = client.push(phone.token, authorization="bearer nonsense")
    assert refused.said == {"reason": "InvalidProviderToken"}
    assert client.limits == [1]
    assert client.push(phone.token).status == 200
    assert client.limits == [1, 1000]


def test_a_stream_too_many_is_refused_alone(phone: Phone, client: Client) -> None:
    """Beyond the limit a stream is REFUSED_STREAM, and the connection lives on."""
    first = client.begin(phone.token, None)
    second = client.begin(phone.token)
    client.wait(lambda: client.replies[second].is_over)
    assert client.replies[second].reset == ErrorCodes.REFUSED_STREAM
    client.h2.send_data(first, HELLO, end_stream=True)
    client.flush()
    client.wait(lambda: client.replies[first].is_over)
    assert client.replies[first].status == 200


def test_many_streams_at_once(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """Hundreds of pushes in flight are all answered, each on its own stream."""
    client.push(phone.token)
    numbers = [client.begin(phone.token, apns_collapse_id="one") for _ in range(300)]
    client.wait(lambda: all(client.replies[number].is_over for number in numbers))
    assert {client.replies[number].status for number in numbers} == {200}
    assert sum(twin.accepted_of(phone.token).values()) == 301
    assert twin.phone(phone.id).cards[0].replaced == 299


def test_a_phone_that_was_off_gets_the_newest(
    twin: RunningTwin, phone: Phone, client: Client
) -> None:
    """Stored pushes come when the phone is on again: the newest, unless it may not be stored."""
    twin.switch(phone, False)
    for text, expiration in (("old", None), ("new", None), ("now or never", "0")):
        body = json.dumps({"aps": {"alert": text}}).encode()
        assert client.push(phone.token, body, apns_expiration=expiration).status == 200
    assert [request.what for request in twin.requests[:3]] == ["discarded", "stored", "stored"]
    assert [card.body for card in twin.switch(phone, True).cards] == ["new"]
    assert len(twin.shown(phone.token)) == 1


def test_the_history_hides_the_signature(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """What the twin keeps to show has the token's claims and no signature."""
    authorization = bearer()
    client.push(phone.token, authorization=authorization)
    newest = twin.requests[0]
    assert newest.headers["authorization"].endswith("(signature hidden)")
    assert authorization.rpartition(".")[2] not in json.dumps(newest.to_dict())
    assert (newest.what, newest.verdict, newest.phone_id) == ("shown", "Shown.", phone.id)


# Faults


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        ({"reason": "TooManyRequests"}, 429, {"reason": "TooManyRequests"}),
        (
            {"reason": "ExpiredToken", "timestamp": 5},
            410,
            {"reason": "ExpiredToken", "timestamp": 5},
        ),
        ({"reason": "Surprise", "status": 418}, 418, {"reason": "Surprise"}),
        ({"status": 503}, 503, None),
    ],
)
def test_any_answer_can_be_asked_for(
    twin: RunningTwin, phone: Phone, client: Client, *, fault: Any, status: int, said: Any
) -> None:
    """A fault of kind answer gives any status and reason, and the phone gets nothing."""
    twin.add_fault("answer", token=phone.token, retry_after=3, **fault)
    reply = client.push(phone.token)
    assert (reply.status, reply.headers["retry-after"]) == (status, "3")
    assert reply.body == b"" if said is None else reply.said == said
    assert twin.phone(phone.id).cards == ()
    # Whoever is told 410 believes that the app is gone, and so it is from then on.
    assert client.push(phone.token).status == (410 if status == 410 else 200)
    assert twin.faults == []


def test_a_slow_answer_comes_late(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """The push is shown at once and answered after the time asked for."""
    client.push(phone.token)
    twin.add_fault("slow", seconds=0.2)
    began = time.monotonic()
    slow, quick = client.begin(phone.token), client.begin(phone.token)
    client.wait(lambda: client.replies[quick].is_over)
    assert not client.replies[slow].is_over
    assert len(twin.phone(phone.id).cards) == 3
    client.wait(lambda: client.replies[slow].is_over)
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("delivers", [True, False])
def test_silence(twin: RunningTwin, phone: Phone, client: Client, *, delivers: bool) -> None:
    """No answer comes; whether the phone got the push is up to the fault."""
    twin.add_fault("silence", delivers=delivers)
    silent = client.begin(phone.token)
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.wait(lambda: client.replies[silent].is_over)
    assert len(twin.phone(phone.id).cards) == int(delivers)
    client.h2.reset_stream(silent, ErrorCodes.CANCEL)
    client.socket.settimeout(PATIENCE)
    assert client.push(phone.token).status == 200


@pytest.mark.parametrize(
    ("kind", "code"),
    [("reset", ErrorCodes.INTERNAL_ERROR), ("refuse-stream", ErrorCodes.REFUSED_STREAM)],
)
def test_a_stream_ends_by_a_reset(
    twin: RunningTwin, phone: Phone, client: Client, kind: str, code: ErrorCodes
) -> None:
    """RST_STREAM with its code on that stream, and the connection goes on."""
    twin.add_fault(kind)
    assert client.push(phone.token).reset == code
    assert client.push(phone.token).status == 200
    assert len(twin.phone(phone.id).cards) == 1


def test_an_answer_that_is_cut(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """The head comes with its status, then half of the body, then RST_STREAM."""
    twin.add_fault("cut-answer", reason="BadDeviceToken")
    reply = client.push(phone.token)
    assert (reply.status, reply.reset) == (400, ErrorCodes.INTERNAL_ERROR)
    assert reply.body == b'{"reason":"BadDeviceToken"}'[:13]
    assert client.push(phone.token).status == 200


def test_a_window_may_become_negative(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """A client that takes back what it allowed waits for its answer, and gets all of it later."""
    twin.add_fault("answer", reason="BadDeviceToken")
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
    number = client.begin(phone.token)
    client.wait(lambda: len(client.replies[number].body) == 10)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 3})
    client.flush()
    client.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.wait(lambda: client.replies[number].is_over)
    client.socket.settimeout(PATIENCE)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    client.flush()
    client.wait(lambda: client.replies[number].is_over)
    assert client.replies[number].said == {"reason": "BadDeviceToken"}


def test_a_smaller_stream_limit(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """SETTINGS come with the limit; what was on its way beyond it is refused."""
    client.push(phone.token)
    twin.add_fault("stream-limit", limit=1)
    answered, first = client.begin(phone.token), client.begin(phone.token, None)
    second = client.begin(phone.token)
    client.wait(lambda: client.replies[second].is_over)
    assert client.replies[answered].status == 200
    assert client.limits == [1, 1000, 1]
    assert client.replies[second].reset == ErrorCodes.REFUSED_STREAM
    assert not client.replies[first].is_over


def test_a_graceful_goaway_finishes_what_was_begun(
    twin: RunningTwin, phone: Phone, client: Client
) -> None:
    """GOAWAY with its reason as JSON; the streams up to then are answered, then all is closed."""
    client.push(phone.token)
    twin.add_fault("slow", seconds=0.1)
    twin.add_fault("goaway", reason="Shutdown")
    slow, last, late = (client.begin(phone.token) for _ in range(3))
    client.wait_closed()
    assert client.goaway is not None
    assert json.loads(client.goaway.additional_data) == {"reason": "Shutdown"}
    assert client.goaway.last_stream_id == last
    assert client.goaway.error_code == 0
    assert [client.replies[number].status for number in (slow, last, late)] == [200, 200, 0]
    assert len(twin.phone(phone.id).cards) == 3


def test_a_clients_goaway_ends_nothing_that_it_waits_for(
    twin: RunningTwin, phone: Phone, client: Client
) -> None:
    """A client that says GOAWAY gets the answers of the streams it has begun, then the end."""
    client.push(phone.token)
    twin.add_fault("slow", seconds=0.1)
    slow, last = (client.begin(phone.token) for _ in range(2))
    client.socket.sendall(GoAwayFrame().serialize())
    client.wait_closed()
    assert [client.replies[number].status for number in (slow, last)] == [200, 200]


@pytest.mark.parametrize(
    ("fault", "then", "status"),
    [
        ({"graceful": True}, b"", 200),
        ({"graceful": False}, b"", 0),
        (None, b"\x00\x00\x05\x06\x00\x00\x00\x00\x00short", 200),
        (None, b"\x00\x00\x01\x00\x01\x00\x00\x00\x02x", 200),
    ],
    ids=["answered", "refused", "short PING", "DATA on no stream"],
)
def test_a_client_that_sends_before_it_reads_reads_what_was_said_last(
    twin: RunningTwin,
    phone: Phone,
    client: Client,
    *,
    fault: dict[str, bool] | None,
    then: bytes,
    status: int,
) -> None:
    """However the connection ends, the answer and GOAWAY are not lost to a reset."""
    if fault is not None:
        twin.add_fault("goaway", **fault)
    number = client.begin(phone.token)
    before = len(twin.requests)
    client.socket.sendall(then)
    # Each frame is a packet of its own, and the twin has had it before the next one is sent.
    for _ in range(20):
        client.socket.sendall(_frame(8, 0, 0, b"\x00\x00\x00\x01"))
        assert len(twin.requests) >= before
    client.wait_closed()
    assert client.goaway is not None
    assert client.replies[number].status == status


def test_a_goaway_in_the_middle_of_a_batch(twin: RunningTwin, phone: Phone, client: Client) -> None:
    """Those before it are answered; it and the later ones are unprocessed, safe to send again."""
    client.push(phone.token)
    twin.add_fault("goaway", reason="ServiceUnavailable", after=2, graceful=False)
    numbers = [client.begin(phone.token) for _ in range(6)]
    client.wait_closed()
    assert client.goaway is not None
    assert client.goaway.last_stream_id == numbers[1]
    assert [client.replies[number].status for number in numbers] == [200, 200, 0, 0, 0, 0]
    assert len(twin.phone(phone.id).cards) == 3


@pytest.mark.parametrize("delivers", [True, False])
def test_the_connection_is_cut(
    twin: RunningTwin, phone: Phone, client: Client, *, delivers: bool
) -> None:
    """The TCP connection ends without a word; the phone may have got the push all the same."""
    client.push(phone.token)
    twin.add_fault("cut", delivers=delivers)
    number = client.begin(phone.token)
    client.wait_closed()
    assert not client.replies[number].is_over
    assert client.goaway is None
    assert len(twin.phone(phone.id).cards) == 1 + int(delivers)


# Authentication by certificate, and who is let in


def test_a_client_certificate_stands_for_its_topics(
    twin: RunningTwin, phone: Phone, tmp_path: Path
) -> None:
    """With a certificate of the twin's no token is needed, and many streams are open at once."""
    file = tmp_path / "client.pem"
    file.write_bytes(twin.issue_client_certificate([BUNDLE], environment="production"))
    with Client(twin.production_url, twin.ca_file, file) as trusted:
        reply = trusted.push(phone.token, authorization=None, apns_topic=None)
        assert (reply.status, trusted.limits) == (200, [1000])
    with Client(twin.development_url, twin.ca_file, file) as trusted:
        reply = trusted.push(phone.token, authorization=None)
        assert (reply.status, reply.said) == (403, {"reason": "BadCertificateEnvironment"})
    file.write_bytes(twin.issue_client_certificate([]))
    with Client(twin.production_url, twin.ca_file, file) as trusted:
        assert trusted.push(phone.token).said == {"reason": "BadCertificate"}


@pytest.mark.parametrize("offered", [["http/1.1"], []])
def test_only_http2_is_spoken(twin: RunningTwin, offered: list[str]) -> None:
    """Whoever speaks HTTP/1.1, and offers it or nothing, is cut off without a byte."""
    context = ssl.create_default_context(cafile=str(twin.ca_file))
    if offered:
        context.set_alpn_protocols(offered)
    parts = urlsplit(twin.production_url)
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as plain,
    ):
        try:
            plain.sendall(b"POST /3/device/ab HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = plain.recv(1)
        except OSError:
            answer = b""
    assert answer == b""


def test_http2_without_alpn_is_taken(twin: RunningTwin, phone: Phone) -> None:
    """Apple's servers take HTTP/2 from clients that offer no ALPN, and so does the twin."""
    with Client(twin.production_url, twin.ca_file, alpn=[]) as silent:
        assert silent.push(phone.token).status == 200


def test_tls_before_1_2_is_refused(twin: RunningTwin) -> None:
    """TLS 1.2 is the least."""
    context = ssl.create_default_context(cafile=str(twin.ca_file))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    parts = urlsplit(twin.production_url)
    with (
        socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as raw,
        pytest.raises((ssl.SSLError, OSError)),
    ):
        context.wrap_socket(raw, server_hostname="localhost")


# Whatever a client does, the twin goes on


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x00" * 100,
        _frame(1, 4, 1, b"\xff" * 50),
        _frame(0, 1, 1, b"data on no stream"),
        _frame(8, 0, 0, b"\x00\x00\x00\x00"),
        _frame(9, 4, 1, b"lone continuation"),
        _frame(4, 0, 0, b"\x00\x04\xff\xff\xff\xff"),
        _frame(6, 0, 0, b"short"),
        _frame(200, 0, 0, b"unknown") + _frame(0, 0, 2, b"even stream"),
        _frame(0, 0, 1, b"x" * 20000),
    ],
)
def test_wrong_frames_end_at_worst_their_connection(
    twin: RunningTwin, phone: Phone, client: Client, rubbish: bytes
) -> None:
    """After any rubbish the twin still serves the next connection."""
    client.socket.sendall(rubbish)
    client.wait_closed()
    with Client(twin.production_url, twin.ca_file) as other:
        assert other.push(phone.token).status == 200


def test_rubbish_before_and_instead_of_http2(twin: RunningTwin, phone: Phone) -> None:
    """Bytes that are no TLS, and connections that say nothing, harm nobody."""
    parts = urlsplit(twin.production_url)
    where = (parts.hostname, parts.port)
    with (
        socket.create_connection(where) as mute,
        socket.create_connection(where) as rude,
        Client(twin.production_url, twin.ca_file) as other,
    ):
        rude.sendall(b"\x16\x03\x01 this is no TLS\r\n" * 10)
        mute.settimeout(0.01)
        assert other.push(phone.token).status == 200


def test_huge_headers_end_the_connection_alone(twin: RunningTwin, phone: Phone) -> None:
    """A header list over the announced limit is not taken."""
    with Client(twin.production_url, twin.ca_file) as greedy:
        with contextlib.suppress(OSError):
            greedy.begin(phone.token, x_greed="x" * 100_000)
        greedy.wait_closed()
    with Client(twin.production_url, twin.ca_file) as other:
        assert other.push(phone.token).status == 200


def test_a_big_body_is_counted_not_kept(phone: Phone, client: Client) -> None:
    """Half a megabyte is read under flow control, and answered 413."""
    number = client.begin(phone.token, None)
    left = 500_000
    while left:
        client.wait(lambda: client.h2.local_flow_control_window(number) > 0)
        room = min(left, client.h2.local_flow_control_window(number), 16_384)
        client.h2.send_data(number, b"x" * room, end_stream=room == left)
        client.flush()
        left -= room
    client.wait(lambda: client.replies[number].is_over)
    assert (client.replies[number].status, client.replies[number].said) == (
        413,
        {"reason": "PayloadTooLarge"},
    )


def test_an_answer_waits_for_the_clients_window(phone: Phone, client: Client) -> None:
    """With a window of nothing the body waits until the client opens it."""
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    client.flush()
    number = client.begin(phone.token, apns_topic="com.sample.other")
    client.wait(lambda: client.replies[number].status)
    assert not client.replies[number].is_over
    client.h2.increment_flow_control_window(10, number)
    client.flush()
    client.wait(lambda: len(client.replies[number].body) == 10)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65_535})
    client.flush()
    client.wait(lambda: client.replies[number].is_over)
    assert client.replies[number].said == {"reason": "DeviceTokenNotForTopic"}


def test_a_client_that_leaves_half_way_is_forgotten(twin: RunningTwin, phone: Phone) -> None:
    """Requests cut off by their own client leave nothing behind."""
    before = twin.connections
    twin.add_fault("slow", seconds=30.0, count=5)
    for _ in range(5):
        with Client(twin.production_url, twin.ca_file) as leaving:
            leaving.begin(phone.token)
            leaving.wait(lambda: len(leaving.limits) == 2)
    with Client(twin.production_url, twin.ca_file) as other:
        assert other.push(phone.token).status == 200
    deadline = time.monotonic() + PATIENCE
    while twin.connections > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert twin.connections <= before


def test_an_idle_connection_is_told_and_closed(tmp_path: Path) -> None:
    """Without a frame for the time given, GOAWAY IdleTimeout and the end."""
    with (
        start_twin(tmp_path, idle_seconds=0.2) as quick,
        Client(quick.production_url, quick.ca_file) as sleeper,
    ):
        sleeper.wait_closed()
        assert sleeper.goaway is not None
        assert json.loads(sleeper.goaway.additional_data) == {"reason": "IdleTimeout"}


def test_a_twin_that_stops_says_shutdown(tmp_path: Path) -> None:
    """Open connections hear GOAWAY Shutdown when the twin stops."""
    with start_twin(tmp_path) as short:
        connected = Client(short.production_url, short.ca_file)
        connected.wait(lambda: connected.limits)
    with connected:
        connected.wait_closed()
        assert connected.goaway is not None
        assert json.loads(connected.goaway.additional_data) == {"reason": "Shutdown"}


def test_a_twin_that_stops_answers_what_is_begun(tmp_path: Path) -> None:
    """A push that is not answered yet when the twin stops is answered behind GOAWAY."""
    with start_twin(tmp_path) as short:
        short.add_key(TEAM, KEY_ID, PUBLIC)
        short.add_fault("slow", seconds=0.1)
        connected = Client(short.production_url, short.ca_file)
        number = connected.begin(short.add_phone("My phone", app=APP).token)
        connected.wait(lambda: short.requests)
    with connected:
        connected.wait_closed()
        assert connected.goaway is not None
        assert connected.replies[number].status == 200


def test_the_clock_is_the_callers(tmp_path: Path) -> None:
    """Tokens age, and answers are dated, by the clock that the twin was given."""
    with start_twin(tmp_path, now=lambda: time.time() + 7200) as ahead:
        ahead.add_key(TEAM, KEY_ID, PUBLIC)
        phone = ahead.add_phone(app=APP)
        with Client(ahead.production_url, ahead.ca_file) as connected:
            reply = connected.push(phone.token)
    assert reply.said == {"reason": "ExpiredProviderToken"}
    told = parsedate_to_datetime(reply.headers["date"]).timestamp()
    assert 7100 < told - time.time() < 7300
