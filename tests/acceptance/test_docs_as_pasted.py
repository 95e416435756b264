"""README.md and docs/ are pasted as they stand, snippet by snippet, each document in a fresh home.

A word behind a snippet's language says why nobody can paste it just so, and :data:`LEFT_OUT` lists
what is left out for it. What runs until Ctrl-C runs beside what follows, on free ports.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import pytest
from tests.preloaded import COMMAND, preloaded

ROOT: Final = Path(__file__).parents[2]
BIN: Final = Path(sys.executable).parent
GENERATED: Final = {"docs/cli.md"}
"""What names the forms of commands, and no command to paste."""

WORDS: Final = {
    "clone": "makes or installs: test_install.py does that",
    "apple": "a key of Apple's",
    "google": "a service account of Google's",
    "phone": "a real phone",
    "deployed": "a server with a name of its own",
    "4d": "a folder of the original system",
}
LEFT_OUT: Final = {
    ("README.md", "clone", "make demo"),
    ("README.md", "clone", "pipx install '.[server,twin]'"),
    ("README.md", "apple", 'handbell app add TEAM123456.com.sample.myapp --name "My App"'),
    ("README.md", "google", "handbell key add service-account.json"),
    (
        "README.md",
        "deployed",
        'push = PushNotification(url="https://push.example.com", api_key="hbk_…")',
    ),
    ("docs/tutorial.md", "clone", 'git clone "$REPOSITORY" handbell && cd handbell'),
    ("docs/tutorial.md", "apple", "handbell key add AuthKey_XXXXXXXXXX.p8"),
    ("docs/tutorial.md", "phone", "TOKEN=..."),
    ("docs/tutorial.md", "4d", "handbell import-4d MobileApps/"),
    ("docs/api.md", "deployed", "from handbell import PushNotification"),
    (
        "docs/python.md",
        "deployed",
        'push = PushNotification(url="https://push.example.com", api_key="hbk_…")',
    ),
    ("docs/postgresql.md", "deployed", "createdb handbell"),
    ("docs/operations.md", "deployed", "pg_dump --format=custom --file=handbell.dump postgresql://handbell@db.example.com/handbell"),
    ("docs/iphone.md", "clone", "pip install '.[server]'"),
    ("docs/iphone.md", "deployed", "handbell serve --listen 0.0.0.0:443 --public-url https://push.example.com"),
    ("docs/iphone.md", "apple", 'handbell app add TEAM123456.com.sample.myapp --name "My App"'),
    ("docs/iphone.md", "phone", "handbell session list test@4d.com"),
    ("docs/iphone.md", "phone", 'handbell send test@4d.com --title "Hello" --body "It rings"'),
    ("docs/iphone.md", "phone", "handbell why test@4d.com"),
    ("docs/android.md", "google", 'handbell app add --android-package com.sample.myapp --name "My App"'),  # noqa: E501
    ("docs/android.md", "phone", "handbell session list test@4d.com"),
    ("docs/android.md", "phone", 'handbell send test@4d.com --title "Hello" --body "It rings"'),
}  # fmt: skip
RUNS_ON: Final = re.compile(r"^handbell (twin|serve|worker)\b")
NO_PASTE: Final = {"text", "json", "ini", "nginx", "swift", "html", "http"}
_BLOCK: Final = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT: Final = re.compile(r"\s{2,}#.*$")
_MARK: Final = "-- pasted --"
_PYTHON: Final = """
import sys
names = {"__name__": "__main__"}
for path in sys.stdin:
    with open(path.strip(), encoding="utf-8") as snippet:
        exec(compile(snippet.read(), path.strip(), "exec"), names)
    print("-- pasted --", flush=True)
"""


@dataclass(frozen=True)
class Snippet:
    """One snippet: its language, the word behind it, and what stands in it."""

    document: str
    language: str
    word: str
    text: str

    def commands(self) -> list[str]:
        """Return what is to be typed: of a console, what stands behind its prompts."""
        if self.language != "console":
            return [self.text]
        found: list[str] = []
        goes_on = False
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append(line[2:])
            elif goes_on:
                found[-1] += f"\n{line}"
            goes_on = line.endswith("\\") and (goes_on or line.startswith("$ "))
        return found

    @property
    def first_line(self) -> str:
        """Return its first line without a comment, by which it is listed."""
        return _COMMENT.sub("", self.commands()[0].splitlines()[0]).removesuffix("\\").strip()


def snippets_of(document: str) -> list[Snippet]:
    """Return the snippets of a document in their order."""
    text = (ROOT / document).read_text("utf-8")
    return [Snippet(document, *(part or "" for part in found)) for found in _BLOCK.findall(text)]


DOCUMENTS: Final = [
    name
    for name in ("README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md")))
    if name not in GENERATED and snippets_of(name)
]


class Teller:
    """A process that is told one snippet after the other, and says when it is done with it."""

    def __init__(self, command: list[str], reader: "Reader") -> None:
        self._reader = reader
        self.process = subprocess.Popen(
            command,
            cwd=reader.folder,
            env=reader.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def tell(self, text: str) -> tuple[bool, str]:
        """Return whether it got to the snippet's end, and what it said."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()
        said = ""
        for line in self.process.stdout:
            if line.strip() == _MARK:
                return True, said
            said += line
        # It ended in the midst of the snippet.
        self.process.communicate(timeout=30)
        self._reader.tellers = {
            name: teller for name, teller in self._reader.tellers.items() if teller is not self
        }
        return False, said


