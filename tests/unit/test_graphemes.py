import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from handbell.creation.graphemes import ELLIPSIS, clusters, json_bytes, truncated

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
THUMB = "\U0001f44d\U0001f3fd"
FRANCE = "\U0001f1eb\U0001f1f7"
JAPAN = "\U0001f1ef\U0001f1f5"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
RAINBOW = "\U0001f3f3\ufe0f\u200d\U0001f308"
KEYCAP = "1\ufe0f\u20e3"
ACCENTED = "e\u0301\u0323"
KSHA = "\u0915\u094d\u0937\u093f"
HANGUL = "\u1112\u1161\u11ab"
THAI = "\u0e01\u0e33"
WHOLE = [
    FAMILY,
    THUMB,
    FRANCE,
    JAPAN,
    ENGLAND,
    RAINBOW,
    KEYCAP,
    ACCENTED,
    KSHA,
    HANGUL,
    "\uac00\u11a8",
    THAI,
    "\u0600\u0661",
    "\r\n",
    "a",
    "é",
    "\n",
    "訂",
    '"',
]


@pytest.mark.parametrize("one", WHOLE)
def test_what_a_reader_takes_for_one_character_stays_whole(one: str) -> None:
    """Joined emoji, flags, accents, syllables: each is one, alone, doubled and beside a letter."""
    assert list(clusters(one)) == [one]
    assert list(clusters(one + one)) == [one, one]
    assert list(clusters(f"x{one}")) == ["x", one]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("ab", ["a", "b"]),
        ("a\nb", ["a", "\n", "b"]),
        (FRANCE + JAPAN, [FRANCE, JAPAN]),
        (FRANCE + JAPAN[0], [FRANCE, JAPAN[0]]),
        ("\u0301a", ["\u0301", "a"]),
        ("\n\u0301", ["\n", "\u0301"]),
        (f"{FAMILY}!{THUMB}", [FAMILY, "!", THUMB]),
        ("\u1112\u1161\uac00", ["\u1112\u1161", "\uac00"]),
    ],
)
def test_where_characters_end(text: str, expected: list[str]) -> None:
    """Two characters beside each other are two."""
    assert list(clusters(text)) == expected


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("hello", 5, "hello"),
        ("hello", 4, "h…"),
        ("hello you", 9, "hello you"),
        ("hello you", 10, "hello you"),
        ("one two", 6, "one…"),
        ("one two", 7, "one two"),
        ("one two three", 7, "one…"),
        (FRANCE + JAPAN, 15, FRANCE + ELLIPSIS),
        (FRANCE + JAPAN, 16, FRANCE + JAPAN),
        (FAMILY + "x", 3, FAMILY + ELLIPSIS),
        ('""""""', 9, '"""…'),
        ("\n" * 9, 9, "…"),
    ],
)
def test_where_a_text_is_cut(text: str, limit: int, expected: str) -> None:
    """As much as fits is kept, bytes as in a payload; the first character is kept in any case."""
    assert truncated(text, limit) == expected


TEXTS = st.lists(st.sampled_from(WHOLE) | st.characters(exclude_categories=["Cs"])).map("".join)


@given(TEXTS)
def test_nothing_is_lost_between_characters(text: str) -> None:
    """Characters joined are the text."""
    assert "".join(clusters(text)) == text
    assert all(clusters(text))


@given(TEXTS, st.integers(0, 120))
@example(FAMILY + ELLIPSIS, 0)
def test_a_cut_never_splits_and_never_exceeds(text: str, limit: int) -> None:
    """What is left is a beginning of whole characters, within the limit but for the first."""
    cut = truncated(text, limit)
    if json_bytes(text) <= limit:
        assert cut == text
        return
    kept = cut.removesuffix(ELLIPSIS)
    whole = list(clusters(text))
    beginnings = ["".join(whole[:number]).rstrip() for number in range(len(whole) + 1)]
    assert kept in beginnings
    assert json_bytes(cut) <= limit or kept == whole[0].rstrip()
