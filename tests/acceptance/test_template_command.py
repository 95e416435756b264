"""Templates and languages on the command line, in processes of their own."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.preloaded import preloaded

from handbell.testing import VirtualPhone

MAIL = "test@4d.com"
WELCOME = """
[notification]
title = "Hello {{ name }}"

[notification.languages.fr]
title = "Bonjour {{ name }}"
"""

Run = Callable[..., str]


@pytest.fixture
def run(handbell_home: Path) -> Run:
    """Give what runs ``handbell`` on a home and returns what it said."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    environment = {**kept, "HANDBELL_HOME": str(handbell_home)}

    def run(*arguments: str, code: int = 0) -> str:
        ended = subprocess.run(
            [preloaded(), *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    return run


def test_a_template_is_put_looked_at_and_sent(
    run: Run, handbell_phone: VirtualPhone, tmp_path: Path
) -> None:
    """A file becomes a template; its preview shows bytes per language; the phone shows it."""
    file = tmp_path / "welcome.toml"
    file.write_text(WELCOME, encoding="utf-8")
    assert "Added the template welcome" in run("template", "put", str(file))
    (listed,) = json.loads(run("template", "list", "--json"))
    assert listed["variables"] == ["name"]

    told = run("template", "preview", "welcome", "--variable", "name=you")
    assert "fr: " in told
    assert "Bonjour you" in told

    use = ("send", MAIL, "--template", "welcome", "--variable", "name=you")
    looked = run(*use, "--dry-run")
    assert "own text: " in looked
    assert "of 4,096 bytes" in looked
    assert "Accepted for 1 device of 1" in run(*use, "--body", "x" * 5000, "--shorten")
    (card,) = handbell_phone.cards
    assert card.title == "Hello you"
    assert (card.body or "").endswith("…")
    assert "Removed the template welcome" in run("template", "remove", "welcome")
    assert "no template 'welcome'" in run("template", "show", "welcome", code=2)
