"""``handbell serve`` as a process of its own: its start, its end, and a kill in the midst."""

import contextlib
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from sqlalchemy import select
from tests.preloaded import COMMAND

from handbell.demo_environment import isolated_settings
from handbell.storage.tables import deliveries, notifications
from handbell.system import System
from handbell.testing import VirtualPhone

APP = "TEAM123456.com.sample.myapp"
MAIL = "test@4d.com"


class Process:
    """A server in a process of its own. ``said`` holds its first lines, up to the last of them."""

    def __init__(self, home: Path, *options: str) -> None:
        kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
        self.process = subprocess.Popen(
            [COMMAND, "serve", "--listen", "127.0.0.1:0", *options],
            env={**kept, "HANDBELL_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Ctrl-C"):
                break
        found = re.search(r"^Listening +(\S+)$", self.said, re.MULTILINE)
        assert found is not None, self.said + self.process.communicate()[1]
        self.url = f"http://{found[1]}"

    @property
    def cpu_seconds(self) -> float:
        """How much of a processor it has used so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, how: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Send a signal, and return the exit code and what was said to standard error."""
        self.process.send_signal(how)
        _, complaints = self.process.communicate(timeout=30)
        return self.process.returncode, complaints


@contextlib.contextmanager
def serve(home: Path, *options: str) -> Iterator[Process]:
    """Run a server for the block."""
    running = Process(home, *options)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.communicate()


def refused(home: Path, *options: str) -> str:
    """Run the command, which must end with exit code 2, and return its complaint."""
    ended = subprocess.run(
        [COMMAND, "--home", str(home), "serve", *options],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_the_first_start_is_quick_and_invites_the_first_operator(tmp_path: Path) -> None:
    """It is ready after seconds of work at most, offers one link, and stops when asked to."""
    with serve(tmp_path) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as client:
            assert client.get("/readyz").json()["status"] == "ready"
            assert server.cpu_seconds < 5
            link = re.search(r"http\S+/console/invitation/\S+", server.said)
            assert link is not None
            assert client.get(link[0]).status_code == 200
            assert client.get("/console/invitation/wrong").status_code in {404, 410}
        code, complaints = server.end()
    assert (code, "Traceback" in complaints) == (0, False)


def test_a_bad_start_says_what_to_do(tmp_path: Path) -> None:
    """A taken port, a line that is not TOML, and a file that is no certificate are named."""
    with serve(tmp_path / "one", "--no-console", "--no-worker") as server:
        assert "invitation" not in server.said
        assert "handbell worker" in server.said
        taken = server.url.removeprefix("http://")
        assert "already listens" in refused(tmp_path / "two", "--listen", taken)
    config = tmp_path / "handbell.toml"
    config.write_text('listen = "127.0.0.1:0"\nkeep_days =\n')
    assert "line 2" in refused(tmp_path)
    config.unlink()
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "secret.key").write_text("nonsense")
    (tmp_path / "open" / "secret.key").chmod(0o644)
    assert "chmod 600" in refused(tmp_path / "open", "--listen", "127.0.0.1:0")
    (tmp_path / "cert.pem").write_text("nonsense")
    said = refused(
        tmp_path, "--listen", "127.0.0.1:0", "--tls-certificate", str(tmp_path / "cert.pem")
    )
    assert "cert.pem" in said


def test_a_twin_that_comes_back_proves_nobody(tmp_path: Path) -> None:
    """Phones of former twins are there again; what waits for a proof goes on waiting for it."""
    system = System(isolated_settings(tmp_path))
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    tokens = {"pending": "ab" * 32, "active": "cd" * 32}
    for status, token in tokens.items():
        system.registry.register(app, MAIL, token, environment="twin", status=status)
    # The former user keeps the device until the next one has proven that it is theirs.
    system.registry.register(
        app, "next@4d.com", tokens["active"], environment="twin", status="pending"
    )
    with serve(tmp_path, "--no-worker", "--twin") as server:
        phones = re.search(r"^Phones +(\S+)$", server.said, re.MULTILINE)
        assert phones is not None
        state = httpx.get(f"{phones[1]}/api/state", trust_env=False).json()
        assert server.end()[0] == 0
    known = {phone["token"]: phone["mail"] for phone in state["phones"]}
    assert known == {tokens["pending"]: None, tokens["active"]: MAIL}
    found = {(one.mail, one.token): one.status for one in system.registry.sessions(app)}
    assert found == {
        (MAIL, tokens["pending"]): "pending",
        (MAIL, tokens["active"]): "active",
        ("next@4d.com", tokens["active"]): "pending",
    }
    system.database.close()


def test_what_got_a_yes_before_a_kill_is_delivered_once(
    handbell_home: Path, handbell_phone: VirtualPhone
) -> None:
    """Killed while it accepts: every send that was answered with 2xx stands on the phone once.

    What was on the wire at the kill may have gone out twice; it takes its own place on the phone.
    """
    system = System(isolated_settings(handbell_home))
    _, key = system.api_keys.add("test", ["send"])
    taken: list[str] = []
    with serve(handbell_home, "--no-console") as server:
        senders = [
            threading.Thread(target=_send_until_killed, args=(server.url, key, taken))
            for _ in range(4)
        ]
        for sender in senders:
            sender.start()
        _until(lambda: len(taken) >= 60)
        server.end(signal.SIGKILL)
        for sender in senders:
            sender.join(10)
    deliveries = {one: system.ledger.deliveries_of(one) for one in taken}
    assert len(deliveries) >= 60
    assert {len(each) for each in deliveries.values()} == {1}
    with serve(handbell_home, "--no-console") as server:
        _until(lambda: all(_states(system, one) == ["sent"] for one in taken))
        assert server.end()[0] == 0
    shown = handbell_phone.twin.shown(handbell_phone.token)
    names = {one: made.apns_id for one, [made] in deliveries.items()}
    assert [one for one, name in names.items() if shown.get(name, 0) < 1] == []
    repeated = {one for one, name in names.items() if shown[name] > 1}
    assert repeated <= {one for one, [made] in deliveries.items() if made.state != "sent"}
    cards = Counter(card.push_id for card in handbell_phone.cards)
    assert set(cards.values()) == {1}
    system.database.close()


def test_each_line_that_was_answered_before_a_kill_is_stored(
    handbell_home: Path, handbell_phone: VirtualPhone
) -> None:
    """Killed in the midst of a stream: what was answered is in the ledger, in its order."""
    assert handbell_phone.token
    system = System(isolated_settings(handbell_home))
    _, key = system.api_keys.add("test", ["send"])
    with serve(handbell_home, "--no-console", "--no-worker") as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as wire:
            sender = threading.Thread(target=_stream_until_killed, args=(wire, key))
            sender.start()
            answered: list[str] = []
            with wire.makefile("rb") as answer, contextlib.suppress(OSError):
                for line in answer:
                    if line.startswith(b'{"line":') and line.endswith(b"}\n"):
                        answered.append(json.loads(line)["id"])
                        if len(answered) == 3000:
                            server.process.kill()
            sender.join(10)
    assert len(answered) >= 3000
    with system.database.read() as connection:
        held = list(
            connection.scalars(select(notifications.c.public_id).order_by(notifications.c.id))
        )
        each = list(connection.scalars(select(deliveries.c.notification_id)))
    assert held[: len(answered)] == answered
    assert len(each) == len(set(each)) == len(held)
    system.database.close()


def _stream_until_killed(wire: socket.socket, key: str) -> None:
    head = (
        f"POST /v1/apps/{APP}/notifications HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/x-ndjson\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    with contextlib.suppress(OSError):
        wire.sendall(head.encode())
        for start in itertools.count(step=100):
            lines = [
                {"notification": {"title": f"Order {number}"}, "recipients": MAIL}
                for number in range(start, start + 100)
            ]
            piece = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            wire.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))


