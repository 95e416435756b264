"""What the loft publishes: a line for each pigeon, ``whistle ring message``, and its answers."""

import re
from typing import Final

LONGEST_MESSAGE: Final = 60
"""What a pigeon carries, in bytes."""
RING: Final = re.compile(r"[A-Z]{2}-\d{4}-\d{2}-\d{1,4}")
FLOWN: Final = "flown"
