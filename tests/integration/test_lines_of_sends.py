"""The sends of a stream: each line has its answer, and the order of the ledger is theirs."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.conftest import Stage
from tests.serving import Server, start_server

from handbell.delivery.events import Event, NotificationAccepted, NotificationsAccepted
from handbell.delivery.work.app_state import FIRST_BATCH
from handbell.errors import TwinError
from handbell.storage.database import Database
from handbell.storage.tables import notifications

LEAST_ROOM = 3 * FIRST_BATCH  # what an app may always have on its way
STREAM = {"Content-Type": "application/x-ndjson"}


def _open_impatiently(stage: Stage) -> str:
    """Let the stage wait for a locked database for a moment only; return the database's URL."""
    url = stage.system.settings.database_url
    stage.system.database.close()
    stage.system.__dict__["database"] = Database.open(url, wait=0.1)
    return url


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    """Give a server that accepts and leaves the sending to others."""
    with start_server(stage.system, with_worker=False, has_console=False) as running:
        yield running


def _lines(*values: Any) -> bytes:
    return b"".join(
        (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n"
        for value in values
    )


def _line(mail: str, **content: Any) -> dict[str, Any]:
    return {"notification": {"title": "Hello", **content}, "recipients": mail}


def _send(server: Server, stage: Stage, content: bytes, **headers: str) -> list[dict[str, Any]]:
    with server.client(server.key("send"), headers={**STREAM, **headers}) as client:
        return _post(client, stage, content)


def _post(client: httpx.Client, stage: Stage, content: bytes) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/apps/{stage.app.id}/notifications", content=content)
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def _titles(stage: Stage) -> list[str]:
    """Return the titles of what is stored, in the order in which it was."""
    with stage.system.database.read() as connection:
        statement = select(notifications.c.content).order_by(notifications.c.id)
        return [json.loads(content)["title"] for content in connection.scalars(statement)]


@pytest.fixture
def told(stage: Stage) -> list[str]:
    """Give the list of the ids that hooks were told of; it fills."""
    ids: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, NotificationsAccepted):
            ids.extend(event.notification_ids)
        elif isinstance(event, NotificationAccepted):
            ids.append(event.notification_id)

    stage.system.hooks.add(note)
    return ids


def test_each_line_has_its_answer(server: Server, stage: Stage, told: list[str]) -> None:
    """What is wrong has its error and its number, who has no device a warning; in their order."""
    stage.register("one@example.com", "01" * 32)
    content = _lines(
        _line("one@example.com"),
        b"{",
        b"",
        _line("nobody@example.com"),
        {**_line("one@example.com"), "recipient": 1},
        _line("one@example.com", title=""),
        [],
        _line("not a mail"),
        _line("one@example.com", badge=3),
    )
    *answers, last = _send(server, stage, content)
    assert [(one["line"], one.get("error", {}).get("code")) for one in answers] == [
        (1, None),
        (2, "request-malformed"),
        (4, None),
        (5, "request-invalid"),
        (6, "notification-invalid"),
        (7, "request-invalid"),
        (8, "recipients-invalid"),
        (9, None),
    ]
    assert last == {"accepted": 3, "refused": 5}
    assert "nobody@example.com has no device" in answers[2]["warnings"][0]
    assert [one.id for one in reversed(stage.system.reports.newest(limit=10))] == [
        one["id"] for one in answers if "id" in one
    ]
    assert told == [one["id"] for one in answers if "id" in one]
    brief = _send(server, stage, content, Prefer="return=minimal")
    assert [one.get("line") for one in brief] == [2, 4, 5, 6, 7, 8, None]


def test_lines_are_stored_in_their_order_whatever_they_are(
    server: Server, stage: Stage, told: list[str]
) -> None:
    """Thousands, some with options in between: the order of the ledger is that of the stream."""
    stage.register("one@example.com", "01" * 32)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(4000)]
    lines[2500]["notification"]["ttl"] = 60
    *answers, last = _send(server, stage, _lines(*lines))
    assert [one["line"] for one in answers] == list(range(1, 4001))
    assert last == {"accepted": 4000, "refused": 0}
    assert _titles(stage) == [line["notification"]["title"] for line in lines]
    assert told == [one["id"] for one in answers]


def test_a_line_that_has_no_way_is_no_matter_to_the_others(
    server: Server, stage: Stage, told: list[str]
) -> None:
    """The one person is reached, and the other line has its error."""
    stage.register("one@example.com", "01" * 32)
    stage.register("twin@example.com", "02" * 32, environment="twin")
    content = _lines(*(_line(f"{name}@example.com") for name in ("one", "twin", "one")))
    *answers, last = _send(server, stage, content)
    assert [one.get("error", {}).get("code") for one in answers] == [None, TwinError.code, None]
    assert last == {"accepted": 2, "refused": 1}
    assert len(told) == 2


_KEYED = {**_line("one@example.com", user_info={"ß": 1.5, "a": None}), "idempotency_key": "a"}


