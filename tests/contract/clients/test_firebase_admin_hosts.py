"""firebase-admin, unmodified, judges FCM on the twin: Google's names are built in.

Python's goes by the twin's proxy, what speaks HTTP/2 by mapped hosts, as it takes no proxy.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.contract.clients.mapped import mapped
from tests.contract.clients.tools import HERE, node_program, python_venv, run

from handbell.twin.phone import Phone
from handbell.twin.threaded import RunningTwin, start_twin

Send = Callable[..., list[list[str]]]
PROJECT = "shop-4711"


@dataclass
class Stage:
    """A twin with a proxy, and a service account whose key file is on disk."""

    twin: RunningTwin
    key_file: Path

    def phone(self, **details: Any) -> Phone:
        """Return a new Android phone of the account's project."""
        return self.twin.add_phone(**{"platform": "android", "project": PROJECT, **details})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run a twin for the file."""
    folder = tmp_path_factory.mktemp("twin")
    with start_twin(folder / "twin", proxy_port=0) as twin:
        key_file = folder / "account.json"
        key_file.write_text(twin.make_service_account(PROJECT))
        yield Stage(twin, key_file)


class FirebaseJudgements:
    """What each of Google's libraries has to read; ``codes`` are its words for FCM's codes."""

    codes: ClassVar[dict[str, list[str]]]
    ways: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def send(cls, stage: Stage) -> Iterator[Send]:
        """Yield what sends messages, each an object of send.py's, and returns what was read."""
        raise NotImplementedError

    def test_a_message_arrives_in_each_way(self, stage: Stage, send: Send) -> None:
        """The name of the message is read, and the phone shows it with its tag and channel."""
        phones = [stage.phone() for _ in self.ways]
        said = [
            {"how": way, "token": phone.token, "tag": "order-7", "ttl": 60, "data": {"n": "7"}}
            for way, phone in zip(self.ways, phones, strict=True)
        ]
        for (name,), phone in zip(send(*said), phones, strict=True):
            assert name.startswith(f"projects/{PROJECT}/messages/")
            (card,) = stage.twin.phone(phone.id).cards
            assert (card.id, card.title, card.body) == ("order-7", "Hello", "Grüße 👋")
            assert card.channel == "orders"

    def test_a_dry_run_shows_nothing(self, stage: Stage, send: Send) -> None:
        """``validate_only`` is answered with a name, and nothing arrives."""
        phone = stage.phone()
        ((name,),) = send({"token": phone.token, "dry_run": True})
        assert name == f"projects/{PROJECT}/messages/fake_message_id"
        assert stage.twin.phone(phone.id).cards == ()

    def test_each_refusal_is_read(self, stage: Stage, send: Send) -> None:
        """What FCM refuses by a real request is read as the library documents it."""
        gone = stage.phone()
        stage.twin.remove_phone(gone)
        token = stage.phone().token
        answers = send(
            {"token": gone.token},
            {"token": stage.phone(project="other-project").token},
            {"token": "nonsense"},
            {"token": token, "data": {"k": "x" * 4096}},
        )
        expected = ("UNREGISTERED", "SENDER_ID_MISMATCH", "INVALID_ARGUMENT", "INVALID_ARGUMENT")
        assert [answer[-1] for answer in answers] == [self.codes[code][-1] for code in expected]

    @pytest.mark.parametrize("code", ["QUOTA_EXCEEDED", "THIRD_PARTY_AUTH_ERROR", "UNREGISTERED"])
    def test_each_code_on_demand_is_read(self, stage: Stage, send: Send, code: str) -> None:
        """What a fault answers is read as the library documents it."""
        token = stage.phone().token
        stage.twin.add_fault("answer", reason=code, token=token, count=10)
        (answer,) = send({"token": token})
        stage.twin.clear_faults()
        assert answer == self.codes[code]

    def test_it_tries_again_when_fcm_is_not_there(self, stage: Stage, send: Send) -> None:
        """UNAVAILABLE with Retry-After is tried again by the library itself, and arrives."""
        phone = stage.phone()
        stage.twin.add_fault("answer", reason="UNAVAILABLE", token=phone.token, retry_after=1)
        ((name,),) = send({"token": phone.token})
        assert name.startswith("projects/")
        assert len(stage.twin.phone(phone.id).cards) == 1

    def test_a_revoked_key_is_read(self, stage: Stage, send: Send) -> None:
        """An account that was deleted gets no access token: the error is the library's for it."""
        account = json.loads(stage.key_file.read_text())
        stage.twin.remove_service_account(account["client_email"])
        try:
            (answer,) = send({"token": stage.phone().token})
        finally:
            stage.twin.add_service_account(stage.key_file.read_text())
        assert answer == self.codes["invalid_grant"]


