"""What the bench runs on, and what it needs from it."""

import os
import platform
import shutil
import sqlite3
import ssl
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from .programs import PEERS, pinned

_PACKAGES: Final = {"nginx": "nginx", "h2load": "nghttp2-client", "wrk": "wrk", "curl": "curl"}
_MISSING: Final = {
    "h2load": "h2load is missing (Debian: nghttp2-client): the bound is left out",
    "wrk": "wrk or curl is missing: single calls and lines of every form are left out",
    "go": "go is missing: Go's apns2 is left out",
    "node": "node or npm is missing: node's apns2 is left out",
}
_VERSION_COMMANDS: Final = {
    "nginx": ["nginx", "-v"],
    "h2load": ["h2load", "--version"],
    "wrk": ["wrk", "--version"],
    "go": ["go", "version"],
    "node": ["node", "--version"],
}


def install_missing() -> list[str]:
    """Install Debian's nginx, h2load, wrk and curl where they are missing and that is possible.

    Returns a line for what was done.
    """
    packages = [package for tool, package in _PACKAGES.items() if not _is_there(tool)]
    if not packages or os.geteuid() != 0 or not shutil.which("apt-get"):
        return []
    # RUNLEVEL keeps Debian from starting a web server of its own.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        subprocess.run(["apt-get", "-qq", *command], env=environment, check=False)
    return [f"Installed Debian's {' and '.join(packages)}"]


def tools() -> frozenset[str]:
    """Return which of ``nginx``, ``h2load``, ``wrk``, ``go`` and ``node`` are there.

    wrk counts with curl, and node with npm.
    """
    found = {tool for tool in ("nginx", "h2load", "go") if _is_there(tool)}
    pairs = (("wrk", "curl"), ("node", "npm"))
    return frozenset(
        found | {tool for tool, other in pairs if _is_there(tool) and _is_there(other)}
    )


def missing(found: frozenset[str]) -> list[str]:
    """Return a line for each thing that is left out."""
    return [line for tool, line in _MISSING.items() if tool not in found]


def facts(found: frozenset[str]) -> list[tuple[str, str]]:
    """Return the machine and the versions of everything that takes part."""
    libraries = ("handbell", "hpack", "hyperframe", "uvloop", "sqlalchemy", "aioapns")
    return [
        ("machine", f"{_processor()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB of memory"),
        (
            "system",
            f"{_distribution()}, {platform.system()} {platform.release().partition('-')[0]}",
        ),
        ("Python", f"{platform.python_version()}, SQLite {sqlite3.sqlite_version}, {_openssl()}"),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in libraries)),
        *((tool, _version(tool)) for tool in _VERSION_COMMANDS if tool in found),
        *([("Go's apns2", _go_version())] if "go" in found else []),
        *([("node's apns2", _node_version())] if "node" in found else []),
    ]


def _is_there(tool: str) -> bool:
    return shutil.which(tool, path=_path()) is not None


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin"


def _version(tool: str) -> str:
    program, *rest = _VERSION_COMMANDS[tool]
    command = [shutil.which(program, path=_path()) or program, *rest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout or done.stderr).strip().removeprefix("nginx version: ")
    return said.partition("\n")[0]  # wrk goes on with how it is used


def _go_version() -> str:
    lines = (PEERS / "apns2" / "go.mod").read_text().splitlines()
    return next(line.split()[-1] for line in lines if "sideshow/apns2" in line)


def _node_version() -> str:
    return pinned(PEERS / "node-apns2" / "package.json", "apns2")


def _openssl() -> str:
    return " ".join(ssl.OPENSSL_VERSION.split()[:2])


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown distribution"
