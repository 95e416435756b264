"""Background loops that run as long as the program, whatever fails."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Never

from .errors import HandbellError

_log = logging.getLogger(__name__)


async def forever(turn: Callable[[], Awaitable[float]], *, name: str, pause: float) -> Never:
    """Call ``turn`` until cancelled; it returns the seconds until the next call.

    A failed call is logged under ``name``; the next one follows after ``pause`` seconds.
    """
    while True:
        try:
            wait = await turn()
        except HandbellError as error:
            _log.warning("%s failed; continuing in %g s: %s", name, pause, error)
            wait = pause
        except Exception:  # noqa: BLE001 - one turn must not end the work
            _log.exception("%s failed; continuing in %g s", name, pause)
            wait = pause
        await asyncio.sleep(wait)
