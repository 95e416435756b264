"""The live preview of *Compose*: bytes, languages, and audience."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from handbell._text import count
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.audience import Audience, audience_of, count_everybody
from handbell.delivery.accept.preview import LanguagePreview, ServicePreview
from handbell.errors import NotificationError
from handbell.system import System

from .draft import Draft, field_of, read_notification, readable
from .fix_buttons import in_console
from .forms import Faults

CONFIRMED_FROM: Final = 100
"""The number of devices from which a send to named people needs a confirmation."""
SHOWN_LEFT_OUT: Final = 20
KEPT_SECONDS: Final = 15.0
"""How long the count of everybody is cached while somebody types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftPreview:
    """The preview of a draft: the notification, its audience, and its faults.

    ``services`` are the notification as each push service of the app carries it.
    """

    faults: Faults
    notification: Notification | None = None
    recipients: Recipients | None = None
    services: tuple[ServicePreview, ...] = ()
    audience: Audience | None = None

    @property
    def wordings(self) -> tuple[LanguagePreview, ...]:
        """Return it in each of its languages, as the first service that carries it has it."""
        return next((one.languages for one in self.services if one.languages), ())

    @property
    def own(self) -> LanguagePreview | None:
        """Return the notification's own text as sent, if it is valid."""
        return self.wordings[0] if self.wordings else None

    def notes_of(self, preview: ServicePreview) -> list[str]:
        """Return what the writer should know of a service: what it leaves out or refuses."""
        told = [preview.refusal, *preview.unsupported]
        if preview.languages is not self.wordings:
            told += [one.problem for one in preview.languages]
        return [readable(text) for text in told if text]

    @property
    def reaches(self) -> str:
        """Return its audience, in a sentence."""
        return "" if self.audience is None else tell(self.audience)

    @property
    def needs_confirmation(self) -> bool:
        """Return whether the audience is so large that the operator has to confirm."""
        is_everybody = self.recipients is not None and self.recipients.everybody
        devices = 0 if self.audience is None else self.audience.devices
        return is_everybody or devices >= CONFIRMED_FROM

    def to_dict(self, draft: Draft) -> dict[str, Any]:
        """Return the data for the page's script.

        An empty field is no fault yet: ``unsaid`` are the fields whose fault is shown only once
        the form is sent, and then until they are filled.
        """
        faults = {
            name: f"{fault.what} {in_console(fault.fix)}".strip() for name, fault in self.faults
        }
        unsaid = [
            name
            for name in faults
            if draft.is_empty or (name == "recipients" and not draft.get(name))
        ]
        return {
            "faults": {name: said for name, said in faults.items() if name not in unsaid},
            "unsaid": unsaid,
            "services": [_told(one, self.notes_of(one)) for one in self.services],
            "reaches": self.reaches,
            "left_out": [] if self.audience is None else self.audience.left_out[:SHOWN_LEFT_OUT],
        }


def _told(preview: ServicePreview, notes: list[str]) -> dict[str, Any]:
    return {
        "service": preview.form,
        "notes": notes,
        "languages": [
            {
                "language": wording.language,
                "size": wording.size,
                "limit": wording.limit,
                "payload": wording.payload,
                "cuts": list(wording.cuts),
                "shown": _texts(wording.notification),
            }
            for wording in preview.languages
        ],
    }


@dataclass(slots=True)
class AudienceCounts:
    """The size of each app's audience, recounted after some seconds."""

    found: dict[str, tuple[float, Audience]] = field(default_factory=dict)

    def everybody(self, system: System, app: App, *, is_fresh: bool) -> Audience:
        """Return the audience of a send to everybody."""
        now = time.monotonic()
        known = self.found.get(app.id)
        if known is not None and not is_fresh and now - known[0] < KEPT_SECONDS:
            return known[1]
        audience = count_everybody(system.database, app)
        self.found[app.id] = (now, audience)
        return audience


def look(
    system: System, app: App, draft: Draft, counts: AudienceCounts, *, is_fresh: bool = False
) -> DraftPreview:
    """Return the preview of a draft. Blocks; ``is_fresh`` recounts the audience."""
    faults = Faults()
    content = draft.content(faults)
    notification = read_notification(
        partial(system.templates.read_notification, app, content), faults
    )
    services: tuple[ServicePreview, ...] = ()
    if notification is not None:
        services = tuple(system.previewer.services(app, notification))
        # What another service refuses is told beside its preview: who has it may not be meant.
        carried = [one for one in services if not one.refusal]
        if not carried:
            faults.add("body", readable(services[0].refusal))
        for wording in carried[0].languages if carried else ():
            if wording.problem:
                name = "body" if wording.size else field_of(NotificationError(wording.problem))
                faults.add(name, readable(wording.problem))
    recipients = None if draft.get("replaces") else draft.people(faults)
    audience = None
    if recipients is not None and recipients.everybody:
        audience = counts.everybody(system, app, is_fresh=is_fresh)
    elif recipients is not None:
        audience = audience_of(system.engine.plan(app, recipients))
    return DraftPreview(
        faults=faults,
        notification=notification,
        recipients=recipients,
        services=services,
        audience=audience,
    )


def tell(audience: Audience) -> str:
    """Describe in a sentence how many people and devices are reached, and how many are not."""
    if not audience.devices:
        return "Nobody is reached."
    devices = count(audience.devices, "device")
    people = count(audience.people, "person", "people")
    reached = f"{people} on {devices}" if audience.people else devices
    if not audience.without:
        return f"Reaches {reached}."
    if audience.left_out:
        left_out = count(audience.without, "of those named is", "of those named are")
        return f"Reaches {reached}; {left_out} left out."
    without = count(audience.without, "person has", "people have")
    return f"Reaches {reached}; {without} no device."


def _texts(content: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(content.get(name) or "") for name in ("title", "subtitle", "body")}
