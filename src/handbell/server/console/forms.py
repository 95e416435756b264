"""Posted forms, and the faults of their fields."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from starlette.datastructures import UploadFile
from starlette.requests import Request

from handbell.errors import HandbellError

MOST_FIELDS: Final = 400
LARGEST_FIELD: Final = 256 * 1024
LARGEST_FILE: Final = 64 * 1024 + 1
"""One byte above the limit of a key, so that a larger file is recognised."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An uploaded file; ``name`` is the browser's, ``content`` may be truncated."""

    name: str
    content: bytes = field(repr=False)


class Form:
    """The fields of a form; absent ones are empty."""

    def __init__(
        self,
        texts: Mapping[str, list[str]] | None = None,
        files: Mapping[str, Upload] | None = None,
    ) -> None:
        self._texts = dict(texts or {})
        self._files = dict(files or {})

    @classmethod
    async def read(cls, request: Request) -> Self:
        """Parse a form, with or without files."""
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
        """Return a field without surrounding blanks."""
        return self.raw(name, default).strip()

    def raw(self, name: str, default: str = "") -> str:
        """Return a field unchanged: for passwords."""
        return self._texts.get(name, [default])[-1]

    def all(self, name: str) -> list[str]:
        """Return every value of a field, such as those of check boxes."""
        return list(self._texts.get(name, ()))

    def names(self, prefix: str) -> list[str]:
        """Return the names of the fields with a prefix, in their order."""
        return [name for name in self._texts if name.startswith(prefix)]

    def flag(self, name: str) -> bool:
        """Return whether a check box is ticked."""
        return name in self._texts

    def file(self, name: str) -> Upload | None:
        """Return a file, or None when none was chosen."""
        return self._files.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of a field, and its fix."""

    what: str
    fix: str = ""


class Faults:
    """The faults of a form, by field; those of the whole form are under ``""``."""

    def __init__(self) -> None:
        self._found: dict[str, Fault] = {}

    @classmethod
    def of(cls, error: HandbellError, name: str = "") -> Self:
        """Return the fault of an error, at one field."""
        faults = cls()
        faults.add(name, error.what, error.fix)
        return faults

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[tuple[str, Fault]]:
        return iter(self._found.items())

    def add(self, name: str, what: str, fix: str = "") -> None:
        """Add a fault; the first one of a field counts."""
        self._found.setdefault(name, Fault(what=what, fix=fix))

    def at(self, name: str) -> Fault | None:
        """Return the fault of a field, for a template."""
        return self._found.get(name)