def _states(system: System, notification_id: str) -> list[str]:
    return [delivery.state for delivery in system.ledger.deliveries_of(notification_id)]


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def _send_until_killed(url: str, key: str, taken: list[str]) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    body = {"notification": {"title": "Hello"}, "recipients": MAIL}
    with httpx.Client(base_url=url, headers=headers, timeout=10, trust_env=False) as client:
        while True:
            try:
                answer = client.post(f"/v1/apps/{APP}/notifications", json=body)
            except httpx.HTTPError:
                return
            assert answer.status_code == 202, answer.text
            taken.append(answer.json()["id"])


def test_a_stop_lets_what_runs_finish(handbell_home: Path, handbell_phone: VirtualPhone) -> None:
    """A request that waits for its outcome while the server is told to stop still gets it."""
    system = System(isolated_settings(handbell_home))
    _, key = system.api_keys.add("test", ["send"])
    # The answer of the push service takes a second.
    handbell_phone.twin.add_fault("slow", seconds=1.0)
    answers: list[httpx.Response] = []
    with serve(handbell_home, "--no-console") as server:
        headers = {"Authorization": f"Bearer {key}", "Prefer": "wait=10"}
        body = {"notification": {"title": "Hello"}, "recipients": MAIL}
        url = f"{server.url}/v1/apps/{APP}/notifications"
        sender = threading.Thread(
            target=lambda: answers.append(
                httpx.post(url, json=body, headers=headers, timeout=20, trust_env=False)
            )
        )
        sender.start()
        _until(lambda: bool(system.reports.newest()))
        assert server.end()[0] == 0
        sender.join(20)
    assert [(one.status_code, one.json()["success"]) for one in answers] == [(200, True)]
    assert len(handbell_phone.cards) == 1
    system.database.close()
