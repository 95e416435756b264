"""The console's start page, which leads to the next step."""

from starlette.responses import Response

from .layout import Page, PageRoutes

pages = PageRoutes()


@pages.get("/console/static/{name}", bare=True)
async def static(page: Page) -> Response:
    """Return a stylesheet, a script or a picture."""
    return page.console.statics.answer(page.request, page.request.path_params["name"])


@pages.get("/console")
async def start(page: Page) -> Response:
    """Redirect to the next step: an app, its key, its first device, or Activity."""
    app = page.current_app
    if app is None:
        return page.redirect("/console/apps")
    if not await page.run(page.system.apps.credentials, app):
        return page.redirect(page.app_url(app=app))
    if not await page.run(page.system.registry.page_of_active, app, limit=1):
        return page.redirect(page.app_url("/people", app))
    return page.redirect(page.app_url("/activity", app))