@pytest.mark.judge("firebase-admin for Python by the proxy")
class TestPython(FirebaseJudgements):
    """firebase-admin for Python, on requests; its asynchronous half, on httpx, takes no proxy."""

    ways: tuple[str, ...] = ("send", "each")
    codes: ClassVar[dict[str, list[str]]] = {
        "UNREGISTERED": ["UnregisteredError", "NOT_FOUND"],
        "SENDER_ID_MISMATCH": ["SenderIdMismatchError", "PERMISSION_DENIED"],
        "INVALID_ARGUMENT": ["InvalidArgumentError", "INVALID_ARGUMENT"],
        "QUOTA_EXCEEDED": ["QuotaExceededError", "RESOURCE_EXHAUSTED"],
        "THIRD_PARTY_AUTH_ERROR": ["ThirdPartyAuthError", "UNAUTHENTICATED"],
        "invalid_grant": ["RefreshError", "invalid_grant"],
    }

    @pytest.fixture(scope="class")
    @classmethod
    def send(cls, stage: Stage) -> Send | Iterator[Send]:
        """Fetch the library, and lead it by the proxy."""
        python = python_venv("firebase-admin")
        program = [str(python), str(HERE / "firebase-admin" / "send.py"), str(stage.key_file)]
        trust = str(stage.twin.hosts_ca_file)
        env = {
            "HTTPS_PROXY": stage.twin.proxy_url,
            "NO_PROXY": "",
            "REQUESTS_CA_BUNDLE": trust,
            "SSL_CERT_FILE": trust,
        }
        return lambda *said: _results(program, said, env)


@pytest.mark.judge("firebase-admin for Python under Google's names")
class TestPythonByName(TestPython):
    """Both halves of firebase-admin for Python, over HTTP/1.1 and HTTP/2."""

    ways = ("send", "each", "async")

    @pytest.fixture(scope="class")
    @classmethod
    def send(cls, stage: Stage) -> Iterator[Send]:
        """Fetch the library, and run it in a namespace."""
        python = python_venv("firebase-admin")
        trust = str(stage.twin.hosts_ca_file)
        env = {"REQUESTS_CA_BUNDLE": trust, "SSL_CERT_FILE": trust}
        program = [str(python), str(HERE / "firebase-admin" / "send.py"), str(stage.key_file)]
        with mapped(stage.twin) as before:
            yield lambda *said: _results([*before, *program], said, env)


@pytest.mark.judge("firebase-admin for Node under Google's names")
class TestNode(FirebaseJudgements):
    """firebase-admin for Node, on node:http2."""

    ways = ("send", "each")
    codes: ClassVar[dict[str, list[str]]] = {
        "UNREGISTERED": ["FirebaseMessagingError", "messaging/registration-token-not-registered"],
        "SENDER_ID_MISMATCH": ["FirebaseMessagingError", "messaging/mismatched-credential"],
        "INVALID_ARGUMENT": ["FirebaseMessagingError", "messaging/invalid-argument"],
        "QUOTA_EXCEEDED": ["FirebaseMessagingError", "messaging/message-rate-exceeded"],
        "THIRD_PARTY_AUTH_ERROR": ["FirebaseMessagingError", "messaging/third-party-auth-error"],
        "invalid_grant": ["FirebaseAppError", "app/invalid-credential"],
    }

    @pytest.fixture(scope="class")
    @classmethod
    def send(cls, stage: Stage) -> Iterator[Send]:
        """Fetch the modules, and run them in a namespace."""
        program = node_program("firebase-admin")
        env = {"NODE_EXTRA_CA_CERTS": str(stage.twin.hosts_ca_file)}
        with mapped(stage.twin) as before:
            command = [*before, "node", str(program), str(stage.key_file)]
            yield lambda *said: _results(command, said, env)


def _results(program: list[str], said: tuple[Any, ...], env: dict[str, str]) -> list[list[str]]:
    given = "".join(json.dumps(one) + "\n" for one in said)
    done = run(program, env=env, given=given)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
