"""Single sends that come at the same time: one commit, and each its own answer."""

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import event, select
from tests.conftest import Stage
from tests.serving import Server, start_server

from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Acceptance, Entry
from handbell.errors import TwinError
from handbell.storage.tables import deliveries, notifications

HELLO = {"title": "Hello"}


def _entry(app: App, mail: str, title: str) -> Entry:
    return Entry(
        app=app,
        notification=Notification.read({"title": title}),
        recipients=Recipients.read(mail),
    )


@pytest.fixture
def server(stage: Stage) -> Iterator[Server]:
    """Give a server that accepts and leaves the sending to others."""
    with start_server(stage.system, with_worker=False, has_console=False) as running:
        yield running


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

    async def scenario() -> list[Acceptance]:
        engine = stage.system.engine
        # The first is alone, and the others come while it is stored.
        first = asyncio.create_task(
            engine.accept_gathered([_entry(stage.app, "one@example.com", "First")])
        )
        await asyncio.sleep(0)
        calls = [
            engine.accept_gathered([_entry(app, mail, str(number))])
            for number, (app, mail) in enumerate(wanted)
        ]
        outcomes = [await first, *await asyncio.gather(*calls)][1:]
        return [one for (one,) in outcomes if isinstance(one, Acceptance)]

    database = stage.system.database
    event.listen(database._engine, "checkout", listen)  # noqa: SLF001 - to count its statements
    stored = asyncio.run(scenario())
    event.remove(database._engine, "checkout", listen)  # noqa: SLF001 - as above
    assert sum(one == "BEGIN IMMEDIATE" for one in statements) <= 2
    named = [one.id for one in stored]
    assert len(set(named)) == len(wanted)
    warned = [one.warnings for one in stored]
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


def test_a_single_call_is_answered_with_where_it_is(server: Server, stage: Stage) -> None:
    """The id, the warnings and the address of what was stored."""
    stage.register("one@example.com", "01" * 32)
    path = f"/v1/apps/{stage.app.id}/notifications"
    with server.client(server.key("send")) as client:
        for mail, warnings in (("one@example.com", 0), ("nobody@example.com", 1)):
            answer = client.post(path, json={"notification": HELLO, "recipients": mail})
            told = answer.json()
            assert (answer.status_code, list(told)[:2]) == (202, ["id", "warnings"])
            assert len(told["warnings"]) == warnings
            assert answer.headers["location"] == f"{path}/{told['id']}"
            assert client.get(answer.headers["location"]).json()["id"] == told["id"]


def test_one_without_a_way_is_refused_and_no_matter_to_another(
    server: Server, stage: Stage
) -> None:
    """Each call has its own answer, whatever came with it."""
    stage.register("one@example.com", "01" * 32)
    stage.register("twin@example.com", "02" * 32, environment="twin")
    path = f"/v1/apps/{stage.app.id}/notifications"
    with server.client(server.key("send")) as client:
        refused = client.post(path, json={"notification": HELLO, "recipients": "twin@example.com"})
        stored = client.post(path, json={"notification": HELLO, "recipients": "one@example.com"})
    assert (refused.status_code, refused.json()["code"]) == (TwinError.status, TwinError.code)
    assert stored.status_code == 202
    assert [one.id for one in stage.system.reports.newest(limit=10)] == [stored.json()["id"]]


def test_calls_that_come_together_each_have_their_own_answer(server: Server, stage: Stage) -> None:
    """Good ones and all kinds of bad ones at once: nobody gets what is another's."""
    stage.register("one@example.com", "01" * 32)
    bodies: list[tuple[int, Any]] = [
        (202, {"notification": HELLO, "recipients": "one@example.com"}),
        (422, {"notification": {"title": ""}, "recipients": "one@example.com"}),
        (422, {"notification": HELLO, "recipients": "nobody at all"}),
        (413, {"notification": {"body": "x" * 5000}, "recipients": "one@example.com"}),
        (404, {"notification": {"template": "missing"}, "recipients": "one@example.com"}),
        (202, {"notification": {"title": "ß"}, "recipients": "müller@bücher.example"}),
        (422, {"notification": HELLO, "recipients": "one@example.com", "more": 1}),
    ]
    path = f"/v1/apps/{stage.app.id}/notifications"

    async def call() -> list[int]:
        headers = {"Authorization": f"Bearer {server.key('send')}"}
        async with httpx.AsyncClient(
            base_url=server.url, headers=headers, timeout=20, trust_env=False
        ) as client:
            calls = [client.post(path, json=body) for _ in range(4) for _, body in bodies]
            return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert asyncio.run(call()) == [status for status, _ in bodies] * 4
    assert len(stage.system.reports.newest(limit=20)) == 8
