"""A person's page: devices, explanations of recent notifications, and actions."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from starlette.responses import Response

from handbell._text import short_token
from handbell.errors import UnknownSessionError, UnknownUserError
from handbell.registry.session import Session

from .formatting import platform
from .layout import Page, PageRoutes

pages = PageRoutes()

BY_OPERATOR: Final = "closed by operator"
"""The close reason of a session that was closed on these pages."""

_PERSON: Final = "/console/apps/{app}/person"
_SESSION: Final = "/console/apps/{app}/sessions/{session}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _SessionAction:
    """An action on a session: its confirmation, and its message afterwards."""

    question: str
    text: str
    label: str
    message: str
    done_already: str
    is_danger: bool = False


_ACTS: Final = {
    "close": _SessionAction(
        question="Close the session of {device}?",
        text="Nothing is sent to this device any more, until the app registers it again.",
        label="Close the session",
        message="The session of {device} is closed.",
        done_already="The session of {device} was closed already.",
        is_danger=True,
    ),
    "release": _SessionAction(
        question="Try {device} again?",
        text="The quarantine ends, and the next notification goes to it. If the push service "
        "refuses it once more, the session comes back into quarantine.",
        label="End the quarantine",
        message="{device} is sent to again.",
        done_already="{device} was not in quarantine any more.",
    ),
    "activate": _SessionAction(
        question="Is {device} really theirs?",
        text="The device has not proven that it is {mail}'s. Accept it only if you know it by "
        "other means: whoever holds it sees what is sent to {mail}.",
        label="Accept the device",
        message="{device} is accepted.",
        done_already="{device} did not wait for proof any more.",
        is_danger=True,
    ),
}


@pages.get(_PERSON)
async def person(page: Page) -> Response:
    """Show one person: the answer first, then its evidence."""
    mail = page.query("mail")
    if not mail:
        return page.redirect(page.app_url("/people"))
    story = await page.run(page.system.why, page.the_app, mail)
    known = await page.run(page.system.directory.user, page.the_app, mail)
    return page.render("person.html", story=story, known=known)


@pages.get(f"{_PERSON}/forget")
async def ask_forget(page: Page) -> Response:
    """Confirm the erasure of a person."""
    mail = page.query("mail")
    if await page.run(page.system.directory.user, page.the_app, mail) is None:
        raise UnknownUserError(
            f"{page.the_app.name} has no user {mail[:100]!r}", fix="Look at the list of its users"
        )
    return page.confirm(
        f"Forget {mail}?",
        text=(
            "Their devices are removed, and their address is taken out of what was sent.",
            "What went to them alone loses its content too.",
            "If the app registers them again, they begin anew. This cannot be undone.",
        ),
        action=page.app_url("/person/forget"),
        back=address_of(page, mail),
        label="Forget this person",
        hidden={"mail": mail},
    )


@pages.post(f"{_PERSON}/forget")
async def forget(page: Page) -> Response:
    """Remove a person with their devices and their name in the ledger."""
    erased = await page.run(page.system.eraser.erase, page.the_app, page.form.text("mail"))
    await page.system.engine.release(erased.sessions)
    # Not by address: the trail would keep what was just erased.
    await page.note("user.remove", f"user {erased.user}")
    return page.redirect(page.app_url("/people"), message="The person is forgotten.")


@pages.get(f"{_SESSION}/{{act}}")
async def ask(page: Page) -> Response:
    """Confirm an action on a session."""
    act = _act(page)
    session = await _session(page)
    words = _words(session)
    return page.confirm(
        act.question.format(**words),
        text=(act.text.format(**words),),
        action=page.app_url(f"/sessions/{session.id}/{page.request.path_params['act']}"),
        back=address_of(page, session.mail),
        label=act.label,
        is_danger=act.is_danger,
    )


@pages.post(f"{_SESSION}/{{act}}")
async def act_on(page: Page) -> Response:
    """Close, release or activate a session."""
    act = _act(page)
    name = page.request.path_params["act"]
    session = await _session(page)
    is_done = await _do(page, name, session)
    if is_done:
        await page.note(f"session.{name}", f"session {session.id}")
    message = act.message if is_done else act.done_already
    return page.redirect(
        address_of(page, session.mail),
        message=message.format(**_words(session)),
        kind="good" if is_done else "bad",
    )


def address_of(page: Page, mail: str) -> str:
    """Return the URL of a person's page."""
    return page.app_url(f"/person?{urlencode({'mail': mail})}")


async def _do(page: Page, name: str, session: Session) -> bool:
    registry = page.system.registry
    if name == "release":
        return await page.run(registry.release, session)
    if name == "close":
        is_done = await page.run(registry.close, session, BY_OPERATOR)
        # Deliveries in hand must not arrive after the operator's confirmation.
        await page.system.engine.release([session.id])
        return is_done
    registered = await page.run(registry.activate, session)
    if registered is None:
        return False
    await page.system.engine.release(registered.moved)
    return True


_FROM_PAGE: Final = "Go back to the person's page, load it again, and use its buttons"


def _act(page: Page) -> _SessionAction:
    act = _ACTS.get(page.request.path_params["act"])
    if act is None:
        raise UnknownSessionError("That cannot be done to a session", fix=_FROM_PAGE)
    return act


async def _session(page: Page) -> Session:
    text = page.request.path_params["session"]
    if not text.isascii() or not text.isdigit() or len(text) > len(str(1 << 62)):
        raise UnknownSessionError(f"There is no session {text[:40]!r}", fix=_FROM_PAGE)
    return await page.run(page.system.registry.session_of_app, page.the_app, int(text))


def _words(session: Session) -> dict[str, str]:
    return {
        "device": session.device or f"{platform(session.platform)} {short_token(session.token)}",
        "mail": session.mail,
    }
