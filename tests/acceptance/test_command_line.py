"""The real command in a process of its own: what it prints, what it ends with, what it leaves."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.preloaded import COMMAND, preloaded
from tests.stored import stored_in

from handbell.demo_environment import isolated_settings
from handbell.storage.migrations import HEAD
from handbell.system import System

APP = "TEAM123456.com.sample.myapp"
KEY_FILE = "AuthKey_ABCDE12345.p8"
PLAIN = serialization.NoEncryption()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Runs ``handbell`` on a home of its own."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: str, stdin: str = "") -> Ended:
        """Run the command to its end."""
        run = subprocess.run(
            [preloaded(), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=self.environment,
        )
        assert "Traceback" not in run.stderr
        return Ended(run.returncode, run.stdout, run.stderr)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command, free of this machine's settings."""
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        return {**kept, "HANDBELL_HOME": str(self.home), **self.extra}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Give a shell with an empty home."""
    return Shell(tmp_path / "home")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make, once, a folder with a home that has the app and a key, and the key's file."""
    folder = tmp_path_factory.mktemp("template")
    shell = Shell(folder / "home")
    file = folder / KEY_FILE
    file.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    assert shell.run("app", "add", APP, "--name", "My App").code == 0
    assert shell.run("key", "add", str(file)).code == 0
    return folder


@pytest.fixture
def ready(shell: Shell, template: Path) -> Shell:
    """Give a shell whose home has the app and a key."""
    shutil.copytree(template / "home", shell.home)
    return shell


@pytest.fixture
def twin(shell: Shell) -> Iterator[str]:
    """Run ``handbell twin`` on free ports and give the address of its page."""
    ports = ("--port", "0", "--production-port", "0", "--development-port", "0")
    process = subprocess.Popen(
        [COMMAND, "twin", *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=shell.environment,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    while "stops it" not in process.stdout.readline():
        assert process.poll() is None
    yield first.split()[1]
    process.terminate()
    _, complaints = process.communicate(timeout=10)
    assert (process.returncode, complaints) == (0, "")


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: str = "") -> bytes:
    sealed = serialization.BestAvailableEncryption(password.encode()) if password else PLAIN
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


def _certificate(key: ec.EllipticCurvePrivateKey | None = None) -> bytes:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    now = datetime.now(UTC)
    built = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=now,
        not_valid_after=now + timedelta(days=1),
    ).sign(key, hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM)


def test_the_demo_shows_the_notification(shell: Shell) -> None:
    """``handbell demo --json`` says that each device displayed it, by its own service, and when."""
    ended = shell.run("demo", "--json")
    told = json.loads(ended.out)
    assert ended.code == 0
    assert (told["accepted"], told["displayed"]) == (True, True)
    assert {one["platform"]: one["service"] for one in told["devices"]} == {
        "ios": "apns",
        "android": "fcm",
        "web": "webpush",
    }
    for one in told["devices"]:
        assert one["id"].startswith(told["notification_id"][:8])
        assert 0 <= one["milliseconds"]["accepted"] <= one["milliseconds"]["displayed"] < 10_000
    assert not shell.home.exists()


def test_the_demo_draws_the_cards(shell: Shell) -> None:
    """Without ``--json`` one timeline and the card of each device are printed."""
    out = shell.run("demo").out
    for service in ("Apple's service", "Google's service", "a browser's service"):
        assert f"accepted by the twin of {service}" in out
    assert out.count("│ Here is the content of this notification") == 3


