"""How a failure that ends nothing is logged."""

import logging

from .errors import HandbellError


def log_failure(log: logging.Logger, error: BaseException, what: str, *values: object) -> None:
    """Log that ``what``, filled in with ``values``, has failed.

    An error of Handbell's says by itself what is wrong, and nobody has to read a traceback because
    a database is away; anything else comes with its traceback.
    """
    if isinstance(error, HandbellError):
        log.error("%s: %s", what % values, error)
    else:
        log.error(what, *values, exc_info=error)
