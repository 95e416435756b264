"""Discovery of a running twin through a small file in its folder.

Kept light: checking for a twin does not load the server.
"""

import contextlib
import json
import math
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

from handbell._files import refused
from handbell.errors import TwinError

ADDRESS_FILE: Final = "address.json"
KNOWN_SECONDS: Final = 1.0
"""How long a twin that listened is taken to listen."""

_CONNECT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The addresses of one running twin, the file with its authority, and its process id.

    ``production_url`` and ``development_url`` are Apple's sides, ``fcm_url`` is Google's, with the
    token endpoint ``oauth_url``; ``webpush_url`` is the origin of browsers' endpoints and
    ``webpush_socket_url`` what a browser connects to. An empty one is a side that the twin does not
    have, as one of an earlier version. ``page_token`` opens a guarded page; only this user can read
    it from the file. ``hosts_ca_file`` is the authority for the services' own names, by which
    ``proxy_url`` leads to the twin, where it has a proxy.
    """

    production_url: str
    development_url: str
    page_url: str
    ca_file: str
    pid: int
    page_token: str = field(default="", repr=False)
    fcm_url: str = ""
    oauth_url: str = ""
    webpush_url: str = ""
    webpush_socket_url: str = ""
    hosts_ca_file: str = ""
    proxy_url: str = ""

    @property
    def page_link(self) -> str:
        """Return the link that opens the page, with its token; paths may be appended."""
        return f"{self.page_url}/~{self.page_token}" if self.page_token else self.page_url

    def to_dict(self) -> dict[str, Any]:
        """Return the file's content."""
        return asdict(self)


def write_address(folder: Path, address: Address) -> None:
    """Write the file atomically: a reader never sees a partial one.

    Raises TwinError when the folder cannot be written.
    """
    passing = folder / f".{ADDRESS_FILE}.{os.getpid()}"
    try:
        passing.unlink(missing_ok=True)
        made = os.open(passing, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(made, "w", encoding="utf-8") as file:
            file.write(json.dumps(address.to_dict(), indent=2) + "\n")
        passing.replace(folder / ADDRESS_FILE)
    except OSError as error:
        with contextlib.suppress(OSError):
            passing.unlink(missing_ok=True)
        raise cannot_use(folder, error) from None


def cannot_use(folder: Path, error: OSError) -> TwinError:
    """Return the error for the operating system's refusal of the twin's folder."""
    _, why, fix = refused(error, elsewhere="name another folder: --home, or HANDBELL_HOME")
    return TwinError(f"The twin's folder {folder} cannot be used: {why}", fix=fix)


def remove_address(folder: Path, address: Address) -> None:
    """Remove the file, unless another twin has written its address since."""
    if _read(folder) == address:
        # A file that cannot be removed names a port without a listener, and is ignored.
        with contextlib.suppress(OSError):
            (folder / ADDRESS_FILE).unlink(missing_ok=True)


def read_address(folder: Path) -> Address | None:
    """Return the address of this folder's twin, or None when none is listening.

    The file of a killed twin is ignored.
    """
    address = _read(folder)
    return address if address is not None and _listens(address.page_url) else None


class KnownTwin:
    """The twin of a folder, for whoever asks often.

    A start and a stop are noticed at once, by the file; whether a killed twin still listens is
    asked at most once in :data:`KNOWN_SECONDS`. ``clock`` gives seconds that never go back.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._known: tuple[object, float, Address | None] = (None, -math.inf, None)

    def address(self) -> Address | None:
        """Return what :func:`read_address` does."""
        written, now = self._written(), self._clock()
        former, until, address = self._known
        if written != former or now >= until:
            address = None if written is None else read_address(self._folder)
            self._known = written, now + KNOWN_SECONDS, address
        return address

    def _written(self) -> object:
        try:
            found = (self._folder / ADDRESS_FILE).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size


def _read(folder: Path) -> Address | None:
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        written = json.loads((folder / ADDRESS_FILE).read_text(encoding="utf-8"))
        # A later version's twin may have written more.
        known = {item.name for item in fields(Address)}
        return Address(**{name: value for name, value in written.items() if name in known})
    return None


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError, ValueError):
        where = (parts.hostname or "", parts.port or 0)
        socket.create_connection(where, timeout=_CONNECT_SECONDS).close()
        return True
    return False
