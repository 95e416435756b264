"""Operators' passwords: policy and hashing."""

import secrets
import threading
from functools import cached_property
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from handbell.errors import OperatorError

SHORTEST: Final = 12
LONGEST: Final = 1024
"""A limit on the cost of hashing."""

_AT_ONCE: Final = 2
_FEWEST_LETTERS: Final = 4

# The most common passwords that are long enough for the policy; compared ignoring case.
_LONG_COMMON_ONES: Final = """
    000000000000 111111111111 121212121212 123123123123 123456123456 1234567890123
    123456789012 1234567890ab 123456789abc 1234567890qwe 1q2w3e4r5t6y 1q2w3e4r5t6y7u
    1qaz2wsx3edc 1qaz2wsx3edc4rfv abcdefghijkl abcdefghijklm administrator adminadminadmin
    asdfghjkl123 changeme1234 changemechangeme correcthorsebatterystaple iloveyou1234
    letmeinletmein letmein12345 lovelovelove password1234 password12345 password123456
    passwordpassword p@ssw0rd1234 passw0rd1234 qazwsxedcrfv qwerty123456 qwertyqwerty
    qwertyuiop12 qwertyuiop123 qwertyuiopasdf qwertyuiopasdfghjkl q1w2e3r4t5y6 superman1234
    trustno1trustno1 welcome12345 welcomewelcome zaq12wsxcde3 zxcvbnm12345
"""


def check_password(password: str, *, mail: str) -> None:
    """Raise :class:`~handbell.errors.OperatorError` for a weak password.

    A password has 12 to 1024 characters of any kind, is not a common one and not the mail address.
    """
    if len(password) < SHORTEST:
        raise OperatorError(
            f"The password has {len(password)} of at least {SHORTEST} characters",
            fix="Use a few words that belong together only for you",
        )
    if len(password) > LONGEST:
        raise OperatorError(
            f"The password has more than {LONGEST:,} characters", fix="Use a shorter one"
        )
    folded = password.casefold()
    is_common = folded in _LONG_COMMON_ONES.split() or len(set(folded)) < _FEWEST_LETTERS
    if is_common or "".join(folded.split()) in {mail.casefold(), mail.casefold().partition("@")[0]}:
        raise OperatorError(
            "This password is one of the most common",
            fix="Use a few words that belong together only for you",
        )


class Passwords:
    """Hashes passwords with Argon2id and checks them.

    Each hash contains its parameters; :meth:`is_outdated` compares them. One takes some 50 ms and
    64 MiB, so at most two run at the same time.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turns = threading.BoundedSemaphore(_AT_ONCE)

    def hash(self, password: str) -> str:
        """Return the hash of a password."""
        with self._turns:
            return self._hasher.hash(password)

    def fits(self, password: str, stored: str | None) -> bool:
        """Return whether a password matches the hash.

        None stands for an unknown account: the result is False and takes as long.
        """
        with self._turns:
            # Computed in advance: else the first unknown account would take twice as long.
            nobodys = self._nobodys
            try:
                self._hasher.verify(stored or nobodys, password[:LONGEST])
            except (VerificationError, InvalidHashError):
                return False
        return stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash has other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    @cached_property
    def _nobodys(self) -> str:
        return self._hasher.hash(secrets.token_urlsafe())
