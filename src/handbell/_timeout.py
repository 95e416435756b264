"""How long a caller waits for the outcome of a send."""

import math

from .errors import SettingsError


def read_timeout(value: object) -> float | None:
    """Return a time to wait in seconds; None for as long as it takes.

    Raises SettingsError for what is no such time.
    """
    if value is None or value == math.inf:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise SettingsError(
            f"The timeout is {value!r}",
            fix="Give seconds: 0 to accept and return at once, None to wait for the outcome",
        )
    return float(value)
