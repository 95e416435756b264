"""What callers bring while things go wrong: urgent sends, and phones that change hands."""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from handbell.delivery.ids import read_apns_id
from handbell.twin.threaded import RunningTwin

from .callers import Caller

PHONES: Final = 4
_SENDS: Final = 10
_URGENT_PAUSE: Final = 0.1
_LOOK_SECONDS: Final = 0.02


@dataclass(slots=True)
class Sends:
    """What was answered with 2xx: public ids, with how many deliveries each makes."""

    accepted: dict[str, int] = field(default_factory=dict)
    switching: set[str] = field(default_factory=set)


class Urgent(threading.Thread):
    """Sends urgent notifications to one person each, until it is over.

    While it ``is_measured``, each is waited for: ``seconds`` is how long they took from the call
    until the twin had accepted them.
    """

    def __init__(
        self,
        caller: Caller,
        app: str,
        mails: list[str],
        tokens: list[str],
        *,
        twin: RunningTwin,
        sends: Sends,
        over: threading.Event,
    ) -> None:
        super().__init__(name="urgent", daemon=True)
        self.problems: list[str] = []
        self._caller = caller
        self._path = f"/v1/apps/{app}/notifications"
        self._mails = mails
        self._sends = sends
        self._is_over = over
        self._ground_of = dict(zip(mails, tokens, strict=True))
        self._twin = twin
        self.seconds: list[float] = []
        self.is_measured = True

    def run(self) -> None:
        """Send, and note what was accepted."""
        rng = random.Random(1)  # noqa: S311 - not for secrets
        number = 0
        while not self._is_over.wait(_URGENT_PAUSE):
            number += 1
            mail = rng.choice(self._mails)
            body = {
                "notification": {"title": f"Urgent {number}"},
                "recipients": mail,
                "urgency": "urgent",
            }
            began = time.monotonic()
            try:
                answer = self._caller.post(self._path, body, key=f"urgent-{number}")
            except Exception as error:  # noqa: BLE001 - told at the end
                took = time.monotonic() - began
                self.problems.append(f"an urgent send failed after {took:.1f} s: {error}")
                return
            self._sends.accepted[answer["id"]] = 1
            if self.is_measured:
                self._await(self._ground_of[mail], answer["id"])
                self.seconds.append(time.monotonic() - began)

    def _await(self, token: str, name: str) -> None:
        """Return when the twin has accepted a notification, or nobody measures any more."""
        while self.is_measured and not self._is_over.wait(_LOOK_SECONDS):
            known = map(read_apns_id, self._twin.accepted_of(token))
            if any(one is not None and one[0] == name for one in known):
                return


@dataclass(slots=True)
class _Phone:
    token: str
    mails: tuple[str, str]
    owner: int = 0
    sessions: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] | None = None
    former: str = ""


class Switching(threading.Thread):
    """Gives phones to other people while much is on its way to both, until it is over.

    ``after`` counts what the twin accepted for a former user after a switch was answered.
    """

    def __init__(
        self,
        caller: Caller,
        app: str,
        twin: RunningTwin,
        sends: Sends,
        over: threading.Event,
    ) -> None:
        super().__init__(name="switching", daemon=True)
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.after = 0
        self._caller = caller
        self._app = app
        self._twin = twin
        self._sends = sends
        self._is_over = over
        self._rng = random.Random(2)  # noqa: S311 - not for secrets
        self._phones = [
            _Phone(
                twin.add_phone(app=app).token,
                (f"first{number}@example.com", f"second{number}@example.com"),
            )
            for number in range(PHONES)
        ]

    def prepare(self) -> None:
        """Register the first owner of each phone."""
        for phone in self._phones:
            self._register(phone, phone.mails[0])

    def run(self) -> None:
        """Switch, and look what comes after."""
        number = 0
        while not self._is_over.is_set():
            phone = self._rng.choice(self._phones)
            former, mail = phone.mails[phone.owner], phone.mails[1 - phone.owner]
            try:
                for _ in range(_SENDS):
                    number += 1
                    self._send(phone, former, number)
                self._slow_down(phone)
                self._look(phone)
                self._register(phone, mail)
            except Exception as error:  # noqa: BLE001 - told at the end
                if not self._is_over.is_set():
                    self.problems.append(f"a switch failed: {error}")
                return
            phone.seen = self._twin.accepted_of(phone.token)
            phone.former, phone.owner = former, 1 - phone.owner
            self.counts["switches"] += 1

    def judge(self) -> None:
        """Look a last time at what came after the last switch of each phone."""
        for phone in self._phones:
            self._look(phone)

    def _register(self, phone: _Phone, mail: str) -> None:
        body = {"mail": mail, "device_token": phone.token, "environment": "production"}
        answer = self._caller.post(f"/v1/apps/{self._app}/sessions", body)
        phone.sessions[mail] = answer["id"]

    def _send(self, phone: _Phone, former: str, number: int) -> None:
        body: dict[str, Any] = {
            "notification": {"title": f"To {former}"},
            "recipients": list(phone.mails),
        }
        path = f"/v1/apps/{self._app}/notifications"
        answer = self._caller.post(path, body, key=f"switch-{number}")
        self._sends.switching.add(answer["id"])

    def _slow_down(self, phone: _Phone) -> None:
        # Few at a time and answered late: the rest waits, handed over already, to go to a phone.
        self._twin.add_fault("stream-limit", token=phone.token, limit=2)
        self._twin.add_fault("slow", token=phone.token, count=_SENDS, seconds=0.1)
        self._is_over.wait(self._rng.uniform(0.0, 0.3))

    def _look(self, phone: _Phone) -> None:
        """Count what was accepted for the former user since the last switch was answered."""
        seen, phone.seen = phone.seen, None
        if seen is None:
            return
        former = phone.sessions.get(phone.former)
        for name, times in self._twin.accepted_of(phone.token).items():
            known = read_apns_id(name)
            if known is not None and known[1] == former:
                self.after += times - seen.get(name, 0)
