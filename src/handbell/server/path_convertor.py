"""A person's name as a part of an address, which may have slashes in it: ``a/b@example.com``."""

from typing import Final

from starlette.convertors import Convertor, register_url_convertor


class PersonConvertor(Convertor[str]):
    """Takes all of the path but an end of ``/why``, which is the address of that person's story.

    A client may encode the slash; the server that hands us the path has decoded it by then.
    """

    regex = r"[\s\S]+?(?<!/why)"

    def convert(self, value: str) -> str:
        """Return the name, as it is."""
        return value

    def to_string(self, value: str) -> str:
        """Return the name for an address."""
        return value


PERSON: Final = "{mail:person}"
"""The part of a route's path that names a person."""

register_url_convertor("person", PersonConvertor())
