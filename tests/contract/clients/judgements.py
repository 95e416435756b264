"""What every client judges: the same pushes to a running twin, and the verdicts it must read.

A program of this folder is given its connection in ``CLIENT_*`` variables and one push a line,
fields apart by tabs: device token, topic, push type, priority, expiration, collapse id, apns-id,
payload. It writes one line for each in the same order: status, reason, timestamp, apns-id; status 0
with an error in words where there was no answer. The first push goes alone, the others at once
unless ``CLIENT_IN_TURN`` is set.
"""

import json
import secrets
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.contract.clients.tools import run

from handbell.services.apns.protocol import PUSH_TYPES
from handbell.services.apns.reasons import REASONS
from handbell.twin.threaded import RunningTwin, start_twin

TEAM, KEY_ID, BUNDLE = "TEAM123456", "KEY1234567", "com.sample.myapp"
OTHER_APP = "OTHERTEAM1.com.other.app"
HELLO = json.dumps({"aps": {"alert": {"title": "Hello", "body": "Grüße 👋"}}})
OF_OTHER_KINDS = [kind for kind in PUSH_TYPES.values() if kind.address_kind != "alert"]
MANY = 500


class Verdict(NamedTuple):
    """What a client says of one push; ``since`` is the timestamp in milliseconds."""

    status: int
    reason: str = ""
    since: int | None = None
    apns_id: str = ""


@dataclass
class Push:
    """One push as a program is told it; an empty text leaves its header out."""

    token: str
    topic: str = BUNDLE
    push_type: str = "alert"
    priority: str = ""
    expiration: str = ""
    collapse_id: str = ""
    apns_id: str = ""
    payload: str = HELLO

    def line(self) -> str:
        """Return the line of a program's input."""
        return "\t".join(vars(self).values())


