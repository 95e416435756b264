import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.creation.languages import MAX_LANGUAGES, choose, fallbacks
from handbell.creation.notification import Notification
from handbell.errors import NotificationError

ORDER = {
    "title": "Order",
    "body": "It is on its way",
    "languages": {
        "fr": {"title": "Commande", "body": "En route"},
        "fr-CA": {"sound": "camion.caf"},
        "zh-Hant": {"title": "訂單"},
        "pt_br": {"title": "Pedido", "imageUrl": "https://example.com/pt.png"},
    },
}


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("fr", ("fr",)),
        ("fr_CA", ("fr-CA", "fr")),
        ("FR-ca", ("fr-CA", "fr")),
        ("zh-Hant-HK", ("zh-Hant-HK", "zh-HK", "zh-Hant", "zh")),
        ("zh_Hant_TW", ("zh-Hant-TW", "zh-TW", "zh-Hant", "zh")),
        ("zh_TW", ("zh-TW", "zh-Hant-TW", "zh-Hant", "zh")),
        ("zh-CN", ("zh-CN", "zh-Hans-CN", "zh-Hans", "zh")),
        ("zh-Hans-TW", ("zh-Hans-TW", "zh-Hans", "zh")),
        ("nb_NO", ("nb-NO", "nb", "no")),
        ("iw_IL", ("he-IL", "he")),
        ("es-419", ("es-419", "es")),
        ("es-MX", ("es-MX", "es-419", "es")),
        ("es_US", ("es-US", "es-419", "es")),
        ("es-ES", ("es-ES", "es")),
        ("en_GB", ("en-GB", "en-001", "en")),
        ("en-AT", ("en-AT", "en-150", "en-001", "en")),
        ("pt-AO", ("pt-AO", "pt-PT", "pt")),
        ("pt-BR", ("pt-BR", "pt")),
        ("nn", ("nn", "no", "nb")),
        ("zh-MO", ("zh-MO", "zh-Hant-MO", "zh-Hant", "zh-Hant-HK", "zh-HK", "zh")),
        ("sr_ME", ("sr-ME", "sr-Latn-ME", "sr-Latn", "sr")),
        ("mo", ("ro",)),
        ("sr-latn-rs", ("sr-Latn-RS", "sr-Latn", "sr")),
        ("en_US@calendar=japanese", ("en-US", "en")),
        ("de_DE.UTF-8", ("de-DE", "de")),
        ("de_DE@euro", ("de-DE", "de")),
        ("sr_RS@latin", ("sr-Latn-RS", "sr-Latn", "sr")),
        ("sr@Latin", ("sr-Latn", "sr")),
        ("uz_UZ.UTF-8@cyrillic", ("uz-Cyrl-UZ", "uz-Cyrl", "uz")),
        ("sr_Cyrl_RS@latin", ("sr-Cyrl-RS", "sr-RS", "sr-Cyrl", "sr")),
        ("ca_ES@valencia", ("ca-ES", "ca")),
        ("@latin", ()),
        ("en-u-hc-h12", ("en-u-hc-h12", "en-u-hc", "en")),
        ("en-a-us", ("en-a-us", "en")),
        ("C", ()),
        ("", ()),
        (None, ()),
        ("english", ()),
        ("fr--CA", ()),
        ("x" * 600, ()),
    ],
)
def test_the_way_from_a_locale(locale: str | None, expected: tuple[str, ...]) -> None:
    """The exact tag comes first, then its parents; what is no locale leads nowhere."""
    assert fallbacks(locale) == expected


@pytest.mark.parametrize(
    ("locale", "expected"),
    [
        ("fr", {"title": "Commande", "body": "En route"}),
        ("fr-BE", {"title": "Commande", "body": "En route"}),
        ("fr_CA", {"title": "Commande", "body": "En route", "sound": "camion.caf"}),
        ("zh-Hant-TW", {"title": "訂單", "body": "It is on its way"}),
        ("zh_TW", {"title": "訂單", "body": "It is on its way"}),
        (
            "pt-BR",
            {
                "title": "Pedido",
                "body": "It is on its way",
                "image_url": "https://example.com/pt.png",
            },
        ),
        ("pt", {"title": "Order", "body": "It is on its way"}),
        ("zh", {"title": "Order", "body": "It is on its way"}),
        (None, {"title": "Order", "body": "It is on its way"}),
    ],
)
def test_what_a_locale_gets(locale: str | None, expected: dict[str, Any]) -> None:
    """A language's own fields win, then those of its parents, then the notification's."""
    assert Notification.read(ORDER).in_language(locale).to_dict() == expected


