"""The console: pages for the people who run Handbell, rendered here, usable without a script.

How to add pages
----------------

A page module holds a :class:`~.frame.Pages` and registers its handlers with it::

    pages = Pages()

    @pages.get("/console/apps/{app}/people")
    async def people(page: Page) -> Response:
        found = await page.run(page.system.registry.users, page.the_app)
        return page.render("people.html", found=found)

    @pages.post("/console/apps/{app}/people/close")
    async def close(page: Page) -> Response:
        await page.run(page.system.registry.close, int(page.form.text("session")), "closed")
        await page.note("session.close", "session 7")
        return page.redirect(page.app_url("/people"), message="The session is closed.")

Put the module into :data:`MODULES` below, and each route into ``handbell/server/routes.py`` (need
OPERATOR; SIGN_IN where nobody is signed in yet). ``{app}`` in a path is the app id in full; the
frame finds the app (``page.the_app``) or answers 404. The guard requires a sign-in; a request for a
fragment without one gets 401.

* **Blocking calls** of stores go through ``await page.run(function, ...)``.
* **Forms** are posted, with ``{{ token() }}`` inside; the frame refuses any other. The fields are
  in ``page.form`` (:class:`~.forms.Form`: ``text``, ``raw``, ``flag``, ``all``, ``file``). After a
  change answer ``page.redirect(..., message=...)``: the next page shows it once. For invalid input,
  render the same page again with ``faults`` (:class:`~.forms.Faults`) and ``status=422``:
  ``Faults.of(error, "field")`` from a HandbellError, or ``faults.add("field", what, fix)``. The
  macros show each fault at its field; ``{{ fault_summary(faults) }}`` goes on top of the form.
* **Errors**: a HandbellError that leaves a handler becomes a page with what and fix. Anything
  else is logged and becomes a page with 500.
* **Confirmation**: GET on a path renders ``page.confirm(question, action=..., back=..., ...)`` and
  POST on it acts. Link to it with ``data-dialog``: with the script it opens as a dialog, without as
  a page.
* **Audit**: ``await page.note(action, subject, detail)`` for everything that changes something.
* **Secrets** that are shown once are rendered in the answer to the POST, never after a redirect.

Templates
---------

Extend ``frame.html``: ``{% extends "frame.html" %}``, set ``section`` (``publishing``, ``compose``,
``people``, ``activity``, ``settings``) for the navigation, and fill the blocks ``title``, ``head``
(further stylesheets), ``tabs``, ``above`` and ``actions`` (over and beside the heading), ``intro``,
``main`` and ``scripts``. Import
the macros of ``parts.html`` **with context**::

    {% from "parts.html" import card, field, token, button, notice, empty with context %}

They are: ``icon(name)``, ``token()``, ``field(...)``, ``area(...)``, ``select(...)``,
``check(...)``, ``radio(...)``, ``choices(...)``, ``fault_summary(faults)``, ``button(...)``,
``link_button(...)``, ``ask(...)``, ``chip(kind, text)``, ``notice(kind, text, fix)``,
``empty(icon, title)`` (a call block with what to do next), ``copyable(text)``, ``pager(...)``.
Filters: ``when``, ``ago(now)``, ``number``, ``count('device')``, ``short_token``. Every template
sees ``page``, ``faults``, ``now``, ``session_words`` and ``delivery_words``. Addresses:
``page.url("/console/…")``, ``page.app_url("/people")``, ``page.static("console.css")``.

The content security policy allows nothing inline: no ``style`` attribute, no ``<style>``, no script
within the page. Colours and sizes are custom properties on top of ``static/console.css``; it also
has the layout classes ``stack``, ``row``, ``grid``, ``card``, ``table``, ``muted``, ``small``,
``mono``. Scripts are ES modules in ``static``, put in by ``<script type="module">`` in the block
``scripts``; ``static/console.js`` runs on every page (dialogs, copy buttons, times in the reader's
zone, forms whose response replaces the page or, with ``data-fragment``, one element). It
offers ``announce(text)`` for the live region, and ``fragment(url, options)``, which fetches a part
of a page with the header ``X-Fragment`` (``page.is_fragment`` here).
"""

from typing import TYPE_CHECKING, Final

from starlette.routing import BaseRoute, Route

from . import (
    activity,
    api_keys,
    audit,
    compose,
    keys,
    notification,
    people,
    person,
    phones,
    publishing,
    rules,
    services,
    settings,
    sign_in,
    start,
    webhooks,
)
from . import (
    not_found as nowhere,
)
from .layout import Console
from .request_guard import endpoint, require_operator

if TYPE_CHECKING:
    from handbell.server.context import Context

__all__ = ["console_routes", "require_operator"]

MODULES: Final = (
    start,
    sign_in,
    publishing,
    keys,
    services,
    rules,
    people,
    person,
    compose,
    phones,
    settings,
    api_keys,
    webhooks,
    audit,
    activity,
    notification,
    nowhere,
)
"""The page modules; routes are tried in this order, and ``not_found`` takes the rest."""


def console_routes(context: "Context") -> list[BaseRoute]:
    """Return the routes of every page of the console."""
    console = Console(context=context)
    return [
        Route(listed.path, endpoint(console, listed), methods=[listed.method])
        for module in MODULES
        for listed in module.pages.listed
    ]
