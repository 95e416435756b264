"""What the files of a Handbell hold, read by another process.

Whoever closes a descriptor of a database file drops all locks that SQLite holds on it for this
process, so no test opens one by itself.
"""

import subprocess
from pathlib import Path


def stored_in(place: Path) -> bytes:
    """Return what a file holds, or all files of a folder and of those within it."""
    files = [place] if place.is_file() else [file for file in place.rglob("*") if file.is_file()]
    done = subprocess.run(["cat", *map(str, sorted(files))], capture_output=True, check=True)
    return done.stdout
