"""Mail addresses in the one form in which they are stored and compared."""

import re
import unicodedata
from functools import lru_cache
from typing import Final

_PARENT = ".example"

# What nearly every address looks like. Of these the validator refuses none, and it takes forty
# times as long to say so; whatever is longer, stranger or reserved is left to it.
_ORDINARY: Final = re.compile(
    r"(?=[^@]{1,64}@)(?!.{250})(?!.*--)"
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@"
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!(?:arpa|invalid|local|localhost|onion|test)$)"
    r"[a-z]{2,63}",
    re.ASCII,
)


def read_mail(text: str) -> str:
    """Return the folded form of a valid mail address: NFC, lower case, international domain.

    The address is somebody's name here and nothing is mailed to it, so names that are reserved for
    local use and for tests (``localhost``, ``.local``, ``.test``, ``.invalid``) are welcome.
    Raises :class:`ValueError` with the reason when the text is not a mail address.
    """
    text = text.strip()
    ordinary = ordinary_mail(text)
    if ordinary is not None:
        return ordinary
    if _is_special(text):
        return _fold(_validated(text + _PARENT).removesuffix(_PARENT))
    return _fold(_validated(text))


def ordinary_mail(text: str) -> str | None:
    """Return what :func:`read_mail` does for what nearly every address looks like, else None."""
    text = text.strip()
    folded = text.lower()
    return folded if _ORDINARY.fullmatch(folded) and text.isascii() else None


@lru_cache(maxsize=4096)
def fold_mail(text: str) -> str:
    """Return the form under which a mail address is stored and looked up; never fails.

    Equal to :func:`read_mail` for every valid address. Anything else, as an import may bring it, is
    stripped and put into lower case, so that it is still found again.
    """
    try:
        return read_mail(text)
    except ValueError:
        return _fold(text.strip())


def _fold(text: str) -> str:
    # Not casefold(): it makes "ss" of "ß", and straße.de and strasse.de are two domains.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).lower())


def _validated(text: str) -> str:
    from email_validator import validate_email  # noqa: PLC0415 -- keeps `import handbell` light

    return validate_email(text, check_deliverability=False).normalized


def _is_special(text: str) -> bool:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES  # noqa: PLC0415 -- as above

    # The validator's list can only be changed for the whole process, which is the caller's: a
    # reserved name is checked below a parent instead.
    return text.rpartition("@")[2].rpartition(".")[2].lower() in SPECIAL_USE_DOMAIN_NAMES
