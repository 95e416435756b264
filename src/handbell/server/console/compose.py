"""*Compose*: write a notification, preview it, test it on one phone, send it."""

import hashlib
import json
from typing import Final
from urllib.parse import quote, unquote
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from handbell._text import count
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.engine import Options
from handbell.delivery.ledger.reports import describe, describe_recipients
from handbell.errors import HandbellError, IdempotencyError
from handbell.services.forms import FCM_APPLE

from .compose_preview import AudienceCounts, DraftPreview, look
from .draft import Draft, add_fault, read_recipients
from .forms import Faults
from .layout import Page, PageRoutes
from .phones import PhonePanel, phone_panel
from .security import protect

REMEMBERED: Final = 1000
"""The number of replacement sends that are remembered by their form."""
DEVICE_WORDS: Final = {
    "apns": "iPhone",
    "fcm": "Android",
    FCM_APPLE: "FCM iPhone",
    "webpush": "Browser",
}
"""What the preview of each form is of."""
_TOLD_AT_MOST: Final = 3
_SECONDS_OF_ADDRESS: Final = 365 * 24 * 3600
_MEMORY: Final = "compose"

pages = PageRoutes()


@pages.get("/console/apps/{app}/compose")
async def write(page: Page) -> Response:
    """Show the form: empty, or filled with a former notification or with recipients."""
    draft = await _begun(page)
    return await _form(page, draft, await _look(page, draft), Faults())


@pages.post("/console/apps/{app}/compose")
async def act(page: Page) -> Response:
    """Handle the pressed button: preview, another language, test, or send."""
    draft = Draft.read(page.form)
    match page.form.text("do"):
        case "send":
            return await _send(page, draft, is_confirmed=False)
        case "test":
            return await _test(page, draft)
        case "restore":
            return await _restore(page, draft)
        case "language":
            seen = await _look(page, draft)
            return await _form(page, draft, seen, Faults(), more_languages=1)
        case "edit":
            return await _form(page, draft, await _look(page, draft), Faults())
        case _:
            seen = await _look(page, draft)
            return await _form(page, draft, seen, seen.faults)


async def _restore(page: Page, draft: Draft) -> Response:
    """Show a draft that the browser kept; nothing if it was sent already."""
    once = draft.get("once")
    is_replaced = once in page.console.memory.get("replaced", {})
    if once and (is_replaced or await page.run(_is_sent, page, draft)):
        return protect(Response(status_code=204))
    return await _form(page, draft, await _look(page, draft), Faults())


def _is_sent(page: Page, draft: Draft) -> bool:
    return page.system.sends.knows_key(page.the_app, _key(draft))


@pages.post("/console/apps/{app}/compose/send")
async def send(page: Page) -> Response:
    """Send the confirmed notification."""
    return await _send(page, Draft.read(page.form), is_confirmed=True)


@pages.post("/console/apps/{app}/compose/preview")
async def preview(page: Page) -> Response:
    """Return the preview of a draft, for the script that updates it on typing."""
    draft = Draft.read(page.form)
    seen = await _look(page, draft)
    held = await page.run(page.system.app_control.obstacles, page.the_app)
    parts = page.console.templates.get_template("held.html").module
    shown = str(parts.held(page, held))  # type: ignore[attr-defined]
    return protect(JSONResponse({**seen.to_dict(draft), "held": shown}))


# Initial content


async def _begun(page: Page) -> Draft:
    former = page.query("replaces") or page.query("again")
    zone = (await page.run(page.system.rules_store.rules_of, page.the_app.id)).time_zone
    if not former:
        to = "everybody" if page.query("to") == "everybody" else "people"
        named = "\n".join(page.request.query_params.getlist("mail")[:100])
        return Draft(values={"to": to, "recipients": named, "zone": zone})
    row = await page.run(page.system.ledger.find, page.the_app, former)
    content, named_before = json.loads(row.content), json.loads(row.recipients)
    if page.query("replaces"):
        return Draft.of_notification(content, replaces=former, zone=zone)
    lines = [text for kind in named_before.values() if isinstance(kind, list) for text in kind]
    to = "everybody" if named_before.get("everybody") else "people"
    return Draft.of_notification(content, to=to, recipients="\n".join(lines), zone=zone)


async def _look(page: Page, draft: Draft, *, is_fresh: bool = False) -> DraftPreview:
    counts = page.console.memory.setdefault(_MEMORY, AudienceCounts())
    # The engine belongs to this event loop; the preview runs in a thread.
    assert page.system.engine is not None  # noqa: S101 - it is made by being asked for
    return await page.run(look, page.system, page.the_app, draft, counts, is_fresh=is_fresh)


