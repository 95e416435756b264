"""Each device gets the notification in its own language, whichever way it is sent."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
from tests.scene import Scene

from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY, Recipients
from handbell.delivery.queue.session_pages import Shard
from handbell.errors import PayloadTooLargeError
from handbell.twin.phone import Phone

LOCALES: Mapping[str, str | None] = {
    "user0@example.com": "fr_CA",
    "user1@example.com": "zh-Hant-TW",
    "user2@example.com": None,
}
LANGUAGES = {"fr": {"title": "Bonjour"}, "zh-Hant": {"title": "你好"}}
TOLD = {
    "user0@example.com": "Bonjour",
    "user1@example.com": "你好",
    "user2@example.com": "Hello",
}


def _phones(scene: Scene) -> list[Phone]:
    """Make three phones of three people who speak three languages."""
    phones = scene.add_phones(len(LOCALES))
    for phone in phones:
        locale = LOCALES[phone.mail or ""]
        scene.system.registry.register(scene.app, phone.mail or "", phone.token, locale=locale)
    return phones


def _shown(scene: Scene, phones: list[Phone]) -> dict[str, list[str]]:
    return {
        phone.mail or "": [card.title or "" for card in scene.twin.phone(phone.id).cards]
        for phone in phones
    }


@pytest.mark.parametrize("to", [list(LOCALES), {"everybody": True}], ids=["named", "everybody"])
def test_three_people_get_three_languages(scene: Scene, to: Any) -> None:
    """Named or in a broadcast, each phone shows the language of its session."""
    phones = _phones(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(engine, to, languages=LANGUAGES)
            assert response.success
            assert response.reached == len(phones)

    asyncio.run(scenario())
    assert _shown(scene, phones) == {mail: [title] for mail, title in TOLD.items()}


@pytest.mark.parametrize("to", [list(LOCALES), {"everybody": True}], ids=["named", "everybody"])
def test_another_process_sends_the_same_languages(scene: Scene, to: Any) -> None:
    """What one process stored and did not send goes out in each language from the next one."""
    phones = _phones(scene)

    async def scenario() -> None:
        accepted = await scene.accept(scene.system.engine, to, languages=LANGUAGES)
        async with scene.running(scene.another()) as engine:
            await engine.worker.settled(accepted.row)

    asyncio.run(scenario())
    assert _shown(scene, phones) == {mail: [title] for mail, title in TOLD.items()}


def test_what_a_dead_worker_held_is_repeated_in_its_language(scene: Scene) -> None:
    """A delivery that comes back is sent again in the language of its session."""
    phones = _phones(scene)
    queue, known_workers = scene.system.queue, scene.system.known_workers

    async def scenario() -> None:
        accepted = await scene.accept(scene.system.engine, list(LOCALES), languages=LANGUAGES)
        gone = known_workers.enlist()
        assert len(queue.claim_due(gone, 5, 10)) == len(phones)
        known_workers.retire(gone)
        async with scene.running(scene.another()) as engine:
            await engine.worker.settled(accepted.row)

    asyncio.run(scenario())
    assert _shown(scene, phones) == {mail: [title] for mail, title in TOLD.items()}


def test_a_replacement_speaks_the_language_too(scene: Scene) -> None:
    """New content under the same collapse id comes in each language of its own."""
    phones = _phones(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            first = await scene.send(engine, list(LOCALES), collapse_id="x", languages=LANGUAGES)
            changed = Notification.read(
                {
                    "title": "Bye",
                    "body": "long " * 2000,
                    "shorten": True,
                    "languages": {"fr": {"title": "Adieu", "body": "court"}},
                }
            )
            response = await engine.replace(scene.app, first.notification_id or "", changed)
            assert response.success
            assert [warning.split(" to ")[0] for warning in response.warnings] == [
                "`body` was cut from 10,000"
            ]

    asyncio.run(scenario())
    shown = _shown(scene, phones)
    assert shown["user0@example.com"] == ["Adieu"]
    assert shown["user1@example.com"] == shown["user2@example.com"] == ["Bye"]


def test_a_bare_token_gets_the_own_text_and_a_known_one_its_language(scene: Scene) -> None:
    """A token that a session holds is spoken to in that session's language."""
    phones = _phones(scene)
    stranger = scene.twin.add_phone(mail="nobody@example.com", app=scene.app.id)

    async def scenario() -> None:
        async with scene.running() as engine:
            response = await scene.send(
                engine, [phones[0].token, stranger.token], languages=LANGUAGES
            )
            assert response.reached == 2

    asyncio.run(scenario())
    assert _shown(scene, [phones[0], stranger]) == {
        "user0@example.com": ["Bonjour"],
        "nobody@example.com": ["Hello"],
    }


