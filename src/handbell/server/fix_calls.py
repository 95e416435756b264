"""API wording of fixes: the call that performs each action."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from handbell.fixes import COMMANDS, Action, Fix

_APP: Final = "/v1/apps/{app}"
_ON_THE_SERVER: Final = frozenset(
    {
        Action.ADD_OPERATOR,
        Action.LIST_OPERATORS,
        Action.RESUME,
        Action.START_TWIN,
        Action.START_WORKER,
    }
)

CALLS: Final[Mapping[Action, str]] = MappingProxyType(
    {
        **{action: f"on the server, {COMMANDS[action]}" for action in _ON_THE_SERVER},
        Action.ADD_APP: "POST /v1/apps",
        Action.ADD_KEY: f"POST {_APP}/credentials",
        Action.ADD_SERVICE_ACCOUNT: f"POST {_APP}/credentials with service_account",
        Action.ADD_SESSION: f"POST {_APP}/sessions",
        Action.CANCEL: f"POST {_APP}/notifications/{{about}}/cancel",
        Action.CHECK_UP: f"POST {_APP}/check-up",
        Action.LIST_API_KEYS: "GET /v1/api-keys",
        Action.LIST_APPS: "GET /v1/apps",
        Action.LIST_KEYS: f"GET {_APP}/credentials",
        Action.LIST_NOTIFICATIONS: f"GET {_APP}/notifications",
        Action.LIST_SESSIONS: f"GET {_APP}/sessions",
        Action.LIST_TEMPLATES: f"GET {_APP}/templates",
        Action.LIST_WEBHOOKS: f"GET {_APP}/webhooks",
        Action.MAKE_API_KEY: "POST /v1/api-keys",
        Action.MAKE_WEB_PUSH_KEYS: f"POST {_APP}/web-push",
        Action.PREVIEW: f"POST {_APP}/notifications/preview",
        Action.RESEND: f"POST {_APP}/notifications/{{about}}/resend",
        Action.REMOVE_KEY: f"DELETE {_APP}/credentials/{{about}}",
        Action.SET_APPLE_IDS: f"PATCH {_APP} with team_id and bundle_id",
        Action.SET_CAP: f"PATCH {_APP} with cap",
        Action.SET_DOMAIN: f"PATCH {_APP} with associated_domain",
        Action.SET_IDENTITY_KEY: f"PATCH {_APP} with identity_key",
        Action.SET_PROOF: f"PATCH {_APP} with proof",
        Action.SWITCH_ON: f'PATCH {_APP} with {{{{"is_enabled": true}}}}',
    }
)
"""The call for each action; what only the server's own machine can do is its command."""


def as_call(fix: str) -> str:
    """Return a fix worded for the API."""
    return fix.worded(CALLS) if isinstance(fix, Fix) else fix
