import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.creation.expressions import TESTS
from handbell.creation.filters import FILTERS
from handbell.creation.rendering import MAX_OUTPUT, MAX_TEXT, TextRefusedError, compiled
from handbell.creation.template import MAX_VARIABLES_BYTES, Template, read_template_use
from handbell.errors import NotificationError, TemplateError

REFERENCE = Path(__file__).parents[2] / "docs" / "notification.md"

WELCOME = {
    "name": "welcome",
    "default_language": "en",
    "notification": {
        "title": "Hello {{ name }}",
        "body": "{% if count > 1 %}{{ count }} letters{% else %}One letter{% endif %}",
        "badge": "{{ count }}",
        "url": "https://example.com/{{ place | default('in box') }}?n={{ name }}",
        "user_info": {"letter": {"number": "{{ count }}"}, "fixed": 1},
        "ttl": 60,
        "languages": {"fr": {"title": "Bonjour {{ name }}"}},
    },
}


def _render(text: str, **variables: Any) -> str:
    return compiled(text).render(variables)


def test_a_template_makes_a_notification_in_each_language() -> None:
    """Expressions stand in texts at any depth; a badge is a number again; options stay."""
    template = Template.read(WELCOME)
    assert template.variables == ("count", "name", "place")
    assert template.languages == ("en", "fr")
    assert Template.read(json.loads(json.dumps(template.to_dict()))) == template
    notification = template.render({"name": "you & me", "count": 2})
    assert notification.to_dict() == {
        "title": "Hello you & me",
        "body": "2 letters",
        "badge": 2,
        "url": "https://example.com/in%20box?n=you%20%26%20me",
        "user_info": {"letter": {"number": "2"}, "fixed": 1},
        "ttl": 60,
        "languages": {"fr": {"title": "Bonjour you & me"}},
    }
    assert template.render({"name": "x", "count": 1}).body == "One letter"


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"ttl": 5}, {"ttl": 5}),
        ({"expiresAt": 0}, {"ttl": None, "expires_at": 0}),
        ({"userInfo": {"fixed": 2}}, {"user_info": {"letter": {"number": "1"}, "fixed": 2}}),
        ({"title": "Hi"}, {"title": "Hi", "languages": {"fr": {}}}),
        (
            {"title_loc_key": "K"},
            {"title": None, "title_loc_key": "K", "languages": {"fr": {}}},
        ),
        ({"collapse_id": "x", "shorten": True}, {"collapse_id": "x", "shorten": True}),
    ],
)
def test_what_is_given_beside_wins(beside: dict[str, Any], expected: dict[str, Any]) -> None:
    """A field beside the template takes its place in every language; user_info is added to."""
    made = Template.read(WELCOME).render({"name": "x", "count": 1}, beside)
    assert {name: getattr(made, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("default", "languages", "locale", "title"),
    [
        ("en", {"en": {"title": "own"}, "fr": {"title": "fr"}}, "en", "own"),
        ("en", {"en": {"title": "own"}, "fr": {"title": "fr"}}, "de", "own"),
        ("en-GB", {"en-GB": {"title": "colour"}, "en": {"title": "color"}}, "en_GB", "colour"),
        ("en-GB", {"en-GB": {"title": "colour"}, "en": {"title": "color"}}, "en_US", "color"),
        ("en-GB", {"en-GB": {"title": "colour"}, "en": {"title": "color"}}, "de", "colour"),
    ],
)
def test_the_default_language_is_the_own_text(
    default: str, languages: dict[str, Any], locale: str, title: str
) -> None:
    """Texts under the default language are the notification's own, for everybody else as well."""
    template = Template.read(
        {"name": "x", "defaultLanguage": default, "notification": {"languages": languages}}
    )
    assert template.notification["title"] == languages[default]["title"]
    assert template.render({}).in_language(locale).title == title


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "Welcome"}, ["'Welcome'", "small letters"]),
        ({"name": "../etc"}, ["'../etc'"]),
        ({"name": None}, ["null"]),
        ({"notification": 3}, ["the number 3"]),
        ({"notification": {}}, ["nothing to show"]),
        ({"notification": {"titel": "x"}}, ["Did you mean `title`?"]),
        ({"notification": {"title": "x", "badge": -1}}, ["`badge`"]),
        ({"notification": {"title": "x", "silent": True}}, ["`silent`"]),
        ({"notification": {"title": "{{ a"}}, ["`title`", "expected"]),
        (
            {"notification": {"title": "x", "languages": {"fr": {"title": "{% for a in b %}"}}}},
            ["`languages.fr.title`"],
        ),
        (
            {"notification": {"title": "x", "user_info": {"a": ["{{ b | nosuch }}"]}}},
            ["`user_info.a[0]`", "no filter 'nosuch'"],
        ),
        ({"notification": {"title": "x" * (MAX_TEXT + 1)}}, ["more than 8,192"]),
        ({"notification": {"title": "x", "languages": {"french": {}}}}, ["'french'"]),
        ({"variables": ["nam"]}, ["`count`"]),
        ({"variables": ["count", "nam", "place"]}, ["`name`", "Did you mean `nam`?"]),
        ({"variables": "name"}, ["list of names"]),
        ({"variables": ["_x"]}, ["'_x'"]),
        ({"variables": ["a b"]}, ["'a b'"]),
        ({"default_language": "english"}, ["'english'"]),
        ({"default_language": "fr"}, ["`title` and `languages.fr.title` differ"]),
        ({"nme": "x"}, ["Did you mean `name`?"]),
        (
            {"notification": {"title": "x", "user_info": {str(n): "x" * 8000 for n in range(20)}}},
            ["over 131,072 bytes"],
        ),
    ],
)
def test_templates_that_are_refused(change: dict[str, Any], words: list[str]) -> None:
    """What no values could make a notification of is refused when it is written."""
    with pytest.raises(NotificationError) as raised:
        Template.read({**WELCOME, **change})
    for word in words:
        assert word in str(raised.value)
    assert raised.value.fix


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"count": 1}, ["`welcome` needs the variable `name`, for its `title`"]),
        ({"nam": "x", "count": 1}, ["no variable 'nam'", "Did you mean `name`?"]),
        ({"name": ["x"], "count": 1}, ["`title`", "the filter `join`"]),
        ({"name": {"x": 1}, "count": 1}, ["a mapping cannot be shown"]),
        ({"name": "x", "count": "many"}, ["`body`", "a text is not a number"]),
        ({"name": "x", "count": 1.5}, ["`badge`"]),
        ({"name": "x", "count": object()}, ["`variables.count`"]),
        ({"name": "x" * MAX_VARIABLES_BYTES, "count": 1}, ["over 65,536 bytes"]),
        ({"name": "\ud800", "count": 1}, ["not valid Unicode"]),
    ],
)
def test_values_that_do_not_fit(variables: dict[str, Any], words: list[str]) -> None:
    """The error names the template and the variable, or the text that could not be made."""
    with pytest.raises(NotificationError) as raised:
        Template.read(WELCOME).render(variables)
    for word in words:
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("text", "variables", "expected"),
    [
        ("{{ a.b.c }} {{ a['b'].c }}", {"a": {"b": {"c": 1}}}, "1 1"),
        ("{{ a.items }} {{ a.__len__ | default('no') }}", {"a": {"items": 3}}, None),
        ("{{ a.items }}", {"a": {"items": 3}}, "3"),
        ("{{ l[0] }} {{ l[-1] }} {{ l | first }} {{ l | last }}", {"l": [1, 2]}, "1 2 1 2"),
        (
            "{{ l | join }} {{ l | join(' and ') }} {{ l | length }}",
            {"l": [1, "b"]},
            "1, b 1 and b 2",
        ),
        (
            "{{ a | upper }} {{ a | lower }} {{ a | capitalize }}",
            {"a": "strAße"},
            "STRASSE straße StrAße",
        ),
        ("[{{ a | trim }}] {{ a | trim | cut(2) }}", {"a": " abc "}, "[abc] ab…"),
        (
            "{{ a | cut(1) }} {{ a | length }}",
            {"a": "\U0001f1eb\U0001f1f7\U0001f1ef\U0001f1f5"},
            "\U0001f1eb\U0001f1f7… 2",
        ),
        (
            "{{ a | default('x') }} {{ b | default('y') }} {{ c | default('z', empty=true) }}",
            {"b": None, "c": ""},
            "x y z",
        ),
        (
            "{{ n | number }} {{ n | number(2) }} {{ n | number(2, '.', ',') }}",
            {"n": 1234567.891},
            "1,234,568 1,234,567.89 1.234.567,89",
        ),
        (
            "{{ d | date }} {{ d | date('%d.%m.%y %H:%M') }}",
            {"d": "2027-01-15T09:05:00+01:00"},
            "2027-01-15 15.01.27 09:05",
        ),
        ("{{ d | date('%H:%M:%S %%') }}", {"d": 0}, "00:00:00 %"),
        (
            "{{ t }} {{ f }} [{{ n }}] {{ x }}",
            {"t": True, "f": False, "n": None, "x": 1.5},
            "true false [] 1.5",
        ),
        ("{% if a is defined %}yes{% elif b %}b{% else %}no{% endif %}", {"b": 0}, "no"),
        (
            "{{ 'x' if a and not b else 'y' }} {{ a + 1 - 3 }} {{ a ~ b }}",
            {"a": 1, "b": 0},
            "x -1 10",
        ),
        ("{{ a in ['x', 'y'] }} {{ 1 < 2 <= 2 }}", {"a": "x"}, "true true"),
        ("{{ a }}", {"a": "{{ b }}{% x %}"}, "{{ b }}{% x %}"),
        ("{{ a }}", {"a": "a\x00b\x07\r\n\u202ec\u2066\x85\u200d"}, "ab\nc\u200d"),
        ("<b>{{ a }}</b>", {"a": "<i> & '"}, "<b><i> & '</b>"),
        ("{# not said #}x\n", {}, "x\n"),
        ("{% raw %}{{ a }}{% endraw %}", {}, "{{ a }}"),
    ],
)
def test_what_an_expression_says(
    text: str, variables: dict[str, Any], expected: str | None
) -> None:
    """Values stand in texts literally; the few filters do what the reference says."""
    if expected is None:
        with pytest.raises(TextRefusedError):
            _render(text, **variables)
    else:
        assert _render(text, **variables) == expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("https://a.example/{{ a }}", "../x?y=1#z", "https://a.example/..%2Fx%3Fy%3D1%23z"),
        ("https://{{ a }}.example/", "evil.com/", "https://evil.com%2F.example/"),
        ("app://o/{{ a | upper }}", "é\n", "app://o/%C3%89"),
        ("{{ a }}", "https://a.example/?b=c", "https://a.example/?b=c"),
        (" {{ a }}", "https://a.example", " https%3A%2F%2Fa.example"),
        ("{{ a }}{{ a }}", "a:b", "a%3Aba%3Ab"),
    ],
)
def test_a_value_cannot_leave_its_place_in_a_url(text: str, value: str, expected: str) -> None:
    """Within a URL values are quoted; a URL that is one expression is taken as it was given."""
    assert compiled(text, is_url=True).render({"a": value}) == expected


ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ a.__class__ }}",
    "{{ a['__class__'] }}",
    "{{ a | attr('__class__') }}",
    "{{ [].append }}",
    "{{ a.upper }}",
    "{{ a.format }}",
    "{{ '{0.__class__}'.format(a) }}",
    "{{ self }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ lipsum.__globals__ }}",
    "{{ joiner }}",
    "{{ namespace() }}",
    "{{ dict(a=1) }}",
    "{{ range(999999999) }}",
    "{{ config }}",
    "{{ request }}",
    "{{ caller() }}",
    "{{ super() }}",
    "{{ loop }}",
    "{{ varargs }}",
    "{% for a in 'aaaa' %}{% endfor %}",
    "{% set a = 1 %}",
    "{% set a %}x{% endset %}",
    "{% macro m() %}x{% endmacro %}",
    "{% call a() %}x{% endcall %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% from 'os' import path %}",
    "{% extends 'base' %}",
    "{% block a %}{% endblock %}",
    "{% filter upper %}x{% endfilter %}",
    "{% with a = 1 %}{% endwith %}",
    "{% autoescape true %}{% endautoescape %}",
    "{% do a.append(1) %}",
    "{% debug %}",
    "{{ 'a' * 999999999 }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{{ '%99999999d' % 1 }}",
    "{{ 1 // 0 }}",
    "{{ 1 / 0 }}",
    "{{ a[::2] }}",
    "{{ {'a': 1} }}",
    "{{ a is callable }}",
    "{{ a | map('upper') }}",
    "{{ a | replace('a', 'aaaa') }}",
    "{{ a | format(1) }}",
    "{{ a | center(999999999) }}",
    "{{ a | pprint }}",
    "{{ a | tojson }}",
    "{{ a | xmlattr }}",
    "{{ 1 | number(999999999) }}",
    "{{ 1e308 | number(0, 1e308 | number(0, 1e308 | number(0, 1e308 | number(0, 'a')))) }}",
    "{{ " + "+".join("a" * 240) + " }}",
    "{{ 0 | date('%999999999d') }}",
    "{{ 0 | date('%c') }}",
    "{{ 1e999 | number }}",
    "{{ 99999999999999999999 | date }}",
    "{{ ([1] + [2]) | join('x' ~ ('y' | length)) | nosuch }}",
    "{{ " + "(" * 2000 + "1" + ")" * 2000 + " }}",
    "{{ " + "a~" * 3000 + "a }}",
    "{{ a " + "| upper" * 600 + " }}",
    "{% if a %}" * 400 + "{% endif %}" * 400,
    "{{",
    "{%",
    "{{ }}",
    "{{ a b }}",
    "{% endif %}",
]


