"""A path convertor for a person's name, which may contain slashes: ``a/b@example.com``."""

from typing import Final

from starlette.convertors import Convertor, register_url_convertor


class PersonConvertor(Convertor[str]):
    """Matches the path except a final ``/why``, which is a route of its own.

    A client may encode the slash; it is decoded by then.
    """

    regex = r"[\s\S]+?(?<!/why)"

    def convert(self, value: str) -> str:
        """Return the name unchanged."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name for a URL."""
        return value


PERSON: Final = "{mail:person}"
"""The part of a route's path that names a person."""

register_url_convertor("person", PersonConvertor())