@dataclass
class Stage:
    """A twin that knows a few keys, whose clock can be set, and how to reach it."""

    twin: RunningTwin
    key_file: Path
    ahead: list[float] = field(default_factory=lambda: [0.0])

    def env(self, key_id: str = KEY_ID, *, by_preference: bool = True) -> dict[str, str]:
        """Return what a program is told of the connection.

        One with Apple's names built in trusts another authority, by the variables of its library.
        """
        told = {
            "CLIENT_URL": self.twin.production_url,
            "CLIENT_CA_FILE": str(self.twin.ca_file),
            "CLIENT_KEY_FILE": str(self.key_file),
            "CLIENT_KEY_ID": key_id,
            "CLIENT_TEAM_ID": TEAM,
            "CLIENT_HOSTS_CA_FILE": str(self.twin.hosts_ca_file),
        }
        return told | {"CLIENT_IN_TURN": "1"} if by_preference else told

    def token(self, **details: Any) -> str:
        """Return the token of a new phone."""
        return self.twin.add_phone(**{"app": f"{TEAM}.{BUNDLE}", **details}).token


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run a twin for the file, with keys and a certificate authority made just now."""
    folder = tmp_path_factory.mktemp("twin")
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    key_file = folder / "AuthKey.p8"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    ahead = [0.0]
    with start_twin(folder / "twin", now=lambda: time.time() + ahead[0]) as twin:
        twin.add_key(TEAM, KEY_ID, public)
        twin.add_key(TEAM, "KEYDEVELOP", public, environment="development")
        twin.add_key(TEAM, "KEYTOPICS1", public, topics=["com.sample.second"])
        twin.add_app(f"{TEAM}.{BUNDLE}", "My App")
        twin.add_app(OTHER_APP, "Somebody else's")
        yield Stage(twin, key_file, ahead)


REFUSED: dict[str, tuple[dict[str, str], tuple[int, str]]] = {
    "an unknown token": ({"token": "99" * 32}, (400, "BadDeviceToken")),
    "another app's topic": ({"topic": "com.sample.second"}, (400, "DeviceTokenNotForTopic")),
    "another team's topic": ({"topic": "com.other.app"}, (400, "TopicDisallowed")),
    "no suffix": ({"push_type": "voip"}, (400, "BadTopic")),
    "no topic": ({"topic": ""}, (400, "MissingTopic")),
    "a topic that is none": ({"topic": "no topic"}, (400, "BadTopic")),
    "a collapse id of 65 bytes": ({"collapse_id": "x" * 65}, (400, "BadCollapseId")),
    "background at once": ({"push_type": "background", "priority": "10"}, (400, "BadPriority")),
    "a priority of 7": ({"priority": "7"}, (400, "BadPriority")),
    "no such push type": ({"push_type": "shout"}, (400, "InvalidPushType")),
    "an apns-id that is none": ({"apns_id": "42"}, (400, "BadMessageId")),
    "too long": ({"payload": json.dumps({"aps": {"alert": "x" * 4096}})}, (413, "PayloadTooLarge")),
} | {
    f"{kind.name} to the app's own token": (
        {"push_type": kind.name, "topic": BUNDLE + kind.topic_suffix, "priority": "10"},
        (400, "DeviceTokenNotForTopic"),
    )
    for kind in OF_OTHER_KINDS
}
"""Pushes that are refused, and as what."""


class CoreJudgements:
    """What every client can be asked; a class for each client, which says how to run it.

    ``cannot`` names the mistakes that the client's own types keep one from making, ``untold`` the
    reasons of which it tells the status alone. ``sends_ids`` says whether it can send an
    ``apns-id``, ``tells_ids`` whether it hands out the one of an answer, and ``expires_within`` how
    many seconds an expiration may be off, where it is given as a span from now on.
    """

    cannot: ClassVar[frozenset[str]] = frozenset()
    untold: ClassVar[frozenset[str]] = frozenset()
    sends_ids = tells_ids = True
    expires_within = 0

    @pytest.fixture(scope="class")
    @classmethod
    def program(cls) -> list[str]:
        """Return the command that runs the client; skip where it cannot be had."""
        raise NotImplementedError

    def send(self, program: list[str], pushes: list[Push], env: Mapping[str, str]) -> list[Verdict]:
        """Return what the client says of the pushes, in their order."""
        given = "".join(push.line() + "\n" for push in pushes)
        done = run(program, env=env, given=given)
        assert done.returncode == 0, done.stderr
        lines = [line.split("\t") for line in done.stdout.splitlines()]
        assert len(lines) == len(pushes), done.stdout + done.stderr
        return [
            Verdict(int(status), reason, int(since) if since else None, apns_id)
            for status, reason, since, apns_id in lines
        ]

    def test_a_push_is_accepted_and_shown(self, stage: Stage, program: list[str]) -> None:
        """It reads 200 and its apns-id, and the phone shows what was sent."""
        phone = stage.twin.add_phone(app=f"{TEAM}.{BUNDLE}")
        apns_id = str(uuid.uuid4())
        later = str(int(time.time()) + 3600)
        push = Push(
            phone.token, priority="5", apns_id=apns_id, collapse_id="order", expiration=later
        )
        (verdict,) = self.send(program, [push], stage.env())
        assert verdict.status == 200
        assert not self.tells_ids or verdict.apns_id == apns_id
        (card,) = stage.twin.phone(phone.id).cards
        assert (card.id, card.title) == ("order", "Hello")
        assert not self.sends_ids or card.push_id == apns_id
        assert card.body == "Grüße 👋"
        headers = stage.twin.requests[0].headers
        assert headers["apns-priority"] == "5"
        assert abs(int(headers["apns-expiration"]) - int(later)) <= self.expires_within

    def test_each_mistake_is_read_as_its_reason(self, stage: Stage, program: list[str]) -> None:
        """It reads each refusal, status and reason, as it is documented."""
        asked = {name: case for name, case in REFUSED.items() if name not in self.cannot}
        pushes = [Push(**{"token": stage.token(), **wrong}) for wrong, _ in asked.values()]
        pushes.append(Push(stage.token(side="development")))
        verdicts = self.send(program, pushes, stage.env())
        told = dict(zip([*asked, "the other side's token"], verdicts, strict=True))
        expected = {name: said for name, (_, said) in asked.items()}
        expected["the other side's token"] = (400, "BadDeviceToken")
        assert {name: verdict[:2] for name, verdict in told.items()} == expected

    def test_every_kind_of_token_takes_its_own_push(self, stage: Stage, program: list[str]) -> None:
        """VoIP, Live Activity and the others are accepted for tokens of their kind."""
        kinds = [
            kind
            for kind in PUSH_TYPES.values()
            if f"{kind.name} to the app's own token" not in self.cannot
        ]
        pushes = [
            Push(
                stage.token(kind=kind.address_kind),
                topic=BUNDLE + kind.topic_suffix,
                push_type=kind.name,
                priority=str(kind.default_priority),
            )
            for kind in kinds
        ]
        verdicts = self.send(program, pushes, stage.env())
        assert [verdict[:2] for verdict in verdicts] == [(200, "")] * len(kinds)

    def test_a_device_that_is_gone_tells_since_when(self, stage: Stage, program: list[str]) -> None:
        """410 Unregistered comes with its timestamp in milliseconds."""
        phone = stage.twin.add_phone(app=f"{TEAM}.{BUNDLE}")
        before = int(time.time()) * 1000  # not every client keeps the milliseconds
        stage.twin.remove_phone(phone)
        (verdict,) = self.send(program, [Push(phone.token)], stage.env())
        assert verdict[:2] == (410, "Unregistered")
        assert verdict.since is not None
        assert before <= verdict.since <= int(time.time() * 1000)

    def test_every_reason_of_the_table_is_read(self, stage: Stage, program: list[str]) -> None:
        """Whatever Apple may answer, asked for by a fault, arrives as it was said."""
        reasons = [reason for reason in REASONS if reason != "ExpiredProviderToken"]
        pushes = [Push(stage.token()) for _ in reasons]
        for push, reason in zip(pushes, reasons, strict=True):
            # A client may try again by itself.
            stage.twin.add_fault("answer", token=push.token, reason=reason, count=10)
        try:
            verdicts = self.send(program, pushes, stage.env())
        finally:
            stage.twin.clear_faults()
        told = [
            (verdict.status, reason if reason in self.untold else verdict.reason)
            for verdict, reason in zip(verdicts, reasons, strict=True)
        ]
        assert told == [(REASONS[reason].status, reason) for reason in reasons]

    @pytest.mark.parametrize(
        ("key_id", "reason", "status"),
        [
            ("KEYUNKNOWN", "InvalidProviderToken", 403),
            ("KEYDEVELOP", "BadEnvironmentKeyIdInToken", 403),
            ("KEYTOPICS1", "TopicDisallowed", 400),
        ],
    )
    def test_a_key_that_may_not(
        self, stage: Stage, program: list[str], key_id: str, reason: str, status: int
    ) -> None:
        """A key that is unknown, of the other environment or of other topics is refused so."""
        (verdict,) = self.send(program, [Push(stage.token())], stage.env(key_id))
        told = reason if reason in self.untold else verdict.reason
        assert (verdict.status, told) == (status, reason)

    def test_an_expired_provider_token(self, stage: Stage, program: list[str]) -> None:
        """A token that is over an hour old by the service's clock is told as expired."""
        stage.ahead[0] = 3700
        try:
            (verdict,) = self.send(program, [Push(stage.token())], stage.env())
        finally:
            stage.ahead[0] = 0
        assert verdict[:2] == (403, "ExpiredProviderToken")


