"""What is taken back, and what is sent in its place."""

import asyncio
from pathlib import Path

import pytest
from tests.scene import Scene, open_scene

from handbell.creation.notification import Notification
from handbell.errors import NotificationError

MAIL = "user0@example.com"
HOUR = 3600
EVERYBODY = {"everybody": True}


@pytest.mark.databases
def test_cancel_in_the_middle_of_a_broadcast_catches_the_rest(scene: Scene) -> None:
    """Cancel says how many it caught: exactly those that nothing was sent to."""
    number = 4500
    phones = scene.add_phones_at_once(number)

    async def scenario() -> None:
        async with scene.running() as engine:
            engine.worker.app_states.window = 1500
            acceptance = await scene.accept(engine, EVERYBODY)
            await scene.until(None, lambda: scene.twin.accepted > 300)
            caught = await engine.cancel(scene.app, acceptance.id)
            await engine.worker.settled(acceptance.row)
            await scene.until(None, lambda: engine.worker.app_states.in_flight == 0)
            reached = sum(bool(scene.accepted(phone)) for phone in phones)
            states = scene.states(acceptance)
            assert 0 < caught < number
            # Only what was sent has a row. On a busy machine some may get no answer.
            assert caught == number - states.total()
            assert states["sent"] <= reached <= states.total()

    asyncio.run(scenario())


@pytest.mark.databases
def test_cancel_does_not_claim_what_may_have_arrived(tmp_path: Path, database_url: str) -> None:
    """Who was sent a push without an answer is sent no other, is not counted, and hears of more."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        (first, answered, refused) = scene.add_phones(3)
        scene.twin.add_fault("silence", token=first.token, delivers=True, count=1)
        scene.twin.add_fault("answer", token=refused.token, reason="ServiceUnavailable", count=1)

        async def scenario() -> None:
            async with scene.running() as engine:
                response = await scene.send(engine, EVERYBODY, collapse_id="score")
                assert scene.states(response) == {"sent": 1, "held": 2}
                content = _notification(title="Corrected")
                second = await engine.replace(scene.app, response.notification_id or "", content)
                assert (second.reached, second.total) == (2, 2)
                details = {one.mail: one.detail for one in scene.deliveries(response)}
                assert "may have arrived" in (details[first.mail] or "")
                assert details[refused.mail] is None

        asyncio.run(scenario())
        shown = [
            [card.title for card in scene.twin.phone(one.id).cards] for one in (first, answered)
        ]
        assert shown == [["Corrected"], ["Corrected"]]
        assert not scene.twin.phone(refused.id).cards


@pytest.mark.databases
def test_cancel_counts_what_was_not_tried(tmp_path: Path, database_url: str) -> None:
    """Of what is held, only what certainly did not arrive was caught."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        unanswered, refused = scene.add_phones(2)
        scene.twin.add_fault("silence", token=unanswered.token, delivers=True)
        scene.twin.add_fault("answer", token=refused.token, reason="ServiceUnavailable")

        async def scenario() -> None:
            async with scene.running() as engine:
                mails = [unanswered.mail, refused.mail]
                response = await scene.send(engine, mails)
                assert scene.states(response) == {"held": 2}
                assert await engine.cancel(scene.app, response.notification_id or "") == 1
                assert scene.states(response) == {"cancelled": 2}

        asyncio.run(scenario())


@pytest.mark.databases
def test_what_gets_no_answer_after_a_cancel_is_not_sent_again(
    tmp_path: Path, database_url: str
) -> None:
    """Its retry ends as cancelled, and says that it may have arrived."""
    with open_scene(tmp_path, database_url, request_timeout=0.5) as scene:
        (phone,) = scene.add_phones(1)
        scene.twin.add_fault("silence", token=phone.token, delivers=True)

        async def scenario() -> None:
            async with scene.running() as engine:
                acceptance = await scene.accept(engine, phone.mail)
                await scene.until(None, lambda: scene.accepted(phone))
                assert await engine.cancel(scene.app, acceptance.id) == 0
                await engine.worker.settled(acceptance.row)
                assert scene.states(acceptance) == {"held": 1}
                scene.clock.move(HOUR)
                await scene.until(engine, lambda: scene.states(acceptance)["cancelled"])
                (delivery,) = scene.deliveries(acceptance)
                assert "may have arrived" in (delivery.detail or "")

        asyncio.run(scenario())
        assert [*scene.accepted(phone).values()] == [1]


