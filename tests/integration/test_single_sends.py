"""Single sends that come at the same time: one commit, and each its own answer."""

import asyncio
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import event, select
from tests.conftest import Stage
from tests.serving import Server, start_server

from handbell.creation.plain import PlainSend, read_plain
from handbell.delivery.events import Event, NotificationsAccepted
from handbell.errors import TwinError
from handbell.storage.tables import deliveries, notifications

HELLO = {"title": "Hello"}


def _plain(mail: str, title: str) -> PlainSend:
    found = read_plain({"title": title}, mail)
    assert found is not None
    return found


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    """Give a server that accepts and leaves the sending to others."""
    with start_server(stage.system, with_worker=False, has_console=False) as running:
        yield running


@pytest.fixture
def gathered(stage: Stage) -> list[str]:
    """Give the list of the ids that were stored as plain; it fills."""
    stored: list[str] = []

    def note(told: Event) -> None:
        if isinstance(told, NotificationsAccepted):
            stored.extend(told.notification_ids)

    stage.system.hooks.add(note)
    return stored


def test_what_comes_at_once_of_several_apps_is_one_commit(stage: Stage) -> None:
    """Each caller has the id and the warnings of its own send, in its own app."""
    other = stage.system.apps.add("TEAM123456", "com.sample.other")
    stage.system.apps.add_credential(other, stage.system.apps.credential_for(stage.app, "twin"))
    stage.register("one@example.com", "01" * 32)
    stage.system.registry.register(other, "two@example.com", "02" * 32)
    wanted = [
        (stage.app, "one@example.com"),
        (other, "two@example.com"),
        (stage.app, "two@example.com"),
        (other, "two@example.com"),
    ]
    statements: list[str] = []

    def listen(connection: sqlite3.Connection, *_more: object) -> None:
        connection.set_trace_callback(statements.append)

    async def scenario() -> Sequence[tuple[str, tuple[str, ...]] | None]:
        engine = stage.system.engine
        # The first is alone, and the others come while it is stored.
        first = asyncio.create_task(
            engine.accept_plain_gathered(stage.app, _plain("one@example.com", "First"))
        )
        await asyncio.sleep(0)
        calls = [
            engine.accept_plain_gathered(app, _plain(mail, str(number)))
            for number, (app, mail) in enumerate(wanted)
        ]
        return [await first, *await asyncio.gather(*calls)][1:]

    database = stage.system.database
    event.listen(database._engine, "checkout", listen)  # noqa: SLF001 - to count its statements
    stored = asyncio.run(scenario())
    event.remove(database._engine, "checkout", listen)  # noqa: SLF001 - as above
    assert sum(one == "BEGIN IMMEDIATE" for one in statements) <= 2
    assert all(one is not None for one in stored)
    named = [one[0] for one in stored if one is not None]
    assert len(set(named)) == len(wanted)
    warned = [one[1] for one in stored if one is not None]
    assert [len(each) for each in warned] == [0, 0, 1, 0]
    assert "two@example.com has no device" in warned[2][0]
    with database.read() as connection:
        table = notifications
        rows = {
            row.public_id: row
            for row in connection.execute(
                select(table.c.public_id, table.c.app, table.c.content, deliveries.c.number)
                .join_from(table, deliveries, isouter=True)
                .where(table.c.public_id.in_(named))
            )
        }
    for number, (name, (app, _)) in enumerate(zip(named, wanted, strict=True)):
        assert (rows[name].app, rows[name].content) == (app.id, f'{{"title":"{number}"}}')
        assert (rows[name].number is None) == bool(warned[number])


def test_a_single_call_is_stored_so_and_answered_as_ever(
    server: Server, stage: Stage, gathered: list[str]
) -> None:
    """The id, the warnings and the address of what was stored."""
    stage.register("one@example.com", "01" * 32)
    path = f"/v1/apps/{stage.app.id}/notifications"
    named = []
    with server.client(server.key("send")) as client:
        for mail, warnings in (("one@example.com", 0), ("nobody@example.com", 1)):
            answer = client.post(path, json={"notification": HELLO, "recipients": mail})
            told = answer.json()
            assert (answer.status_code, list(told)[:2]) == (202, ["id", "warnings"])
            assert len(told["warnings"]) == warnings
            named.append(told["id"])
            assert answer.headers["location"] == f"{path}/{told['id']}"
            assert client.get(answer.headers["location"]).json()["id"] == told["id"]
    assert gathered == named


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({"idempotency_key": "a"}, {}),
        ({}, {"Idempotency-Key": "a"}),
        ({}, {"Prefer": "wait=1"}),
        ({"urgency": "urgent"}, {}),
        ({"notification": {**HELLO, "ttl": 60}}, {}),
    ],
)
def test_whatever_is_more_than_plain_is_looked_at_in_full(
    server: Server,
    stage: Stage,
    gathered: list[str],
    more: dict[str, Any],
    headers: dict[str, str],
) -> None:
    """Keys, options and waiting go the way that heeds them."""
    stage.register("one@example.com", "01" * 32)
    body = {"notification": HELLO, "recipients": "one@example.com", **more}
    with server.client(server.key("send"), headers=headers) as client:
        assert client.post(f"/v1/apps/{stage.app.id}/notifications", json=body).status_code == 202
    assert gathered == []


def test_one_without_a_way_is_refused_and_no_matter_to_another(
    server: Server, stage: Stage, gathered: list[str]
) -> None:
    """The error is that of the full look."""
    stage.register("one@example.com", "01" * 32)
    stage.register("twin@example.com", "02" * 32, environment="twin")
    path = f"/v1/apps/{stage.app.id}/notifications"
    with server.client(server.key("send")) as client:
        refused = client.post(path, json={"notification": HELLO, "recipients": "twin@example.com"})
        stored = client.post(path, json={"notification": HELLO, "recipients": "one@example.com"})
    assert (refused.status_code, refused.json()["code"]) == (TwinError.status, TwinError.code)
    assert stored.status_code == 202
    assert gathered == [stored.json()["id"]]
    assert len(stage.system.reports.newest(limit=10)) == 1
