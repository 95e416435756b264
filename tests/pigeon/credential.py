"""What proves to the loft who sends: a whistle."""

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Whistle:
    """A tune that the loft knows; it is in no text."""

    tune: str = field(repr=False)

    @property
    def fingerprint(self) -> str:
        """Return the beginning of its SHA-256."""
        return hashlib.sha256(self.tune.encode()).hexdigest()[:16]
