"""Plain sends of a stream: stored column by column, and nobody could tell by what is stored."""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from tests.conftest import Stage
from tests.serving import Server, start_server

from handbell.creation.notification import Notification
from handbell.creation.plain import PlainSend, read_plain
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.plain import PlainStored
from handbell.delivery.engine import Acceptance, Entry
from handbell.delivery.events import Event, NotificationAccepted, NotificationsAccepted
from handbell.delivery.work.app_state import FIRST_BATCH
from handbell.errors import DatabaseLockedError, TwinError
from handbell.storage.database import Database
from handbell.storage.tables import deliveries, notifications
from handbell.system import System

NOON = 1_790_000_000.0
FEW = ["one@example.com", "two@example.com", "nobody@example.com", "one@example.com"]
ALL = [*FEW, "pending@example.com", "closed@example.com", "development@example.com"]
LEAST_ROOM = 3 * FIRST_BATCH  # what an app may always have on its way
STREAM = {"Content-Type": "application/x-ndjson"}
SENDS: list[tuple[dict[str, Any], str]] = [
    ({"title": f"For {mail}", "body": 'Grüße "👋🏽"\n', "user_info": {"n": number}}, mail)
    for number, mail in enumerate(ALL)
]


def _register(stage: Stage) -> None:
    """Register people with one device, two, and none that is active."""
    registry = stage.system.registry
    stage.register("one@example.com", "01" * 32)
    stage.register("two@example.com", "02" * 32)
    stage.register("two@example.com", "03" * 32)
    registry.register(stage.app, "two@example.com", "04" * 32, status="pending")
    registry.register(stage.app, "pending@example.com", "05" * 32, status="pending")
    registry.close(stage.register("closed@example.com", "06" * 32), "Unregistered")
    stage.register("development@example.com", "07" * 32, environment="development")


def _open_impatiently(stage: Stage) -> str:
    """Let the stage wait for a locked database for a moment only; return the database's URL."""
    url = stage.system.settings.database_url
    stage.system.database.close()
    stage.system.__dict__["database"] = Database.open(url, wait=0.1)
    return url


def _plain(sends: Sequence[tuple[Mapping[str, Any], str]]) -> list[PlainSend]:
    read = [read_plain(dict(content), mail) for content, mail in sends]
    found = [one for one in read if one is not None]
    assert len(found) == len(sends)
    return found


