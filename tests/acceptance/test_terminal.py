"""What strangers wrote is shown on a terminal and never obeyed; no secret is repeated there."""

import ast
import asyncio
import base64
import io
import json
import locale
import os
import pty
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.preloaded import COMMAND, preloaded

from handbell import cli
from handbell._text import one_line
from handbell.apps.sample_keys import make_key
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.demo_environment import isolated_settings
from handbell.system import System

APP = "TEAM123456.com.sample.myapp"
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m"
FORGED = "\nerror: all is lost\r\u2028\u202egnp.exe\u2066\x00\x7f\u0085x"
HOSTILE = f"phone{ESCAPES}{FORGED}"
# What the commands may write themselves: colours and the cursor's shape, and line ends.
_OWN = ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1;31m")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home in which strangers have written wherever they can."""
    folder = tmp_path_factory.mktemp("home")
    parts = System(isolated_settings(home=folder))
    app = parts.apps.add("TEAM123456", "com.sample.myapp", name="My App")
    parts.apps.add_credential(app, make_key(app.apple.team_id))
    parts.registry.register(
        app, "ada@4d.com", "ab" * 32, device=HOSTILE, platform="ios", locale="fr"
    )
    parts.audit.note(f"key {HOSTILE}", "session.add", HOSTILE, app=app.id, detail=HOSTILE)
    content = Notification.read({"title": HOSTILE, "body": HOSTILE, "collapse_id": "x"})
    options = Options.read(send_at="2999-01-01T00:00:00Z")

    async def accept() -> None:
        await parts.engine.accept(app, content, Recipients.read("ada@4d.com"), options)
        await parts.close()

    asyncio.run(accept())
    return folder


