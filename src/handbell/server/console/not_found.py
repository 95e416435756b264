"""Error pages for unknown paths, with a link back."""

from starlette.responses import Response
from starlette.routing import compile_path

from handbell.server.routes import ROUTES

from .layout import Page, PageRoutes
from .security import HOME

pages = PageRoutes()


@pages.get("/console/{rest:path}")
async def not_found(page: Page) -> Response:
    """Redirect from a form's URL to its page; else answer 404."""
    if not page.request.path_params["rest"]:
        return page.redirect(HOME)
    if _takes("POST", page.path):
        return page.redirect(_page_above(page.path))
    return page.problem(404, "There is no such page.", "Choose a page from the navigation.")


def _page_above(path: str) -> str:
    """Return the page above a form's URL, which a browser may request."""
    while path and not _takes("GET", path):
        path = path.rpartition("/")[0]
    return path or HOME


def _takes(method: str, path: str) -> bool:
    return any(pattern.fullmatch(path) for pattern in _PATTERNS[method])


_PATTERNS = {
    method: [
        compile_path(path)[0]
        for (listed, path) in ROUTES
        if listed == method and path.startswith(HOME) and "{rest" not in path
    ]
    for method in ("GET", "POST")
}
