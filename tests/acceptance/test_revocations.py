"""A server that sends nothing, a worker beside it, and a phone that changes hands."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import httpx
import pytest
from sqlalchemy import select
from tests.preloaded import COMMAND, preloaded

from handbell.apps.app import App
from handbell.apps.sample_keys import make_key
from handbell.delivery.ids import read_apns_id
from handbell.errors import DatabaseLockedError
from handbell.settings import Settings
from handbell.storage.tables import workers
from handbell.system import System
from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

FORMER, NEXT = "former@example.com", "next@example.com"
SLOW_SECONDS = 0.3
BACKLOG = 60
_NUMBERS = count()


@dataclass
class Stand:
    """A server and a worker, each a process, on the settings of ``environment``."""

    system: System
    twin: RunningTwin
    client: httpx.Client
    worker: "subprocess.Popen[str]"
    environment: dict[str, str]

    def run(self, *arguments: str) -> None:
        """Run a command to its end."""
        subprocess.run([preloaded(), *arguments], env=self.environment, check=True, timeout=60)

    def listed(self) -> list[int]:
        """Return the workers that are entered."""
        with self.system.database.read() as connection:
            return list(connection.scalars(select(workers.c.id)))


@dataclass
class Case:
    """A phone of the former user, to whom more is being sent than goes out in a moment."""

    stand: Stand
    app: App
    phone: Phone
    session: int
    secret: str

    @property
    def path(self) -> str:
        """Where the app's sessions are."""
        return f"/v1/apps/{self.app.id}/sessions"

    def got(self) -> int:
        """Return how many pushes for the former user's session were handed to the phone."""
        names = [read_apns_id(name) for name in self.stand.twin.shown(self.phone.token)]
        return sum(named is not None and named[1] == self.session for named in names)


def until(is_so: Callable[[], object], seconds: float = 30) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def start(environment: dict[str, str], *arguments: str) -> tuple["subprocess.Popen[str]", str]:
    """Start a command, and return it with what it says until it says how to stop it."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            break
    return process, said


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Run a twin, a server without a worker, and a worker with few requests on the wire."""
    folder = tmp_path_factory.mktemp("stand")
    with start_twin(folder / "twin") as twin:
        settings = Settings.load(home=folder / "home", apns_ca_file=twin.ca_file)
        named = {
            "HANDBELL_HOME": str(folder / "home"),
            "HANDBELL_APNS_PRODUCTION_URL": twin.production_url,
            "HANDBELL_APNS_CA_FILE": str(twin.ca_file),
            "HANDBELL_CONNECTIONS": "1",
            "HANDBELL_IN_FLIGHT": "2",
        }
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        system = System(settings)
        _, key = system.api_keys.add("test", ["administer"])
        environment = kept | named
        alone = ("--no-worker", "--no-console")
        server, said = start(environment, "serve", "--listen", "127.0.0.1:0", *alone)
        worker, _ = start(environment, "worker")
        url = f"http://{said.partition('Listening')[2].split()[0]}"
        headers = {"Authorization": f"Bearer {key}"}
        with (
            closing(system.database),
            httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client,
        ):
            stand = Stand(system, twin, client, worker, environment)
            yield stand
        for process in (server, stand.worker):
            process.kill()
            process.communicate()


@pytest.fixture
def case(stand: Stand) -> Case:
    """Give a new app whose only phone answers slowly, and pushes to it on their way."""
    system, twin = stand.system, stand.twin
    number = next(_NUMBERS)
    app = system.apps.add("TEAM123456", f"com.sample.app{number}", name=f"App {number}")
    key = make_key(app.apple.team_id)
    system.apps.add_credential(app, key)
    twin.add_key(key.team_id, key.key_id, key.public_key_pem)
    twin.add_app(app.id, app.name)
    phone = twin.add_phone(mail=FORMER, app=app.id)
    twin.add_fault("slow", seconds=SLOW_SECONDS, token=phone.token, count=100_000)
    body = {"mail": FORMER, "device_token": phone.token}
    answer = stand.client.post(f"/v1/apps/{app.id}/sessions", json=body)
    assert answer.status_code == 201, answer.text
    registered = answer.json()
    found = Case(stand, app, phone, registered["id"], registered["secret"])
    send = {"notification": {"title": "For you alone"}, "recipients": FORMER}
    for _ in range(BACKLOG):
        sent = stand.client.post(f"/v1/apps/{app.id}/notifications", json=send)
        assert sent.status_code == 202, sent.text
    until(lambda: found.got() > 2)
    return found


