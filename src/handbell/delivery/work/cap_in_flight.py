"""Deliveries in flight that count under an app's cap, before their rows are written."""

import asyncio
from collections.abc import Iterable, KeysView

UserAndRow = tuple[int, int]
"""A user and a notification's row."""


class CapInFlight:
    """The admitted and not yet recorded deliveries of one app that count under its cap.

    A delivery is named by its notification's row and its number. With ``turn`` held from before the
    database is asked until what is let through was added here, the two together miss nothing that
    this process sends: what was added before is here, or was written before the question. Belongs
    to one event loop.

    What is here may be claimed in the database as well, for other workers; a claim is *freed* once
    nothing of that notification is on its way to that user.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._users: dict[tuple[int, int], int] = {}
        self._by_user: dict[int, set[tuple[int, int]]] = {}
        self._claimed: set[UserAndRow] = set()
        self._freed: set[UserAndRow] = set()

    def __len__(self) -> int:
        return len(self._users)

    def add(self, row: int, number: int, user_id: int) -> None:
        """Add an admitted delivery to a user."""
        self._users[row, number] = user_id
        self._by_user.setdefault(user_id, set()).add((row, number))

    def remove(self, row: int, numbers: Iterable[int]) -> None:
        """Remove recorded deliveries of a notification; unknown ones are ignored."""
        for number in numbers:
            user_id = self._users.pop((row, number), None)
            if user_id is None:
                continue
            left = self._by_user[user_id]
            left.discard((row, number))
            if not left:
                del self._by_user[user_id]
            self.free_unused([(user_id, row)])

    def keys(self) -> KeysView[tuple[int, int]]:
        """Return the deliveries, by notification and number."""
        return self._users.keys()

    def rows_of(self, user_id: int) -> set[int]:
        """Return the notifications in flight to a user."""
        return {row for row, _ in self._by_user.get(user_id, ())}

    def unclaimed(self) -> set[UserAndRow]:
        """Return pairs in flight without a claim."""
        return {(user, row) for (row, _), user in self._users.items()} - self._claimed

    def note_claimed(self, pairs: Iterable[UserAndRow]) -> None:
        """Record claims, whether or not their deliveries are still in flight."""
        self._claimed.update(pairs)

    def free_unused(self, pairs: Iterable[UserAndRow]) -> None:
        """Free those of these claims with nothing in flight."""
        for user, row in pairs:
            if (user, row) in self._claimed and row not in self.rows_of(user):
                self._claimed.discard((user, row))
                self._freed.add((user, row))

    @property
    def has_freed(self) -> bool:
        """Whether there are freed claims to remove."""
        return bool(self._freed)

    def take_freed(self) -> set[UserAndRow]:
        """Return the freed claims, and forget them."""
        freed, self._freed = self._freed, set()
        return freed
