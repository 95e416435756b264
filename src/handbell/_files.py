"""Explain the operating system's refusals of files and folders to an operator.

It covers everything that is written (the home folder, the key, the database and its backups, the
twin's certificates, standard output), so that a full disk gets the same message everywhere.
"""

import errno
import os
from pathlib import Path
from typing import Final, Literal, NamedTuple

Kind = Literal["full", "read-only", "other"]


class UnusablePath(NamedTuple):
    """Why a path is unusable, as a clause, and the fix, without a full stop."""

    kind: Kind
    why: str
    fix: str


_FREE: Final = "Free space there"
_RIGHT: Final = "Give this user the right to write there"
_WORDS: Final[dict[int, tuple[Kind, str, str]]] = {
    errno.ENOSPC: ("full", "no space is left on its disk", _FREE),
    errno.EDQUOT: ("full", "this user's quota of its disk is used up", f"{_FREE}, have it raised"),
    errno.EFBIG: ("full", "the file would be larger than allowed", "Raise the limit (ulimit -f)"),
    errno.EROFS: ("read-only", "its file system is read-only", "Mount it so that it is writable"),
    errno.EACCES: ("read-only", "permission denied", _RIGHT),
    errno.EPERM: (
        "read-only",
        "it is not permitted, as where a file is immutable",
        f"{_RIGHT} (lsattr shows what is immutable)",
    ),
    errno.ENOENT: ("other", "it, or a folder on the way, is not there", "Make it"),
    errno.ENOTDIR: ("other", "something on the way is a file, not a folder", "Move that away"),
    errno.EISDIR: ("other", "it is a folder, not a file", "Move it away"),
    errno.EEXIST: ("other", "it is a file, not a folder", "Move it away"),
    errno.ENAMETOOLONG: ("other", "the name is too long", "Choose a shorter one"),
    errno.ELOOP: ("other", "its symbolic links lead in a circle", "Correct the links"),
    errno.EMFILE: (
        "other",
        "this process has too many files open",
        "Raise the limit (ulimit -n)",
    ),
    errno.ENFILE: ("other", "this machine has too many files open", "Close some"),
    errno.EBUSY: ("other", "it is in use", "Stop what uses it"),
    errno.EIO: ("other", "the disk reports an error", "Check the disk"),
}


def refused(error: OSError, *, elsewhere: str = "") -> UnusablePath:
    """Explain an error. ``elsewhere`` is a clause on how to choose another place."""
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    unknown: tuple[Kind, str, str] = ("other", reason, "Check its path, and who may use it")
    kind, why, fix = _WORDS.get(error.errno or 0, unknown)
    return UnusablePath(kind, why, f"{fix}, or {elsewhere}" if elsewhere else fix)


def why_not_writable(path: Path) -> OSError | None:
    """Return the error that writing a file would raise, as far as that is known.

    For callers without a reason, such as SQLite. The file is not opened: closing it would drop
    this process's locks on a database.
    """
    place = path if path.exists() else path.parent
    try:
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            return OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        if not (os.access(place, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
            return OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    except OSError as error:
        return error
    return None
