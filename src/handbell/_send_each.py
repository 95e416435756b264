"""Send one template to many people, each with their own variables."""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.creation.template import TemplateUse, read_template_use
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import Entry, Options
from handbell.delivery.ledger.answer import refused
from handbell.delivery.response import Response
from handbell.remote.requests import wrong_variables

from ._chunks import chunks
from ._outcome import outcome
from ._thread_pool import in_thread
from .errors import HandbellError, TemplateError

if TYPE_CHECKING:
    from handbell.apps.app import App

    from .system import System

_AT_ONCE: Final = 400
_LEAST_SECONDS: Final = 0.001
"""What is left of a timeout that was over while others were waited for: a look at how it stands."""

OptionsOf = Callable[[str], Options]
"""How to send to one recipient."""


def read_template(notification: object) -> TemplateUse:
    """Parse the use of a template: its name, or a mapping that names it.

    Raises TemplateError for a notification without one.
    """
    use = read_template_use(
        {"template": notification} if isinstance(notification, str) else notification
    )
    if use is None:
        raise TemplateError(
            "Variables were given for each recipient, and no template",
            fix='Name the template: send_each("welcome", {"test@4d.com": {"name": "you"}})',
        )
    return use


async def send_each(
    system: "System",
    app: "App",
    use: TemplateUse,
    variables_of: Mapping[str, Mapping[str, Any]],
    *,
    options_of: OptionsOf,
    key: Any = None,
    timeout: float | None = None,
) -> dict[str, Response]:
    """Send a template to each named person, and return a response for each.

    What is wrong with one is in the errors of that answer. The ``timeout`` is for the wait of all,
    once they are stored. Raises UnknownTemplateError.
    """
    if not isinstance(variables_of, Mapping):
        raise wrong_variables(variables_of)
    stored = await in_thread(system.templates.get, app, use.template)

    def render(name: str) -> Notification:
        own = variables_of[name]
        if not isinstance(own, Mapping):
            raise wrong_variables(own)
        return stored.template.render({**use.variables, **own}, use.overrides)

    def read(names: list[str]) -> dict[str, Entry | HandbellError]:
        return {name: _entry(app, name, render, options_of, key) for name in names}

    accepted: dict[str, Acceptance | HandbellError] = {}
    await system.engine.start()
    for names in chunks(variables_of, _AT_ONCE):
        accepted |= await _accept(system, await in_thread(read, names))
    began = monotonic()
    answers: dict[str, Response] = {}
    for name, one in accepted.items():
        left = timeout and max(_LEAST_SECONDS, timeout - (monotonic() - began))
        answers[name] = await _answer(system, one, left, timeout)
    return answers


def _entry(
    app: "App",
    name: str,
    render: Callable[[str], Notification],
    options_of: OptionsOf,
    key: Any,
) -> Entry | HandbellError:
    try:
        return Entry(
            app=app,
            notification=render(name),
            recipients=Recipients.read(name),
            options=options_of(name),
            key=key,
        )
    except HandbellError as error:
        return error


async def _accept(
    system: "System", entries: Mapping[str, Entry | HandbellError]
) -> dict[str, Acceptance | HandbellError]:
    good = {name: one for name, one in entries.items() if isinstance(one, Entry)}
    accepted = await system.engine.accept_many(list(good.values()))
    outcomes: dict[str, Acceptance | HandbellError] = {
        name: one for name, one in entries.items() if isinstance(one, HandbellError)
    }
    outcomes |= dict(zip(good, accepted, strict=True))
    return {name: outcomes[name] for name in entries}


async def _answer(
    system: "System",
    accepted: Acceptance | HandbellError,
    left: float | None,
    timeout: float | None,
) -> Response:
    if isinstance(accepted, HandbellError):
        return refused(accepted)
    return await outcome(
        system,
        accepted.row,
        accepted.id,
        accepted.warnings,
        timeout=left,
        requested_timeout=timeout,
    )
