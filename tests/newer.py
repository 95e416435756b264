"""A newer Handbell for tests: this one, copied, with two further steps of the schema.

The first one only adds, so that this code works on; the second one removes, and leaves it behind.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import handbell
from handbell.storage.migrations import HEAD

EXPANDED: Final = f"{int(HEAD) + 1:04d}"
CONTRACTED: Final = f"{int(HEAD) + 2:04d}"

_STEP: Final = """
from alembic import op

revision = "{revision}"
down_revision = "{former}"
branch_labels = None
depends_on = None
oldest = "{oldest}"


def upgrade() -> None:
    op.execute("{statement}")
"""


class Newer:
    """A Handbell of the next version but one, in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        package = folder / "handbell"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(handbell.__file__).parent, package, ignore=ignored)
        migrations = package / "storage" / "migrations"
        steps = (
            (EXPANDED, HEAD, HEAD, "ALTER TABLE users ADD COLUMN nickname TEXT"),
            (CONTRACTED, EXPANDED, EXPANDED, "ALTER TABLE users DROP COLUMN nickname"),
        )
        for revision, former, oldest, statement in steps:
            text = _STEP.format(
                revision=revision, former=former, oldest=oldest, statement=statement
            )
            (migrations / "versions" / f"{revision}_newer.py").write_text(text)
        self._set(migrations / "__init__.py", HEAD=CONTRACTED, NEEDED=EXPANDED, OLDEST=EXPANDED)

    def run(self, *command: str, url: str) -> "subprocess.Popen[str]":
        """Begin a command of its command line."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self._folder),
            "HANDBELL_DATABASE_URL": url,
            "HANDBELL_HOME": str(self._folder / "home"),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "handbell", *command],
            env=environment,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def upgrade(self, url: str, *, times: int = 1) -> str:
        """Run ``handbell db upgrade`` so many times at once; return what they say alike."""
        started = [self.run("db", "upgrade", url=url) for _ in range(times)]
        ended = [process.communicate(timeout=100) for process in started]
        told = {out for out, _ in ended}
        codes = [process.returncode for process in started]
        assert codes == [0] * times, ended
        assert len(told) == 1, told
        return told.pop()

    def _set(self, path: Path, **names: str) -> None:
        text = path.read_text()
        for name, value in names.items():
            text, count = re.subn(
                rf'^{name}: Final = ".*"', f'{name}: Final = "{value}"', text, flags=re.MULTILINE
            )
            assert count == 1, name
        path.write_text(text)
