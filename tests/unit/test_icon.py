"""The icon of an app: the same wherever it is drawn."""

import pytest

from handbell._icon import AppIcon
from handbell.server.console.layout import Console
from handbell.twin.phone import Phone

APP = "TEAM123456.com.sample.myapp"


@pytest.mark.parametrize(
    ("name", "letter"),
    [
        ("My App", "M"),
        ("  tasks", "T"),
        ("\u00e9toile", "\u00c9"),
        ("\u00dfein", "S"),
        ("\U0001f514 Bell", "\U0001f514"),
        ("7 Days", "7"),
        ("", "?"),
    ],
)
def test_the_letter_is_the_first_of_the_name(name: str, letter: str) -> None:
    """One letter, in upper case, of whatever script; a question mark without a name."""
    assert AppIcon.of(APP, name).letter == letter


@pytest.mark.parametrize("app", [APP, "TEAM123456.com.sample.myapp2", "ABCDE12345.org.example"])
def test_the_console_and_the_phones_draw_the_same(app: str) -> None:
    """Both show the letter and the hues of the one icon."""
    icon = AppIcon.of(app, "Bistro")
    phone = Phone(id="1", name="Phone", app=app, app_name="Bistro", side="production", token="ab")
    assert phone.to_dict()["icon"] == icon.to_dict()
    drawn = str(
        Console(context=None)  # type: ignore[arg-type]
        .templates.from_string(
            '{% from "icons.html" import app_icon %}{{ app_icon({"id": app, "name": "Bistro"}) }}'
        )
        .render(app=app)
    )
    assert f">{icon.letter}</text>" in drawn
    assert f"0.17 {icon.hue})" in drawn
    assert f"0.17 {icon.second_hue})" in drawn