class Judgements(CoreJudgements):
    """All judgements: also what a client does with one connection, and after a GOAWAY.

    ``after_goaway`` says what may become of the answer that a GOAWAY promises and that comes behind
    it: 200 where it is read, 0 where it is not.
    """

    after_goaway: ClassVar[frozenset[int]] = frozenset({200})

    def test_many_go_over_one_connection(self, stage: Stage, program: list[str]) -> None:
        """Hundreds at once are each accepted once, over the connection that the first opened."""
        tokens = [stage.token() for _ in range(10)]
        pushes = [Push(tokens[number % 10], apns_id=str(uuid.uuid4())) for number in range(MANY)]
        before = stage.twin.opened
        verdicts = self.send(program, pushes, stage.env(by_preference=False))
        assert {verdict.status for verdict in verdicts} == {200}
        counted = [stage.twin.accepted_of(token) for token in tokens]
        assert {apns_id for each in counted for apns_id in each} == {p.apns_id for p in pushes}
        assert {times for each in counted for times in each.values()} == {1}
        assert stage.twin.opened - before == 1

    def test_it_comes_back_after_a_goaway(self, stage: Stage, program: list[str]) -> None:
        """Each push arrives once, those after a GOAWAY over a new connection."""
        pushes = [Push(stage.token(), collapse_id=secrets.token_hex(4)) for _ in range(3)]
        stage.twin.add_fault("goaway", token=pushes[0].token)
        verdicts = self.send(program, pushes, stage.env())
        assert verdicts[0].status in self.after_goaway, verdicts
        assert [verdict.status for verdict in verdicts[1:]] == [200, 200], verdicts
        assert [sum(stage.twin.accepted_of(push.token).values()) for push in pushes] == [1, 1, 1]
