"""What the tests of the engine share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scene import Scene, open_scene


@pytest.fixture
def scene(tmp_path: Path, database_url: str) -> Iterator[Scene]:
    """Give a system with an app, its key, and a twin that knows the key, all by one clock."""
    with open_scene(tmp_path, database_url) as scene:
        yield scene
