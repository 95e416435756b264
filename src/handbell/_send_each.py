"""Send one template to many people, each with their own variables."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.creation.template import Use, read_use
from handbell.delivery.accept.store import Acceptance
from handbell.delivery.engine import Entry, Options
from handbell.delivery.response import Response
from handbell.remote.requests import wrong_variables

from ._threads import in_thread
from .errors import HandbellError, TemplateError

if TYPE_CHECKING:
    from handbell.apps.app import App

    from .system import System

_AT_ONCE: Final = 400

OptionsOf = Callable[[str], Options]
"""How to send to one recipient."""


def read_template(notification: object) -> Use:
    """Parse the use of a template: its name, or a mapping that names it.

    Raises TemplateError for a notification without one.
    """
    use = read_use({"template": notification} if isinstance(notification, str) else notification)
    if use is None:
        raise TemplateError(
            "Variables were given for each recipient, and no template",
            fix='Name the template: send_each("welcome", {"test@4d.com": {"name": "you"}})',
        )
    return use


async def send_each(
    system: "System",
    app: "App",
    use: Use,
    variables_of: Mapping[str, Mapping[str, Any]],
    *,
    options_of: OptionsOf,
    key: Any = None,
) -> dict[str, Response]:
    """Send a template to each named person, and return a response for each.

    A person's failure is in the errors of that response. Raises UnknownTemplateError.
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

    answers: dict[str, Response] = {}
    await system.engine.start()
    for names in _parts(list(variables_of)):
        answers |= await _send(system, await in_thread(read, names))
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


async def _send(
    system: "System", entries: Mapping[str, Entry | HandbellError]
) -> dict[str, Response]:
    good = {name: one for name, one in entries.items() if isinstance(one, Entry)}
    accepted = await system.engine.accept_many(list(good.values()))
    outcomes: dict[str, Acceptance | HandbellError] = {
        name: one for name, one in entries.items() if isinstance(one, HandbellError)
    }
    outcomes |= dict(zip(good, accepted, strict=True))
    return {name: await _answer(system, outcomes[name]) for name in entries}


async def _answer(system: "System", outcome: Acceptance | HandbellError) -> Response:
    if isinstance(outcome, HandbellError):
        return Response(success=False, errors=(str(outcome),))
    await system.engine.worker.settled(outcome.row)
    return await in_thread(system.engine.response, outcome.id, list(outcome.warnings))


def _parts(names: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]