def test_a_key_in_a_stream_serves_once(server: Server, stage: Stage, told: list[str]) -> None:
    """A repeat gets the first answer, other content its error; new keys beside them are stored."""
    stage.register("one@example.com", "01" * 32)
    first, _ = _send(server, stage, _lines(_KEYED))
    assert told == [first["id"]]
    other = {**_KEYED, "notification": {"title": "Other"}}
    following = {**_KEYED, "idempotency_key": "b"}
    again, refused, new, last = _send(server, stage, _lines(_KEYED, other, following))
    assert again["id"] == first["id"] != new["id"]
    assert refused["error"]["code"] == "idempotency-conflict"
    assert last == {"accepted": 2, "refused": 1}
    assert len(_titles(stage)) == 2


@pytest.mark.parametrize("is_line_first", [True, False])
def test_a_key_means_the_same_for_a_call_and_for_a_line(
    server: Server, stage: Stage, *, is_line_first: bool
) -> None:
    """A single call repeats a line, and a line a single call."""
    stage.register("one@example.com", "01" * 32)

    def call() -> str:
        address = f"/v1/apps/{stage.app.id}/notifications"
        with server.client(server.key("send")) as client:
            return str(client.post(address, json=_KEYED).json()["id"])

    def line() -> str:
        return str(_send(server, stage, _lines(_KEYED))[0]["id"])

    assert line() == call() if is_line_first else call() == line()
    assert len(_titles(stage)) == 1


def test_a_streams_key_stands_for_each_line(server: Server, stage: Stage, told: list[str]) -> None:
    """With the line's number; a line's own wins. The whole stream can be sent again."""
    stage.register("one@example.com", "01" * 32)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(50)]
    content = _lines(*lines, _KEYED)
    answers = [_send(server, stage, content, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(told) == 51
    assert len(_titles(stage)) == 51
    (tenth, _) = _send(server, stage, _lines({**lines[9], "idempotency_key": "k:10"}))
    assert tenth["id"] == answers[0][9]["id"]


def _is_key(text: str) -> bool:
    return 0 < len(text) <= 255 and "\0" not in text


@pytest.mark.parametrize(
    "keys",
    [
        ["a", "a"],
        ["a", None],
        ["a\0b", "a\0c"],
        ["", "a"],
        ["x" * 255, "x" * 256],
        ["é", "e\u0301"],
    ],
)
def test_keys_of_any_kind_serve_once(server: Server, stage: Stage, keys: list[str | None]) -> None:
    """One key twice, keys for some lines only, or what is none: each line as if it came alone."""
    stage.register("one@example.com", "01" * 32)
    lines = [{**_line("one@example.com"), "idempotency_key": key} for key in keys]
    answers = [_send(server, stage, _lines(*lines))[:-1] for _ in range(2)]
    for key, first, again in zip(keys, *answers, strict=True):
        is_refused = key is not None and not _is_key(key)
        assert ("error" in first, "error" in again) == (is_refused, is_refused)
        assert (first.get("id") == again.get("id")) is (key is not None)
    good = {key for key in keys if key is not None and _is_key(key)}
    assert len(_titles(stage)) == len(good) + 2 * keys.count(None)


def test_where_nothing_can_be_stored_each_line_is_refused(stage: Stage) -> None:
    """A locked database is each line's error, and a bad line keeps its own."""
    stage.register("one@example.com", "01" * 32)
    url = _open_impatiently(stage)
    with (
        start_server(stage.system, with_worker=False, has_console=False) as server,
        server.client(server.key("send"), headers=STREAM) as client,
    ):
        assert client.get("/v1/apps").status_code == 200
        with closing(Database(url)) as other, other.write():
            *answers, last = _post(client, stage, _lines(_line("one@example.com"), b"{"))
    assert [one["error"]["code"] for one in answers] == ["database-locked", "request-malformed"]
    assert last == {"accepted": 0, "refused": 2}
    assert _titles(stage) == []


def test_what_there_is_no_room_for_is_sent_later(stage: Stage, told: list[str]) -> None:
    """While the worker has no room sends wait in the ledger, and then each phone gets its own."""
    stage.add_phone("one@example.com")
    stage.system.engine.worker.app_states.window = 0
    stage.twin.add_fault("slow", seconds=0.5, count=LEAST_ROOM)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(100)]
    with start_server(stage.system, has_console=False) as server:
        _send(server, stage, _lines(*[_line("one@example.com")] * LEAST_ROOM))
        named = {one["id"] for one in _send(server, stage, _lines(*lines))[:-1]}
        session = stage.session("one@example.com")
        deadline = time.monotonic() + 10
        while len(stage.twin.accepted_of(session.token)) < LEAST_ROOM + len(lines):
            assert time.monotonic() < deadline, "they were not sent"
            time.sleep(0.02)
    assert len(named) == len(lines)
    assert named <= set(told)
    assert set(stage.twin.accepted_of(session.token).values()) == {1}
