"""Forms of an app's rules: quiet hours, a cap, a rate, and the proof of identity."""

from typing import Final

from starlette.responses import Response

from handbell.delivery.policy.app_rules import NO_RULE, AppRules, read_rules
from handbell.delivery.policy.zones import DEFAULT_ZONE
from handbell.errors import AppError

from .forms import Faults, Form
from .layout import Page, PageRoutes
from .publishing import show_app

pages = PageRoutes()

_PROOFS: Final = {
    "key": "Only the back end registers devices now.",
    "link": "Devices prove themselves by a mailed link now.",
    "token": "Devices prove themselves by a signed token now.",
}


@pages.post("/console/apps/{app}/rules")
async def set_rules(page: Page) -> Response:
    """Set the changed rules: all of them, or none when one is invalid."""
    before = await page.run(page.system.rules_store.rules_of, page.the_app.id)
    stands, changed, faults = _stored(before), dict[str, str](), Faults()
    for name, text in _wanted(page.form).items():
        try:
            if read_rules({name: text})[name] != stands[name]:
                changed[name] = text
        except AppError as error:
            faults.add("quiet_from" if name == "quiet_hours" else name, error.what, error.fix)
    if faults:
        return await show_app(page, faults, page.form)
    if not changed:
        return page.redirect(page.app_url("#rules"), message="Nothing was changed.")
    await page.run(page.system.app_control.set_rules, page.the_app, changed)
    await page.note(
        "app.set", page.the_app.id, ", ".join(f"{name} {text}" for name, text in changed.items())
    )
    return page.redirect(page.app_url("#rules"), message="The rules are set.")


@pages.post("/console/apps/{app}/proof")
async def set_proof(page: Page) -> Response:
    """Set the proof of identity."""
    proof, key = page.form.text("proof"), page.form.raw("identity_key")
    try:
        await page.run(
            page.system.identities.set,
            page.the_app,
            proof=proof,
            identity_key=key if key.strip() else None,
        )
    except AppError as error:
        field = "identity_key" if "identity key" in error.what else "proof"
        return await show_app(page, Faults.of(error, field), page.form)
    detail = f"proof {proof}" + (", another identity key" if key.strip() else "")
    await page.note("app.set", page.the_app.id, detail)
    return page.redirect(page.app_url("#identity"), message=_PROOFS[proof])


@pages.post("/console/apps/{app}/links")
async def set_links(page: Page) -> Response:
    """Set the domain of universal links, and the app's store page."""
    faults = Faults()
    for name in ("associated_domain", "store_url"):
        try:
            given = {name: page.form.text(name) or NO_RULE}
            await page.run(page.system.identities.set, page.the_app, **given)
        except AppError as error:
            faults.add(name, error.what, error.fix)
    if faults:
        return await show_app(page, faults, page.form)
    await page.note("app.set", page.the_app.id, "universal links")
    return page.redirect(page.app_url("#links"), message="The links are set.")


def _wanted(form: Form) -> dict[str, str]:
    start, end = form.text("quiet_from"), form.text("quiet_to")
    return {
        "quiet_hours": f"{start}-{end}" if start or end else NO_RULE,
        "cap": form.text("cap") or NO_RULE,
        "rate_limit": form.text("rate_limit") or NO_RULE,
        "time_zone": form.text("time_zone") or DEFAULT_ZONE,
    }


def _stored(rules: AppRules) -> dict[str, str | None]:
    return {
        "quiet_hours": None if rules.quiet is None else str(rules.quiet),
        "cap": None if rules.cap is None else str(rules.cap),
        "rate_limit": None if rules.rate is None else str(rules.rate),
        "time_zone": rules.time_zone,
    }