@pytest.mark.parametrize(
    ("own", "language", "expected"),
    [
        ({"loc_key": "K", "loc_args": ["1"]}, {"body": "b"}, {"title": "t", "body": "b"}),
        ({"body": "b"}, {"loc_key": "K"}, {"title": "t", "loc_key": "K"}),
        (
            {"loc_key": "K", "loc_args": ["1"]},
            {"loc_args": ["2"]},
            {"title": "t", "loc_key": "K", "loc_args": ["2"]},
        ),
        ({"title_loc_key": "T"}, {"title": "x"}, {"title": "x"}),
        ({"sound": {"critical": 1}}, {"sound": "bell"}, {"title": "t", "sound": "bell"}),
        (
            {"sound": "bell"},
            {"sound": {"critical": True, "name": "x"}},
            {"title": "t", "sound": {"critical": 1, "name": "x"}},
        ),
        ({"body": "b"}, {"body": None, "subtitle": ""}, {"title": "t", "body": "b"}),
    ],
)
def test_a_text_and_its_key_are_one(
    own: dict[str, Any], language: dict[str, Any], expected: dict[str, Any]
) -> None:
    """A language's text takes the place of a key, and the other way round; null changes nothing."""
    notification = Notification.read({"title": "t", **own, "languages": {"fr": language}})
    assert notification.in_language("fr").to_dict() == expected


@pytest.mark.parametrize(
    ("languages", "words"),
    [
        (3, ["`languages` is the number 3"]),
        ({"french": {"title": "x"}}, ["the text 'french'", "language tag"]),
        ({3: {"title": "x"}}, ["the number 3"]),
        ({"fr": "Bonjour"}, ["`languages.fr` is the text", "must be a mapping"]),
        ({"fr": {"titel": "x"}}, ["'titel'", "Did you mean `title`?"]),
        ({"fr": {"badge": 1}}, ["'badge'", "no language can change"]),
        ({"fr": {"user_info": {}}}, ["'user_info'"]),
        ({"fr": {3: "x"}}, ["Keys are texts"]),
        ({"fr": {"title": " "}}, ["`languages.fr.title` is empty"]),
        ({"fr": {"body": 3}}, ["`languages.fr.body` is the number 3"]),
        ({"fr": {"imageUrl": "x", "image_url": "y"}}, ["`image_url` twice"]),
        ({"fr": {"title": "x"}, "FR": {"title": "y"}}, ["`fr` twice"]),
        ({"fr": {"loc_args": ["1"]}}, ["`languages.fr`", "without `loc_key`"]),
        ({"fr": {"title": "half \ud83d"}}, ["not valid Unicode"]),
        (
            {f"a{one // 26:c}-{one}": {} for one in range(MAX_LANGUAGES + 1)},
            [f"{MAX_LANGUAGES + 1} languages"],
        ),
    ],
)
def test_languages_that_are_refused(languages: Any, words: list[str]) -> None:
    """The error names the language and the field, and offers what was meant."""
    with pytest.raises(NotificationError) as raised:
        Notification.read({"title": "t", "body": "b", "languages": languages})
    for word in words:
        assert word in str(raised.value)
    assert raised.value.fix


def test_a_silent_notification_says_nothing_in_any_language() -> None:
    """What contradicts itself in one language is refused, and the language is named."""
    with pytest.raises(NotificationError, match=r"`languages\.fr`.*`silent`"):
        Notification.read({"silent": True, "languages": {"fr": {"title": "Bonjour"}}})


def test_languages_survive_the_ledger() -> None:
    """What is written as JSON reads to the same notification, with canonical tags."""
    notification = Notification.read(ORDER)
    assert Notification.read(json.loads(json.dumps(notification.to_dict()))) == notification
    assert list(notification.languages or ()) == ["fr", "fr-CA", "zh-Hant", "pt-BR"]
    assert Notification.read({"title": "t", "languages": {}}).to_dict() == {"title": "t"}
    assert isinstance(hash(notification), int)


@given(st.text() | st.from_regex(r"[a-zA-Z]{1,4}([-_][a-zA-Z0-9]{1,9}){0,5}([@.].*)?"))
def test_a_locale_never_fails(locale: str) -> None:
    """Whatever a phone says it speaks, a text is found, and each step of the way is shorter."""
    way = fallbacks(locale)
    assert len(set(way)) == len(way)
    assert all(fallbacks(tag)[0] == tag for tag in way)
    assert choose(locale, ["fr"]) in {None, "fr"}
    assert Notification.read(ORDER).in_language(locale).title
