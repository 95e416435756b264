"""Load a key's bytes from a path or from the text itself.

Errors never repeat the text of a key; they repeat a path only if it cannot be a key.
"""

import base64
import binascii
import re
from pathlib import Path
from typing import Final, NamedTuple

from handbell._paths import is_explicit_path
from handbell._text import trimmed
from handbell.errors import CredentialError
from handbell.storage.engines import refuse_ours

MAX_FILE_BYTES: Final = 64 * 1024
DOWNLOAD: Final = (
    "Use the AuthKey_XXXXXXXXXX.p8 from Certificates, Identifiers & Profiles, Keys, at "
    "developer.apple.com/account"
)

_TEXT: Final = "The given text"
_NO_PATH: Final = re.compile(r"-----|[\n\r]|\\[rn]")
# A key without its first line is one or several runs of base64.
_BASE64: Final = re.compile(r"[A-Za-z0-9+/=_\s-]{60,}")
# A line end or a slash as escaped by a shell, JSON or YAML, possibly several times.
_ESCAPED: Final = re.compile(r"\\+(?:([rt])|(/)|n|u000[AaDd])")
_URL_SAFE: Final = str.maketrans("-_", "+/")
_QUOTES: Final = "\"'`"
_BEGIN: Final = b"-----BEGIN"
_SEQUENCE: Final = b"\x30"
_BOMS: Final = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


class KeySource(NamedTuple):
    """The loaded bytes: the file they came from, if any, and their name for errors."""

    path: Path | None
    data: bytes
    where: str


def read_source(source: str | Path | bytes) -> KeySource:
    """Return the bytes of a key or certificate given as a path, a text or bytes.

    Raises :class:`~handbell.errors.CredentialError` where nothing can be read.
    """
    if isinstance(source, bytes):
        return _sized(None, source, _TEXT)
    if isinstance(source, str) and _is_text(source):
        return _sized(None, source.encode(errors="replace"), _TEXT)
    try:
        path = Path(source).expanduser()
        refuse_ours(path)
        with path.open("rb") as file:
            return _sized(path, file.read(MAX_FILE_BYTES + 1), str(path))
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(source, error) from None


def pem_text(data: bytes) -> bytes:
    r"""Return a PEM text in standard form, with mangling by editors and shells undone.

    Line ends written as ``\n`` or ``\r\n``, escaped however often, become line ends; a byte order
    mark, UTF-16 and invisible characters around a line are removed. Base64 around the whole text,
    as secret stores keep it, is decoded. Other data is returned unchanged.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            data = data[len(mark) :].decode(encoding, errors="replace").encode()
    if _BEGIN not in data:
        inner = _decoded(data) or b""
        if _BEGIN not in inner:
            return inner if inner.startswith(_SEQUENCE) else data
        data = inner
    text = _ESCAPED.sub(_plain, data.decode(errors="replace"))
    return "\n".join(trimmed(line) for line in text.splitlines()).encode()


def bare_key(data: bytes) -> bytes | None:
    """Return the DER of a key that was given without its first and last line, or None."""
    return data if data.startswith(_SEQUENCE) else _decoded(data)


def _plain(escaped: re.Match[str]) -> str:
    return "" if escaped[1] else escaped[2] or "\n"


def _decoded(data: bytes) -> bytes | None:
    """Decode a base64 text, of either alphabet; None for anything else."""
    try:
        text = _ESCAPED.sub(_plain, data.decode()).translate(_URL_SAFE)
        bare = "".join(text.split()).strip(_QUOTES).rstrip("=")
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_text(source: str) -> bool:
    if _NO_PATH.search(source):
        return not _is_file(source)
    return _BASE64.fullmatch(source.strip(_QUOTES)) is not None and not _is_file(source)


def _is_file(source: str) -> bool:
    try:
        return Path(source).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _sized(path: Path | None, data: bytes, where: str) -> KeySource:
    if not data.strip():
        raise CredentialError(f"{where} is empty", fix=DOWNLOAD)
    if len(data) > MAX_FILE_BYTES:
        raise CredentialError(f"{where} is far too large for a key or certificate", fix=DOWNLOAD)
    return KeySource(path, data, where)


def _unreadable(source: str | Path, error: Exception) -> CredentialError:
    if not is_explicit_path(source):
        return CredentialError(
            "What was given as a key cannot be read: it is neither its text nor a file",
            fix="Give the path of the file, or its whole text with the lines BEGIN and END",
        )
    if isinstance(error, FileNotFoundError):
        return CredentialError(f"There is no file {source}", fix="Check the path")
    if isinstance(error, IsADirectoryError):
        return CredentialError(f"{source} is a folder", fix="Name the file within it")
    why = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
    return CredentialError(
        f"A file with the key cannot be read: {why}",
        fix="Check the path and who may read it",
    )
