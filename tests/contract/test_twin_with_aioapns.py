"""aioapns, a client that others wrote for Apple's real service, talks to the twin.

Its hosts are attributes of a protocol class, so a subclass that names the twin is all it takes.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsTLSClientProtocol
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.sample.myapp"
KEY = ec.generate_private_key(ec.SECP256R1())
P8 = KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()
HELLO = {"aps": {"alert": {"title": "Hello", "body": "It rings"}, "badge": 1}}

pytestmark = pytest.mark.judge("aioapns")


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningTwin]:
    """One twin for the file, which knows the key."""
    with start_twin(tmp_path_factory.mktemp("twin")) as running:
        running.add_key(TEAM, KEY_ID, P8)
        yield running


@pytest.fixture
def phone(twin: RunningTwin) -> Iterator[Phone]:
    """Make a phone; faults are forgotten afterwards."""
    yield twin.add_phone(app=f"{TEAM}.{BUNDLE}")
    twin.clear_faults()


@asynccontextmanager
async def client(twin: RunningTwin, **options: Any) -> AsyncIterator[APNs]:
    """Open aioapns towards the twin's production side."""
    parts = urlsplit(twin.production_url)

    class Protocol(APNsTLSClientProtocol):
        APNS_SERVER = parts.hostname or ""
        APNS_PORT = parts.port or 0

    logging.getLogger("aioapns").setLevel(logging.CRITICAL)
    proof = {"key": P8, "key_id": KEY_ID, "team_id": TEAM} | options
    trust = ssl.create_default_context(cafile=str(twin.ca_file))
    opened = APNs(
        **{name: value for name, value in proof.items() if value},
        topic=BUNDLE,
        ssl_context=trust,
        max_connections=1,
        max_connection_attempts=2,
    )
    opened.pool.protocol_class = Protocol
    try:
        yield opened
    finally:
        opened.pool.close()
        await asyncio.sleep(0.05)


def run(twin: RunningTwin, story: Callable[[APNs], Awaitable[Any]], **options: Any) -> Any:
    """Return what the story comes to, told with a client of its own."""

    async def told() -> Any:
        async with client(twin, **options) as opened:
            return await story(opened)

    return asyncio.run(told())


def push(twin: RunningTwin, token: str, message: Any = None, **details: Any) -> Any:
    """Send one push and return aioapns's result."""
    request = NotificationRequest(
        token, message or HELLO, **{"push_type": PushType.ALERT, **details}
    )
    return run(twin, lambda opened: opened.send_notification(request))


def test_an_alert_arrives(twin: RunningTwin, phone: Phone) -> None:
    """It reports success, and the phone shows the card with its badge."""
    result = push(twin, phone.token, priority=10, time_to_live=60, collapse_key="order-42")
    assert result.is_successful
    shown = twin.phone(phone.id)
    assert [(card.id, card.push_id) for card in shown.cards] == [
        ("order-42", result.notification_id)
    ]
    assert (shown.cards[0].title, shown.badge) == ("Hello", 1)


@pytest.mark.parametrize(
    ("mistake", "status", "reason"),
    [
        ({"apns_topic": "com.sample.other"}, "400", "DeviceTokenNotForTopic"),
        ({"collapse_key": "x" * 65}, "400", "BadCollapseId"),
        ({"priority": 10, "push_type": PushType.BACKGROUND}, "400", "BadPriority"),
        ({"push_type": PushType.VOIP}, "400", "BadTopic"),
        ({"message": {"aps": {"alert": "x" * 5000}}}, "413", "PayloadTooLarge"),
    ],
)
def test_mistakes_come_back_as_their_reasons(
    twin: RunningTwin, phone: Phone, mistake: Any, status: str, reason: str
) -> None:
    """It reads the twin's refusals as it reads Apple's."""
    result = push(twin, phone.token, **mistake)
    assert (result.status, result.description) == (status, reason)
    assert twin.phone(phone.id).cards == ()


def test_tokens_that_are_no_good(twin: RunningTwin, phone: Phone) -> None:
    """An unknown token is bad, an uninstalled app's is Unregistered with its time."""
    unknown = push(twin, "99" * 32)
    before = int(time.time() * 1000)
    twin.remove_phone(phone)
    gone = push(twin, phone.token)
    assert (unknown.status, unknown.description) == ("400", "BadDeviceToken")
    assert (gone.status, gone.description) == ("410", "Unregistered")
    assert before <= gone.timestamp <= int(time.time() * 1000)


def test_a_key_the_twin_does_not_know(twin: RunningTwin, phone: Phone) -> None:
    """A wrong key id is an InvalidProviderToken."""
    request = NotificationRequest(phone.token, HELLO)
    result = run(twin, lambda opened: opened.send_notification(request), key_id="UNKNOWNKEY")
    assert (result.status, result.description) == ("403", "InvalidProviderToken")


def test_two_hundred_at_once_on_one_connection(twin: RunningTwin, phone: Phone) -> None:
    """After a first push alone, as Apple asks, aioapns sends two hundred concurrently."""

    async def story(opened: APNs) -> list[Any]:
        first = await opened.send_notification(NotificationRequest(phone.token, HELLO))
        rest = await asyncio.gather(
            *(opened.send_notification(NotificationRequest(phone.token, HELLO)) for _ in range(200))
        )
        return [first, *rest]

    results = run(twin, story)
    assert all(result.is_successful for result in results)
    counted = twin.accepted_of(phone.token)
    assert counted == {result.notification_id: 1 for result in results}


def test_it_comes_back_after_a_cut_and_a_goaway(twin: RunningTwin, phone: Phone) -> None:
    """When the twin cuts the connection or says GOAWAY, aioapns connects again and succeeds."""

    async def story(opened: APNs) -> list[bool]:
        results = []
        for fault in ({"kind": "cut"}, {"kind": "goaway", "graceful": False}):
            twin.add_fault(**fault)
            results.append(await opened.send_notification(NotificationRequest(phone.token, HELLO)))
        return [result.is_successful for result in results]

    assert run(twin, story) == [True, True]


def test_a_client_certificate(twin: RunningTwin, phone: Phone, tmp_path: Path) -> None:
    """With a certificate of the twin's it finds the topic in the subject, and pushes."""
    file = tmp_path / "client.pem"
    file.write_bytes(twin.issue_client_certificate([BUNDLE]))
    request = NotificationRequest(phone.token, HELLO)
    options = {"client_cert": str(file), "key": None, "key_id": None, "team_id": None}
    result = run(twin, lambda opened: opened.send_notification(request), **options)
    assert result.is_successful
    assert twin.requests[0].headers.get("authorization") is None
