"""``handbell app set``: how the app's devices prove whose they are."""

import json
import os
import subprocess
from pathlib import Path

from tests.preloaded import preloaded

from handbell.settings import Settings
from handbell.system import System

SECRET = "a secret of the back end, with 40 bytes."


def test_how_devices_prove_themselves_is_set_and_shown(tmp_path: Path) -> None:
    """A key's file is read and sealed, what cannot serve is refused, and no secret is shown."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    home = tmp_path / "home"
    system = System(Settings.load(home=home))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    key = tmp_path / "key.txt"
    key.write_text(SECRET + "\n", encoding="utf-8")

    def run(*arguments: str, code: int = 0) -> str:
        ended = subprocess.run(
            [preloaded(), "app", *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**kept, "HANDBELL_HOME": str(home)},
        )
        assert ended.returncode == code, ended.stderr
        assert SECRET not in ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    assert "no identity key" in run("set", "--proof", "token", code=2)
    assert "HANDBELL_SMTP_URL" in run("set", "--proof", "link", code=2)
    told = run(
        "set", "--proof", "token", "--identity-key", str(key), "--json",
        "--associated-domain", "links.example.com", "--store-url", "https://example.com/a",
    )  # fmt: skip
    shown = json.loads(told)
    assert (shown["proof"], shown["identity_algorithm"]) == ("token", "HS256")
    assert (shown["associated_domain"], shown["store_url"]) == (
        "links.example.com",
        "https://example.com/a",
    )
    (noted,) = system.audit.list(app=app.id, action="app.set")
    assert noted.detail == "proof, identity_key, associated_domain, store_url"
    system.database.close()
