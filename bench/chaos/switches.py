"""Phones that change hands while others send, and whether anything of a former user comes after.

A switch is answered by a process that sends nothing: by the command, or by one like a server
without a worker. From the answer on the twin must accept nothing for the phone that is meant for
the former user, until the phone is given back.
"""

import json
import random
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from handbell.delivery.ids import read_apns_id

from .figures import Figures
from .home import SWITCHING_APP, Home
from .senders import ROOT, Sender, clean_environment

PHONES: Final = 4
_SENDS: Final = 15
_ANSWER_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Phone:
    """A phone whose owner is one of two people; ``sessions`` are theirs, by mail.

    ``seen`` is what the twin had accepted when the last switch was answered, ``former`` whose it
    was before.
    """

    token: str
    mails: tuple[str, str]
    owner: int = 0
    sessions: dict[str, int] = field(default_factory=dict)
    seen: dict[str, int] | None = None
    former: str = ""


class Switches:
    """Gives phones to other people in a thread of its own, from ``begin`` to ``end``, repeatedly.

    ``sender`` gets the sends to both people that are on their way meanwhile.
    """

    def __init__(self, home: Home, sender: Sender, figures: Figures, *, seed: int) -> None:
        self._home = home
        self._sender = sender
        self._figures = figures
        self._rng = random.Random(seed)  # noqa: S311 - not for secrets
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._phones = [
            _Phone(
                home.twin.add_phone(app=SWITCHING_APP).token,
                (f"first{number}@example.com", f"second{number}@example.com"),
            )
            for number in range(PHONES)
        ]

    def begin(self, *, by_command: bool) -> None:
        """Begin to switch: by the command, which goes by the machine's clocks, or by a server."""
        self._is_over.clear()
        run = self._run_commands if by_command else self._run_server
        self._thread = threading.Thread(target=run)
        self._thread.start()

    def end(self) -> None:
        """Return when the last switch is answered."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def judge(self) -> None:
        """Look a last time at what came after the last switch of each phone."""
        for phone in self._phones:
            self._look(phone)

    def _run_commands(self) -> None:
        environment = clean_environment() | {
            f"HANDBELL_{name.upper()}": value for name, value in self._home.settings.items()
        }
        handbell = Path(sys.executable).with_name("handbell")
        while not self._is_over.is_set():
            phone, mail = self._prepare()
            words = ["session", "add", mail, phone.token, "--app", SWITCHING_APP]
            with _started([str(handbell), *words], environment) as process:
                # The first line comes when the switch is done; what the end takes is no answer.
                answer = process.stdout.readline() if process.stdout is not None else ""
                self._note(phone, "by command", answer)
                _, err = process.communicate(timeout=_ANSWER_SECONDS)
            if process.returncode:
                self._figures.problems.append(f"a switch by command failed: {err}")
                return
            phone.sessions[mail] = int(answer.split()[1].rstrip(":"))

    def _run_server(self) -> None:
        task = replace(self._home.task(), app=SWITCHING_APP)
        command = [sys.executable, "-m", "bench.chaos.switcher", task.text()]
        with _started(command, clean_environment()) as process:
            while not self._is_over.is_set() and process.stdin and process.stdout:
                phone, mail = self._prepare()
                process.stdin.write(json.dumps([mail, phone.token]) + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
                self._note(phone, "without worker", answer)
                if not answer:
                    break
                phone.sessions[mail] = int(answer)
            _, err = process.communicate(timeout=_ANSWER_SECONDS)
        if process.returncode:
            self._figures.problems.append(f"a process that switches failed: {err}")

    def _prepare(self) -> tuple[_Phone, str]:
        """Return a phone and who is to have it, while much is on its way to both."""
        phone = self._rng.choice(self._phones)
        former, mail = phone.mails[phone.owner], phone.mails[1 - phone.owner]
        for _ in range(_SENDS):
            self._number += 1
            order = {
                "app": SWITCHING_APP,
                "content": {"title": f"To {former}"},
                "to": list(phone.mails),
                "idempotency_key": f"switch-{self._number}",
            }
            self._home.orders.append(order)
            self._sender.say(order=order)
        # Few at a time and answered late: the rest waits, handed over already, to go to a phone.
        self._home.twin.add_fault("stream-limit", token=phone.token, limit=2)
        self._home.twin.add_fault("slow", token=phone.token, count=_SENDS, seconds=0.1)
        self._is_over.wait(self._rng.uniform(0.0, 0.4))
        self._look(phone)
        return phone, mail

    def _note(self, phone: _Phone, how: str, answer: str) -> None:
        if answer:
            phone.seen = self._home.twin.accepted_of(phone.token)
            phone.former, phone.owner = phone.mails[phone.owner], 1 - phone.owner
            self._figures.switches[how] += 1

    def _look(self, phone: _Phone) -> None:
        """Count what was accepted for the former user since the last switch was answered."""
        seen, phone.seen = phone.seen, None
        if seen is None:
            return
        former = phone.sessions.get(phone.former)
        for name, times in self._home.twin.accepted_of(phone.token).items():
            known = read_apns_id(name)
            if known is not None and known[1] == former:
                self._figures.after_switch += times - seen.get(name, 0)


def _started(command: list[str], environment: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
