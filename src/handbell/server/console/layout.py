"""The layout of every page: sign-in, current app, and shared parts."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from handbell.apps.app import App
from handbell.system import System
from handbell.twin.discovery import read_address

from .formatting import DELIVERY_WORDS, FILTERS, SESSION_WORDS
from .forms import Faults, Form
from .security import (
    APP_COOKIE,
    FLASH_COOKIE,
    HOME,
    Flash,
    form_token,
    is_https,
    protect,
    read_flash,
    remember_app,
    set_flash,
)
from .sign_in_limits import SignInLimits
from .static import Statics

if TYPE_CHECKING:
    from handbell.access.operators import Operator, SignIn
    from handbell.server.context import Context

P = ParamSpec("P")
T = TypeVar("T")

FRAGMENT_HEADER: Final = "x-fragment"
"""The header with which the page's script requests a part of a page."""

LOCATION_HEADER: Final = "x-location"
"""The header with the target of the page's script after a form."""

_SLOW_THREADS: Final = 2

SECTIONS: Final[Sequence[tuple[str, str, str]]] = (
    ("publishing", "Publishing", ""),
    ("compose", "Compose", "/compose"),
    ("people", "People", "/people"),
    ("activity", "Activity", "/activity"),
)
"""The sections of an app: name, label, and the path below the app's own."""


