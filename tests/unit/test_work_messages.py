"""The messages of the broker: what is written can be read, and nothing else is."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.delivery.queue.broker_address import BrokerAddress
from handbell.delivery.queue.work_messages import (
    MOST_KEYS,
    LaterVersionError,
    WorkMessage,
    messages_of,
    subject,
)
from handbell.errors import SettingsError

ROWS = st.integers(1, 2**53)
APPS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(
    app=APPS,
    level=st.sampled_from([1, 5, 9]),
    at=ROWS,
    keys=st.lists(st.tuples(ROWS, ROWS), max_size=2000),
)
def test_deliveries_come_back_in_messages_of_bounded_size(
    app: str, level: int, at: int, keys: list[tuple[int, int]]
) -> None:
    """All of them, in order, whatever the app's id is; no subject of theirs has a further dot."""
    messages = list(messages_of(app, level, at, keys))
    assert all(len(one.keys) <= MOST_KEYS for one in messages)
    assert [WorkMessage.decode(one.encode()) for one in messages] == messages
    assert [key for one in messages for key in one.keys] == keys
    assert all(one.subject("handbell").count(".") == 3 for one in messages)


@given(
    st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["v", "app", "level", "at", "keys", "shard"]), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_anything_else_is_refused(data: bytes) -> None:
    """What is no message raises ValueError and nothing else."""
    try:
        WorkMessage.decode(data)
    except ValueError:
        return


def test_a_later_version_is_refused_and_unknown_members_are_not() -> None:
    """So machines of two versions share a stream."""
    message = WorkMessage(app="TEAM123456.com.sample.myapp", level=5, at=1, shard=7)
    members = json.loads(message.encode())
    assert WorkMessage.decode(json.dumps({**members, "more": 1}).encode()) == message
    with pytest.raises(LaterVersionError, match="version 2"):
        WorkMessage.decode(json.dumps({**members, "v": 2}).encode())


@pytest.mark.parametrize(
    "wrong",
    [
        {"v": 0},
        {"v": "2"},
        {"level": 7},
        {"level": 5.0},
        {"at": 1e400},
        {"at": -1},
        {"shard": 2**63},
        {"keys": [[2**63, 1]]},
        {"keys": [[1, 1]] * (MOST_KEYS + 1)},
        {"keys": [[1]]},
    ],
)
def test_what_a_database_could_not_take_is_no_message(wrong: dict[str, object]) -> None:
    """Somebody else's, whatever its numbers are, reaches no statement."""
    members = {"v": 1, "app": "shop", "level": 5, "at": 1, "keys": [[1, 1]]}
    data = json.dumps({**members, **wrong}).replace("Infinity", "1e400").encode()
    with pytest.raises(ValueError, match=r"Handbell's|unpack") as refused:
        WorkMessage.decode(data)
    assert not isinstance(refused.value, LaterVersionError)


def test_subjects_tell_kinds_levels_and_apps_apart() -> None:
    """An app's dots are not those of the subject."""
    assert subject("handbell", "due", 9, "a.b") == "handbell.due.9.612e62"


@pytest.mark.parametrize(
    ("text", "servers", "prefix"),
    [
        ("nats://localhost:4222", ("nats://localhost:4222",), "handbell"),
        (
            "tls://user:p%40ss@nats.example.com/shop",
            ("tls://nats.example.com:4222",),
            "shop",
        ),
        ("nats://a:1/x, nats://user:p%40ss@b/x", ("nats://a:1", "nats://b:4222"), "x"),
        ("NATS://[::1]", ("nats://[::1]:4222",), "handbell"),
    ],
    ids=["plain", "tls and a name", "cluster", "IPv6"],
)
def test_an_address_is_read(text: str, servers: tuple[str, ...], prefix: str) -> None:
    """Servers and the name of the installation, and no password in its text."""
    address = BrokerAddress.read(text)
    assert (address.servers, address.prefix) == (servers, prefix)
    assert (address.user, address.password) == (("user", "p@ss") if "@" in text else ("", None))
    assert not re.search("p(@|%40)ss", f"{address} {address!r}")


@pytest.mark.parametrize(
    "text",
    [
        "http://a",
        "nats://",
        "nats://a:99999",
        "nats://a/B",
        "nats://a/x,nats://b/y",
        "nats://a/x y",
        "nats://a/x.y",
        "nats://a,nats://other:secret@b",
        "nats://a?x=1",
    ],
    ids=[
        "scheme",
        "host",
        "port",
        "name",
        "two names",
        "space",
        "dot",
        "two users",
        "query",
    ],
)
def test_a_wrong_address_is_told_without_its_password(text: str) -> None:
    """The error names the setting, and repeats nothing of it."""
    with pytest.raises(SettingsError, match="HANDBELL_ENGINE") as refused:
        BrokerAddress.read(text.replace("//", "//user:secret@"))
    assert "secret" not in f"{refused.value} {refused.value.fix}"
