"""The commands about what was sent, and the worker, in processes of their own."""

import asyncio
import json
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.preloaded import COMMAND, preloaded

from handbell.creation.notification import Notification
from handbell.creation.recipients import EVERYBODY
from handbell.demo_environment import isolated_settings
from handbell.system import System
from handbell.testing import VirtualPhone

APP = "TEAM123456.com.sample.myapp"
MAIL = "test@4d.com"


@dataclass(frozen=True)
class Shell:
    """Runs ``handbell`` on a home whose twin runs beside the test."""

    home: Path
    phone: VirtualPhone

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a command, free of this machine's settings."""
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        return {**kept, "HANDBELL_HOME": str(self.home)}

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the command to its end, which must be this exit code, and return what it said."""
        ended = subprocess.run(
            [preloaded(), *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env=self.environment,
        )
        assert "Traceback" not in ended.stderr
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def read(self, *arguments: str) -> Any:
        """Run the command with ``--json`` and return what it says."""
        return json.loads(self.run(*arguments, "--json"))

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """Start the command and leave it running."""
        pipe, env = subprocess.PIPE, self.environment | variables
        return subprocess.Popen([COMMAND, *arguments], stdout=pipe, stderr=pipe, text=True, env=env)

    def store(self, number: int) -> None:
        """Store sends to everybody as a process that is killed right after leaves them."""
        system = System(isolated_settings(self.home))
        app = system.apps.find(APP)
        for _ in range(number):
            asyncio.run(system.engine.accept(app, Notification(title="Stored"), EVERYBODY))
            del system.engine
        system.database.close()


@pytest.fixture
def shell(handbell_home: Path, handbell_phone: VirtualPhone) -> Shell:
    """Give a shell whose home has a phone of test@4d.com."""
    return Shell(handbell_home, handbell_phone)


def test_what_was_sent_is_told_counted_and_taken_back(shell: Shell) -> None:
    """``why``, ``notification list``, ``show`` and ``cancel`` agree about one person's story."""
    shell.run("send", MAIL, "--title", "Hello", "--urgency", "urgent")
    assert "accepted it at" in shell.run("why", MAIL)
    story = shell.read("why", MAIL)
    (brought,) = (one["delivery"] for one in story["notifications"][0]["deliveries"])
    assert brought["id"] == brought["apns_id"]
    assert brought["address"] == story["sessions"][0]["session"]["address"]
    stored = shell.run("send", MAIL, "--title", "Later", "--at", "2999-12-24T18:00")
    assert "stored and waits for its time" in stored
    assert "Start one with: handbell worker" in stored
    told = shell.run("why", MAIL, code=1)
    assert told.startswith("The last notification, 'Later' of")
    assert "handbell worker" in told
    later, hello = shell.read("notification", "list")
    assert (later["title"], later["states"], hello["states"]) == ("Later", {"held": 1}, {"sent": 1})
    assert "1 held, Scheduled" in shell.run("notification", "show", later["id"], "--follow")
    assert "There is no dead letter of" in shell.run("notification", "resend", later["id"])
    assert shell.read("notification", "list", "--state", "dead_letter") == []
    assert shell.read("notification", "resend") == {"resent": 0}
    assert "Cancelled 1 delivery of 1" in shell.run("notification", "cancel", later["id"])
    shown = shell.read("notification", "show", hello["id"])
    assert (shown["accepted"], shown["sent"], shown["urgency"]) == (1, 1, "urgent")


@pytest.mark.parametrize(
    "options",
    [("--ttl", "60", "--collapse-id", "order-7", "--data", "order=7"), ("--silent",), ()],
)
def test_a_dry_run_shows_what_then_goes_out(shell: Shell, options: tuple[str, ...]) -> None:
    """Header for header the request of a dry run is the one that the push service gets."""
    text = () if "--silent" in options else ("--title", "Hello")
    [said] = shell.read("send", MAIL, *text, *options, "--dry-run")
    shell.run("send", MAIL, *text, *options)
    [received] = shell.phone.twin.requests
    shown, sent = dict(said["headers"]), dict(received.request.headers)
    hidden = {"authorization", "apns-id"}
    assert shown.keys() == sent.keys() - {"content-length"}
    if "apns-expiration" in shown:
        assert 0 <= int(sent["apns-expiration"]) - int(shown["apns-expiration"]) <= 30
        hidden.add("apns-expiration")
    assert {name: sent[name] for name in shown.keys() - hidden} == {
        name: shown[name] for name in shown.keys() - hidden
    }
    body = json.loads(received.request.body)
    assert {**json.loads(said["payload"]), "handbell": body["handbell"]} == body
    assert said["size"] == received.request.size


def test_who_waits_without_a_worker_is_told(shell: Shell) -> None:
    """A send that is tried again later says so once, and that nobody is there to do it."""
    shell.phone.twin.add_fault("answer", reason="InternalServerError")
    told = shell.run("send", MAIL, "--title", "Hello", code=1)
    assert "Apple's server failed. The next attempt is due at " in told
    assert "by itself" not in told
    assert "No worker is running" in told


