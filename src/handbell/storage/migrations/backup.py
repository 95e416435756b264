"""A copy of an SQLite database, made while it is in use."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path


def back_up(source: sqlite3.Connection, target: Path) -> None:
    """Copy what a connection sees to a file with mode 600, whole or not at all.

    A copy of that name that is there already is replaced. Raises sqlite3's errors or OSError.
    """
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    try:
        with closing(sqlite3.connect(draft)) as copy:
            source.backup(copy)
        os.fsync(handle)
        Path(draft).replace(target)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
