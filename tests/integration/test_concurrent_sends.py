"""Many single calls at once: they are stored together, and what each says goes out at once."""

import asyncio
import time
from collections import Counter

import httpx
from tests.conftest import Stage
from tests.serving import start_server

from handbell.delivery.events import Event, NotificationAccepted, NotificationsAccepted

CALLS = 400
AT_ONCE = 40


def test_a_rush_of_calls_is_stored_together_and_each_phone_gets_its_own(stage: Stage) -> None:
    """Every call is answered with its id, and each of them is shown once, in spite of the rush."""
    phones = [stage.add_phone(f"user{number}@example.com") for number in range(10)]
    told: list[Event] = []
    stage.system.hooks.add(told.append)
    with start_server(stage.system, has_console=False) as server:
        headers = {"Authorization": f"Bearer {server.key('send')}"}
        path = f"/v1/apps/{stage.app.id}/notifications"

        async def call(client: httpx.AsyncClient, number: int) -> str:
            body = {
                "notification": {"title": f"Order {number}"},
                "recipients": phones[number % 10].mail,
            }
            answer = await client.post(path, json=body)
            assert answer.status_code == 202
            return str(answer.json()["id"])

        async def rush() -> list[str]:
            limits = httpx.Limits(max_connections=AT_ONCE)
            async with httpx.AsyncClient(
                base_url=server.url, headers=headers, limits=limits, timeout=20, trust_env=False
            ) as client:
                return await asyncio.gather(*(call(client, number) for number in range(CALLS)))

        ids = asyncio.run(rush())
        deadline = time.monotonic() + 20
        while stage.twin.accepted < CALLS:
            assert time.monotonic() < deadline, "they were not sent"
            time.sleep(0.02)
    together = [one for one in told if isinstance(one, NotificationsAccepted)]
    alone = [one for one in told if isinstance(one, NotificationAccepted)]
    assert max(len(one.notification_ids) for one in together) > 1
    named = [name for one in together for name in one.notification_ids]
    assert Counter([*named, *(one.notification_id for one in alone)]) == Counter(ids)
    for number, phone in enumerate(phones):
        shown = stage.twin.accepted_of(phone.token)
        assert len(shown) == CALLS // 10
        assert set(shown.values()) == {1}, number


def test_a_call_by_itself_goes_out_at_once(stage: Stage) -> None:
    """One after the other there is no rush, and nothing waits to be taken."""
    phone = stage.add_phone("one@example.com")
    told: list[Event] = []
    stage.system.hooks.add(told.append)
    with start_server(stage.system, has_console=False) as server:
        path = f"/v1/apps/{stage.app.id}/notifications"
        with server.client(server.key("send")) as client:
            for number in range(20):
                body = {"notification": {"title": f"Order {number}"}, "recipients": phone.mail}
                assert client.post(path, json=body).status_code == 202
    assert sum(isinstance(one, NotificationAccepted) for one in told) == 20
    assert not any(isinstance(one, NotificationsAccepted) for one in told)
    assert stage.twin.accepted == 20
