"""Security of the console: cookies, form tokens, origins and headers."""

import hashlib
import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

HOME: Final = "/console"
FLASH_COOKIE: Final = "handbell-said"
APP_COOKIE: Final = "handbell-app"
KNOWN_COOKIE: Final = "handbell-known"

_SAFE_NEXT: Final = re.compile(r"/console(?:[/?][!#-\[\]-~]*)?")
_SECONDS_OF_FLASH: Final = 60
_SECONDS_OF_APP: Final = 365 * 24 * 3600

_POLICY: Final[Mapping[str, str]] = {
    "default-src": "'self'",
    "img-src": "'self' data:",
    "object-src": "'none'",
    "base-uri": "'none'",
    "form-action": "'self'",
    "frame-ancestors": "'none'",
}
_HEADERS: Final[Mapping[str, str]] = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    # Not no-referrer: browsers then send `Origin: null` with forms.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

Flash = tuple[str, str]
"""A kind (``good`` or ``bad``) and a sentence that the next page shows once."""


def is_https(request: Request, public_url: str) -> bool:
    """Return whether the console is reached by HTTPS, here or at its proxy."""
    return request.url.scheme == "https" or public_url.startswith("https:")


def cookie_name(*, https: bool) -> str:
    """Return the sign-in cookie's name; browsers bind ``__Host-`` to this host and HTTPS."""
    return "__Host-handbell" if https else "handbell"


def form_token(secret: str) -> str:
    """Return the form token of a sign-in; it does not reveal the cookie."""
    return _mac(secret, b"form")


def is_form_token(given: str, secret: str) -> bool:
    """Return whether a form token belongs to its sign-in; compared in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), form_token(secret).encode())


def is_own_form(request: Request, public_url: str) -> bool:
    """Return whether a form was posted from a page of this console (CSRF check).

    ``Sec-Fetch-Site`` decides if present (newer browsers, over HTTPS or loopback); else ``Origin``
    must match. Without either the result is False.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = request.headers.get("origin")
    public = urlsplit(public_url)
    return origin in {
        f"{public.scheme}://{public.netloc}",
        f"{request.url.scheme}://{request.headers.get('host', '')}",
    }


def safe_next(path: str) -> str:
    """Return the target after sign-in: always a page of the console."""
    if not _SAFE_NEXT.fullmatch(path) or ".." in path:
        return HOME
    return path


def protect(response: Response, *, images: Sequence[str] = ()) -> Response:
    """Set the security headers of a page; ``images`` are further allowed image sources."""
    policy = dict(_POLICY)
    if images:
        policy["img-src"] = " ".join([policy["img-src"], *images])
    response.headers["content-security-policy"] = "; ".join(
        f"{name} {value}" for name, value in policy.items()
    )
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def set_sign_in(response: Response, secret: str, *, hours: float, https: bool) -> None:
    """Set the sign-in cookie."""
    response.set_cookie(
        cookie_name(https=https),
        secret,
        max_age=int(hours * 3600),
        path="/",
        secure=https,
        httponly=True,
        samesite="lax",
    )


def forget_sign_in(response: Response, *, https: bool) -> None:
    """Delete the sign-in cookie."""
    name = cookie_name(https=https)
    response.delete_cookie(name, path="/", secure=https, httponly=True, samesite="lax")


def known_cookie(*, https: bool) -> str:
    """Return the name of the cookie that marks a browser as known."""
    return f"__Host-{KNOWN_COOKIE}" if https else KNOWN_COOKIE


def set_known(response: Response, browser_pass: str, *, days: int, https: bool) -> None:
    """Mark the browser as known for its next sign-in; signing out keeps that."""
    response.set_cookie(
        known_cookie(https=https),
        browser_pass,
        max_age=days * 24 * 3600,
        path="/",
        secure=https,
        httponly=True,
        samesite="lax",
    )


def set_flash(response: Response, flash: Flash, secret: str, *, https: bool) -> None:
    """Set a message for the next page; it is signed, so that nobody else can forge one."""
    content = urlsafe_b64encode(json.dumps(flash).encode()).decode()
    response.set_cookie(
        FLASH_COOKIE,
        f"{content}.{_mac(secret, content.encode())}",
        max_age=_SECONDS_OF_FLASH,
        path="/",
        secure=https,
        httponly=True,
        samesite="lax",
    )


def read_flash(request: Request, secret: str) -> Flash | None:
    """Return the message from the previous page, or None."""
    content, _, mac = request.cookies.get(FLASH_COOKIE, "").partition(".")
    if not content or not hmac.compare_digest(mac, _mac(secret, content.encode())):
        return None
    kind, text = json.loads(urlsafe_b64decode(content))
    return str(kind), str(text)


def remember_app(response: Response, app_id: str, *, https: bool) -> None:
    """Remember the last viewed app; that is no secret."""
    response.set_cookie(
        APP_COOKIE,
        app_id,
        max_age=_SECONDS_OF_APP,
        path="/",
        secure=https,
        httponly=True,
        samesite="lax",
    )


def _mac(secret: str, content: bytes) -> str:
    return hmac.digest(secret.encode(errors="replace"), content, hashlib.sha256).hex()