@pytest.mark.parametrize("on_path", [True, False])
def test_the_demo_names_itself_as_it_can_be_called(shell: Shell, *, on_path: bool) -> None:
    """What to type next is the plain name where PATH has the command, else the way to it."""
    run = subprocess.run(
        [COMMAND, "demo"],
        env={**shell.environment, "PATH": str(COMMAND.parent) if on_path else "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    assert f"See more: {'handbell' if on_path else COMMAND} demo --keep leaves" in run.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_stays_prints_one_json_object(
    shell: Shell, tmp_path: Path, number: signal.Signals
) -> None:
    """With ``--keep`` too, standard output is the JSON alone; where the devices are goes beside it.

    However it is told to stop, its temporary home is removed.
    """
    running = subprocess.Popen(
        [COMMAND, "demo", "--json", "--keep"],
        env={**shell.environment, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    said = next(line for line in running.stderr if line.strip())
    running.send_signal(number)
    out, _ = running.communicate(timeout=50)
    assert said.startswith("The devices: http://127.0.0.1:")
    assert json.loads(out)["displayed"] is True
    assert running.returncode == 0
    assert list(tmp_path.glob("handbell-demo-*")) == []


@pytest.mark.parametrize("command", ["demo", "twin"])
def test_what_is_not_installed_is_named(shell: Shell, tmp_path: Path, command: str) -> None:
    """Without the extra ``twin`` its commands say how to install it; here h2 is as if missing."""
    missing = 'raise ModuleNotFoundError("No module named \'h2\'", name="h2")'
    (tmp_path / "h2.py").write_text(missing, encoding="utf-8")
    run = subprocess.run(
        [COMMAND, command],
        env={**shell.environment, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 2
    assert "The twin needs h2" in run.stderr
    assert "pip install '.[twin]'" in " ".join(run.stderr.split())
    assert "Traceback" not in run.stderr


def test_a_person_is_reached_through_the_twin(shell: Shell, twin: str) -> None:
    """With a twin running, ``send`` reaches test@4d.com without any further set-up."""
    ended = shell.run("send", "test@4d.com", "--title", "Hello", "--body", "It rings", "--json")
    told = json.loads(ended.out)
    assert twin.startswith("http://127.0.0.1:")
    assert (ended.code, told["success"]) == (0, True)
    delivery = told["deliveries"][0]
    assert delivery["state"] == "sent"
    assert delivery["id"] == delivery["apns_id"]


def test_two_processes_use_one_home_at_once(shell: Shell, twin: str) -> None:
    """Several commands may send from the same home at the same time."""
    assert twin
    arguments = [str(COMMAND), "send", "test@4d.com", "--title", "Hello"]
    running = [
        subprocess.Popen(arguments, env=shell.environment, stdout=subprocess.DEVNULL)
        for _ in range(3)
    ]
    assert [process.wait(timeout=50) for process in running] == [0, 0, 0]


def test_content_comes_from_options_file_or_standard_input(ready: Shell, tmp_path: Path) -> None:
    """Options win over a file's members, and JSON on standard input serves as well."""
    file = tmp_path / "notification.json"
    file.write_text(json.dumps({"title": "From the file", "badge": 3}), encoding="utf-8")
    ready.run("session", "add", "test@4d.com", "ab" * 32)
    arguments = ("send", "test@4d.com", "--dry-run", "--json")
    mixed = ready.run(*arguments, "--file", str(file), "--title", "From the option")
    piped = ready.run(*arguments, stdin='{"title": "From the pipe"}')
    aps = json.loads(json.loads(mixed.out)[0]["payload"])["aps"]
    assert (aps["alert"]["title"], aps["badge"]) == ("From the option", 3)
    assert "From the pipe" in json.loads(piped.out)[0]["payload"]


@pytest.mark.parametrize(
    "arguments",
    [("--collapse-id", "order-7", "--data", "order=7"), ("--file", "-", "--badge", "3")],
    ids=" ".join,
)
def test_options_go_with_what_a_pipe_brings(ready: Shell, arguments: tuple[str, ...]) -> None:
    """Options that say nothing themselves do not hide standard input, and ``--file -`` is it."""
    ready.run("session", "add", "test@4d.com", "ab" * 32)
    said = ready.run(
        "send", "test@4d.com", "--dry-run", *arguments, stdin='{"title": "From the pipe"}'
    )
    assert said.code == 0, said.err
    assert "From the pipe" in said.out
    assert "apns-collapse-id: order-7" in said.out or '"badge":3' in said.out
    assert ready.run("send", "test@4d.com", *arguments).code == 2


def test_a_dry_run_shows_the_request_and_sends_nothing(ready: Shell) -> None:
    """``--dry-run`` prints address, headers, payload and its size, and leaves no trace."""
    ready.run("session", "add", "test@4d.com", "ab" * 32, "--environment", "development")
    out = ready.run("send", "test@4d.com", "--title", "Hello", "--ttl", "0", "--dry-run").out
    assert f"POST https://api.sandbox.push.apple.com/3/device/{'ab' * 32}" in out
    assert "apns-topic: com.sample.myapp" in out
    assert "apns-push-type: alert" in out
    assert "apns-expiration: 0" in out
    assert '{"aps":{"alert":{"title":"Hello"}},"handbell":"000000000000000"}' in out


def test_a_dry_run_by_certificate_shows_no_provider_token(shell: Shell, tmp_path: Path) -> None:
    """Who proves himself by a certificate sends no ``authorization``, and is shown none."""
    file = tmp_path / "push.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(_certificate(key) + _pem(key))
    shell.run("app", "add", APP)
    assert shell.run("key", "add", str(file)).code == 0
    out = shell.run("send", "ab" * 32, "--title", "Hello", "--dry-run").out
    assert "apns-topic: com.sample.myapp" in out
    assert "authorization" not in out


def test_nobody_reached_is_exit_code_1(ready: Shell) -> None:
    """A person without a device is named, and the command ends with 1."""
    ended = ready.run("send", "nobody@4d.com", "--title", "Hello")
    assert ended.code == 1
    assert "nobody@4d.com has no device" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("send", "a@@b", "--title", "x"), ["a@@b"]),
        (("send", "--title", "x"), ["No recipients", "--all"]),
        (("send", "test@4d.com", "--title", ""), ["title"]),
        (("send", "test@4d.com"), ["--title"]),
        (("send", "test@4d.com", "--title", "x", "--body", "x" * 5000), ["974 more", "4,096"]),
        (("send", "test@4d.com", "--title", "x", "--body", "é🔔" * 680), ["4,096"]),
        (("send", "test@4d.com", "--title", "x", "--app", "nowhere"), ["nowhere"]),
        (("send", "test@4d.com", "--title", "x", "--file", "/nowhere.json"), ["/nowhere.json"]),
        (("send", "test@4d.com", "--title", "x", "--data", "novalue"), ["novalue"]),
        (("send", "test@4d.com", "--titel", "x"), ["--titel"]),
        (("app", "add", "TEAM.com.sample.other"), ["TEAM"]),
        (("app", "add", APP), [APP]),
        (("session", "add", "test@4d.com", "xyz"), ["device token"]),
        (("session", "close", "99"), ["99"]),
        (("session", "show", "9" * 30), ["'session_id'", "handbell session"]),
        (("session", "show", "+-3"), ["no session's number"]),
        (("session", "show", "test@4d.com"), ["session list test@4d.com"]),
        (("webhook", "remove", "all"), ["no webhook's number", "webhook list"]),
        (("webhook", "test", "9" * 30), ["webhook_id"]),
        (("twin", "--production-port", "70000"), ["70000"]),
        (("key", "remove", "NOSUCHKEY1"), ["NOSUCHKEY1"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_wrong_use_is_exit_code_2_with_a_clear_sentence(
    ready: Shell, arguments: tuple[str, ...], words: list[str]
) -> None:
    """What was wrong is named, with what to do; nothing is sent and no traceback shows."""
    ended = ready.run(*arguments)
    assert ended.code == 2
    for word in words:
        assert word in ended.err


def _keys() -> dict[str, bytes]:
    good = _pem(ec.generate_private_key(ec.SECP256R1()))
    return {
        "rsa": _pem(rsa.generate_private_key(65537, 2048)),
        "truncated": good[: len(good) // 2],
        "encrypted": _pem(ec.generate_private_key(ec.SECP256R1()), "secret"),
        "certificate": _certificate(),
        "empty": b"",
        "other curve": _pem(ec.generate_private_key(ec.SECP384R1())),
    }


@pytest.mark.parametrize("kind", list(_keys()))
def test_a_wrong_key_is_refused_and_nothing_is_stored(
    shell: Shell, tmp_path: Path, kind: str
) -> None:
    """A file that is no P-256 key in PKCS#8 is refused in a sentence, and no key is added."""
    shell.run("app", "add", APP)
    file = tmp_path / KEY_FILE
    file.write_bytes(_keys()[kind])
    ended = shell.run("key", "add", str(file))
    assert ended.code == 2
    assert KEY_FILE in ended.err
    assert json.loads(shell.run("key", "list", "--json").out) == []


def test_a_key_never_comes_out(ready: Shell, template: Path) -> None:
    """No command, no file of the home and no error shows the key again."""
    key = (template / KEY_FILE).read_text("utf-8").splitlines()[1]
    for arguments in (("key", "list"), ("app", "show", APP), ("doctor", APP)):
        ended = ready.run(*arguments, "--json")
        assert key not in ended.out + ended.err
    assert key.encode() not in stored_in(ready.home)


def test_a_status_without_its_broker_is_told_at_once(tmp_path: Path) -> None:
    """A broker that takes connections and says nothing is waited for two seconds, and named.

    Its password is not.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        engine = f"nats://worker:hunter2secret@127.0.0.1:{port}/shop"
        shell = Shell(tmp_path / "home", {"HANDBELL_ENGINE": engine})
        began = time.monotonic()
        ended = shell.run("status")
        assert time.monotonic() - began < 15
    assert ended.code == 0
    assert f"broker\t127.0.0.1:{port}\tshop\taway" in ended.out
    assert "does not answer: nothing came in time" in ended.out
    assert "hunter2secret" not in ended.out + ended.err


def test_a_broken_database_is_named(shell: Shell) -> None:
    """A file that is no database is named, and left as it is."""
    shell.home.mkdir()
    database = shell.home / "handbell.db"
    database.write_bytes(b"not a database at all" * 100)
    ended = shell.run("app", "list")
    assert ended.code == 2
    assert "handbell.db" in ended.err
    assert stored_in(database) == b"not a database at all" * 100


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A home that cannot be written is named, with exit code 2."""
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    ended = Shell(tmp_path / "file" / "home").run("app", "list")
    assert ended.code == 2
    assert "home" in ended.err


def test_a_session_on_a_twin_that_is_not_running(ready: Shell) -> None:
    """A phone of a twin that is gone is an error with its fix, not silence."""
    ready.run("session", "add", "test@4d.com", "ab" * 32, "--environment", "twin")
    ended = ready.run("send", "test@4d.com", "--title", "Hello")
    assert ended.code == 2
    assert "handbell twin" in ended.err


def test_the_schema_is_brought_up_to_date_by_a_command(shell: Shell) -> None:
    """``db upgrade``, which errors name, makes the schema, may be repeated, and harms no file."""
    url = f"sqlite:///{shell.home / 'handbell.db'}"
    for _ in range(2):
        assert shell.run("db", "upgrade").out == f"The schema of {url} is up to date, at {HEAD}.\n"
    told = json.loads(shell.run("db", "upgrade", "--json").out)
    assert told == {"database": url, "revision": HEAD, "waiting": None}
    (shell.home / "handbell.db").write_text("not a database", encoding="utf-8")
    ended = shell.run("db", "upgrade")
    assert (ended.code, "damaged or not an SQLite database" in ended.err) == (2, True)
    assert stored_in(shell.home / "handbell.db") == b"not a database"


def test_a_port_in_use_is_named(shell: Shell) -> None:
    """A twin whose port is taken says which one, and leaves nothing running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = shell.run(
            "twin", "--port", port, "--production-port", "0", "--development-port", "0"
        )
    assert ended.code == 2
    assert port in ended.err


def test_a_phone_of_nobody_is_refused_and_nothing_is_made(shell: Shell) -> None:
    """A twin for what is no mail address does not start, and leaves no sample app."""
    ports = ("--port", "0", "--production-port", "0", "--development-port", "0")
    ended = shell.run("twin", "--phone", "a@@b", *ports)
    assert ended.code == 2
    assert "'a@@b' is not a mail address" in ended.err
    assert shell.run("app", "list").out == ""


def test_several_apps_have_to_be_told_apart(shell: Shell) -> None:
    """With two apps and none named, the candidates are listed."""
    other = "TEAM123456.com.sample.other"
    shell.run("app", "add", APP)
    shell.run("app", "add", other)
    ended = shell.run("send", "test@4d.com", "--title", "Hello")
    assert ended.code == 2
    assert APP in ended.err
    assert other in ended.err


@pytest.mark.parametrize("listed", ["session", "key", "template"])
def test_lists_are_of_every_app_unless_one_is_named(shell: Shell, listed: str) -> None:
    """With two apps and none named both are listed, each row with its app."""
    for number in (1, 2):
        app = f"TEAM12345{number}.com.sample.app{number}"
        shell.run("app", "add", app)
        shell.run("session", "add", "ada@4d.com", f"{number:02x}" * 32, "--app", app)
        key = shell.home.parent / f"AuthKey_ABCDE1234{number}.p8"
        key.write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
        shell.run("key", "add", str(key), "--app", app)
        file = shell.home.parent / "hello.json"
        file.write_text('{"notification": {"title": "Hello"}}')
        shell.run("template", "put", str(file), "--app", app)
    for arguments, apps in ((), {"app1", "app2"}), (("--app", "app2"), {"app2"}):
        rows = json.loads(shell.run(listed, "list", *arguments, "--json").out)
        assert {row["app"].rpartition(".")[2] for row in rows} == apps
        lines = shell.run(listed, "list", *arguments).out.splitlines()
        assert {line.rpartition(".")[2] for line in lines} == apps


@pytest.mark.parametrize("words", [(), ("1",), ("1", "--json"), ("--app", "myapp", "1", "-y")])
def test_a_session_is_closed_rather_than_removed(shell: Shell, words: tuple[str, ...]) -> None:
    """Who looks for `session remove` is told of `close`, whatever is written behind it."""
    ended = shell.run("session", "remove", *words)
    assert ended.code == 2
    assert "handbell session close" in ended.out + ended.err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("send", "--title"), "send"),
        (("session", "list", "--app"), "session list"),
        (("session", "list", "--nothing"), "session list"),
        (("--home",), ""),
        (("webhook", "nothing"), "webhook"),
    ],
)
def test_wrong_words_name_the_help_of_their_command(
    shell: Shell, words: tuple[str, ...], named: str
) -> None:
    """Where to look is the help of the command that was begun."""
    ended = shell.run(*words)
    assert ended.code == 2
    assert ended.err.endswith(f"See: {' '.join(['handbell', *named.split()])} --help\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("send", "--titel", "x", "--json"), "usage"),
        (("session", "show", "nobody", "--json"), "usage"),
        (("app", "show", "nothing", "--json"), "app-unknown"),
        (("send", "ada", "--title", "x", "--json"), "recipients-invalid"),
        (("notification", "show", "x", "--json"), "notification-unknown"),
    ],
)
def test_errors_are_json_where_json_was_asked_for(
    shell: Shell, arguments: tuple[str, ...], code: str
) -> None:
    """A program reads what went wrong from standard output, under the code of the API."""
    ended = shell.run(*arguments)
    told = json.loads(ended.out)
    assert (ended.code, told["code"], ended.err) == (2, code, "")
    assert told["detail"]


def test_errors_have_one_style(shell: Shell) -> None:
    """Wrong words and wrong values are told alike: what, then what to do; no box."""
    for arguments in (("send", "--titel", "x"), ("app", "show", "nothing"), ("nothing",)):
        ended = shell.run(*arguments)
        first, second = ended.err.splitlines()
        assert first.startswith("handbell: ")
        assert second.startswith("          ")
        assert ended.out == ""


@pytest.mark.parametrize(
    "moment",
    ["2999-01-01T00:00:00Z", "2999-01-01T00:00"],
    ids=["utc", "local"],
)
def test_what_waits_for_its_time_is_done(ready: Shell, moment: str) -> None:
    """A send that is stored and waits says so, and ends with 0."""
    ready.run("session", "add", "ada@4d.com", "ab" * 32)
    ended = ready.run("send", "ada@4d.com", "--title", "x", "--at", moment)
    assert ended.code == 0, ended.err
    assert "stored and waits for its time" in ended.out


def test_what_an_operators_rule_holds_is_done(ready: Shell) -> None:
    """Quiet hours hold it: it is said, and the command ends with 0; `show` tells of no worker."""
    ready.run("app", "set", APP, "--quiet-hours", "00:00-23:59")
    ready.run("app", "set", APP, "--time-zone", "UTC")
    ready.run("session", "add", "ada@4d.com", "ab" * 32, "--time-zone", "UTC")
    ended = ready.run("send", "ada@4d.com", "--title", "x")
    if "quiet hours" not in ended.out:
        pytest.skip("it is the one minute of the day that is not quiet")
    assert ended.code == 0
    shown = ready.run("notification", "show", ended.out.partition("Id: ")[2].split()[0]).out
    assert "No worker is running" in shown


def test_nothing_goes_on_by_itself_where_no_worker_runs(ready: Shell) -> None:
    """While the push service is down, whatever is asked says that nobody works, and not else."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    away = replace(
        ready,
        extra={
            f"HANDBELL_APNS_{side}_URL": f"https://127.0.0.1:{port}"
            for side in ("PRODUCTION", "DEVELOPMENT")
        },
    )
    away.run("session", "add", "ada@4d.com", "ab" * 32)
    one = away.run("send", "ada@4d.com", "--title", "x")
    everybody = away.run("send", "--all", "--title", "x")
    # On a slow machine the outage is probed by it, and it is held for that.
    waits = ("It is stored and waits to go out", "ServiceDown")
    assert any(words in everybody.out for words in waits)
    number = one.out.partition("Id: ")[2].split()[0]
    for ended in (
        one,
        everybody,
        away.run("app", "show", APP),
        away.run("notification", "show", number),
        away.run("notification", "show", number, "--follow"),
        away.run("why", "ada@4d.com"),
    ):
        assert "No worker is running" in ended.out
        assert "by itself" not in ended.out


@pytest.mark.parametrize("shell_name", ["bash", "zsh"])
def test_a_shell_completes_commands(shell: Shell, shell_name: str) -> None:
    """What a shell asks for, with the script of ``--show-completion``, is told."""
    asked = {
        "_HANDBELL_COMPLETE": f"complete_{shell_name}",
        "COMP_WORDS": "handbell session c",
        "COMP_CWORD": "2",
        "_TYPER_COMPLETE_ARGS": "handbell session c",
    }
    assert "close" in replace(shell, extra=asked).run().out


def test_variables_may_be_json(ready: Shell) -> None:
    """`NAME:=2` is a number for the template, and `NAME=2` a text."""
    file = ready.home.parent / "count.json"
    file.write_text(
        '{"notification": {"title": "{% if n is number %}number{% else %}text{% endif %}"}}'
    )
    ready.run("template", "put", str(file))
    ready.run("session", "add", "ada@4d.com", "ab" * 32)
    for given, told in (("n:=2", "number"), ("n=2", "text")):
        out = ready.run(
            "send", "ada@4d.com", "--template", "count", "--variable", given, "--dry-run"
        ).out
        assert f'"title":"{told}"' in out
    ended = ready.run(
        "send", "ada@4d.com", "--template", "count", "--variable", "n:=two", "--dry-run"
    )
    assert ended.code == 2
    assert "--variable n:= is not JSON" in ended.err


def test_the_command_is_also_a_module(shell: Shell) -> None:
    """``python -m handbell`` is the same command, and ``--version`` says which."""
    run = subprocess.run(
        [sys.executable, "-m", "handbell", "--version"],
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
        env=shell.environment,
    )
    assert run.stdout == shell.run("version").out == shell.run("--version").out


def test_version_and_help(shell: Shell) -> None:
    """The version is told, and help lists every noun."""
    assert shell.run("version").out.startswith("handbell ")
    out = shell.run("--help").out
    for noun in ("demo", "twin", "send", "app", "key", "session", "import-4d", "doctor"):
        assert noun in out


def test_a_folder_of_the_original_is_taken_over(shell: Shell, tmp_path: Path) -> None:
    """``import-4d`` takes over app, key and session, skips what is broken, and may be repeated."""
    folder = tmp_path / "MobileApps" / APP
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(
        json.dumps({"application": {"id": "com.sample.myapp", "name": "My App"}}), "utf-8"
    )
    (folder / KEY_FILE).write_bytes(_pem(ec.generate_private_key(ec.SECP256R1())))
    session = {"email": "test@4d.com", "device": {"token": "ab" * 32}, "status": "accepted"}
    (folder / "7023d9205074199d").write_text(json.dumps(session), "utf-8")
    (folder / "8134ea3161852aae").write_text("{broken", "utf-8")
    first = shell.run("import-4d", str(folder.parent))
    again = shell.run("import-4d", str(folder.parent), "--json")
    assert first.code == again.code == 1
    assert "8134ea3161852aae" in first.out
    assert json.loads(again.out)["unchanged"] >= 3
    listed = json.loads(shell.run("session", "list", "--json").out)
    assert [(one["mail"], one["status"]) for one in listed] == [("test@4d.com", "active")]
    assert {listed[0]["address"], listed[0]["token"]} == {"ab" * 32}


def test_what_the_command_line_changes_is_in_the_trail(ready: Shell, template: Path) -> None:
    """Each change with what it was made to, as those of the console and the API; no secret."""
    hook = "https://hooks.example.invalid/a-secret-of-its-own"
    system = System(isolated_settings(ready.home))
    began = len(system.audit.list())
    done = [
        ("session", "add", "test@4d.com", "ab" * 32),
        ("session", "close", "1"),
        ("webhook", "add", hook),
        ("webhook", "disable", "1"),
        ("webhook", "enable", "1"),
        ("webhook", "remove", "1"),
        ("app", "resume", APP),
        ("key", "remove", "ABCDE12345"),
        ("key", "add", str(template / KEY_FILE)),
        ("app", "remove", APP, "--yes"),
    ]
    for words in done:
        ended = ready.run(*words)
        assert ended.code == 0, ended.err
    trail = system.audit.list()[:-began][::-1]
    assert {one.actor for one in trail} == {"command line"}
    assert [(one.action, one.subject) for one in trail] == [
        ("session.add", "session 1"),
        ("session.close", "session 1"),
        ("webhook.add", "1"),
        ("webhook.set", "1"),
        ("webhook.set", "1"),
        ("webhook.remove", "1"),
        ("app.set", APP),
        ("credential.remove", "ABCDE12345"),
        ("credential.add", "ABCDE12345"),
        ("app.remove", APP),
    ]
    assert [one.action for one in system.audit.list()[-began:]] == ["credential.add", "app.add"]
    assert "a-secret-of-its-own" not in repr(trail)
    system.database.close()


WITHOUT_STRUCTLOG = """
import sys
sys.modules["structlog"] = None
from handbell.cli import main
sys.argv = ["handbell", "worker", "--until-idle"]
main()
"""


def test_a_worker_without_the_extra_works_and_does_not_speak_of_it(
    shell: Shell, template: Path
) -> None:
    """Its events go to ``logging`` then, so that nothing is missing."""
    shutil.copytree(template / "home", shell.home)
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_STRUCTLOG],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=shell.environment,
    )
    assert (run.returncode, "works on" in run.stdout) == (0, True)
    assert run.stderr == ""


def test_the_secret_key_is_changed_by_a_command(shell: Shell, template: Path) -> None:
    """With the new key in front it says how much was sealed again, and what to remove then."""
    shutil.copytree(template / "home", shell.home)
    file = shell.home / "secret.key"
    old, new = file.read_text(), Fernet.generate_key().decode()
    only = shell.run("db", "reseal")
    assert (only.code, "0 secrets" in only.out, "has no other key" in only.out) == (0, True, True)
    file.write_text(f"{new}\n{old}")
    done = shell.run("db", "reseal")
    assert (done.code, "1 secret of" in done.out, "remove the others" in done.out) == (
        0,
        True,
        True,
    )
    assert new not in done.out
    file.write_text(new)
    told = json.loads(shell.run("db", "reseal", "--json").out)
    assert (told["resealed"], told["opened"], told["others"], told["lost"]) == (0, 1, [], {})
    file.write_text(old)
    refused = shell.run("db", "reseal")
    assert (refused.code, "is not the installation's" in refused.err) == (2, True)
