"""Whatever stands in a template and whatever it is given, it costs little and ends."""

import subprocess
import sys
from pathlib import Path

import pytest

from handbell.creation.template import Template
from handbell.errors import HandbellError, TemplateError

_WALK = Path(__file__).parent / "template_walk.py"


def _render(text: str, **variables: object) -> str:
    template = Template.read({"name": "t", "notification": {"title": "t", "body": text}})
    return str(template.render(variables).body)


def test_no_filter_test_or_operator_is_costly_for_any_value() -> None:
    """Each of them, given each hostile value in each place, stays within memory and time."""
    done = subprocess.run(
        [sys.executable, str(_WALK)], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    tried = int(done.stdout)
    assert tried > 3000


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ('{{ "%500000000d" is odd }}', {}),
        ("{{ form is even }}", {"form": "%999999999s"}),
        ("{{ 1.5 is odd }}", {}),
        ("{{ true is even }}", {}),
        ("{{ items + n }}", {"items": [1], "n": 1}),
        ("{{ name + 1 }}", {"name": "x"}),
        ("{{ true - 1 }}", {}),
        ("{{ -name }}", {"name": "x"}),
        ("{{ name ~ items }}", {"name": "x", "items": [[0] * 9]}),
        ("{{ name < 1 }}", {"name": "x"}),
        ("{{ items == items }}", {"items": [1]}),
        ("{{ items in items }}", {"items": [1]}),
        ("{{ 1 in name }}", {"name": "x1"}),
        ("{{ 1 in n }}", {"n": 11}),
        ("{{ n + n }}", {"n": 10**18}),
        ("{{ name | cut(name) }}", {"name": "9"}),
        ("{{ n | number(digits=name) }}", {"n": 1, "name": "2"}),
        ("{{ name | join }}", {"name": "abc"}),
        ("{{ flag | number }}", {"flag": True}),
        ("{{ flag | date }}", {"flag": True}),
        ("{{ name | date(items) }}", {"name": "2026-01-01", "items": ["%Y"]}),
        ("{{ 3 is odd(3) }}", {}),
    ],
)
def test_what_an_expression_is_not_for_is_refused(text: str, variables: dict[str, object]) -> None:
    """An operator, a test or a filter that is given another kind of value is a TemplateError."""
    with pytest.raises(TemplateError):
        _render(text, **variables)


@pytest.mark.parametrize(
    ("text", "variables", "told"),
    [
        ("{% if n is odd %}o{% endif %}{% if n is even %}e{% endif %}", {"n": -3}, "o"),
        ("{{ n + 1 - 3 }}", {"n": 0.5}, "-1.5"),
        ("{{ -n }}", {"n": 4}, "-4"),
        ('{{ name + "!" }}', {"name": "x"}, "x!"),
        ("{{ name ~ 1 ~ true ~ none }}", {"name": "x"}, "x1true"),
        ("{{ 1 < n <= 3 }}", {"n": 3}, "true"),
        ("{{ 1 < n < 3 }}", {"n": 3}, "false"),
        ('{{ name == "x" and name != 1 }}', {"name": "x"}, "true"),
        ("{{ items == none }}", {"items": [1]}, "false"),
        ('{{ "b" in items and 3 not in items }}', {"items": ["a", "b", [3]]}, "true"),
        ('{{ "b" in m }}', {"m": {"b": 1}}, "true"),
        ('{{ "b" in name }}', {"name": "abc"}, "true"),
        ("{{ missing is defined }}{{ n is defined }}", {"n": 1}, "falsetrue"),
        ('{{ text | number(2, ".", ",") }}', {"text": "1234.5"}, "1.234,50"),
    ],
)
def test_what_an_expression_is_for(text: str, variables: dict[str, object], told: str) -> None:
    """Operators and tests do what they are for, chains of comparisons included."""
    template = Template.read(
        {
            "name": "t",
            "notification": {"title": "t", "body": text},
            "variables": [*variables, "missing"],
        }
    )
    assert template.render(variables).body == told


def test_the_work_of_all_texts_is_bounded_together() -> None:
    """Many small texts over one long value are refused before they have kept the process busy."""
    texts = {f"k{n}": "{{ v | length }}" for n in range(1000)}
    template = Template.read(
        {"name": "t", "notification": {"title": "t", "user_info": texts}},
    )
    with pytest.raises(TemplateError, match="work on more than"):
        template.render({"v": "x" * 65_000})


def test_a_refusal_is_an_error_of_handbell() -> None:
    """What is refused names the template and the text, so that it can be mended."""
    with pytest.raises(HandbellError, match=r"`t`.*`body`.*not a number"):
        _render("{{ name is odd }}", name="x")
