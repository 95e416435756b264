"""``handbell api-key`` in processes of its own."""

import json
import os
import subprocess
from pathlib import Path

from tests.preloaded import preloaded

from handbell.settings import Settings
from handbell.system import System


def run(home: Path, *arguments: str, code: int = 0) -> str:
    """Run the command to its end, which must be this exit code, and return what it said."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    ended = subprocess.run(
        [preloaded(), "--home", str(home), "api-key", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=kept,
    )
    assert "Traceback" not in ended.stderr
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_a_key_is_made_listed_and_revoked(tmp_path: Path) -> None:
    """The key is shown once, works, and is refused once it is revoked; the trail has it all."""
    system = System(Settings.load(home=tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    options = ("--scope", "send", "--scope", "register", "--app", "myapp", "--json")
    made = json.loads(run(tmp_path, "add", "the shop", *options))
    secret, prefix = made["key"], made["api_key"]["prefix"]
    checked = system.api_keys.check(secret)
    assert checked is not None
    assert (checked.app, sorted(checked.scopes)) == (app.id, ["register", "send"])
    listed = run(tmp_path, "list")
    assert prefix in listed
    assert secret not in listed
    assert "Revoked" in run(tmp_path, "revoke", prefix)
    assert system.api_keys.find(prefix).revoked_at is not None
    assert "no scope 'sned'" in run(tmp_path, "add", "x", "--scope", "sned", code=2)
    assert "api-key list" in run(tmp_path, "revoke", "hbk_nothing0", code=2)
    entries = [(one.actor, one.action) for one in system.audit.list()]
    assert entries == [("command line", "api-key.revoke"), ("command line", "api-key.add")]
    assert secret not in repr(system.audit.list())
    system.database.close()
