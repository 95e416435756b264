"""What a form of the console sent, and what is said beside its fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from starlette.datastructures import UploadFile
from starlette.requests import Request

from handbell.errors import HandbellError

MOST_FIELDS: Final = 400
LARGEST_FIELD: Final = 256 * 1024
LARGEST_FILE: Final = 64 * 1024 + 1
"""One byte more than any key has, so that a reader sees that it is too much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that came with a form; ``name`` is what the browser said, ``content`` may be cut."""

    name: str
    content: bytes = field(repr=False)


class Form:
    """The fields of a form; what was not sent is empty."""

    def __init__(
        self,
        texts: Mapping[str, list[str]] | None = None,
        files: Mapping[str, Upload] | None = None,
    ) -> None:
        self._texts = dict(texts or {})
        self._files = dict(files or {})

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Read a form as a browser sends it, with or without files."""
        texts: dict[str, list[str]] = {}
        files: dict[str, Upload] = {}
        async with request.form(
            max_files=4, max_fields=MOST_FIELDS, max_part_size=LARGEST_FIELD
        ) as sent:
            for name, value in sent.multi_items():
                if isinstance(value, UploadFile):
                    content = await value.read(LARGEST_FILE)
                    if value.filename or content:
                        files[name] = Upload(name=value.filename or "", content=content)
                else:
                    texts.setdefault(name, []).append(value)
        return cls(texts, files)

    def text(self, name: str, default: str = "") -> str:
        """Return a field without the blanks around it."""
        return self.raw(name, default).strip()

    def raw(self, name: str, default: str = "") -> str:
        """Return a field as it was sent: for passwords."""
        return self._texts.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return every value of a field, such as those of check boxes."""
        return list(self._texts.get(name, ()))

    def names(self, prefix: str) -> list[str]:
        """Return the names of the fields that begin so, in the order in which they were sent."""
        return [name for name in self._texts if name.startswith(prefix)]

    def flag(self, name: str) -> bool:
        """Return whether a check box is ticked."""
        return name in self._texts

    def file(self, name: str) -> Upload | None:
        """Return a file, or None when none was chosen."""
        return self._files.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a field, and what to do."""

    what: str
    fix: str = ""


class Faults:
    """What is wrong with a form, by field; a fault of the whole form is under the name ``""``."""

    def __init__(self) -> None:
        self._found: dict[str, Fault] = {}

    @classmethod
    def of(cls, error: HandbellError, name: str = "") -> Self:
        """Return the fault that an error tells, at one field."""
        faults = cls()
        faults.add(name, error.what, error.fix)
        return faults

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[tuple[str, Fault]]:
        return iter(self._found.items())

    def add(self, name: str, what: str, fix: str = "") -> None:
        """Note a fault; the first one of a field counts."""
        self._found.setdefault(name, Fault(what=what, fix=fix))

    def at(self, name: str) -> Fault | None:
        """Return the fault of a field, for a template."""
        return self._found.get(name)