def test_why_asks_for_a_mail_address(shell: Shell) -> None:
    """What is no mail address gets no advice to register it."""
    told = shell.run("why", "a@@b", code=2)
    assert "'a@@b'" in told
    assert "session add" not in told


def test_a_repeated_command_with_the_same_key_sends_once(shell: Shell) -> None:
    """``--idempotency-key`` returns the first answer, and refuses another content."""
    arguments = ("send", MAIL, "--idempotency-key", "order-7", "--title")
    first = json.loads(shell.run(*arguments, "Hello", "--json"))
    again = json.loads(shell.run(*arguments, "Hello", "--json"))
    assert first["notification_id"] == again["notification_id"]
    assert "order-7" in shell.run(*arguments, "Other", code=2)
    assert len(shell.phone.cards) == 1


def test_the_worker_sends_what_others_stored_and_ends_when_nothing_is_due(shell: Shell) -> None:
    """``handbell worker --until-idle`` finishes what a killed process left, and logs it."""
    shell.store(2)
    assert shell.phone.cards == ()
    told = shell.run("worker", "--until-idle")
    assert len(shell.phone.cards) == 2
    assert told.startswith("Worker ")
    assert '"event":"pushes.sent"' in told
    assert "The worker has stopped." in told


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_the_worker_stops_cleanly_on_a_signal(shell: Shell, how: signal.Signals) -> None:
    """What runs as a service ends with exit code 0, and leaves no worker in the database."""
    with shell.start("worker") as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(how)
        out, err = process.communicate(timeout=20)
    assert "Ctrl-C stops it" in first
    assert (process.returncode, out, err) == (0, "The worker has stopped.\n", "")


def test_a_worker_tells_of_its_health_where_it_is_asked_to(shell: Shell) -> None:
    """``--listen`` serves liveness, readiness and metrics alone; a wrong one is told."""
    with shell.start("worker", "--listen", "127.0.0.1:0", HANDBELL_METRICS_PUBLIC="1") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        assert "Ctrl-C stops it" in process.stdout.readline()
        answers = {path: httpx.get(f"{url}/{path}") for path in ("healthz", "readyz", "metrics")}
        assert {answer.status_code for answer in answers.values()} == {200}
        assert isinstance(answers["readyz"].json()["worker"], int)
        assert "handbell_queue_depth" in answers["metrics"].text
        assert httpx.get(f"{url}/v1/apps").status_code == 404
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert "host:port" in shell.run("worker", "--listen", "nowhere", code=2)


def test_several_processes_work_and_end_as_one(shell: Shell) -> None:
    """``--processes`` works off what is there; one that is killed is started again.

    All of them end on one signal, with exit code 0.
    """
    shell.store(2)
    assert shell.run("worker", "--processes", "2", "--until-idle").count("Worker ") == 2
    assert len(shell.phone.cards) == 2
    with shell.start("worker", "--processes", "2") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert all("Ctrl-C stops it" in line for line in lines)
    assert (process.returncode, out) == (0, "The worker has stopped.\n" * 2)
    assert "A process ended with -9; it is started again" in err


def test_an_apps_rules_are_set_shown_and_removed(shell: Shell) -> None:
    """``app set`` keeps what is not named, ``none`` removes, and ``app show`` tells all of it."""
    shell.run("app", "set", "--quiet-hours", "22:00-07:00", "--cap", "5 per day", "--off")
    shell.run("app", "set", APP, "--time-zone", "Europe/Paris", "--rate-limit", "200", "--on")
    shown = shell.read("app", "show", APP)
    rules = {name: shown[name] for name in ("quiet_hours", "cap", "rate_limit", "time_zone")}
    assert rules == {
        "quiet_hours": "22:00-07:00",
        "cap": "5/day",
        "rate_limit": "200/second burst 200",
        "time_zone": "Europe/Paris",
    }
    assert (shown["is_enabled"], shown["stopped"]) == (True, None)
    assert "quiet hours: none" in shell.run("app", "set", "--quiet-hours", "none")
    assert "had not been stopped" in shell.run("app", "resume", APP)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("app", "set", "--quiet-hours", "at night"), "22:00-07:00"),
        (("app", "set", "--time-zone", "Europe/Pariss"), "Europe/Paris"),
        (("send", MAIL, "--title", "x", "--at", "tomorrow"), "2026-12-24T18:00"),
        (("notification", "show", "0123456789abcde"), "handbell notification list"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_wrong_use_names_the_way_out(
    handbell_home: Path, arguments: tuple[str, ...], word: str
) -> None:
    """What cannot be understood ends with exit code 2 and says how to write it."""
    system = System(isolated_settings(handbell_home))
    system.apps.add("TEAM123456", "com.sample.myapp")
    system.database.close()
    ended = subprocess.run(
        [preloaded(), "--home", str(handbell_home), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert ended.returncode == 2
    assert word in ended.stderr
