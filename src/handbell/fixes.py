"""Fixes as values: an action and its app, worded by each surface.

The text of a :class:`Fix` is its wording for a terminal, with the command. The send server
replaces it by the API call, and the console by a button or a link: each has a table of every
:class:`Action`.
"""

from collections.abc import Mapping
from enum import StrEnum, unique
from types import MappingProxyType
from typing import Final, Self

from ._text import sentence


@unique
class Action(StrEnum):
    """An action with which an operator can fix something."""

    ADD_APP = "add-app"
    ADD_KEY = "add-key"
    ADD_OPERATOR = "add-operator"
    ADD_SERVICE_ACCOUNT = "add-service-account"
    ADD_SESSION = "add-session"
    CANCEL = "cancel"
    CHECK_UP = "check-up"
    LIST_API_KEYS = "list-api-keys"
    LIST_APPS = "list-apps"
    LIST_KEYS = "list-keys"
    LIST_NOTIFICATIONS = "list-notifications"
    LIST_OPERATORS = "list-operators"
    LIST_SESSIONS = "list-sessions"
    LIST_TEMPLATES = "list-templates"
    LIST_WEBHOOKS = "list-webhooks"
    MAKE_API_KEY = "make-api-key"
    MAKE_WEB_PUSH_KEYS = "make-web-push-keys"
    PREVIEW = "preview"
    REMOVE_KEY = "remove-key"
    RESEND = "resend"
    RESUME = "resume"
    SET_APPLE_IDS = "set-apple-ids"
    SET_CAP = "set-cap"
    SET_DOMAIN = "set-domain"
    SET_IDENTITY_KEY = "set-identity-key"
    SET_PROOF = "set-proof"
    START_TWIN = "start-twin"
    START_WORKER = "start-worker"
    SWITCH_ON = "switch-on"


COMMANDS: Final[Mapping[Action, str]] = MappingProxyType(
    {
        Action.ADD_APP: "handbell app add {app}",
        Action.ADD_KEY: "handbell key add AuthKey_XXX.p8 --app {app}",
        Action.ADD_OPERATOR: "handbell operator add",
        Action.ADD_SERVICE_ACCOUNT: "handbell key add service-account.json --app {app}",
        Action.ADD_SESSION: "handbell session add {about} TOKEN",
        Action.CANCEL: "handbell notification cancel {about}",
        Action.CHECK_UP: "handbell doctor",
        Action.LIST_API_KEYS: "handbell api-key list",
        Action.LIST_APPS: "handbell app list",
        Action.LIST_KEYS: "handbell key list",
        Action.LIST_NOTIFICATIONS: "handbell notification list",
        Action.LIST_OPERATORS: "handbell operator list",
        Action.LIST_SESSIONS: "handbell session list",
        Action.LIST_TEMPLATES: "handbell template list",
        Action.LIST_WEBHOOKS: "handbell webhook list",
        Action.MAKE_API_KEY: "handbell api-key add NAME --scope {about}",
        Action.MAKE_WEB_PUSH_KEYS: "handbell key make web-push --app {app}",
        Action.PREVIEW: "handbell send --dry-run",
        Action.REMOVE_KEY: "handbell key remove {about} --app {app}",
        Action.RESEND: "handbell notification resend {about}",
        Action.RESUME: "handbell app resume {app}",
        Action.SET_APPLE_IDS: "handbell app set {app} --team TEAM123456 --bundle com.sample.myapp",
        Action.SET_CAP: "handbell app set {app} --cap 10/day",
        Action.SET_DOMAIN: "handbell app set {app} --associated-domain links.example.com",
        Action.SET_IDENTITY_KEY: "handbell app set {app} --identity-key FILE",
        Action.SET_PROOF: "handbell app set {app} --proof link",
        Action.START_TWIN: "handbell twin",
        Action.START_WORKER: "handbell worker",
        Action.SWITCH_ON: "handbell app set {app} --on",
    }
)
"""How each action is written on a command line."""

_UNNAMED: Final = {"app": "APP", "about": "ID"}


class Fix(str):
    """A fix: the advice and its action; as text it is worded for a terminal.

    ``lead`` is the advice, readable alone. ``app`` is the id of the app concerned, ``about``
    another subject: a mail, an id. ``end`` ends the text.
    """

    __slots__ = ("about", "action", "app", "end", "lead")

    def __new__(
        cls, action: Action, lead: str, *, app: str = "", about: str = "", end: str = ""
    ) -> Self:
        """Create the fix; its text is the command's wording."""
        made = super().__new__(cls, f"{lead}: {filled(COMMANDS[action], app, about)}{end}")
        made.action, made.lead, made.app, made.about, made.end = action, lead, app, about, end
        return made

    action: Action
    lead: str
    app: str
    about: str
    end: str

    def of(self, app: str, about: str = "") -> "Fix":
        """Return the same fix for an app, by its id, and for a subject unless it has one."""
        return Fix(self.action, self.lead, app=app, about=self.about or about, end=self.end)

    def worded(self, words: Mapping[Action, str]) -> str:
        """Return the text with another surface's wording in place of the command."""
        text = filled(words[self.action], self.app, self.about)
        return f"{self.lead}: {text}{self.end}" if text else f"{self.lead}{self.end}"

    def __getnewargs_ex__(self) -> tuple[tuple[Action, str], dict[str, str]]:
        """Support copies."""
        return (self.action, self.lead), {"app": self.app, "about": self.about, "end": self.end}


def filled(words: str, app: str, about: str) -> str:
    """Fill the app and the subject into an action's wording."""
    return words.format(app=app or _UNNAMED["app"], about=about or _UNNAMED["about"])


def as_sentence(fix: str) -> str:
    """Return a fix, of either kind, as a sentence."""
    if isinstance(fix, Fix):
        return Fix(fix.action, _opened(fix.lead), app=fix.app, about=fix.about, end=".")
    return sentence(_opened(fix))


def with_app(fix: str, app: str, about: str = "") -> str:
    """Return a fix, of either kind, for an app, and for a subject unless it has one."""
    return fix.of(app, about) if isinstance(fix, Fix) else fix


def _opened(text: str) -> str:
    """Capitalize a text, unless it begins with a name: a path, a command."""
    first = text.partition(" ")[0].rstrip(",.:;")
    is_name = first == "handbell" or not first.replace("'", "").isalpha()
    return text if is_name else text[:1].upper() + text[1:]
