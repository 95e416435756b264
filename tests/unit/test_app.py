import pytest

from handbell.apps.app import App
from handbell.errors import AppError


def test_an_app_is_named_after_its_bundle_id() -> None:
    """The last part of the bundle id is the name, unless another is given."""
    assert App(team_id="TEAM123456", bundle_id="com.sample.myapp").name == "myapp"
    assert App(team_id="TEAM123456", bundle_id="com.sample.myapp", name=" Shop ").name == "Shop"


def test_an_id_can_be_read_back() -> None:
    """The id is team id and bundle id, and reading it gives the same app."""
    app = App.read_id(" TEAM123456.com.sample.my-app ")
    assert (app.team_id, app.bundle_id) == ("TEAM123456", "com.sample.my-app")
    assert App.read_id(app.id) == app
    assert app.row is None


@pytest.mark.parametrize("unseen", [" ", "\t", "\n", "\u00a0", "\ufeff", "\u200b", "\u2060 "])
def test_what_is_pasted_around_an_id_is_nobody_s(unseen: str) -> None:
    """Blanks and what is not seen at all, as pages and documents bring them along."""
    app = App(team_id=f"{unseen}TEAM123456{unseen}", bundle_id=f"{unseen}com.sample.myapp{unseen}")
    assert app.id == "TEAM123456.com.sample.myapp"
    assert App.read_id(f"{unseen}{app.id}{unseen}") == app


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("myapp", "not an app id"),
        ("", "not an app id"),
        ("team123456.com.sample.myapp", "not a team id"),
        ("TEAM12345.com.sample.myapp", "not a team id"),
        ("TEAM1234567.com.sample.myapp", "not a team id"),
        ("com.sample.myapp", "team id is missing"),
        (" io.example.some-App ", "team id is missing"),
        ("de.beispiel", "team id is missing"),
        ("TEAM12345\n.com.sample", "not a team id"),
        ("TEAM123456.", "empty"),
        ("TEAM123456.com..myapp", "dot"),
        ("TEAM123456..com", "dot"),
        ("TEAM123456.com.my_app", "'_' is not a letter"),
        ("TEAM123456.com.my app", "' ' is not a letter"),
        ("TEAM123456.com.äpp", "'ä' is not a letter"),
        ("TEAM123456." + "a" * 156, "longer than 155"),
    ],
)
def test_an_id_that_cannot_be_apples_says_what_is_wrong(text: str, why: str) -> None:
    """The error names the part that is wrong, and how to write it."""
    with pytest.raises(AppError, match=why) as caught:
        App.read_id(text)
    assert caught.value.fix
    if "missing" in why:
        assert f"TEAM123456.{text.strip()}" in caught.value.fix


@pytest.mark.parametrize("name", ["two\nlines", "n" * 201])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    """A name stands in lists: it is one short line."""
    with pytest.raises(AppError, match="name"):
        App(team_id="TEAM123456", bundle_id="com.sample.myapp", name=name)