def test_why_says_in_which_language_it_was_sent(scene: Scene) -> None:
    """The story names the language of each device, or why it got the notification's own text."""
    phones = _phones(scene)
    stranger = phones[2]
    scene.system.registry.register(scene.app, stranger.mail or "", stranger.token, locale="de-CH")

    async def scenario() -> None:
        async with scene.running() as engine:
            await scene.send(engine, list(LOCALES), languages=LANGUAGES)

    asyncio.run(scenario())
    told = [str(scene.system.why(scene.app, mail)) for mail in LOCALES]
    assert ", in the language fr" in told[0]
    assert ", in the language zh-Hant" in told[1]
    assert ", in its own text (none of its languages is that of de-CH)" in told[2]


def test_a_language_that_is_too_long_is_refused_before_anything_is_stored(scene: Scene) -> None:
    """The error names the language and by how much; nothing is stored, nothing is sent."""
    phones = _phones(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            with pytest.raises(
                PayloadTooLargeError, match=r"`languages\.fr`.* more than the 4,096"
            ):
                await scene.send(engine, EVERYBODY, languages={"fr": {"body": "x" * 5000}})

    asyncio.run(scenario())
    assert scene.system.ledger.rows([1]) == []
    assert _shown(scene, phones) == {mail: [] for mail in LOCALES}


def test_what_was_cut_is_a_warning_of_the_response(scene: Scene) -> None:
    """With ``shorten`` a long text arrives cut, and the response says in which language."""
    phones = _phones(scene)

    async def scenario() -> None:
        async with scene.running() as engine:
            languages = {"fr": {"title": "Bonjour", "body": "mot " * 2000}}
            response = await scene.send(
                engine, list(LOCALES), body="word", shorten=True, languages=languages
            )
            assert response.success
            assert [warning.split(" from ")[0] for warning in response.warnings] == [
                "`languages.fr.body` was cut"
            ]

    asyncio.run(scenario())
    (card,) = scene.twin.phone(phones[0].id).cards
    assert (card.body or "").endswith("…")
    (card,) = scene.twin.phone(phones[2].id).cards
    assert card.body == "word"


def test_a_preview_speaks_each_language(scene: Scene) -> None:
    """Each target's request is in its language; each language's bytes can be had by themselves."""
    _phones(scene)
    notification = Notification.read(
        {"title": "Hello", "languages": {**LANGUAGES, "de": {"body": "x" * 5000}}}
    )
    found = scene.system.previewer.languages(scene.app, notification)
    assert [one.language for one in found] == [None, "fr", "zh-Hant", "de"]
    assert [bool(one.problem) for one in found] == [False, False, False, True]
    assert found[1].notification == {"title": "Bonjour"}
    assert found[1].size == len(found[1].payload.encode()) < found[1].limit == 4096
    assert found[3].size > found[3].limit

    without = dataclasses.replace(notification, languages=LANGUAGES)
    for to in (EVERYBODY, Recipients.read(list(LOCALES))):
        previews = scene.system.previewer.requests(scene.app, without, to)
        assert [one.language for one in previews] == ["fr", "zh-Hant", None]
        assert '"你好"' in previews[1].payload


def test_locales_are_read_only_where_there_are_languages(scene: Scene) -> None:
    """A broadcast in one language does not ask for the column; one in several does."""
    _phones(scene)
    shard = Shard(
        id=1,
        notification=1,
        app_row=scene.app.row or 0,
        source=None,
        urgency=1,
        position=0,
        last=10,
        is_resumed=False,
    )
    queue = scene.system.queue
    assert [one.locale for one in queue.page(shard, 10)] == [None, None, None]
    spoken = [one.locale for one in queue.page(shard, 10, extra=frozenset({"locale"}))]
    assert spoken == list(LOCALES.values())
