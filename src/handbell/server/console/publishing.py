"""*Publishing*: the apps, the push switch, and an app's set-up."""

from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Final

from starlette.responses import Response

from handbell.apps.app import App
from handbell.apps.checkup import Finding
from handbell.apps.sample_keys import make_key
from handbell.apps.store import StoredCredential
from handbell.delivery.policy.app_rules import AppRules
from handbell.delivery.policy.rate_limit import read_rate_limit
from handbell.demo_environment import SAMPLE_APP, SAMPLE_NAME
from handbell.errors import AppError

from .check_up import CheckUp, check_up, forget_check_up, last_check_up
from .credential_rows import credential_rows
from .forms import Faults, Form
from .layout import Page, PageRoutes

pages = PageRoutes()

_TOLD_HERE: Final = frozenset({"stopped", "outage", "no-worker"})
"""Obstacles that the page shows at their own place: by the switch, and in the list of keys."""

LIST: Final = "/console/apps"
APP: Final = "/console/apps/{app}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppCard:
    """An app in the list."""

    app: App
    credentials: list[StoredCredential]
    rules: AppRules


@pages.get(LIST)
async def apps(page: Page) -> Response:
    """Show every app, and the form for a new one."""
    return await _list(page)


@pages.post(LIST)
async def add(page: Page) -> Response:
    """Add an app."""
    form = page.form
    add_app = partial(
        page.system.apps.add,
        form.text("team_id").upper() or None,
        form.text("bundle_id") or None,
        name=form.text("name") or None,
        android_package=form.text("android_package") or None,
        web_origin=form.text("web_origin") or None,
    )
    try:
        app = await page.run(add_app)
    except AppError as error:
        field = next(
            (name for name, message in _NAMED_BY if message in error.what),
            "bundle_id",
        )
        return await _list(page, Faults.of(error, field), page.form)
    page.app = app
    await page.note("app.add", app.id)
    return page.redirect(page.app_url(), message=f"{app.name} is added. Its key comes next.")


@pages.get(f"{LIST}/sample")
async def before_sample(page: Page) -> Response:
    """Redirect from the form's URL, which looks like an app's, to its page."""
    return page.redirect(LIST)


@pages.post(f"{LIST}/sample")
async def add_sample(page: Page) -> Response:
    """Add the sample app with a key for the twin: enough for a first notification."""
    sample = App.read_id(SAMPLE_APP)
    app = await page.run(
        page.system.apps.add, sample.team_id, sample.bundle_id, SAMPLE_NAME, is_suggested=True
    )
    page.app = app
    await page.note("app.add", app.id)
    await _add_twin_key(page, app, is_of_sample=True)
    return page.redirect(
        page.app_url("/people"), message=f"{app.name} is added, with a key for the virtual phone."
    )


@pages.get(APP)
async def show(page: Page) -> Response:
    """Show an app's set-up."""
    return await show_app(page)


@pages.post(f"{APP}/check-up")
async def check(page: Page) -> Response:
    """Run a check-up, and show the app's page with its findings."""
    await check_up(page)
    if page.is_fragment:
        return await show_app(page)
    return page.redirect(page.app_url("#check-up"))


@pages.post(f"{APP}/keys/twin")
async def add_twin_key(page: Page) -> Response:
    """Create a key that only the twin accepts."""
    await _add_twin_key(page, page.the_app)
    await check_up(page)
    return page.redirect(
        page.app_url(), message="A key for the virtual phone is made. Apple does not know it."
    )


@pages.get(f"{APP}/switch")
async def ask_switch(page: Page) -> Response:
    """Confirm switching push off."""
    app = page.the_app
    if not app.is_enabled:
        return page.redirect(page.app_url())
    return page.confirm(
        f"Switch push off for {app.name}?",
        text=(
            "Nothing is sent until it is on again. What is sent meanwhile waits; it is not lost.",
        ),
        action=page.app_url("/switch"),
        back=page.app_url(),
        label="Switch push off",
        hidden={"to": "off"},
    )


@pages.post(f"{APP}/switch")
async def switch(page: Page) -> Response:
    """Switch an app's push on or off."""
    is_on = page.form.text("to") == "on"
    app = await page.run(page.system.app_control.switch, page.the_app, is_on)
    word = "on" if is_on else "off"
    await page.note("app.set", app.id, f"push {word}")
    kind = "good" if is_on else "plain"
    return page.redirect(page.app_url(), message=f"Push is {word} for {app.name}.", kind=kind)


