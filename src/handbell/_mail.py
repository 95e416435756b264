"""Mail addresses: parsing and canonical form, in one place.

:func:`read_mail` returns the form that is stored, compared and shown; :func:`mailbox` turns only
that into the form for a mail server. Domains follow IDNA 2008 with UTS 46 in both directions
(docs/decisions/0016-proof-and-ownership.md).
"""

import re
import threading
import time
import unicodedata
from functools import lru_cache
from typing import Final

_PARENT = ".example"
_LONGEST: Final = 254
_LONGEST_LABEL: Final = 63
_PAUSE_SECONDS: Final = 50e-6

# The common form of addresses. The validator refuses none of these and takes forty times as long;
# longer, unusual and reserved ones are left to it.
_ORDINARY: Final = re.compile(
    r"(?=[^@]{1,64}@)(?!.{250})(?!.*--)"
    r"[a-z0-9_+-]+(?:\.[a-z0-9_+-]+)*@"
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!(?:arpa|invalid|local|localhost|onion|test)$)"
    r"[a-z]{2,63}",
    re.ASCII,
)
# Invisible letters and marks: with them two addresses would look the same.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
_one_at_a_time = threading.Lock()


def read_mail(text: str) -> str:
    """Return the canonical form of a valid mail address: equal forms mean one mailbox.

    The local part is normalized to NFKC and lower case, the domain by UTS 46, in Unicode. Names
    that are reserved for local use and for tests (``localhost``, ``.local``, ``.test``,
    ``.invalid``) are accepted. Quoted local parts, comments, routes, encoded words, literals and
    display names are refused. Raises :class:`ValueError` with the reason.
    """
    text = text.strip()
    ordinary = ordinary_mail(text)
    if ordinary is not None:
        return ordinary
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError("An email address must have an @-sign.")
    local, (shown, handed) = _local(local), _domain(domain)
    if len(f"{local}@{handed}".encode()) > _LONGEST:
        raise ValueError(f"The email address is longer than {_LONGEST} bytes.")
    return f"{local}@{shown}"


def mailbox(mail: str) -> str:
    """Return the form for a mail server of an address from :func:`read_mail`.

    Its domain is in ASCII; its local part may not be, and then needs a server with SMTPUTF8.
    Raises :class:`ValueError` for an address in another form: mail only goes to mailboxes that
    were compared.
    """
    if read_mail(mail) != mail:
        raise ValueError("This is not the form in which addresses are compared")
    if ordinary_mail(mail) is not None:
        return mail
    local, _, domain = mail.rpartition("@")
    return f"{local}@{_domain(domain)[1]}"


def ordinary_mail(text: str) -> str | None:
    """Return :func:`read_mail`'s result for an address of the common form, else None."""
    text = text.strip()
    folded = text.lower()
    return folded if _ORDINARY.fullmatch(folded) and text.isascii() else None


@lru_cache(maxsize=4096)
def fold_mail(text: str) -> str:
    """Return the lookup form of a mail address; never fails.

    Equal to :func:`read_mail` for every valid address. Anything else is stripped, composed and
    lower-cased, so that an address that was once valid is still found.
    """
    try:
        return read_mail(text)
    except ValueError:
        composed = unicodedata.normalize("NFC", text.strip()).lower()
        return unicodedata.normalize("NFC", composed)


def is_costly(text: str) -> bool:
    """Say whether a text may name addresses that take long to check: international ones."""
    return not text.isascii() or "--" in text


def _local(text: str) -> str:
    # Not casefold(): it turns "ß" into "ss", which are two mailboxes.
    local = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).lower())
    if unicodedata.normalize("NFKC", local.lower()) != local:
        raise ValueError("The part before the @-sign has letters without a lower case of their own")
    if "=?" in local:
        # A mail program would parse another address from it.
        raise ValueError("The part before the @-sign looks like an encoded word")
    if _INVISIBLE.search(local):
        raise ValueError("The part before the @-sign has letters that cannot be seen")
    from email_validator import validate_email  # noqa: PLC0415 -- keeps `import handbell` light

    return validate_email(f"{local}@a{_PARENT}", check_deliverability=False).local_part


def _domain(text: str) -> tuple[str, str]:
    shown, handed, fault = _read_domain(text)
    if fault:
        raise ValueError(fault)
    return shown, handed


@lru_cache(maxsize=8192)
def _read_domain(text: str) -> tuple[str, str, str]:
    """Return a domain's display form, its server form, and its fault."""
    if max(map(len, unicodedata.normalize("NFKC", text).split("."))) > _LONGEST_LABEL:
        # It would be refused too, after a time quadratic in its length.
        return "", "", "After the @-sign, periods cannot be separated by so many characters."
    # Unicode tables are searched character by character: one thread does it, with pauses, so that
    # hundreds of domains in one call do not block the event loop.
    with _one_at_a_time:
        time.sleep(_PAUSE_SECONDS)
        return _validated_domain(text)


def _validated_domain(text: str) -> tuple[str, str, str]:
    import idna  # noqa: PLC0415 -- keeps `import handbell` light
    from email_validator import EmailNotValidError, validate_email  # noqa: PLC0415 -- as above

    # The validator's list of special names is process-wide and belongs to the caller: a reserved
    # name is checked below a substitute parent instead.
    parent = _PARENT if _is_special(text) else ""
    try:
        found = validate_email(f"a@{text}{parent}", check_deliverability=False)
        shown, handed = found.domain.removesuffix(parent), found.ascii_domain.removesuffix(parent)
        # Punycode input may contain what no encoder produces.
        if "--" in text and idna.encode(shown).decode() != handed:
            return "", "", "The part after the @-sign is not what its own letters are encoded as"
    except (EmailNotValidError, idna.IDNAError) as error:
        return "", "", str(error)
    return shown, handed, ""


def _is_special(domain: str) -> bool:
    from email_validator import SPECIAL_USE_DOMAIN_NAMES  # noqa: PLC0415 -- as above

    return domain.rpartition(".")[2].lower() in SPECIAL_USE_DOMAIN_NAMES