# Sending


async def _send(page: Page, draft: Draft, *, is_confirmed: bool) -> Response:
    if draft.get("replaces"):
        return await _replace(page, draft)
    seen = await _look(page, draft, is_fresh=True)
    options = draft.options(seen.faults, key=_key(draft))
    if not seen.faults and seen.audience is not None and not seen.audience.devices:
        name = "to" if draft.is_to_everybody else "recipients"
        seen.faults.add(name, "Nobody is reached.", "Below stands who has no device, and why.")
    if seen.faults or seen.notification is None or seen.recipients is None or options is None:
        return await _form(page, draft, seen, seen.faults, status=422)
    if seen.needs_confirmation and not (is_confirmed and page.form.flag("sure")):
        return _ask(page, draft, seen, is_missing=is_confirmed)
    try:
        accepted, warnings = await page.system.engine.accept(
            page.the_app, seen.notification, seen.recipients, options
        )
    except IdempotencyError:
        return await _sent_already(page, draft, seen)
    except HandbellError as error:
        faults = Faults()
        add_fault(faults, error)
        return await _form(page, draft, seen, faults, status=422)
    if not accepted.is_former:
        await _note(page, accepted.id, seen.notification, seen.recipients)
    message, kind = await _accepted(page, is_later=options.send_at is not None)
    message = " ".join([message, *warnings[:_TOLD_AT_MOST]])
    more = len(warnings) - _TOLD_AT_MOST
    if more > 0:
        message += f" And {count(more, 'more warning')}."
    return page.redirect(page.app_url(f"/activity/{accepted.id}"), message=message, kind=kind)


async def _accepted(page: Page, *, is_later: bool = False) -> tuple[str, str]:
    """Return the message after a send, and its kind: never green, since nothing is sent yet."""
    held = await page.run(page.system.app_control.obstacles, page.the_app)
    if held:
        return f"Accepted, and it waits: {held[0].headline.rstrip(':')}", "wait"
    if is_later:
        return "Accepted. It goes out at its time.", "plain"
    return "Accepted.", "plain"


def _ask(page: Page, draft: Draft, seen: DraftPreview, *, is_missing: bool) -> Response:
    faults = Faults()
    if is_missing:
        faults.add("sure", "It was not sent.", "Tick the box to say that so many are meant.")
    return page.render(
        "compose_confirm.html",
        status=422 if is_missing else 200,
        faults=faults,
        draft=draft,
        seen=seen,
        device_words=DEVICE_WORDS,
    )


async def _sent_already(page: Page, draft: Draft, seen: DraftPreview) -> Response:
    faults = Faults()
    faults.add(
        "",
        "This form was sent before, and then changed.",
        "Send once more to send it as another notification.",
    )
    return await _form(page, draft.having(once=_fresh()), seen, faults, status=409)


async def _test(page: Page, draft: Draft) -> Response:
    """Send the draft to one address now, and show the form again."""
    address = page.form.text("test_to")
    seen = await _look(page, draft)
    faults = Faults()
    for name, fault in seen.faults:
        if name != "recipients":
            faults.add(name, fault.what, fault.fix)
    wrong = Faults()
    to = read_recipients([address] if address else [], wrong)
    if (unknown := wrong.at("recipients")) is not None:
        faults.add("test_to", unknown.what, unknown.fix if address else "Name one mail address.")
    if faults or to is None or seen.notification is None:
        return await _form(page, draft, seen, faults, status=422, test_to=address)
    options = Options.read(
        urgency="urgent",
        idempotency_key=_test_key(page.form.text("test_once")),
        is_development=draft.get("is_development") == "1",
        is_test=True,
    )
    try:
        accepted, warnings = await page.system.engine.accept(
            page.the_app, seen.notification, to, options
        )
    except HandbellError as error:
        faults.add("test_to", error.what, error.fix)
        return await _form(page, draft, seen, faults, status=422, test_to=address)
    if not accepted.is_former:
        await _note(page, accepted.id, seen.notification, to, "a test ")
    held = await page.run(page.system.app_control.obstacles, page.the_app)
    message = f"The test is on its way to {address}."
    if held:
        message = f"The test to {address} waits: {held[0].headline.rstrip(':')}"
    if warnings:
        message = warnings[0]
    response = await _form(
        page,
        draft,
        seen,
        Faults(),
        test_to=address,
        message=message,
        is_reached=not (warnings or held),
    )
    _remember_address(page, response, address)
    return response


