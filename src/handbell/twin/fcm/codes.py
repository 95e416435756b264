"""FCM's error codes and those of the token endpoint, with status and words.

Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode , the error model of
Google's APIs (google.rpc.Status), and answers that were seen and published by users.
"""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class Code:
    """A code, its HTTP status, ``google.rpc`` status and message.

    ``is_fcm`` means that a detail of type ``FcmError`` names it; the others come from the layer in
    front of FCM.
    """

    name: str
    status: int
    rpc_status: str
    message: str
    is_fcm: bool = True


_FRONT: Final = (
    "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie "
    "or other valid authentication credential."
)

CODES: Final = MappingProxyType(
    {
        code.name: code
        for code in (
            Code(
                "INVALID_ARGUMENT",
                400,
                "INVALID_ARGUMENT",
                "Request contains an invalid argument.",
            ),
            Code(
                "THIRD_PARTY_AUTH_ERROR",
                401,
                "UNAUTHENTICATED",
                "Auth error from APNS or Web Push Service",
            ),
            Code("UNAUTHENTICATED", 401, "UNAUTHENTICATED", _FRONT, is_fcm=False),
            Code("SENDER_ID_MISMATCH", 403, "PERMISSION_DENIED", "SenderId mismatch"),
            Code(
                "PERMISSION_DENIED",
                403,
                "PERMISSION_DENIED",
                "The caller does not have permission",
                is_fcm=False,
            ),
            Code("UNREGISTERED", 404, "NOT_FOUND", "Requested entity was not found."),
            Code("QUOTA_EXCEEDED", 429, "RESOURCE_EXHAUSTED", "Quota exceeded."),
            Code("INTERNAL", 500, "INTERNAL", "Internal error encountered."),
            Code("UNSPECIFIED_ERROR", 500, "UNKNOWN", "Unknown error."),
            Code("UNAVAILABLE", 503, "UNAVAILABLE", "The service is currently unavailable."),
        )
    }
)
"""The codes by name."""

OAUTH_ERRORS: Final = MappingProxyType(
    {
        "invalid_grant": 400,
        "invalid_request": 400,
        "invalid_scope": 400,
        "unsupported_grant_type": 400,
        "invalid_client": 401,
        "internal_failure": 500,
    }
)
"""The errors of the token endpoint (RFC 6749, 5.2, and Google's own) with their status."""