@pages.post(f"{APP}/resume")
async def resume(page: Page) -> Response:
    """Retry at once what a circuit holds."""
    was_stopped = await page.run(page.system.app_control.resume, page.the_app)
    await page.note("app.set", page.the_app.id, "resume")
    message = "Sending goes on within seconds." if was_stopped else "Sending was not stopped."
    return page.redirect(page.app_url(), message=message)


@pages.get(f"{APP}/remove")
async def ask_remove(page: Page) -> Response:
    """Confirm the removal of an app."""
    app = page.the_app
    return page.confirm(
        f"Remove {app.name}?",
        text=(
            f"{app.id} goes with its keys, people, devices, API keys and webhooks.",
            "What was sent stays in the ledger. This cannot be undone.",
        ),
        action=page.app_url("/remove"),
        back=page.app_url(),
        label="Remove the app",
    )


@pages.post(f"{APP}/remove")
async def remove(page: Page) -> Response:
    """Remove an app with all that belongs to it."""
    app = page.the_app
    await page.run(page.console.context.remove_app, app)
    await page.note("app.remove", app.id)
    forget_check_up(page)
    return page.redirect(LIST, message=f"{app.name} is removed.")


async def show_app(page: Page, faults: Faults | None = None, form: Form | None = None) -> Response:
    """Return an app's page; with ``faults``, as the response to ``form``."""
    values = await page.run(_read, page)
    checked: CheckUp | None = last_check_up(page)
    return page.render(
        "publishing.html",
        status=422 if faults else 200,
        faults=faults,
        form=form,
        checked=checked,
        worst=None if checked is None else _worst(checked.findings),
        **values,
    )


def _read(page: Page) -> dict[str, Any]:
    system, app = page.system, page.the_app
    control = system.app_control
    rules = system.rules_store.rules_of(app.id)
    return {
        "app": app,
        "credentials": system.apps.credentials(app),
        "by_service": credential_rows(system, app),
        "rules": rules,
        "rate": _rate(rules),
        "held": [
            *(held for held in control.obstacles(app) if held.kind in _TOLD_HERE),
            *control.cautions(app),
        ],
        "can_mail": system.settings.can_mail,
        "identity": system.identities.of(app),
        "zones": time_zones(),
    }


def _rate(rules: AppRules) -> str:
    """Return the rate limit as an operator writes it: without the default burst."""
    plain = str(rules.rate or "").partition(" burst")[0]
    return plain if not plain or read_rate_limit(plain) == rules.rate else str(rules.rate)


@cache
def time_zones() -> tuple[str, ...]:
    """Return the time zones to choose from."""
    from zoneinfo import available_timezones  # noqa: PLC0415 - reads a folder

    named = (name for name in sorted(available_timezones()) if "/" in name)
    return tuple(name for name in named if not name.startswith(("Etc/", "SystemV/", "US/")))


async def _list(page: Page, faults: Faults | None = None, form: Form | None = None) -> Response:
    def read() -> list[AppCard]:
        return [
            AppCard(
                app=app,
                credentials=page.system.apps.credentials(app),
                rules=page.system.rules_store.rules_of(app.id),
            )
            for app in page.system.apps.list()
        ]

    return page.render(
        "apps.html",
        status=422 if faults else 200,
        faults=faults,
        form=form or Form(),
        cards=await page.run(read),
    )


async def _add_twin_key(page: Page, app: App, *, is_of_sample: bool = False) -> None:
    key = make_key(app.apple.team_id, is_of_sample=is_of_sample)
    await page.run(page.system.apps.add_credential, app, key, environment="twin")
    await page.note("credential.add", key.key_id, "for the twin")


def _worst(findings: list[Finding]) -> str:
    verdicts = {finding.verdict for finding in findings}
    return next((item for item in ("wrong", "doubtful") if item in verdicts), "right")


_NAMED_BY: Final = (
    ("android_package", "package of an Android"),
    ("web_origin", "origin of web pages"),
    ("web_origin", "Browsers offer no push"),
    ("team_id", "team id"),
    ("name", "name cannot"),
    ("bundle_id", "bundle id"),
)
