"""What mends something is one value, which each surface words in its own terms."""

import copy
from collections.abc import Mapping

import pytest

from handbell.fixes import COMMANDS, Action, Fix, as_sentence, with_app
from handbell.server.console.fix_buttons import FIX_ACTIONS, in_console, remedy
from handbell.server.fix_calls import CALLS, as_call

APP = "TEAM123456.com.sample.myapp"


@pytest.mark.parametrize(
    "words", [COMMANDS, CALLS, FIX_ACTIONS], ids=["terminal", "API", "console"]
)
def test_every_surface_has_words_for_every_action(words: Mapping[Action, object]) -> None:
    """None of the three tables leaves out an action."""
    assert set(words) == set(Action)


@pytest.mark.parametrize("action", Action)
def test_a_fix_tells_its_command_only_in_a_terminal(action: Action) -> None:
    """The command is told to the terminal; elsewhere only where nothing but it helps."""
    fix = Fix(action, "Mend it", app=APP, about="user1@example.com")
    assert str(fix).startswith("Mend it: handbell ")
    assert "{" not in str(fix)
    assert ("handbell" in as_call(fix)) == ("on the server" in as_call(fix))
    shown = remedy(fix, APP)
    assert bool(shown.command) != bool(shown.path)
    assert "handbell" not in f"{shown.text}{shown.label}{shown.path}"
    assert "{" not in shown.path


@pytest.mark.parametrize(
    ("fix", "said"),
    [
        (Fix(Action.START_TWIN, "Start it"), "Start it, on the server: handbell twin"),
        (Fix(Action.RESUME, "Then, without waiting", end="."), "Then, without waiting: Try again"),
        (Fix(Action.SWITCH_ON, "switch it on"), "switch it on: Switch on"),
        (Fix(Action.CHECK_UP, "Check the scope", end="."), "Check the scope, under Check-up"),
        (Fix(Action.LIST_API_KEYS, "See"), "Choose one of the list, under API keys"),
        ("nothing: it goes on by itself", "nothing: it goes on by itself"),
    ],
)
def test_the_console_words_a_fix_with_its_own_ways(fix: str, said: str) -> None:
    """Where no link can stand, the page is named by what its link would say."""
    assert in_console(fix).startswith(said)


def test_a_fix_stays_a_fix() -> None:
    """A copy, the same for an app, and a sentence of it are worded by each surface, too."""
    fix = Fix(Action.ADD_KEY, "add one")
    assert copy.copy(fix).worded(CALLS) == fix.worded(CALLS)
    assert str(with_app(fix, APP)) == f"add one: handbell key add AuthKey_XXX.p8 --app {APP}"
    assert str(as_sentence(fix)) == "Add one: handbell key add AuthKey_XXX.p8 --app APP."
    assert as_sentence("let it be") == "Let it be."
    assert as_sentence("docs/api.md lists all") == "docs/api.md lists all."
    assert with_app("let it be", APP) == "let it be"