@dataclass
class Reader:
    """Somebody with an empty home, a shell and a Python, who pastes what they read."""

    folder: Path
    env: dict[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    tellers: dict[str, Teller] = field(default_factory=dict)
    pasted: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for teller in self.tellers.values():
            teller.process.communicate(timeout=30)
        for name in list(self.running):
            self.end(name)

    def paste(self, snippet: Snippet) -> None:
        """Do what a snippet says; it has to go well."""
        if snippet.language == "toml":
            name = re.match(r"# (\S+\.toml)$", snippet.text.splitlines()[0])
            if name is not None:
                (self.folder / name[1]).write_text(snippet.text, "utf-8")
            return
        for command in snippet.commands():
            if RUNS_ON.match(command):
                self.start(_COMMENT.sub("", command).strip())
                continue
            went_well, said = self.run(snippet.language, command)
            assert went_well, f"{snippet.document}:\n{command}\n{said}"

    def run(self, language: str, text: str) -> tuple[bool, str]:
        """Return whether what was pasted went well, and what it said."""
        self.pasted += 1
        file = self.folder / f"pasted-{self.pasted}"
        file.write_text(text + "\n", "utf-8")
        if language == "python":
            return self._teller("python", [sys.executable, "-c", _PYTHON]).tell(f"{file}\n")
        shell = self._teller("shell", ["bash", "-euo", "pipefail", "-s"])
        return shell.tell(f"source {file} < /dev/null\necho; echo '{_MARK}'\n")

    def _teller(self, name: str, command: list[str]) -> Teller:
        teller = self.tellers.get(name)
        if teller is None:
            teller = self.tellers[name] = Teller(command, self)
        return teller

    def start(self, command: str) -> None:
        """Start what runs until Ctrl-C; a twin takes the place of the one before."""
        name = command.split()[1]
        for other in ("twin", "serve"):
            if name in ("twin", "serve"):
                self.end(other)
        if name == "twin":
            command += " --port 0 --production-port 0 --development-port 0"
            command += " --proxy-port 0" if "--proxy" in command else ""
        process = self.running[name] = subprocess.Popen(
            [COMMAND, *command.split()[1:]],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                break
        assert "Ctrl-C" in said, said
        threading.Thread(target=process.communicate, daemon=True).start()
        for variable, label in (("SERVER", "API"), ("PHONES", "Phones")):
            found = re.search(rf"^{label} +(\S+)", said, re.MULTILINE)
            if found is not None:
                self.env[variable] = found[1].removesuffix("/docs")

    def end(self, name: str) -> None:
        """End what runs, as Ctrl-C does."""
        process = self.running.pop(name, None)
        if process is not None:
            process.terminate()
            process.wait(30)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Give somebody who has Handbell, and nothing in their home."""
    kept = {name: value for name, value in os.environ.items() if name[:9] != "HANDBELL_"}
    folder = tmp_path / "folder"
    folder.mkdir()
    env = {
        **kept,
        "HANDBELL_HOME": str(tmp_path / "home"),
        "HANDBELL_LISTEN": "127.0.0.1:0",
        "PATH": f"{preloaded().parent}:{BIN}:{os.environ['PATH']}",
    }
    with Reader(folder, env) as reading:
        yield reading


@pytest.mark.timeout(180)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_pasted_in_its_order(document: str, reader: Reader) -> None:
    """Every snippet goes well where the ones before it were pasted as well."""
    later: list[Snippet] = []
    for snippet in snippets_of(document):
        if snippet.word in WORDS or snippet.language in NO_PASTE:
            continue
        if snippet.word == "first":
            # In an empty home it says what to start; beside that it goes well.
            went_well, said = reader.run(snippet.language, snippet.text)
            assert not went_well
            assert "handbell twin" in said
            assert "handbell app add" in said
            later.append(snippet)
            continue
        reader.paste(snippet)
        if reader.running:
            while later:
                reader.paste(later.pop())
    assert not later


def test_what_is_left_out_is_listed() -> None:
    """No snippet is left out, and no word or language used, but those that this file names."""
    every = [snippet for document in DOCUMENTS for snippet in snippets_of(document)]
    found = {(one.document, one.word, one.first_line) for one in every if one.word in WORDS}
    assert found == LEFT_OUT
    assert {one.word for one in every} <= {"", "first", *WORDS}
    assert {one.language for one in every} <= {"console", "python", "sh", "toml", *NO_PASTE}
    for document in DOCUMENTS:
        fences = (ROOT / document).read_text("utf-8").count("\n```")
        assert fences == 2 * len(snippets_of(document)), document
