"""Console wording of fixes: the button or the link for each action.

Actions on the server's machine are shown as a command.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlencode

from handbell.fixes import COMMANDS, Action, Fix, filled

_APP: Final = "/console/apps/{app}"
_CHOOSE: Final = "Choose one of the list"


@dataclass(frozen=True, slots=True, kw_only=True)
class FixAction:
    """An action in the console: the text of its link, and the path.

    With ``sends`` it is a button that posts these fields. ``instead`` replaces the fix's text;
    without a path it is a command on the server's machine.
    """

    label: str = ""
    path: str = ""
    sends: Mapping[str, str] | None = None
    instead: str = ""


_ON_THE_SERVER: Final = FixAction()

FIX_ACTIONS: Final[Mapping[Action, FixAction]] = MappingProxyType(
    {
        Action.ADD_APP: FixAction(label="Apps", path="/console/apps"),
        Action.ADD_KEY: FixAction(label="Add a key", path=f"{_APP}#keys"),
        Action.ADD_OPERATOR: _ON_THE_SERVER,
        Action.ADD_SERVICE_ACCOUNT: FixAction(label="Add a service account", path=f"{_APP}#keys"),
        Action.ADD_SESSION: FixAction(
            label="Their devices", path=f"{_APP}/person?{{mail}}#devices"
        ),
        Action.CANCEL: FixAction(label="Cancel it", path=f"{_APP}/activity/{{about}}"),
        Action.CHECK_UP: FixAction(label="Check-up", path=f"{_APP}#check-up"),
        Action.LIST_API_KEYS: FixAction(
            label="API keys", path="/console/settings/api-keys", instead=_CHOOSE
        ),
        Action.LIST_APPS: FixAction(label="Apps", path="/console/apps", instead=_CHOOSE),
        Action.LIST_KEYS: FixAction(label="Keys", path=f"{_APP}#keys", instead=_CHOOSE),
        Action.LIST_NOTIFICATIONS: FixAction(
            label="Activity", path=f"{_APP}/activity", instead=_CHOOSE
        ),
        Action.LIST_OPERATORS: FixAction(
            label="Operators", path="/console/settings", instead=_CHOOSE
        ),
        Action.LIST_SESSIONS: FixAction(label="People", path=f"{_APP}/people", instead=_CHOOSE),
        Action.LIST_TEMPLATES: FixAction(label="Compose", path=f"{_APP}/compose", instead=_CHOOSE),
        Action.LIST_WEBHOOKS: FixAction(
            label="Webhooks", path="/console/settings/webhooks", instead="Remove one of the list"
        ),
        Action.MAKE_API_KEY: FixAction(label="API keys", path="/console/settings/api-keys"),
        Action.MAKE_WEB_PUSH_KEYS: FixAction(label="Make keys", path=f"{_APP}#keys"),
        Action.PREVIEW: FixAction(label="Compose", path=f"{_APP}/compose"),
        Action.REMOVE_KEY: FixAction(label="Keys", path=f"{_APP}#keys"),
        Action.RESEND: FixAction(
            label="Send again", path=f"{_APP}/activity/{{about}}/resend", sends={}
        ),
        Action.RESUME: FixAction(label="Try again now", path=f"{_APP}/resume", sends={}),
        Action.SET_APPLE_IDS: FixAction(label="Apps", path=f"{_APP}"),
        Action.SET_CAP: FixAction(label="Rules", path=f"{_APP}#rules"),
        Action.SET_DOMAIN: FixAction(label="Universal links", path=f"{_APP}#links"),
        Action.SET_IDENTITY_KEY: FixAction(label="Identity key", path=f"{_APP}#identity"),
        Action.SET_PROOF: FixAction(label="Proof of identity", path=f"{_APP}#identity"),
        Action.START_TWIN: _ON_THE_SERVER,
        Action.START_WORKER: _ON_THE_SERVER,
        Action.SWITCH_ON: FixAction(label="Switch on", path=f"{_APP}/switch", sends={"to": "on"}),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """A fix on a page: a text, then a command for the server, a link, or a button.

    ``path`` is below the server's root, empty without a link.
    """

    text: str
    command: str = ""
    label: str = ""
    path: str = ""
    sends: Mapping[str, str] | None = field(default=None)


def remedy(fix: str, app: str = "") -> Remedy:
    """Return a fix for a page of an app; if the fix names an app, it leads to that one."""
    if not isinstance(fix, Fix):
        return Remedy(text=fix)
    target, named = FIX_ACTIONS[fix.action], fix.app or app
    if not target.path:
        command = filled(COMMANDS[fix.action], named, fix.about)
        return Remedy(text=f"{fix.lead}, on the server:", command=command)
    text = f"{target.instead or fix.lead}{fix.end}"
    if ("{app}" in target.path and not named) or ("{about}" in target.path and not fix.about):
        return Remedy(text=text)
    mail = urlencode({"mail": fix.about})
    path = target.path.format(app=quote(named), about=quote(fix.about), mail=mail)
    return Remedy(text=text, label=target.label, path=path, sends=target.sends)


def in_console(fix: str) -> str:
    """Return a fix as text only, where no link is possible."""
    if not isinstance(fix, Fix):
        return fix
    found = remedy(fix, "-")
    where = found.command or f"under {found.label}"
    joined = f"{found.text} {where}" if found.command else f"{found.text.rstrip('.')}, {where}"
    return joined if fix.action not in _BUTTONS else f"{found.text.rstrip('.')}: {found.label}"


_BUTTONS: Final = frozenset(action for action, way in FIX_ACTIONS.items() if way.sends is not None)
