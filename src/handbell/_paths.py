"""Paths: whether they may be shown, and who else may read or write a file."""

import re
import stat
from pathlib import Path, PurePath
from typing import Final

# A file name that no key looks like: it ends in a dot and few letters.
_FILE_NAME: Final = re.compile(r"[^\x00-\x1f]*\.[A-Za-z0-9]{1,8}")
_LONG_RUN: Final = re.compile(r"[A-Za-z0-9+=]{40,}")


def expanded(path: str | Path) -> Path:
    """Return a path with its ``~`` replaced; where nobody is called so it stays, as in a shell."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_file(path: Path) -> bool:
    """Return whether a path leads to a file; one that is too long to be any leads nowhere."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_explicit_path(given: str | Path) -> bool:
    """Return whether a path may be shown, since it cannot be a secret given by mistake.

    It exists, or it can only be a file name.
    """
    try:
        if Path(given).expanduser().exists():
            return True
    except (OSError, ValueError, RuntimeError):
        return False
    parts = PurePath(given).parts
    is_named = bool(parts) and _FILE_NAME.fullmatch(parts[-1]) is not None
    return is_named and not any(map(_LONG_RUN.search, parts))


def others_can_access(path: Path) -> str:
    """Return other users' access to the file: ``read``, ``read and write``.

    Empty if they have none, or the file does not exist. The file is not opened.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    may_read = mode & (stat.S_IRGRP | stat.S_IROTH)
    may_write = mode & (stat.S_IWGRP | stat.S_IWOTH)
    return " and ".join(word for word, may in (("read", may_read), ("write", may_write)) if may)
