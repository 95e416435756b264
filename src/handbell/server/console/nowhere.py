"""What is said where there is no page."""

from starlette.responses import Response

from .frame import Page, Pages
from .security import HOME

pages = Pages()


@pages.get("/console/{rest:path}")
async def nowhere(page: Page) -> Response:
    """Say that there is no such page."""
    if not page.request.path_params["rest"]:
        return page.redirect(HOME)
    return page.problem(404, "There is no such page.", "Choose a page from the navigation.")