class Here(Protocol):
    """Runs a command in this process, as its own does, and returns its exit code and output."""

    def __call__(self, home: Path, *arguments: str) -> tuple[int, str]:
        """Run it to its end."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Run commands without a process for each: there are many."""

    def run(home: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("HANDBELL_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["handbell", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out + captured.err

    return run


def _on_terminal(home: Path, *arguments: str) -> str:
    """Return what a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "HANDBELL_HOME": str(home), "TERM": "xterm-256color"}
    with subprocess.Popen(
        [preloaded(), *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        written = b""
        while True:
            try:
                chunk = os.read(ours, 65_536)
            except OSError:
                break
            if not chunk:
                break
            written += chunk
        process.wait(30)
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ("session", "list"),
        ("session", "show", "1"),
        ("notification", "list"),
        ("why", "ada@4d.com"),
        ("session", "list", HOSTILE.replace("\x00", "")),
        ("why", HOSTILE.replace("\x00", "")),
        ("send", "ada@4d.com", f"--{HOSTILE}".replace("\x00", "")),
        ("send", HOSTILE.replace("\x00", ""), "--title", "x", "--dry-run"),
        ("send", "ada@4d.com", "--title", HOSTILE.replace("\x00", ""), "--dry-run"),
        ("app", "show", HOSTILE.replace("\x00", "")),
        ("key", "add", HOSTILE.replace("\x00", "")),
        (f"{HOSTILE}".replace("\x00", ""),),
    ],
    ids=range(12),
)
def test_what_strangers_wrote_is_never_obeyed_in_a_pipe(
    home: Path, arguments: tuple[str, ...], here: "Here"
) -> None:
    """No control, escape sequence, forged line or turned direction reaches who reads a pipe."""
    _, written = here(home, *arguments)
    _look_through(written.replace("\t", " "))


@pytest.mark.parametrize(
    "arguments",
    [
        ("session", "list"),
        ("session", "show", "1"),
        ("notification", "list"),
        ("why", "ada@4d.com"),
        ("send", f"--{HOSTILE}".replace("\x00", "")),
    ],
    ids=range(5),
)
def test_what_strangers_wrote_is_never_obeyed_on_a_terminal(
    home: Path, arguments: tuple[str, ...]
) -> None:
    """Nor a terminal itself, where the command writes colours of its own."""
    written = _on_terminal(home, *arguments).replace("\r\n", "\n")
    for own in _OWN:
        written = written.replace(own, "")
    _look_through(written)


def _look_through(written: str) -> None:
    for line in written.split("\n"):
        assert one_line(line) == line
        assert not line.startswith("error: all is lost")


def test_json_tells_a_text_as_it_is(home: Path) -> None:
    """Programs get what was written; JSON's own escapes make it harmless."""
    environment = {**os.environ, "HANDBELL_HOME": str(home)}
    run = subprocess.run(
        [preloaded(), "session", "list", "--json"],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment,
        check=True,
    )
    assert json.loads(run.stdout)[0]["device"] == HOSTILE


@pytest.mark.parametrize(("encoding", "options"), [("ascii", ("--json",)), ("cp1252", ())])
def test_output_that_is_not_utf_8_replaces_characters(
    home: Path, encoding: str, options: tuple[str, ...]
) -> None:
    """No encoding of the terminal makes a command fail, and JSON loses nothing by it."""
    environment = {**os.environ, "HANDBELL_HOME": str(home), "PYTHONIOENCODING": encoding}
    run = subprocess.run(
        [COMMAND, "session", "list", *options],
        capture_output=True,
        timeout=50,
        env=environment,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert b"Traceback" not in run.stderr
    if options:
        assert json.loads(run.stdout.decode(encoding))[0]["device"] == HOSTILE


def test_one_module_writes_to_the_terminal() -> None:
    """Nothing but ``cli/output.py`` prints, so that nothing is written past it."""
    folder = Path(cli.__file__).parent
    for file in folder.rglob("*.py"):
        if file.name == "output.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in {"print", "typer.echo", "typer.secho", "Console"}, file.name
                assert not called.endswith((".stdout.write", ".stderr.write")), file.name


def _key_texts() -> list[str]:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    body = "".join(pem.splitlines()[1:-1])
    return [body, body[:80], pem, pem.replace("\n", "\\n"), pem[:90], f"-----BEGIN {body}"]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize(
    "before",
    [
        ("key", "add"),
        ("key", "add", "--key-id"),
        ("key", "remove"),
        ("app", "set", APP, "--identity-key"),
        ("app", "set", APP, "--quiet-hours"),
        ("serve", "--tls-key"),
        ("serve", "--config"),
        ("session", "show"),
        ("send",),
    ],
    ids=lambda words: "-".join(words[:2] + words[-1:]),
)
def test_no_command_repeats_a_key_that_was_given_to_it(
    home: Path, number: int, before: tuple[str, ...], here: "Here"
) -> None:
    """Given in the wrong place or form, a key stands neither in the error nor in the output."""
    text = _key_texts()[number]
    code, told = here(home, *before, text)
    assert code in {1, 2}, told
    secret = "".join(text.split("-----")[-1 if "END" not in text else 2].split())[40:]
    parts = [secret[at : at + 12] for at in range(max(len(secret) - 11, 0))]
    assert not [part for part in parts if part in told], told


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o622, 0o666])
def test_files_of_secrets_that_others_may_open_are_told_at_the_start(
    tmp_path: Path, mode: int
) -> None:
    """A worker warns of a database and of a settings file with a password, by name and fix."""
    password = secrets.token_urlsafe(12)
    with System(isolated_settings(home=tmp_path)).database.read():
        pass
    database, config = tmp_path / "handbell.db", tmp_path / "handbell.toml"
    config.write_text(f'smtp_url = "smtp://me:{password}@127.0.0.1:2525"\n')
    database.chmod(mode)
    config.chmod(mode)
    run = subprocess.run(
        [preloaded(), "worker", "--until-idle"],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "HANDBELL_HOME": str(tmp_path)},
        check=True,
    )
    is_open = mode != 0o600
    for file in (database, config):
        assert (f"chmod 600 {file}" in run.stderr) == is_open
    assert password not in run.stderr + run.stdout
    assert base64.b64encode(password.encode()).decode() not in run.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "test@4d.com", "--title", "Caf\udcc3\udca9"),
        ("send", "test@4d.com", "--body=\udce9"),
        ("app", "add", APP, "--name", "\udcc3\udc9c"),
        ("send", "\udce9@4d.com", "--title", "x"),
    ],
)
def test_an_argument_that_the_locale_could_not_read_names_the_locale(
    here: Here, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Its bytes would be taken for half characters, and nobody would guess why."""
    code, said = here(tmp_path, *arguments)
    assert code == 2
    assert "locale" in said
    assert locale.getencoding() in said
    assert "LC_ALL=C.UTF-8" in said


def test_a_file_is_found_by_a_name_that_is_no_text(here: Here, tmp_path: Path) -> None:
    """Its name may be any bytes."""
    file = tmp_path / os.fsdecode(b"caf\xe9.json")
    file.write_text("[]")
    code, said = here(tmp_path, "send", "test@4d.com", "--file", str(file))
    assert code == 2
    assert "locale" not in said


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_without_standard_streams_does_its_work(home: Path, closed: str) -> None:
    """As a service manager may start it: what would be written goes nowhere, least into a file."""
    command = f"'{sys.executable}' -m handbell --home '{home}' app list --json {closed}"
    run = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
