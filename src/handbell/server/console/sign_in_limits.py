"""Limits of sign-in attempts: slow guessing without lock-out.

A network has a limit per account, and one for all accounts. An account has a limit for all
networks together, against distributed guessing; networks and browsers that have signed in to it
before are exempt from that one.
"""

import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from handbell.apps.vault import Vault
from handbell.errors import HandbellError
from handbell.server.limits import Limit, Limiter

PER_PAIR: Final = Limit(number=8, seconds=900)
"""The rate limit per network, or known browser, and account."""
PER_NETWORK: Final = Limit(number=20, seconds=600)
"""The rate limit per network, for all accounts."""
PER_ACCOUNT: Final = Limit(number=100, seconds=3600)
"""The rate limit per account for networks that have not signed in to it before."""
PASS_DAYS: Final = 365
"""How long a browser stays known."""

_PAIR: Final = "sign-in-pair"
_NETWORK: Final = "sign-in-network"
_ACCOUNT: Final = "sign-in-account"
_PASSED: Final = "sign-in-known"
_MARK: Final = b"handbell-known:"
_DAY: Final = 86_400
_MOST_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sign-in attempt. ``wait`` is the seconds until it is allowed, ``taken`` its cost."""

    account: str
    network: str
    wait: float = 0.0
    taken: tuple[tuple[str, str, Limit], ...] = ()


class SignInLimits:
    """Limits sign-in attempts, shared by all servers. Its methods block.

    ``now`` returns UNIX seconds, for the age of a pass.

    A pass marks a browser that has signed in. It grants nothing, and is encrypted against forgery.
    """

    def __init__(
        self, limiter: Limiter, vault: Callable[[], Vault], now: Callable[[], float]
    ) -> None:
        self._limiter = limiter
        self._vault = vault
        self._now = now
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, account: str, network: str, browser_pass: str) -> Attempt:
        """Count an attempt, unless it has to wait."""
        number = self._read_pass(account, browser_pass)
        if number is not None:
            known = f"{number} {account}"
            if not self._limiter.take(_PASSED, known, PER_PAIR):
                return Attempt(account, network, taken=((_PASSED, known, PER_PAIR),))
        taken: list[tuple[str, str, Limit]] = []
        for purpose, caller, limit in self._limits(account, network):
            wait = self._limiter.take(purpose, caller, limit)
            if wait:
                self._give_back(taken)
                return Attempt(account, network, wait=wait)
            taken.append((purpose, caller, limit))
        return Attempt(account, network, taken=tuple(taken))

    def succeed(self, attempt: Attempt) -> str:
        """Undo the count of a successful attempt, and return the browser's new pass."""
        self._give_back(attempt.taken)
        self._limiter.forget(_PAIR, f"{attempt.network} {attempt.account}")
        place = attempt.network, attempt.account
        with self._lock:
            self._known[place] = None
            self._known.move_to_end(place)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        made = json.dumps([attempt.account, secrets.token_hex(8), int(self._now())])
        return self._vault().seal(_MARK + made.encode()).decode("ascii")

    def _limits(self, account: str, network: str) -> list[tuple[str, str, Limit]]:
        limits = [
            (_NETWORK, network, PER_NETWORK),
            (_PAIR, f"{network} {account}", PER_PAIR),
        ]
        if (network, account) not in self._known:
            limits.append((_ACCOUNT, account, PER_ACCOUNT))
        return limits

    def _give_back(self, taken: Iterable[tuple[str, str, Limit]]) -> None:
        for purpose, caller, limit in taken:
            self._limiter.give_back(purpose, caller, limit)

    def _read_pass(self, account: str, browser_pass: str) -> str | None:
        """Return the number of a pass for this account, None for an invalid one."""
        if not browser_pass:
            return None
        try:
            plain = self._vault().unseal(browser_pass.encode())
        except HandbellError:
            return None
        if not plain.startswith(_MARK):
            return None
        named, number, made_at = json.loads(plain.removeprefix(_MARK))
        is_fresh = self._now() - made_at < PASS_DAYS * _DAY
        return str(number) if named == account and is_fresh else None
