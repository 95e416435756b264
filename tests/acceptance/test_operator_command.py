"""``handbell operator`` as whoever runs the server uses it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.preloaded import preloaded

from handbell.cli.operator import address_of
from handbell.errors import InvitationError
from handbell.settings import Settings
from handbell.system import System

MAIL, PASSWORD = "op@example.com", "a bell rings twice"


def test_operators_from_their_addition_to_their_removal(tmp_path: Path) -> None:
    """A link or a password makes one; the list tells them, and no secret is written down."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}

    def run(*arguments: str, code: int = 0, given: str = "") -> str:
        ended = subprocess.run(
            [preloaded(), "operator", *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**kept, "HANDBELL_HOME": str(tmp_path)},
        )
        assert ended.returncode == code, ended.stderr
        return ended.stdout + ended.stderr

    link = json.loads(run("add", MAIL, "--json"))["link"]
    address, _, secret = link.rpartition("/")
    assert address == "http://127.0.0.1:8710/console/invitation"
    assert f"Added {MAIL}." in run("add", MAIL, "--password", given=f"{PASSWORD}\n")
    system = System(Settings.load(home=tmp_path))
    assert system.operators.check(MAIL, PASSWORD) is not None
    with pytest.raises(InvitationError):
        system.operators.invitation(secret)
    assert run("list").startswith(MAIL)
    assert f"new password for {MAIL}" in run("reset", MAIL)
    assert "There is no operator" in run("remove", "nobody@example.com", code=2)
    assert f"Removed {MAIL}." in run("remove", MAIL.upper())
    told = [(one.actor, one.action) for one in system.audit.list()]
    assert told == [
        ("command line", "operator.remove"),
        ("command line", "operator.reset"),
        ("command line", "operator.add"),
        ("command line", "operator.invite"),
    ]
    assert all(text not in str(system.audit.list()) for text in (PASSWORD, secret))
    system.database.close()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "http://127.0.0.1:8710"),
        ({"listen": "0.0.0.0:80", "root_path": "/push"}, "http://127.0.0.1:80/push"),
        ({"listen": "[::]:80"}, "http://[::1]:80"),
        ({"public_url": "https://push.example.com"}, "https://push.example.com"),
        (
            {"public_url": "https://push.example.com", "root_path": "/push"},
            "https://push.example.com/push",
        ),
        (
            {"public_url": "https://push.example.com/push", "root_path": "/push"},
            "https://push.example.com/push",
        ),
    ],
)
def test_a_link_leads_to_where_the_server_is_reached(
    tmp_path: Path, given: dict[str, str], address: str
) -> None:
    """The public address where one is set, else where the server listens on this machine."""
    assert address_of(Settings.load(home=tmp_path, **given)) == address