def switch(case: Case) -> None:
    """Let the back end register the phone for the next user."""
    body = {"mail": NEXT, "device_token": case.phone.token}
    assert case.stand.client.post(case.path, json=body).status_code == 201


def import_for_the_next(case: Case) -> None:
    """Let the back end import the phone as the next user's."""
    line = f'{{"mail": "{NEXT}", "device_token": "{case.phone.token}"}}\n'
    headers = {"Content-Type": "application/x-ndjson"}
    answer = case.stand.client.post(f"{case.path}/import", content=line, headers=headers)
    assert answer.json()["imported"] == 1


def log_out(case: Case) -> None:
    """Let the former user log out on the phone."""
    headers = {"Authorization": f"Bearer {case.secret}"}
    answer = case.stand.client.delete(f"{case.path}/current", headers=headers)
    assert answer.status_code == 204


def close(case: Case) -> None:
    """Let the back end close the session."""
    answer = case.stand.client.delete(f"{case.path}/{case.session}")
    assert answer.status_code == 204, answer.text


def remove(case: Case) -> None:
    """Remove the former user for good."""
    answer = case.stand.client.delete(f"/v1/apps/{case.app.id}/users/{FORMER}")
    assert answer.status_code == 204


def close_by_command(case: Case) -> None:
    """Close the session at the command line."""
    case.stand.run("session", "close", str(case.session))


def switch_by_command(case: Case) -> None:
    """Register the phone for the next user at the command line."""
    case.stand.run("session", "add", NEXT, case.phone.token, "--app", case.app.id)


@pytest.mark.parametrize(
    "take",
    [
        switch,
        import_for_the_next,
        log_out,
        close,
        remove,
        close_by_command,
        switch_by_command,
    ],
)
def test_nothing_of_the_former_user_comes_after_the_answer(
    case: Case, take: Callable[[Case], None]
) -> None:
    """Whoever takes a session hears of it once no worker has anything on its way to it."""
    take(case)
    answered = case.got()
    assert answered < BACKLOG
    time.sleep(4 * SLOW_SECONDS)
    assert case.got() == answered


def hang(stand: Stand) -> None:
    """Stop the worker where it is, but not in the midst of a write, which would lock out all."""
    while True:
        stand.worker.send_signal(signal.SIGSTOP)
        try:
            with stand.system.database.write():
                return
        except DatabaseLockedError:
            stand.worker.send_signal(signal.SIGCONT)


def test_a_worker_that_hangs_is_waited_for_and_sends_nothing_later(case: Case) -> None:
    """The answer waits for its lease; once it goes on it has lost what it had, and works anew."""
    stand = case.stand
    before = stand.listed()
    hang(stand)
    try:
        close(case)
        answered = case.got()
    finally:
        stand.worker.send_signal(signal.SIGCONT)
    until(lambda: stand.listed() and stand.listed() != before)
    time.sleep(4 * SLOW_SECONDS)
    assert answered < BACKLOG
    assert case.got() == answered
    # It works on, under another name.
    switch(case)
    send = {"notification": {"title": "Hello"}, "recipients": NEXT}
    stand.client.post(f"/v1/apps/{case.app.id}/notifications", json=send)
    until(lambda: len(stand.twin.shown(case.phone.token)) > answered)


def test_a_worker_that_was_killed_holds_up_nobody(case: Case) -> None:
    """Its process is gone, so it is struck off at once."""
    stand = case.stand
    stand.worker.kill()
    stand.worker.communicate()
    try:
        close(case)
        answered = case.got()
        assert not stand.listed()
    finally:
        stand.worker, _ = start(stand.environment, "worker")
    time.sleep(4 * SLOW_SECONDS)
    assert case.got() == answered
