"""What others' generators make of ``/openapi.json`` sends to a running server."""

import re
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest
from tests.contract.clients.tools import CACHE, build, fetch, need, run
from tests.contract.generated.conftest import Served

HERE: Final = Path(__file__).parent
MADE: Final = CACHE / "generated"
UNKNOWN_LINES: Final = "Unsupported content type application/x-ndjson"


def _copied(name: str, *old: str) -> Path:
    """Return a folder of the cache with a client's files, and without what was generated before."""
    folder = MADE / name
    folder.mkdir(parents=True, exist_ok=True)
    for former in old:
        shutil.rmtree(folder / former, ignore_errors=True)
    for file in (HERE / name).iterdir():
        if file.is_file():  # what Python compiled lies beside them
            shutil.copy(file, folder)
    return folder


@pytest.mark.judge("openapi-typescript")
def test_typescript(served: Served) -> None:
    """A strict program of ours sends a text, a list and lines with the generated types."""
    need("node", "npm")
    folder = _copied("typescript", "built")
    if not (folder / "node_modules" / "openapi-fetch").exists():
        fetch(["npm", "ci", "--no-audit", "--no-fund"], folder=folder, env={})
    tools = folder / "node_modules" / ".bin"
    build(
        [tools / "openapi-typescript", served.document, "-o", folder / "schema.ts"],
        folder=folder,
        env={},
    )
    build([tools / "tsc", "--project", "tsconfig.json"], folder=folder, env={})
    done = run(["node", "built/main.js", *served.arguments], folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["one", "list", "lines", "found"]


@pytest.mark.judge("openapi-python-client")
def test_python(served: Served) -> None:
    """Every operation is generated, without a word but for lines, and texts are sent with it."""
    folder = _copied("python", "client")
    python = folder / "venv" / "bin" / "python"
    if not python.exists():
        build([sys.executable, "-m", "venv", folder / "venv"], folder=folder, env={})
    pins = ["--quiet", "--disable-pip-version-check", "--require-hashes", "-r", "requirements.txt"]
    fetch([python, "-m", "pip", "install", *pins], folder=folder, env={})
    command: list[str | Path] = [folder / "venv" / "bin" / "openapi-python-client", "generate"]
    made = run(
        [*command, "--path", served.document, "--output-path", folder / "client", "--meta", "none"],
        folder=folder,
        env={"PATH": f"{folder / 'venv' / 'bin'}:/usr/bin:/bin", "NO_COLOR": "1"},
    )
    assert made.returncode == 0, made.stdout + made.stderr
    told = made.stdout + made.stderr
    warnings = re.findall(r"^WARNING .*\n+(.+)", told, re.MULTILINE)
    assert set(warnings) <= {UNKNOWN_LINES}, told
    assert "will not be generated" not in told
    shutil.rmtree(folder / "handbell_client", ignore_errors=True)
    (folder / "client").rename(folder / "handbell_client")
    done = run([python, "main.py", *served.arguments], folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["True", "[True, True]", "{'accepted': 2, 'refused': 0}"]


@pytest.fixture(scope="module")
def kotlin(served: Served) -> Path:
    """Give the folder of a client that openapi-generator wrote for Kotlin."""
    need("java", "mvn")
    folder = _copied("kotlin", "src", "target")
    maven = ["mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={CACHE / 'maven'}"]
    if not list((folder / "generator").glob("*.jar")):
        to = f"-DoutputDirectory={folder / 'generator'}"
        fetch([*maven, "dependency:copy", to], folder=folder, env={})
    if not list((folder / "lib").glob("*.jar")):
        to = f"-DoutputDirectory={folder / 'lib'}"
        fetch([*maven, "dependency:copy-dependencies", to], folder=folder, env={})
    (jar,) = (folder / "generator").glob("*.jar")
    # Its pom.xml is ours.
    (folder / ".openapi-generator-ignore").write_text("*\n!src/main/**\nsrc/test/**\n")
    command: list[str | Path] = [
        "java",
        "-jar",
        jar,
        "generate",
        "-g",
        "kotlin",
        "-i",
        served.document,
    ]
    build([*command, "-o", folder], folder=folder, env={})
    return folder


@pytest.mark.judge("openapi-generator for Kotlin")
def test_kotlin(kotlin: Path) -> None:
    """A text that may be left out is a ``String?``; no class is empty, and none is a mapping."""
    models = {file.stem: file.read_text("utf-8") for file in kotlin.rglob("models/*.kt")}
    assert "val title: kotlin.String? = null" in models["NotificationContent"]
    empty = [name for name, text in models.items() if re.search(r"class \w+ \(\s*\)", text)]
    assert empty == []
    assert [name for name, text in models.items() if "HashMap" in text] == []


@pytest.mark.judge("openapi-generator for Kotlin")
def test_kotlin_sends(kotlin: Path, served: Served) -> None:
    """It compiles, and a program of ours sends a text and a list with it."""
    shutil.copy(kotlin / "Main.kt", kotlin / "src" / "main" / "kotlin")
    maven = ["mvn", "--quiet", "--batch-mode", f"-Dmaven.repo.local={CACHE / 'maven'}"]
    build([*maven, "compile"], folder=kotlin, env={})
    classes = f"{kotlin / 'target' / 'classes'}:{kotlin / 'lib'}/*"
    done = run(["java", "-cp", classes, "MainKt", *served.arguments], folder=kotlin)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["true", "true", "2"]