@pytest.mark.databases
def test_cancel_catches_what_is_held(scene: Scene) -> None:
    """What waits for its time is cancelled, what was sent is not."""
    phones = scene.add_phones(3)
    scene.twin.add_fault("answer", token=phones[1].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, [phone.mail for phone in phones])
            assert await engine.cancel(scene.app, response.notification_id or "") == 1
            assert await engine.cancel(scene.app, response.notification_id or "") == 0
            scene.clock.move(HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.1)
            assert scene.states(response) == {"sent": 2, "cancelled": 1}

    asyncio.run(scenario())


@pytest.mark.databases
def test_cancel_of_a_scheduled_broadcast_catches_everybody(scene: Scene) -> None:
    """A broadcast that has not begun is caught as a whole."""
    scene.add_phones_at_once(50)

    async def scenario() -> None:
        async with scene.running() as engine:
            acceptance = await scene.accept(engine, EVERYBODY, {"send_at": scene.clock() + HOUR})
            assert await engine.cancel(scene.app, acceptance.id) == 50
            scene.clock.move(2 * HOUR)
            engine.worker.wake()
            await asyncio.sleep(0.1)

    asyncio.run(scenario())
    assert scene.twin.accepted == 0


@pytest.mark.databases
def test_replace_goes_to_those_who_got_the_first(scene: Scene) -> None:
    """The new content takes the place of the old on the phones that show it, and on no other."""
    phones = scene.add_phones(4)
    scene.twin.add_fault("answer", token=phones[3].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(
                engine, [phone.mail for phone in phones[1:]], collapse_id="score"
            )
            assert scene.states(first) == {"sent": 2, "held": 1}
            content = _notification(title="Corrected")
            second = await engine.replace(scene.app, first.notification_id or "", content)
            assert (second.reached, second.total) == (2, 2)
            assert scene.states(first) == {"sent": 2, "cancelled": 1}

    asyncio.run(scenario())
    shown = [[card.title for card in scene.twin.phone(phone.id).cards] for phone in phones]
    assert shown == [[], ["Corrected"], ["Corrected"], []]


@pytest.mark.databases
def test_replace_reaches_those_who_were_about_to_get_the_first(scene: Scene) -> None:
    """A push that was on its way when its notification was replaced is followed by the new one."""
    phones = scene.add_phones(20)
    scene.twin.add_fault("slow", seconds=0.5, count=20)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.accept(engine, EVERYBODY, collapse_id="score")
            await scene.until(None, lambda: scene.twin.accepted > 0)
            await engine.replace(scene.app, first.id, _notification(title="Corrected"))

    asyncio.run(scenario())
    for phone in phones:
        titles = [card.title for card in scene.twin.phone(phone.id).cards]
        assert titles in ([], ["Corrected"])


@pytest.mark.databases
def test_replace_reaches_bare_device_tokens(scene: Scene) -> None:
    """Tokens without a session that got the first get the new content; no others."""
    phones = [scene.twin.add_phone(mail=None, app=scene.app.id) for _ in range(3)]
    scene.twin.add_fault("answer", token=phones[2].token, reason="ServiceUnavailable")

    async def scenario() -> None:
        async with scene.running() as engine:
            tokens = [phone.token for phone in phones[1:]]
            first = await scene.send(engine, tokens, collapse_id="score")
            content = _notification(title="Corrected")
            second = await engine.replace(scene.app, first.notification_id or "", content)
            assert (second.reached, second.total) == (1, 1)

    asyncio.run(scenario())
    shown = [[card.title for card in scene.twin.phone(phone.id).cards] for phone in phones]
    assert shown == [[], ["Corrected"], []]


def test_what_has_no_collapse_id_cannot_be_replaced(scene: Scene) -> None:
    """Replacing what the phone would show twice is an error, and nothing is sent."""
    scene.add_phones(1)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(engine, MAIL)
            with pytest.raises(NotificationError, match="collapse"):
                await engine.replace(scene.app, first.notification_id or "", _notification())

    asyncio.run(scenario())


def _notification(title: str = "Hello") -> Notification:
    return Notification(title=title)
