"""Back-off between connections to a host, by how the former ones ended. Pure.

No clock is read; instants are those of the event loop, in seconds.
"""

from typing import Final

from handbell._back_off import BackOff

_SECONDS_THAT_COUNT: Final = 5.0
_ANSWERS_THAT_COUNT: Final = 1000
_MOST_LEVEL: Final = 9.0
_PAUSES: Final = BackOff(0.1, 2, 15)
_CALM_PAUSES: Final = BackOff(1, 2, 60)


class ReconnectBackOff:
    """The back-off before the next connection; see :meth:`ended`.

    ``until`` is when it may be opened; ``level`` the number of connections that ended young, less
    what others earned since: 0 to 9.
    """

    def __init__(self) -> None:
        self.level = 0.0
        self.until = 0.0

    def ended(self, now: float, *, lived: float, answers: int, is_calm: bool) -> None:
        """Note that the host ended a connection, or that it could not be opened or used.

        The pause is ::

            level = max(0, level + 1 - lived / 5 - answers / 1000)    at most 9; 1 at least for calm
            pause = 0.1 * 2 ** (level - 1)                            at most 15 seconds
            pause = 1.0 * 2 ** (level - 1)                            at most 60, where it is calm

        and none at level 0: a connection of 5 seconds, or of 1,000 answers, is followed by another
        at once. ``is_calm`` means that the host asked for fewer (ENHANCE_YOUR_CALM).
        """
        earned = lived / _SECONDS_THAT_COUNT + answers / _ANSWERS_THAT_COUNT
        self.level = min(_MOST_LEVEL, max(float(is_calm), self.level + 1 - earned))
        if is_calm:
            pause = _CALM_PAUSES.delay(self.level - 1)
        elif self.level:
            pause = _PAUSES.delay(self.level - 1)
        else:
            pause = 0.0
        self.until = max(self.until, now + pause)
