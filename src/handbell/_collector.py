"""Python's garbage collector in a process that does nothing but serve or send."""

import gc
from typing import Final

_NEW_OBJECTS: Final = 20_000


def settle() -> None:
    """Take what is there for lasting, and look for garbage less often; call it once all runs.

    The collector would go through all modules again and again: of what a send costs, that was a
    fifth. Each send makes some hundred objects that live until it has ended, and hardly any is part
    of a cycle: to look at all of them after every seventh send was another tenth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 20, 20)
