"""The table of every route's requirements. A route missing in it fails the server's start.

Callers without the required scope or app are refused before the handler runs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from handbell.access.api_keys import Scope

from .path_convertor import PERSON

Kind = Literal["public", "key", "device", "metrics", "operator", "sign-in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRequirement:
    """The requirements for a caller.

    ``public``: anybody. ``key``: an API key with ``scope``; if the path names an app, the key must
    serve it, and ``any_app`` requires a key for every app. ``device``: an API key with ``scope``,
    if there is one, or a device, whose session the handler checks. ``metrics``: the metrics key,
    or an API key with ``scope``; anybody, if the settings allow it. ``operator``: an operator who
    is signed in; ``sign-in``: a page of the console without sign-in.

    A ``public`` route that ``names_app`` serves one that exists.

    ``any_host`` allows any Host: monitoring uses many names, and links resolve the host
    themselves.

    A route that ``takes_streams`` reads a body of a lines media type line by line, of any size;
    with ``takes_lines_alone`` also plain bytes.
    """

    kind: Kind
    scope: Scope | None = None
    any_app: bool = False
    names_app: bool = False
    takes_streams: bool = False
    takes_lines_alone: bool = False
    any_host: bool = False


PUBLIC: Final = RouteRequirement(kind="public")
PUBLIC_OF_APP: Final = RouteRequirement(kind="public", names_app=True)
ANY_HOST: Final = RouteRequirement(kind="public", any_host=True)
SEND: Final = RouteRequirement(kind="key", scope="send")
REGISTER: Final = RouteRequirement(kind="key", scope="register")
ADMINISTER: Final = RouteRequirement(kind="key", scope="administer")
SEND_STREAM: Final = RouteRequirement(kind="key", scope="send", takes_streams=True)
SEND_LINES: Final = RouteRequirement(
    kind="key", scope="send", takes_streams=True, takes_lines_alone=True
)
REGISTER_LINES: Final = RouteRequirement(
    kind="key", scope="register", takes_streams=True, takes_lines_alone=True
)
EVERY_APP: Final = RouteRequirement(kind="key", scope="administer", any_app=True)
DEVICE: Final = RouteRequirement(kind="device", scope="register")
SESSION: Final = RouteRequirement(kind="device")
METRICS: Final = RouteRequirement(kind="metrics", scope="administer", any_app=True)
OPERATOR: Final = RouteRequirement(kind="operator")
SIGN_IN: Final = RouteRequirement(kind="sign-in")

_APP: Final = "/v1/apps/{app}"
_SENT: Final = f"{_APP}/notifications"
_PAGES: Final = "/console/apps/{app}"

ROUTES: Final[Mapping[tuple[str, str], RouteRequirement]] = MappingProxyType(
    {
        ("GET", "/"): PUBLIC,
        ("GET", "/healthz"): ANY_HOST,
        ("GET", "/readyz"): ANY_HOST,
        ("GET", "/metrics"): METRICS,
        ("GET", "/openapi.json"): PUBLIC,
        ("GET", "/docs"): PUBLIC,
        ("GET", "/v1/status"): EVERY_APP,
        # Apps and what belongs to them.
        ("GET", "/v1/apps"): SEND,
        ("POST", "/v1/apps"): EVERY_APP,
        ("GET", _APP): SEND,
        ("PATCH", _APP): ADMINISTER,
        ("DELETE", _APP): ADMINISTER,
        ("POST", f"{_APP}/check-up"): ADMINISTER,
        ("GET", f"{_APP}/credentials"): ADMINISTER,
        ("POST", f"{_APP}/credentials"): ADMINISTER,
        ("DELETE", f"{_APP}/credentials/{{key_id}}"): ADMINISTER,
        ("GET", f"{_APP}/web-push"): PUBLIC_OF_APP,
        ("POST", f"{_APP}/web-push"): ADMINISTER,
        ("GET", f"{_APP}/webhooks"): ADMINISTER,
        ("POST", f"{_APP}/webhooks"): ADMINISTER,
        ("PATCH", f"{_APP}/webhooks/{{webhook}}"): ADMINISTER,
        ("DELETE", f"{_APP}/webhooks/{{webhook}}"): ADMINISTER,
        ("GET", "/v1/api-keys"): ADMINISTER,
        ("POST", "/v1/api-keys"): ADMINISTER,
        ("DELETE", "/v1/api-keys/{prefix}"): ADMINISTER,
        # Users and sessions.
        ("GET", f"{_APP}/users"): REGISTER,
        ("GET", f"{_APP}/users/{PERSON}"): REGISTER,
        ("DELETE", f"{_APP}/users/{PERSON}"): REGISTER,
        ("GET", f"{_APP}/users/{PERSON}/why"): SEND,
        ("GET", f"{_APP}/sessions"): REGISTER,
        ("POST", f"{_APP}/sessions"): DEVICE,
        ("POST", f"{_APP}/sessions/import"): REGISTER_LINES,
        ("GET", f"{_APP}/sessions/export"): REGISTER,
        ("GET", f"{_APP}/sessions/{{session}}"): DEVICE,
        ("PATCH", f"{_APP}/sessions/{{session}}"): DEVICE,
        ("DELETE", f"{_APP}/sessions/{{session}}"): DEVICE,
        ("POST", f"{_APP}/sessions/{{session}}/receipts"): SESSION,
        ("POST", f"{_APP}/sessions/{{session}}/receipts/list"): SESSION,
        # Notifications.
        ("GET", _SENT): SEND,
        ("POST", _SENT): SEND_STREAM,
        ("POST", f"{_SENT}/list"): SEND,
        ("POST", f"{_SENT}/lines"): SEND_LINES,
        ("POST", f"{_SENT}/preview"): SEND,
        ("GET", f"{_SENT}/{{id}}"): SEND,
        ("GET", f"{_SENT}/{{id}}/deliveries"): SEND,
        ("POST", f"{_SENT}/{{id}}/cancel"): SEND,
        ("POST", f"{_SENT}/{{id}}/resend"): SEND,
        ("POST", f"{_SENT}/{{id}}/replace"): SEND,
        # Templates.
        ("GET", f"{_APP}/templates"): SEND,
        ("GET", f"{_APP}/templates/{{name}}"): SEND,
        ("PUT", f"{_APP}/templates/{{name}}"): ADMINISTER,
        ("DELETE", f"{_APP}/templates/{{name}}"): ADMINISTER,
        ("POST", f"{_APP}/templates/{{name}}/preview"): SEND,
        # Links: the page of a mailed link, and universal links.
        ("GET", "/prove/{secret}"): PUBLIC,
        ("POST", "/prove/{secret}"): PUBLIC,
        ("GET", "/.well-known/apple-app-site-association"): ANY_HOST,
        ("GET", "/apple-app-site-association"): ANY_HOST,
        ("GET", "/.well-known/assetlinks.json"): ANY_HOST,
        ("GET", "/mobileapp/{path:path}"): ANY_HOST,
        # The console.
        ("GET", "/console/static/{name}"): SIGN_IN,
        ("GET", "/console/sign-in"): SIGN_IN,
        ("POST", "/console/sign-in"): SIGN_IN,
        ("GET", "/console/invitation/{secret}"): SIGN_IN,
        ("POST", "/console/invitation/{secret}"): SIGN_IN,
        ("POST", "/console/sign-out"): OPERATOR,
        ("GET", "/console/phones"): OPERATOR,
        ("GET", "/console"): OPERATOR,
        ("GET", "/console/apps"): OPERATOR,
        ("POST", "/console/apps"): OPERATOR,
        ("GET", "/console/apps/sample"): OPERATOR,
        ("POST", "/console/apps/sample"): OPERATOR,
        ("GET", "/console/apps/{app}"): OPERATOR,
        ("GET", "/console/apps/{app}/switch"): OPERATOR,
        ("POST", "/console/apps/{app}/switch"): OPERATOR,
        ("POST", "/console/apps/{app}/resume"): OPERATOR,
        ("GET", "/console/apps/{app}/remove"): OPERATOR,
        ("POST", "/console/apps/{app}/remove"): OPERATOR,
        ("POST", "/console/apps/{app}/keys"): OPERATOR,
        ("POST", "/console/apps/{app}/keys/twin"): OPERATOR,
        ("GET", "/console/apps/{app}/keys/{key_id}/remove"): OPERATOR,
        ("POST", "/console/apps/{app}/keys/{key_id}/remove"): OPERATOR,
        ("POST", "/console/apps/{app}/apple"): OPERATOR,
        ("POST", "/console/apps/{app}/android"): OPERATOR,
        ("POST", "/console/apps/{app}/web"): OPERATOR,
        ("POST", "/console/apps/{app}/service-accounts"): OPERATOR,
        ("POST", "/console/apps/{app}/web-push-keys"): OPERATOR,
        ("POST", "/console/apps/{app}/check-up"): OPERATOR,
        ("POST", "/console/apps/{app}/rules"): OPERATOR,
        ("POST", "/console/apps/{app}/proof"): OPERATOR,
        ("POST", "/console/apps/{app}/links"): OPERATOR,
        ("GET", f"{_PAGES}/compose"): OPERATOR,
        ("POST", f"{_PAGES}/compose"): OPERATOR,
        ("POST", f"{_PAGES}/compose/send"): OPERATOR,
        ("POST", f"{_PAGES}/compose/preview"): OPERATOR,
        ("GET", f"{_PAGES}/phones"): OPERATOR,
        ("POST", f"{_PAGES}/phones"): OPERATOR,
        ("POST", f"{_PAGES}/phones/open"): OPERATOR,
        ("GET", "/console/apps/{app}/people"): OPERATOR,
        ("GET", "/console/apps/{app}/person"): OPERATOR,
        ("GET", "/console/apps/{app}/person/forget"): OPERATOR,
        ("POST", "/console/apps/{app}/person/forget"): OPERATOR,
        ("GET", "/console/apps/{app}/sessions/{session}/{act}"): OPERATOR,
        ("POST", "/console/apps/{app}/sessions/{session}/{act}"): OPERATOR,
        ("GET", "/console/settings"): OPERATOR,
        ("POST", "/console/settings/operators"): OPERATOR,
        ("POST", "/console/settings/operators/reset"): OPERATOR,
        ("GET", "/console/settings/operators/remove"): OPERATOR,
        ("POST", "/console/settings/operators/remove"): OPERATOR,
        ("POST", "/console/settings/invitations/{invitation}/withdraw"): OPERATOR,
        ("GET", "/console/settings/account"): OPERATOR,
        ("POST", "/console/settings/account/password"): OPERATOR,
        ("POST", "/console/settings/account/sign-out-everywhere"): OPERATOR,
        ("GET", "/console/settings/api-keys"): OPERATOR,
        ("POST", "/console/settings/api-keys"): OPERATOR,
        ("GET", "/console/settings/api-keys/{prefix}/revoke"): OPERATOR,
        ("POST", "/console/settings/api-keys/{prefix}/revoke"): OPERATOR,
        ("GET", "/console/settings/webhooks"): OPERATOR,
        ("POST", "/console/settings/webhooks"): OPERATOR,
        ("POST", "/console/settings/webhooks/{webhook}/switch"): OPERATOR,
        ("GET", "/console/settings/webhooks/{webhook}/remove"): OPERATOR,
        ("POST", "/console/settings/webhooks/{webhook}/remove"): OPERATOR,
        ("GET", "/console/settings/audit"): OPERATOR,
        ("GET", f"{_PAGES}/activity"): OPERATOR,
        ("GET", f"{_PAGES}/activity/{{notification}}"): OPERATOR,
        ("GET", f"{_PAGES}/activity/{{notification}}/live"): OPERATOR,
        ("GET", f"{_PAGES}/activity/{{notification}}/cancel"): OPERATOR,
        ("POST", f"{_PAGES}/activity/{{notification}}/cancel"): OPERATOR,
        ("POST", f"{_PAGES}/activity/{{notification}}/resend"): OPERATOR,
        ("GET", "/console/{rest:path}"): OPERATOR,
    }
)
"""By method and path: what the caller has to be."""
