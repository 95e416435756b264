"""What is said where there is no page, and what leads back to one."""

from starlette.responses import Response
from starlette.routing import compile_path

from handbell.server.routes import ROUTES

from .layout import Page, Pages
from .security import HOME

pages = Pages()


@pages.get("/console/{rest:path}")
async def nowhere(page: Page) -> Response:
    """Lead from where a form was sent to the page that it stands on; else there is no such page."""
    if not page.request.path_params["rest"]:
        return page.redirect(HOME)
    if _takes("POST", page.path):
        return page.redirect(_page_above(page.path))
    return page.problem(404, "There is no such page.", "Choose a page from the navigation.")


def _page_above(path: str) -> str:
    """Return the nearest page above the address of a form, which a browser may be left at."""
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
