import json
import time
import tomllib
from collections.abc import Callable, Iterator

import pytest
from markupsafe import escape
from pydantic_core import from_json

from handbell._text import json_fault, local_time, moment, parse_fault, short_token
from handbell.server.console.formatting import with_times

AT = 1_795_820_000_000


@pytest.fixture(params=[("UTC", "UTC"), ("Europe/Paris", "+01:00"), ("America/St_Johns", "-03:30")])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """Put this machine into a zone and give how its instants end."""
    name, ending = request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", name)
        time.tzset()
        yield ending
    time.tzset()


def test_an_instant_in_a_sentence_names_its_zone(zone: str) -> None:
    """Who reads it elsewhere knows when it was; a table of this machine's does without."""
    assert moment(AT) == f"{local_time(AT)} {zone}"


def test_the_console_finds_the_instants_of_a_sentence(zone: str) -> None:
    """Each becomes an element that a script can put into the reader's zone; the rest is text."""
    told = with_times(f"<b> was sent at {moment(AT)}; it was seen at {moment(AT + 1000)}.")
    first = f"{local_time(AT).replace(' ', 'T')}{'Z' if zone == 'UTC' else zone}"
    assert f'<time datetime="{first}">{moment(AT)}</time>; it was seen' in told
    assert told.count("<time ") == 2
    assert told.startswith(escape("<b>"))
    assert with_times("Nothing <here>") == escape("Nothing <here>")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it is empty"),
        ("{", "a name in double quotes is missing in line 1, column 2"),
        ('{"a": NaN}', "NaN stands in it, which is no number in JSON"),
        ("[-Infinity]", "-Infinity stands in it, which is no number in JSON"),
        ('["\\ud800"]', "a text holds half of a character, such as \\ud800"),
        ('["\\udc00 "]', "a text holds half of a character, such as \\ud800"),
        ("[" * 500 + "]" * 500, "it is nested too deeply"),
        ('{"a":' * 500 + "1" + "}" * 500, "it is nested too deeply"),
    ],
)
def test_what_is_wrong_with_json_is_told_in_words(text: str, words: str) -> None:
    """Whichever reader found it, and also where Python itself would have read it."""
    with pytest.raises(ValueError, match="line 1") as caught:
        from_json(text, allow_inf_nan=False)
    assert json_fault(text, caught.value) == words


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (json.loads, "[" * 150_000, "it is nested too deeply"),
        (json.loads, "9" * 5_000, "it holds a number that is too long"),
        (tomllib.loads, "a = " + "[" * 5_000, "it is nested too deeply"),
        (tomllib.loads, "a = " + "{b=" * 5_000, "it is nested too deeply"),
        (tomllib.loads, "a = " + "9" * 5_000, "it holds a number that is too long"),
        (tomllib.loads, "a = ", "Invalid value (at end of document)"),
    ],
)
def test_why_a_reader_gave_up_is_told_in_words(
    read: Callable[[str], object], text: str, words: str
) -> None:
    """Python's own readers of JSON and TOML stop for reasons of Python's, which name functions."""
    with pytest.raises((ValueError, RecursionError)) as caught:
        read(text)
    assert parse_fault(caught.value) == words


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("0f744707bebcf74f9b7c25d48e3358945f6aa01d", "0f744707bebc…"),
        ("0f744707bebcf", "0f744707bebcf"),
        ("dQw4w9WgXcQ:APA91bHun4MxP5egoKMwt2KZFBaFUH", "dQw4w9WgXcQ:…"),
        (
            "https://fcm.googleapis.com/fcm/send/dQw4w9WgXcQ:APA91bHun4",
            "fcm.googleapis.com/…1bHun4",
        ),
        ("https://push.example.com/abc", "push.example.com/abc"),
    ],
    ids=["a token", "a short one", "a registration token", "an endpoint", "a short endpoint"],
)
def test_an_address_is_told_by_its_telling_part(address: str, shown: str) -> None:
    """Of a token it is the beginning, of an endpoint the host and the end."""
    assert short_token(address) == shown
