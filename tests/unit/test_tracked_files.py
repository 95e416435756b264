"""What the repository holds: sources and pictures that somebody made, nothing that a run left."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PICTURES = {".webp"}


def test_only_texts_and_pictures_are_tracked() -> None:
    """No database, archive, key store or other file that a program wrote is in the tree."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no clone of the repository")
    named = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True
    ).stdout
    tracked = [ROOT / name for name in named.split("\0") if name]
    assert tracked
    for file in tracked:
        if file.suffix not in PICTURES and file.is_file():
            assert b"\0" not in file.read_bytes(), f"{file} is not a text"
