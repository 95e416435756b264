"""Rendering of the pages and mails of links; values in HTML are escaped."""

import base64
import hashlib
from functools import cache
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse

_STYLE: Final = """
:root { color-scheme: light dark; font: 1.0625rem/1.5 system-ui, sans-serif; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: #f4f5f7; color: #1c1f24; }
main { box-sizing: border-box; width: min(30rem, 100vw - 2rem); padding: 2rem 1.5rem;
  background: #fff; border-radius: 1rem; }
h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.25; }
p { margin: 0 0 1rem; overflow-wrap: anywhere; }
.quiet { color: #565d68; font-size: .9375rem; }
button, .button { display: block; box-sizing: border-box; width: 100%; margin: 1.5rem 0;
  padding: .875rem 1rem; border: 0; border-radius: .625rem; background: #0b57c4; color: #fff;
  font: inherit; font-weight: 600; text-align: center; text-decoration: none; cursor: pointer; }
button:focus-visible, .button:focus-visible { outline: 3px solid #1c1f24; outline-offset: 3px; }
@media (prefers-color-scheme: dark) {
  body { background: #121417; color: #eceef1; }
  main { background: #1d2025; }
  .quiet { color: #a9b0bb; }
  button, .button { background: #8ab8ff; color: #0a1a33; }
  button:focus-visible, .button:focus-visible { outline-color: #eceef1; }
}
"""
_DIGEST: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex, nofollow",
}
"""The headers of each page: no scripts, no external resources, no referrer."""


def render(name: str, **values: object) -> str:
    """Return a rendered template; a missing value raises an error."""
    return _environment().get_template(name).render(style=_STYLE, **values)


def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return a page as a response."""
    return HTMLResponse(render(name, **values), status_code=status, headers=PAGE_HEADERS)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("handbell.server.links"),
        autoescape=select_autoescape(enabled_extensions=("html",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
