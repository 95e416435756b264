"""What the push services and the web know an app by, checked."""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from handbell._text import trimmed
from handbell.errors import AppError

TEAM_ID: Final = re.compile(r"[A-Z0-9]{10}")
TEAM_ID_LENGTH: Final = 10

_BUNDLE_ID: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_MAX_BUNDLE_ID_LENGTH: Final = 155
_PACKAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z][A-Za-z0-9_]*)+")
_MAX_PACKAGE_LENGTH: Final = 223
_OWN_ID: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_MAX_OWN_ID_LENGTH: Final = 100
_FINGERPRINT_DIGITS: Final = 64
_MOST_FINGERPRINTS: Final = 20
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_ORIGIN_LENGTH: Final = 300
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def read_team_id(text: str) -> str:
    """Return a team id of Apple's without stray blanks, or raise AppError."""
    # Copied from Apple's pages.
    team_id = trimmed(text)
    if not TEAM_ID.fullmatch(team_id):
        raise AppError(
            f"{team_id!r} is not a team id",
            fix="A team id is 10 upper-case letters and digits; see Membership details at "
            "developer.apple.com/account",
        )
    return team_id


def read_bundle_id(text: str) -> str:
    """Return a bundle id without stray blanks, or raise AppError that names the fault."""
    bundle_id = trimmed(text)
    if not _BUNDLE_ID.fullmatch(bundle_id) or len(bundle_id) > _MAX_BUNDLE_ID_LENGTH:
        raise AppError(
            f"{bundle_id!r} is not a bundle id: {_bundle_fault(bundle_id)}",
            fix="Write it as in Xcode, for example com.sample.myapp",
        )
    return bundle_id


def read_package(text: str) -> str:
    """Return an Android app's package without stray blanks, or raise AppError."""
    package = trimmed(text)
    if not _PACKAGE.fullmatch(package) or len(package) > _MAX_PACKAGE_LENGTH:
        raise AppError(
            f"{package[:_MAX_PACKAGE_LENGTH]!r} is not the package of an Android app",
            fix="Write the applicationId of build.gradle, for example com.sample.myapp",
        )
    return package


def read_origin(text: str) -> str:
    """Return the origin of web pages in its canonical form, or raise AppError.

    Browsers offer push to pages by https alone, and to those of this machine. A default port and
    a slash at the end are left out.
    """
    origin = trimmed(text)
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        raise _no_origin(origin) from None
    host = _host(parts.hostname or "")
    is_bare = not (parts.query or parts.fragment or parts.username or parts.password)
    if (
        host is None
        or not is_bare
        or parts.path not in ("", "/")
        or len(origin) > (_MAX_ORIGIN_LENGTH)
    ):
        raise _no_origin(origin)
    if not _is_secure(parts, host):
        raise AppError(
            f"Browsers offer no push to pages of {origin[:_MAX_ORIGIN_LENGTH]!r}",
            fix="Serve them by https; by http only on localhost",
        )
    end = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    return f"{parts.scheme}://{host}{end}"


def read_fingerprints(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the SHA-256 fingerprints of an Android app's signing certificates.

    Takes a list, or one text with several; each is 64 hex digits, with or without colons. They are
    returned as assetlinks.json has them. Raises :class:`~handbell.errors.AppError`.
    """
    texts = re.split(r"[\s,;]+", given) if isinstance(given, str) else given
    found: dict[str, None] = {}
    for text in texts:
        digits = text.replace(":", "").strip().upper()
        if not digits:
            continue
        if not re.fullmatch(rf"[0-9A-F]{{{_FINGERPRINT_DIGITS}}}", digits):
            raise AppError(
                f"{text[:100]!r} is not the SHA-256 fingerprint of a certificate",
                fix="Copy it from the Play Console under App signing, or from the line SHA-256 of "
                "./gradlew signingReport",
            )
        pairs = (digits[place : place + 2] for place in range(0, _FINGERPRINT_DIGITS, 2))
        found[":".join(pairs)] = None
    if len(found) > _MOST_FINGERPRINTS:
        raise AppError(
            f"{len(found)} certificates are too many for one app",
            fix=f"Name at most {_MOST_FINGERPRINTS}",
        )
    return tuple(found)


def read_app_id(text: str) -> str:
    """Return an app's id: one's own, an Android package, or team id, dot, bundle id.

    Raises :class:`~handbell.errors.AppError` for anything else.
    """
    app_id = trimmed(text)
    team_id, _, bundle_id = app_id.partition(".")
    is_apples = TEAM_ID.fullmatch(team_id) and _BUNDLE_ID.fullmatch(bundle_id)
    if not (is_apples or is_own_id(app_id) or _PACKAGE.fullmatch(app_id)):
        raise AppError(
            f"{app_id[:_MAX_OWN_ID_LENGTH]!r} is not an id for an app",
            fix="Use lower-case letters, digits and single hyphens, such as my-shop",
        )
    return app_id


def is_own_id(text: str) -> bool:
    """Return whether a text can be an app's id of Handbell's own."""
    return len(text) <= _MAX_OWN_ID_LENGTH and _OWN_ID.fullmatch(text) is not None


def own_id_of(text: str) -> str | None:
    """Return the id that a name or host suggests, such as ``my-shop``; None if it has none."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_MAX_OWN_ID_LENGTH].rstrip("-")
    return slug or None


def is_bundle_id(text: str) -> bool:
    """Return whether a text is certainly a bundle id without a team: it begins like a domain."""
    first, dot, _ = text.partition(".")
    return bool(dot and first.islower() and _BUNDLE_ID.fullmatch(text))


def _host(name: str) -> str | None:
    """Return a host as browsers write it, or None."""
    if ":" in name:
        try:
            return f"[{ip_address(name).compressed}]"
        except ValueError:
            return None
    if not name.isascii():
        import idna  # noqa: PLC0415 - only here, and heavy

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError:
            return None
    return name if _HOST.fullmatch(name) else None


def _is_secure(parts: SplitResult, host: str) -> bool:
    if parts.scheme == "https":
        return True
    is_local = host == "localhost" or host.endswith(".localhost") or host.startswith("127.")
    return parts.scheme == "http" and (is_local or host == "[::1]")


def _no_origin(text: str) -> AppError:
    return AppError(
        f"{text[:_MAX_ORIGIN_LENGTH]!r} is not the origin of web pages",
        fix="Write scheme and host alone, such as https://shop.example.com",
    )


def _bundle_fault(bundle_id: str) -> str:
    if not bundle_id:
        return "it is empty"
    if len(bundle_id) > _MAX_BUNDLE_ID_LENGTH:
        return f"it is longer than {_MAX_BUNDLE_ID_LENGTH} characters"
    strange = re.search(r"[^A-Za-z0-9.-]", bundle_id)
    if strange:
        return f"{strange.group()!r} is not a letter, digit, hyphen or dot"
    return "a dot stands at its beginning or end, or beside another"