async def _replace(page: Page, draft: Draft) -> Response:
    former = draft.get("replaces")
    seen = await _look(page, draft)
    if seen.faults or seen.notification is None:
        return await _form(page, draft, seen, seen.faults, status=422)
    await page.run(page.system.ledger.find, page.the_app, former)
    sent_before: dict[str, str] = page.console.memory.setdefault("replaced", {})
    once = draft.get("once")
    if once in sent_before:
        return page.redirect(page.app_url(f"/activity/{sent_before[once]}"))
    sent_before[once] = former
    try:
        accepted = await page.system.engine.accept_replacement(
            page.the_app, former, seen.notification
        )
    except HandbellError as error:
        del sent_before[once]
        return await _form(page, draft, seen, Faults.of(error), status=422)
    sent_before[once] = accepted.id
    while len(sent_before) > REMEMBERED:
        del sent_before[next(iter(sent_before))]
    await page.note("notification.send", accepted.id, f"in place of {former}")
    message, kind = await _accepted(page)
    return page.redirect(page.app_url(f"/activity/{accepted.id}"), message=message, kind=kind)


async def _note(
    page: Page, number: str, notification: Notification, to: Recipients, kind: str = ""
) -> None:
    title = describe(notification.to_dict())
    who = describe_recipients(to.to_record())
    await page.note("notification.send", number, f"{kind}to {who}: {title}".strip())


# The form


async def _form(
    page: Page,
    draft: Draft,
    seen: DraftPreview,
    faults: Faults,
    *,
    status: int = 200,
    more_languages: int = 0,
    test_to: str = "",
    message: str = "",
    is_reached: bool = True,
) -> Response:
    if not draft.get("once"):
        draft = draft.having(once=_fresh())
    address = test_to or _known_address(page)
    template_names, variables = await page.run(_templates, page, draft)
    services = await page.run(page.system.previewer.forms_of, page.the_app)
    phones: PhonePanel = await page.run(
        phone_panel,
        page.system,
        page.the_app,
        wanted=page.query("phone"),
        mail=address,
        service=services[0],
    )
    return page.render(
        "compose.html",
        status=status,
        faults=faults,
        images=["https:"],
        draft=draft,
        seen=seen,
        more_languages=more_languages,
        test_to=address or phones.mail,
        test_once=_fresh(),
        template_options=[("", "None"), *((name, name) for name in template_names)],
        variables=variables,
        held=await page.run(page.system.app_control.obstacles, page.the_app),
        draft_key=_draft_key(page),
        message=message,
        is_reached=is_reached,
        panel=phones,
        services=services,
        device_words=DEVICE_WORDS,
    )


def _templates(page: Page, draft: Draft) -> tuple[list[str], tuple[str, ...]]:
    """Return the names of the app's templates, and the chosen one's variables."""
    found = {item.template.name: item.template for item in page.system.templates.list(page.the_app)}
    chosen = found.get(draft.get("template"))
    return list(found), () if chosen is None else chosen.variables


def _fresh() -> str:
    return uuid4().hex


def _draft_key(page: Page) -> str:
    """Return the browser's key for a draft: one per operator, app and initial content.

    ``keep`` continues the empty form's draft, whatever recipients the URL names.
    """
    begun = "" if page.query("keep") else str(page.request.url.query)
    whose = f"{page.operator.mail} {page.the_app.id} {begun}".encode()
    return f"handbell-draft-{hashlib.sha256(whose).hexdigest()[:16]}"


def _key(draft: Draft) -> str:
    """Return the idempotency key that makes two posts of one form one send."""
    return f"console-{hashlib.sha256(draft.get('once', _fresh()).encode()).hexdigest()[:32]}"


def _test_key(once: str) -> str:
    return f"console-test-{hashlib.sha256((once or _fresh()).encode()).hexdigest()[:32]}"


# The address for tests, remembered in this browser for this operator and app


def _address_cookie(page: Page) -> str:
    whose = f"{page.operator.mail} {page.the_app.id}".encode()
    return f"handbell-test-{hashlib.sha256(whose).hexdigest()[:12]}"


def _known_address(page: Page) -> str:
    return unquote(page.request.cookies.get(_address_cookie(page), ""))[:320]


def _remember_address(page: Page, response: Response, address: str) -> None:
    response.set_cookie(
        _address_cookie(page),
        quote(address),
        max_age=_SECONDS_OF_ADDRESS,
        path="/",
        secure=page.https,
        httponly=True,
        samesite="lax",
    )
