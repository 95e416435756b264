"""When to stop sending for an app: a pure count of what the push service answers."""

from dataclasses import dataclass
from typing import Final

from .outcome import Decision, Doubt

FEWEST_ANSWERS: Final = 10
"""Below this many answers, refused tokens say nothing about the configuration."""


@dataclass(slots=True)
class Circuit:
    """Watches the answers for one app and opens when they mean that its configuration is wrong.

    It opens at once when the push service refuses the key, the topic or the certificate, and when
    more than half of at least :data:`FEWEST_ANSWERS` answers refused the token. While it is open
    nothing more is sent for the app and no token is judged: a valid token is never thrown away
    because a configuration was wrong.
    """

    accepted: int = 0
    refused: int = 0
    reason: str | None = None
    detail: str = ""

    @property
    def is_open(self) -> bool:
        """Whether sending has to stop."""
        return self.reason is not None

    @property
    def has_worked(self) -> bool:
        """Whether a push was accepted, so that the configuration is known to be right."""
        return self.accepted > 0

    def note(self, decision: Decision) -> None:
        """Count one decision. A delivery that asks the other environment is not counted yet."""
        if decision.environment is not None:
            return
        if decision.state == "sent":
            self.accepted += 1
        elif decision.doubt is Doubt.CONFIGURATION:
            self._open(decision)
        elif decision.doubt is Doubt.TOKEN:
            self.refused += 1
            answers = self.accepted + self.refused
            if answers >= FEWEST_ANSWERS and 2 * self.refused > answers:
                self._open(decision)

    def _open(self, decision: Decision) -> None:
        if self.reason is None:
            self.reason, self.detail = decision.reason, decision.detail
