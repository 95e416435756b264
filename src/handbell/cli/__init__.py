"""The command line: one thin file per noun.

Exit codes: 0 done, 1 nobody was reached or a check failed, 2 wrong use or configuration.
"""

import errno
import locale
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from handbell._files import refused
from handbell._text import sentence
from handbell.errors import HandbellError, StorageError

USAGE_CODE: Final = "usage"
"""The error code of wrong usage with ``--json``."""
_OF_OUTPUT: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EROFS}
)
"""Errors of writing to an output; such an error names no file."""


def main() -> None:
    """Run ``handbell`` with this process's arguments, and exit with the right code."""
    _replace_closed_streams()
    from typer import Abort  # noqa: PLC0415 - so that an import costs nothing

    from .application import application  # noqa: PLC0415 - as above
    from .output import replace_what_cannot_be_written, write_error  # noqa: PLC0415 - as above

    replace_what_cannot_be_written()
    if unreadable := _unreadable(sys.argv[1:]):
        write_error(
            USAGE_CODE,
            f"{unreadable!a} has bytes that are no text in the locale of this terminal, whose "
            f"encoding is {locale.getencoding()}.",
            "Choose a locale with UTF-8, as in: LC_ALL=C.UTF-8 handbell …",
        )
        sys.exit(2)
    try:
        # Not standalone: Typer would print its errors itself, each in a box.
        code = application(standalone_mode=False)
        sys.stdout.flush()  # report write errors here, not in Python's shutdown
        sys.exit(code)
    except HandbellError as error:
        write_error(error.code, error.what, error.fix)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe has closed it, as `head` does.
        _give_up_output()
        sys.exit(1)
    except Abort:
        sys.exit(1)
    except Exception as error:
        if not _is_told(error):
            raise
        sys.exit(2)


def _replace_closed_streams() -> None:
    """Open the null device for each standard stream that this process was started without.

    Otherwise the next opened file becomes that stream: an error would be written into the
    database.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - it stays
            setattr(sys, name, nowhere)


def _is_told(error: Exception) -> bool:
    """Report an error in the command's usage, a file or standard output."""
    from .output import say, write_error  # noqa: PLC0415 - as above

    # Typer bundles Click's exceptions without exposing their base class.
    if hasattr(error, "format_message"):
        message, fix = _usage_of(error)
        if message:
            write_error(USAGE_CODE, message, fix)
        return True
    if not isinstance(error, OSError) or (error.filename is None and error.errno not in _OF_OUTPUT):
        return False
    if error.filename is not None:
        _, why, fix = refused(error)
        write_error(StorageError.code, f"{error.filename} cannot be used: {why}", fix)
        return True
    _give_up_output()
    _, why, fix = refused(error, elsewhere="write to another place")
    say(f"handbell: The output cannot be written: {why}", f"          {fix}", err=True)
    return True


def _give_up_output() -> None:
    """Redirect pending output to nowhere: Python must not complain at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unreadable(arguments: Sequence[str]) -> str:
    """Return the first undecodable argument that is not a file's name; else nothing."""
    for argument in arguments:
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        is_text = not any("\udc80" <= character <= "\udcff" for character in argument)
        if not is_text and not os.path.lexists(value):
            return argument
    return ""


def _command_of(arguments: Sequence[str]) -> str:
    """Return the command at the beginning of the arguments, as typed; options follow it."""
    from typer.main import get_command  # noqa: PLC0415 - so that an import costs nothing

    from .application import application  # noqa: PLC0415 - as above

    named, commands = ["handbell"], getattr(get_command(application), "commands", {})
    for argument in arguments:
        if argument not in commands:
            break
        named.append(argument)
        commands = getattr(commands[argument], "commands", {})
    return " ".join(named)


def _usage_of(error: Any) -> tuple[str, str]:
    """Return a usage error's text and a pointer to help; empty after --help."""
    context = getattr(error, "ctx", None)
    command = _command_of(sys.argv[1:]) if context is None else context.command_path
    # It is raised once the help has been written.
    is_help = type(error).__name__ == "NoArgsIsHelpError"
    message = "" if is_help else sentence(error.format_message())
    return message, f"See: {command} --help"