@pytest.mark.parametrize("text", ATTACKS, ids=lambda text: text[:40])
def test_the_sandbox_holds(text: str) -> None:
    """Known ways out of a sandbox, and bombs, are refused; what is said holds no Python object."""
    with pytest.raises(TextRefusedError) as raised:
        compiled(text).render({"a": "a"})
    assert "0x" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "{{ l | join(s) }}",
        "{{ s }}" * 9,
        "{{ s ~ s ~ s ~ s ~ s ~ s ~ s ~ s ~ s }}",
        "{{ (s" + " ~ s" * 150 + ") | length }}",
        "{{ (l" + " + l" * 90 + ") | join }}",
    ],
)
def test_output_is_bounded(text: str) -> None:
    """However much is made of little, it stops at the bound."""
    with pytest.raises(TextRefusedError, match=r"too long|renders to more|work on more"):
        _render(text, l=[1] * 9000, s="x" * (MAX_OUTPUT // 8))


@given(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=5,
    ),
)
def test_a_value_is_said_or_refused(text: str, value: Any) -> None:
    """Whatever is written and given, it renders or is refused with our own error."""
    for written in (text, "{{ a }}", "{{ a | join }}", "{{ a | date }}", "{{ a | number(1) }}"):
        try:
            told = compiled(written, is_url=True).render({"a": value})
        except TextRefusedError:
            continue
        assert isinstance(told, str)


@given(st.text())
def test_a_text_stands_literally_but_for_controls(value: str) -> None:
    """What is shown of a value is all of it; in a URL it comes back by unquoting."""
    told = _render("{{ a }}", a=value)
    assert [one for one in told if one.isprintable()] == [one for one in value if one.isprintable()]
    assert _render("{{ a }}", a=told) == told
    valid = value.encode("utf-8", "ignore").decode()
    quoted = compiled("x/{{ a }}", is_url=True).render({"a": valid})
    assert not set("/?#&:@ \n\"'<>") & set(quoted[2:])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"title": "x"}, None),
        (3, None),
        ({"template": "a"}, ("a", {}, {})),
        ({"template": "a", "variables": {"b": 1}, "ttl": 3}, ("a", {"b": 1}, {"ttl": 3})),
    ],
)
def test_how_a_template_is_used(value: Any, expected: Any) -> None:
    """A mapping with `template` uses one; the rest of it wins."""
    assert read_template_use(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        {"template": 3},
        {"template": "A"},
        {"template": "a", "variables": [1]},
        {"title": "x", "variables": {}},
    ],
)
def test_uses_that_are_refused(value: Any) -> None:
    """A template is named by a text, its variables are a mapping."""
    with pytest.raises(TemplateError):
        read_template_use(value)


def test_the_reference_names_every_filter_and_test() -> None:
    """docs/notification.md speaks of each filter and each test, and its template can be read."""
    page = REFERENCE.read_text(encoding="utf-8")
    section = page[page.index("## Templates") :]
    assert all(f"`{name}" in section for name in (*FILTERS, *TESTS))
    toml = tomllib.loads(section.split("```toml\n")[1].split("```")[0])
    template = Template.read(toml, name="order-shipped")
    made = template.render({"number": 4711, "parcels": 2, "day": "2027-03-01"})
    assert made.body == "2 parcels arrive on 01.03."


def test_without_the_extra_a_template_says_what_to_install() -> None:
    """Where jinja2 is missing everything else works, and a template says what it needs."""
    script = """
import sys
sys.modules["jinja2"] = None
import handbell
from handbell.creation.template import Template
from handbell.errors import TemplateError
try:
    Template.read({"name": "a", "notification": {"title": "x"}})
except TemplateError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "pip install '.[server]'" in done.stdout