@dataclass(frozen=True, kw_only=True)
class Console:
    """State shared by all pages: the server's context, templates and static files.

    ``memory`` is the state of page modules while the server runs, by name.
    """

    context: "Context"
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def system(self) -> System:
        """Return the Handbell system."""
        return self.context.system

    @cached_property
    def slow(self) -> ThreadPoolExecutor:
        """Return the threads for deliberately slow work."""
        return ThreadPoolExecutor(_SLOW_THREADS, thread_name_prefix="handbell-passwords")

    @cached_property
    def sign_in_limits(self) -> SignInLimits:
        """Return the limits of sign-in attempts."""
        system = self.context.system
        return SignInLimits(self.context.limiter, lambda: system.vault, system.now)

    @cached_property
    def statics(self) -> Statics:
        """Return the stylesheets, scripts and pictures."""
        return Statics.load()

    @cached_property
    def templates(self) -> Environment:
        """Return the templates; their output is escaped."""
        environment = Environment(
            loader=PackageLoader("handbell.server.console", "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(FILTERS)
        environment.globals.update(
            session_words=SESSION_WORDS, delivery_words=DELIVERY_WORDS, sections=SECTIONS
        )
        return environment


@dataclass(kw_only=True)
class Page:
    """A request for a page, and its response.

    ``app`` is the app of the path's ``{app}``, None on pages of no app. ``apps`` are all of them.
    ``form`` is the posted form, empty for GET. On a public page ``sign_in`` is None.
    """

    request: Request
    console: Console
    sign_in: "SignIn | None" = None
    secret: str = ""
    apps: Sequence[App] = ()
    app: App | None = None
    form: Form = field(default_factory=Form)

    # Context

    @property
    def system(self) -> System:
        """Return the Handbell system."""
        return self.console.system

    @property
    def operator(self) -> "Operator":
        """Return the operator; only for pages that require sign-in."""
        if self.sign_in is None:
            raise LookupError("nobody is signed in on an open page")
        return self.sign_in.operator

    @property
    def the_app(self) -> App:
        """Return the app in the path; only for paths with ``{app}``."""
        if self.app is None:
            raise LookupError("the path names no app")
        return self.app

    @property
    def current_app(self) -> App | None:
        """The app that the navigation leads to: the path's, else the last viewed one."""
        if self.app is not None or not self.apps:
            return self.app
        last = self.request.cookies.get(APP_COOKIE)
        return next((app for app in self.apps if app.id == last), self.apps[0])

    @property
    def path(self) -> str:
        """The path below the server's root."""
        root = str(self.request.scope.get("root_path", ""))
        return str(self.request.scope["path"]).removeprefix(root)

    @property
    def is_fragment(self) -> bool:
        """Whether the page's script requests a part of a page only."""
        return FRAGMENT_HEADER in self.request.headers

    @property
    def https(self) -> bool:
        """Whether the browser uses HTTPS with this server, or with the proxy in front of it."""
        return is_https(self.request, self.console.context.public_url)

    def query(self, name: str) -> str:
        """Return a query parameter, stripped; empty when missing."""
        return self.request.query_params.get(name, "").strip()

    def number(self, name: str) -> int | None:
        """Return a query parameter as a possible row id, else None."""
        text = self.query(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None  # noqa: PLR2004 - digits of 64 bits

    # Addresses

    def url(self, path: str) -> str:
        """Return a console path, such as ``/console/apps``, with the server's prefix."""
        return f"{self.request.scope.get('root_path', '')}{path}"

    def app_url(self, path: str = "", app: App | None = None) -> str:
        """Return a URL below an app's own: ``page.app_url("/people")``."""
        app = app or self.the_app
        return self.url(f"{HOME}/apps/{quote(app.id)}{path}")

    def static(self, name: str) -> str:
        """Return the URL of a static file."""
        return self.url(f"{HOME}/static/{name}?v={self.console.statics.version(name)}")

    @property
    def phones_url(self) -> str | None:
        """Return the URL of the virtual phones on loopback, for a browser on their machine."""
        host = self.request.url.hostname or ""
        if host not in ("localhost", "::1") and not host.startswith("127."):
            return None
        address = read_address(self.system.twin_folder)
        return None if address is None else address.page_link

    @property
    def form_token(self) -> str:
        """Return the form token of this sign-in; the macro ``token()`` writes it."""
        return form_token(self.secret) if self.secret else ""

    @cached_property
    def flash(self) -> Flash | None:
        """Return the message from the previous page, as kind and sentence."""
        return read_flash(self.request, self.secret) if self.secret else None

    # Actions

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call of a store in the server's threads."""
        result: T = await self.console.context.run(function, *args, **kwargs)
        return result

    async def run_slowly(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a password hash in separate threads, so that nothing else waits for it."""
        work = partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.console.slow, work)

    async def note(
        self, action: str, subject: str, detail: str | None = None, *, app: App | None = None
    ) -> None:
        """Record the operator's action on ``app``, or the page's app, in the audit trail."""
        of = app or self.app
        await self.run(
            self.system.audit.note,
            self.operator.mail,
            action,
            subject,
            app=None if of is None else of.id,
            detail=detail,
        )

    # Responses

    def render(
        self,
        template: str,
        *,
        status: int = 200,
        images: Sequence[str] = (),
        faults: Faults | None = None,
        **values: Any,
    ) -> Response:
        """Render a template with ``values``, ``page`` and ``faults``.

        ``images`` are further allowed image sources, such as ``https:``.
        """
        text = self.console.templates.get_template(template).render(
            page=self,
            faults=faults or Faults(),
            now=self.system.now(),
            status=status,
            **values,
        )
        response = HTMLResponse(text, status)
        if self.flash is not None:
            response.delete_cookie(FLASH_COOKIE, path="/", secure=self.https, httponly=True)
        if self.app is not None and self.request.cookies.get(APP_COOKIE) != self.app.id:
            remember_app(response, self.app.id, https=self.https)
        return protect(response, images=images)

    def redirect(self, path: str, *, message: str = "", kind: str = "good") -> Response:
        """Redirect to another page (``/console/…``, or what :meth:`app_url` returned).

        ``message`` is a message that it shows once; ``kind`` is ``good``, ``bad``, ``wait`` or
        ``plain``. A script gets the target and navigates itself.
        """
        root = str(self.request.scope.get("root_path", ""))
        target = path if path.startswith(f"{root}{HOME}") else self.url(path)
        # A script that followed the redirect would consume the message.
        response: Response = RedirectResponse(target, 303)
        if self.is_fragment:
            response = Response(status_code=204, headers={LOCATION_HEADER: target})
        if message and self.secret:
            set_flash(response, (kind, message), self.secret, https=self.https)
        return protect(response)

    def confirm(
        self,
        question: str,
        *,
        action: str,
        back: str,
        label: str,
        text: Sequence[str] = (),
        is_danger: bool = True,
        hidden: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Response:
        """Return a confirmation page.

        The answer is posted to ``action`` with the fields ``hidden``; ``label`` is the confirming
        button, ``back`` the target of cancel. A link with ``data-dialog`` shows it in a dialog.
        """
        return self.render(
            "confirm.html",
            status=status,
            question=question,
            text=text,
            action=action,
            back=back,
            label=label,
            is_danger=is_danger,
            hidden=hidden or {},
        )

    def problem(self, status: int, what: str, fix: str = "") -> Response:
        """Return an error page."""
        return self.render("problem.html", status=status, what=what, fix=fix)


Handler = Callable[[Page], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRoute:
    """A route of a page module."""

    method: str
    path: str
    handler: Handler
    is_bare: bool = False


class PageRoutes:
    """The routes of one page module, in order; see the docstring of this package."""

    def __init__(self) -> None:
        self.listed: list[PageRoute] = []

    def get(self, path: str, *, bare: bool = False) -> Callable[[Handler], Handler]:
        """Return a decorator for a handler of GET (and HEAD) on a path.

        ``bare`` is for files, without authentication.
        """
        return self._add("GET", path, bare=bare)

    def post(self, path: str) -> Callable[[Handler], Handler]:
        """Return a decorator for a handler of posted forms on a path."""
        return self._add("POST", path)

    def _add(self, method: str, path: str, *, bare: bool = False) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            self.listed.append(PageRoute(method=method, path=path, handler=handler, is_bare=bare))
            return handler

        return add
