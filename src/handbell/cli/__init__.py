"""The command line: one thin file per noun.

Exit codes: 0 done, 1 nobody was reached or a check failed, 2 wrong use or configuration.
"""

import os
import sys

from handbell.errors import HandbellError


def main() -> None:
    """Run ``handbell`` with the arguments of this process, and end it with the right exit code."""
    from .application import application  # noqa: PLC0415 - so that an import costs nothing

    try:
        application()
    except HandbellError as error:
        _complain(error)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our pipe has gone, as `head` does; Python must not complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _complain(error: HandbellError) -> None:
    sys.stderr.write(f"handbell: {error.what}\n")
    if error.fix:
        sys.stderr.write(f"          {error.fix}\n")
