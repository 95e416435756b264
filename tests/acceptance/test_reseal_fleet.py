"""The secret key of a fleet is changed while it works: step by step, as docs/settings.md says."""

import contextlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from bench.chaos.senders import ROOT, clean_environment
from bench.fleet.callers import Caller
from bench.fleet.ground import APP, Ground
from bench.fleet.nodes import Node
from bench.fleet.traffic import Sends, Urgent
from bench.nats import NatsServer
from bench.postgresql import PostgresServer, Unavailable, new_folder
from cryptography.fernet import Fernet, InvalidToken

from handbell.apps.vault import KEY_FILE
from handbell.twin.threaded import start_twin

NAMES: Final = ("server-0", "server-1", "worker-0", "worker-1")


class Fleet:
    """Two servers and two workers that send all the while, each with a key file of its own."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self.folder = folder
        twin = stack.enter_context(start_twin(folder / "twin"))
        postgres = PostgresServer(new_folder())
        stack.callback(shutil.rmtree, postgres.folder, ignore_errors=True)
        postgres.start()
        stack.callback(postgres.stop)
        (folder / "nats").mkdir()
        nats = NatsServer(folder / "nats")
        nats.start()
        stack.callback(nats.stop)
        self.ground = Ground(folder, postgres, twin, sessions=50)
        self.settings = {
            name: self.ground.settings_of(name, postgres.port, nats.url()) for name in NAMES
        }
        self.nodes = {
            name: Node(name, folder, its, links=[], is_server=name.startswith("server"))
            for name, its in self.settings.items()
        }
        for node in self.nodes.values():
            stack.callback(node.kill)
            node.start()
            node.await_ready()
        self._is_over = threading.Event()
        self.sends = Sends()
        ports = [node.port for node in self.nodes.values() if node.port]
        self.traffic = Urgent(
            Caller(ports, self.ground.api_key, self._is_over),
            APP,
            self.ground.mails,
            self.ground.tokens,
            twin=twin,
            sends=self.sends,
            over=self._is_over,
        )
        self.traffic.is_measured = False

    def give(self, keys: str, name: str) -> None:
        """Write a node's key file and restart the node, in good order."""
        node = self.nodes[name]
        (self.folder / name / KEY_FILE).write_text(keys)
        assert node.stop() == 0, node.last_words()
        node.start()
        node.await_ready()

    def reseal(self) -> dict[str, Any]:
        """Run the command on the first machine; return what it says."""
        its = {f"HANDBELL_{key.upper()}": text for key, text in self.settings[NAMES[0]].items()}
        done = subprocess.run(
            [sys.executable, "-m", "handbell", "db", "reseal", "--json"],
            cwd=ROOT,
            env=clean_environment() | its,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def end(self) -> None:
        """End the traffic; every call of it was answered."""
        self._is_over.set()
        self.traffic.join()
        assert self.traffic.problems == []


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """Give a fleet that works."""
    with contextlib.ExitStack() as stack:
        try:
            yield Fleet(tmp_path, stack)
        except Unavailable as error:
            pytest.skip(str(error))


@pytest.mark.cluster
@pytest.mark.timeout(500)
def test_the_secret_key_is_changed_without_a_gap(fleet: Fleet) -> None:
    """All calls are answered meanwhile and all is sent; one node without the new key stops it."""
    old, new = (fleet.folder / "first" / KEY_FILE).read_text(), Fernet.generate_key().decode()
    fleet.traffic.start()
    *first, last = NAMES
    for name in first:
        fleet.give(f"{new}\n{old}", name)
    assert "do not have the key" in fleet.reseal()["detail"]
    assert not _sealed_with(fleet, new)
    fleet.give(f"{new}\n{old}", last)
    done = fleet.reseal()
    assert (done.get("opened"), done.get("lost")) == (2, {}), done
    assert _sealed_with(fleet, new)
    for name in NAMES:
        fleet.give(new, name)
    fleet.end()
    assert fleet.sends.accepted
    for node in fleet.nodes.values():
        assert (node.stop(), node.tracebacks()) == (0, [])
        assert "Secret key replaced" not in (fleet.folder / f"{node.name}.log").read_text()
    states = fleet.ground.read("SELECT state, count(*) FROM deliveries GROUP BY 1")
    assert states == [("sent", len(fleet.sends.accepted))]


def _sealed_with(fleet: Fleet, key: str) -> bool:
    sealed = [bytes(one) for (one,) in fleet.ground.read("SELECT sealed FROM credentials")]
    opened = 0
    for one in sealed:
        with contextlib.suppress(InvalidToken):
            Fernet(key).decrypt(one)
            opened += 1
    assert opened in {0, len(sealed)}
    return opened > 0