def _stored(database: Database, public_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the row of a notification and those of its deliveries, but for their names."""
    with database.read() as connection:
        statement = select(notifications).where(notifications.c.public_id == public_id)
        row = dict(connection.execute(statement).mappings().one())
        mine = select(deliveries).where(deliveries.c.notification_id == row.pop("id"))
        rows = [dict(each) for each in connection.execute(mine).mappings()]
    del row["public_id"]
    for each in rows:
        del each["notification_id"]
    return row, rows


@pytest.mark.parametrize("places", [range(len(ALL)), range(2), [2], []])
def test_they_are_stored_as_if_each_had_been_looked_at(stage: Stage, places: Sequence[int]) -> None:
    """The same rows and warnings as the general way makes of them, and one event for all."""
    _register(stage)
    told: list[Event] = []
    system = System(stage.system.settings, now=lambda: NOON)
    system.hooks.add(told.append)
    sends = [SENDS[place] for place in places]
    entries = [
        Entry(
            app=stage.app,
            notification=Notification.read(content),
            recipients=Recipients.read(mail),
        )
        for content, mail in sends
    ]

    async def scenario() -> tuple[PlainStored | None, list[Any]]:
        engine = system.engine
        assert not engine.has_room(stage.app)
        return await engine.accept_plain(stage.app, _plain(sends)), await engine.accept_many(
            entries
        )

    stored, accepted = asyncio.run(scenario())
    assert stored is not None
    assert len(stored.ids) == len(accepted) == len(sends)
    for place, other in enumerate(accepted):
        assert isinstance(other, Acceptance)
        assert stored.of(place) == other.warnings
        mine, theirs = (_stored(system.database, one) for one in (stored.ids[place], other.id))
        assert mine == theirs
    targets = [one.targets or 0 for one in told if isinstance(one, NotificationAccepted)]
    together = NotificationsAccepted(
        app=stage.app.id, at=NOON, notification_ids=tuple(stored.ids), targets=sum(targets)
    )
    assert len(targets) == len(sends)
    assert [one for one in told if isinstance(one, NotificationsAccepted)] == (
        [together] if sends else []
    )
    system.database.close()


def test_where_a_way_may_be_missing_nothing_is_stored(stage: Stage) -> None:
    """They are to be looked at one by one: the twin of one of them is not running."""
    stage.register("one@example.com", "01" * 32)
    stage.register("twin@example.com", "02" * 32, environment="twin")
    sends = _plain([({"title": "Hello"}, f"{name}@example.com") for name in ("one", "twin")])

    async def scenario() -> None:
        assert await stage.system.engine.accept_plain(stage.app, sends) is None

    asyncio.run(scenario())
    assert stage.system.reports.newest(limit=10) == []


def test_a_database_that_is_locked_takes_none_of_them(stage: Stage) -> None:
    """The error is raised, and after it they are taken."""
    _register(stage)
    sends = _plain(SENDS)
    url = _open_impatiently(stage)

    async def scenario() -> None:
        engine = stage.system.engine
        with (
            closing(Database(url)) as other,
            other.write(),
            pytest.raises(DatabaseLockedError),
        ):
            await engine.accept_plain(stage.app, sends)
        assert stage.system.reports.newest(limit=10) == []
        stored = await engine.accept_plain(stage.app, sends)
        assert stored is not None
        newest = stage.system.reports.newest(limit=10)
        assert [one.id for one in reversed(newest)] == list(stored.ids)

    asyncio.run(scenario())


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
def plain_steps(stage: Stage) -> list[int]:
    """Give the list of how many sends were stored as plain in each step; it fills."""
    steps: list[int] = []

    def count(told: Event) -> None:
        if isinstance(told, NotificationsAccepted):
            steps.append(len(told.notification_ids))

    stage.system.hooks.add(count)
    return steps


def test_each_line_has_its_answer(server: Server, stage: Stage, plain_steps: list[int]) -> None:
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
    assert sum(plain_steps) == 3
    brief = _send(server, stage, content, Prefer="return=minimal")
    assert [one.get("line") for one in brief] == [2, 4, 5, 6, 7, 8, None]


def test_lines_are_stored_in_their_order_whatever_they_are(
    server: Server, stage: Stage, plain_steps: list[int]
) -> None:
    """Thousands, some with options in between: the order of the ledger is that of the stream."""
    stage.register("one@example.com", "01" * 32)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(4000)]
    lines[2500]["notification"]["ttl"] = 60
    *answers, last = _send(server, stage, _lines(*lines))
    assert [one["line"] for one in answers] == list(range(1, 4001))
    assert last == {"accepted": 4000, "refused": 0}
    assert _titles(stage) == [line["notification"]["title"] for line in lines]
    assert 1000 <= sum(plain_steps) < 4000


def test_a_line_that_has_no_way_is_no_matter_to_the_others(
    server: Server, stage: Stage, plain_steps: list[int]
) -> None:
    """Looked at one by one, the one person is reached and the other line has its error."""
    stage.register("one@example.com", "01" * 32)
    stage.register("twin@example.com", "02" * 32, environment="twin")
    content = _lines(*(_line(f"{name}@example.com") for name in ("one", "twin", "one")))
    *answers, last = _send(server, stage, content)
    assert [one.get("error", {}).get("code") for one in answers] == [None, TwinError.code, None]
    assert last == {"accepted": 2, "refused": 1}
    assert plain_steps == []


_KEYED = {**_line("one@example.com", user_info={"ß": 1.5, "a": None}), "idempotency_key": "a"}


def test_a_key_in_a_stream_serves_once(
    server: Server, stage: Stage, plain_steps: list[int]
) -> None:
    """A repeat gets the first answer, other content its error; new keys beside them are stored."""
    stage.register("one@example.com", "01" * 32)
    first, _ = _send(server, stage, _lines(_KEYED))
    assert plain_steps == [1]
    other = {**_KEYED, "notification": {"title": "Other"}}
    following = {**_KEYED, "idempotency_key": "b"}
    again, refused, new, last = _send(server, stage, _lines(_KEYED, other, following))
    assert again["id"] == first["id"] != new["id"]
    assert refused["error"]["code"] == "idempotency-conflict"
    assert last == {"accepted": 2, "refused": 1}
    assert len(_titles(stage)) == 2


@pytest.mark.parametrize("is_first_plain", [True, False])
def test_a_key_means_the_same_however_it_was_stored(
    server: Server, stage: Stage, plain_steps: list[int], *, is_first_plain: bool
) -> None:
    """A single call repeats a line, and a line a single call."""
    stage.register("one@example.com", "01" * 32)

    def call() -> str:
        address = f"/v1/apps/{stage.app.id}/notifications"
        with server.client(server.key("send")) as client:
            return str(client.post(address, json=_KEYED).json()["id"])

    def line() -> str:
        return str(_send(server, stage, _lines(_KEYED))[0]["id"])

    assert line() == call() if is_first_plain else call() == line()
    assert plain_steps == ([1] if is_first_plain else [])
    assert len(_titles(stage)) == 1


def test_a_streams_key_stands_for_each_line(
    server: Server, stage: Stage, plain_steps: list[int]
) -> None:
    """With the line's number; a line's own wins. The whole stream can be sent again."""
    stage.register("one@example.com", "01" * 32)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(50)]
    content = _lines(*lines, _KEYED)
    answers = [_send(server, stage, content, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert sum(plain_steps) == 51
    assert len(_titles(stage)) == 51
    (tenth, _) = _send(server, stage, _lines({**lines[9], "idempotency_key": "k:10"}))
    assert tenth["id"] == answers[0][9]["id"]


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        (["a", "a"], []),
        (["a", None], []),
        (["a\0b"], []),
        (["", "a"], [1]),
        (["x" * 255, "x" * 256], [1]),
    ],
)
def test_keys_that_are_not_plain_are_looked_at_one_by_one(
    server: Server,
    stage: Stage,
    plain_steps: list[int],
    keys: list[str | None],
    plain: list[int],
) -> None:
    """One key twice, keys for some lines only, or what is none: each line as if it came alone."""
    stage.register("one@example.com", "01" * 32)
    lines = [{**_line("one@example.com"), "idempotency_key": key} for key in keys]
    answers = [_send(server, stage, _lines(*lines))[:-1] for _ in range(2)]
    for key, first, again in zip(keys, *answers, strict=True):
        is_refused = key is not None and not 0 < len(key) <= 255
        assert ("error" in first, "error" in again) == (is_refused, is_refused)
        assert (first.get("id") == again.get("id")) is (key is not None)
    assert plain_steps == plain


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


def test_what_was_stored_so_is_sent(stage: Stage, plain_steps: list[int]) -> None:
    """While the worker has no room plain sends wait in the ledger, and then each phone gets its."""
    stage.add_phone("one@example.com")
    stage.system.engine.worker.app_states.window = 0
    stage.twin.add_fault("slow", seconds=0.5, count=LEAST_ROOM)
    lines = [_line("one@example.com", title=f"Order {number}") for number in range(100)]
    with start_server(stage.system, has_console=False) as server:
        _send(server, stage, _lines(*[_line("one@example.com")] * LEAST_ROOM))
        assert plain_steps == []
        named = {one["id"] for one in _send(server, stage, _lines(*lines))[:-1]}
        session = stage.session("one@example.com")
        deadline = time.monotonic() + 10
        while len(stage.twin.accepted_of(session.token)) < LEAST_ROOM + len(lines):
            assert time.monotonic() < deadline, "they were not sent"
            time.sleep(0.02)
    assert len(named) == sum(plain_steps) == len(lines)
    assert set(stage.twin.accepted_of(session.token).values()) == {1}
