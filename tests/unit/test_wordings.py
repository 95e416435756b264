import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.app import App
from handbell.creation.graphemes import ELLIPSIS, clusters
from handbell.creation.notification import Notification
from handbell.errors import NotificationError, PayloadTooLargeError
from handbell.gateways.apns.compose import compose
from handbell.gateways.wordings import Wordings, compose_each

BUNDLE_ID = "com.sample.myapp"
APP = App(team_id="TEAM123456", bundle_id=BUNDLE_ID)
NOW = 1_800_000_000.0
LIMIT = 4096
FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"


def _each(**fields: Any) -> Wordings:
    return compose_each(compose, Notification.read(fields), app=APP, now=NOW)


def _alert(wordings: Wordings, locale: str | None) -> dict[str, Any]:
    alert: dict[str, Any] = json.loads(wordings.message_for(locale).payload)["aps"]["alert"]
    return alert


def test_each_language_is_the_message_it_would_be_alone() -> None:
    """A language is composed as the notification that it makes; headers are the same for all."""
    notification = Notification.read(
        {"title": "Hello", "ttl": 60, "languages": {"fr": {"title": "Bonjour"}}}
    )
    wordings = compose_each(compose, notification, app=APP, now=NOW)
    alone = Notification(title="Bonjour", ttl=60)
    assert wordings.message_for("fr_FR") == compose(alone, app=APP, now=NOW)
    assert wordings.message_for("fr_FR") is wordings.message_for("fr")
    assert wordings.message_for("de").headers == wordings.message_for("fr").headers
    assert [one.language for one in wordings.all] == [None, "fr"]
    assert wordings.warnings == []


def test_a_million_locales_take_no_memory() -> None:
    """What was chosen is remembered for so many locales and no more."""
    wordings = _each(title="Hello", languages={"fr": {"title": "Bonjour"}})
    for number in range(10_000):
        wordings.message_for(f"fr-x{number}")
    assert len(wordings._chosen) <= 4096  # noqa: SLF001 - what is bounded


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"title": "t", "languages": {"de": {"title": "x"}, "fr": {"body": "y" * 5000}}},
            ["`languages.fr`", "5,041 bytes, 945 more than the 4,096", "Shorten `body`"],
        ),
        (
            {"title": "t" * 5000, "languages": {"fr": {"title": "x"}}},
            ["The payload is 5,030 bytes", "Shorten `title`"],
        ),
        (
            {"title": "t", "shorten": True, "user_info": {"a": "x" * 5000}},
            ["Shorten `user_info.a`"],
        ),
        (
            {"loc_key": "K", "body": "b", "shorten": True, "loc_args": ["x" * 5000]},
            ["Shorten `loc_args`"],
        ),
    ],
)
def test_what_is_too_long(fields: dict[str, Any], words: list[str]) -> None:
    """The error names the language, by how much, and what to shorten."""
    with pytest.raises(PayloadTooLargeError) as raised:
        _each(**fields)
    for word in words:
        assert word in str(raised.value)
    assert raised.value.size > raised.value.limit == LIMIT


def test_languages_are_of_one_push_type() -> None:
    """What wakes the app in one language cannot show a text in another."""
    with pytest.raises(NotificationError, match=r"`languages\.fr` makes it .* alert"):
        _each(content_available=True, languages={"fr": {"title": "Bonjour"}})
    with pytest.raises(NotificationError, match=r"`languages\.fr`: `image_url` does nothing"):
        _each(badge=1, languages={"fr": {"image_url": "https://example.com/a.png"}})


def test_the_body_is_cut_before_the_title() -> None:
    """Only as much is cut as has to be; the next text is cut when the body alone is not enough."""
    wordings = _each(
        title="Title",
        body=FAMILY * 500,
        shorten=True,
        languages={"fr": {"title": "T" * 5000}, "de": {"body": "kurz"}},
    )
    own, french, german = wordings.all
    assert [(cut.field, cut.of) for cut in own.cuts] == [("body", 12_500)]
    assert LIMIT - len(FAMILY.encode()) < len(own.message.payload) <= LIMIT
    body = _alert(wordings, None)["body"]
    assert set(clusters(body.removesuffix(ELLIPSIS))) == {FAMILY}
    assert [cut.field for cut in french.cuts] == ["body", "title"]
    assert _alert(wordings, "fr")["body"] == FAMILY + ELLIPSIS
    assert len(french.message.payload) == LIMIT
    assert german.cuts == ()
    assert _alert(wordings, "de") == {"title": "Title", "body": "kurz"}
    kept = own.cuts[0].kept
    assert wordings.warnings[0] == f"`body` was cut from 12,500 to {kept:,} bytes, to fit."
    assert wordings.warnings[1].startswith("`languages.fr.body` was cut from 12,500 to 28 bytes")


TEXTS = st.lists(
    st.sampled_from(["a", "b", " ", "\n", '"', "é", "訂", "e\u0301", FAMILY]), max_size=800
).map("".join)


@given(TEXTS.filter(str.strip), TEXTS, st.integers(0, 3500))
def test_a_shortened_payload_is_within_the_limit(title: str, body: str, others: int) -> None:
    """Whatever is written, what is sent fits and is the beginning of what was written."""
    wordings = _each(title=title, body=body, shorten=True, user_info={"a": "x" * others})
    assert len(wordings.own.message.payload) <= LIMIT
    alert = _alert(wordings, None)
    for name, text in (("title", title), ("body", body)):
        if not any(cut.field == name for cut in wordings.own.cuts):
            assert alert.get(name, "") == (text if text.strip() else "")
        else:
            assert text.startswith(alert[name].removesuffix(ELLIPSIS))
