"""FCM's table of reasons: each with its status, its meaning and the reaction to it.

Gateway, worker and twin share this table and no logic. The names are Google's: FCM's own codes,
the general codes of Google's APIs where FCM gives none, and those of OAuth for the access token.
One name is ours: FCM answers ``INVALID_ARGUMENT`` both for a fault of the message and for one of
the token; the latter is ``INVALID_REGISTRATION_TOKEN`` here.

Sources: https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode ,
https://firebase.google.com/docs/cloud-messaging/error-codes ,
https://cloud.google.com/apis/design/errors , and RFC 6749, 5.2.
"""

from types import MappingProxyType
from typing import Final

from handbell._back_off import BackOff
from handbell.fixes import Action, Fix
from handbell.services.reactions import Reaction, Reason

from .protocol import QUOTA_SECONDS, RETRY_SECONDS

INVALID_ARGUMENT: Final = "INVALID_ARGUMENT"
INVALID_TOKEN: Final = "INVALID_REGISTRATION_TOKEN"  # noqa: S105 - the name of a reason
UNAUTHENTICATED: Final = "UNAUTHENTICATED"
UNREGISTERED: Final = "UNREGISTERED"
NOT_FOUND: Final = "NOT_FOUND"
QUOTA_EXCEEDED: Final = "QUOTA_EXCEEDED"

_HOUR: Final = 3600
_OTHER_FILE: Final = Fix(
    Action.ADD_KEY,
    "make a new key file for the service account in the Firebase console, and add it",
)

_FIX_NOTIFICATION = Reaction.FIX_NOTIFICATION
_FIX_CONFIGURATION = Reaction.FIX_CONFIGURATION

REASONS: Final = MappingProxyType(
    {
        row.name: row
        for row in (
            Reason(
                INVALID_ARGUMENT,
                400,
                "FCM finds a fault in the message: a member, a key of the data, the size or the "
                "time to live",
                _FIX_NOTIFICATION,
            ),
            Reason(
                INVALID_TOKEN,
                400,
                "the registration token is malformed, or belongs to another app",
                Reaction.WRONG_APP,
                "let the app hand over what FirebaseMessaging.getToken() gives it, unchanged",
            ),
            Reason("UNSPECIFIED_ERROR", 400, "FCM says nothing about the cause", _FIX_NOTIFICATION),
            Reason(
                "FAILED_PRECONDITION",
                400,
                "the Firebase project is not in a state to send",
                _FIX_CONFIGURATION,
            ),
            Reason(
                UNAUTHENTICATED,
                401,
                "the access token is expired, revoked or not one of Google's",
                Reaction.RENEW_TOKEN,
            ),
            Reason(
                "THIRD_PARTY_AUTH_ERROR",
                401,
                "the APNs key or the web push key in the Firebase project is not valid",
                # It is about the project's way to iPhones or browsers; Android phones are reached.
                _FIX_NOTIFICATION,
                "check the APNs key and the web push certificate in the Firebase console",
            ),
            Reason(
                "APNS_AUTH_ERROR",
                401,
                "the APNs key in the Firebase project is not valid",
                _FIX_NOTIFICATION,
                "check the APNs key in the Firebase console",
            ),
            Reason(
                "PERMISSION_DENIED",
                403,
                "the service account may not send for this project, or the API is switched off",
                _FIX_CONFIGURATION,
                "switch on the Firebase Cloud Messaging API (V1) in the Google Cloud console, and "
                "give the service account the role Firebase Cloud Messaging API Admin",
            ),
            Reason(
                "SENDER_ID_MISMATCH",
                403,
                "the registration token belongs to another Firebase project",
                Reaction.WRONG_APP,
            ),
            Reason(
                UNREGISTERED,
                404,
                "the app is no longer on the device, or the registration token has expired",
                Reaction.CLOSE_SESSION,
            ),
            Reason(
                NOT_FOUND,
                404,
                "there is no such project, or the address is not FCM's",
                _FIX_CONFIGURATION,
                "check `project_id` in the key file, and the address of FCM",
            ),
            Reason(
                QUOTA_EXCEEDED,
                429,
                "more messages than the quota of the project or of the device allows",
                Reaction.SLOW_DOWN_DEVICE,
                "send less often to this one device; FCM takes 240 messages a minute for each",
            ),
            Reason(
                "RESOURCE_EXHAUSTED",
                429,
                "more requests than a quota of the project allows",
                Reaction.SLOW_DOWN_DEVICE,
                "nothing: it is retried; ask for a higher quota in the Google Cloud console",
            ),
            Reason("INTERNAL", 500, "Google's server failed", Reaction.BACK_OFF),
            Reason("UNAVAILABLE", 503, "FCM is overloaded or not available", Reaction.BACK_OFF),
            Reason(
                "DEADLINE_EXCEEDED", 504, "FCM did not answer itself in time", Reaction.BACK_OFF
            ),
            Reason(
                "invalid_grant",
                400,
                "Google gives no access token: the key of the service account was revoked or "
                "deleted, or this machine's clock is wrong",
                _FIX_CONFIGURATION,
                _OTHER_FILE,
            ),
            Reason(
                "invalid_client",
                401,
                "Google does not know the service account: it was deleted, or the file is of "
                "another installation",
                _FIX_CONFIGURATION,
                _OTHER_FILE,
            ),
            Reason(
                "unauthorized_client",
                401,
                "the service account may not ask for an access token in this way",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "invalid_scope",
                400,
                "Google does not give the service account the scope for sending",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "invalid_request",
                400,
                "Google could not read the request for an access token",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "access_denied",
                403,
                "Google does not give the service account an access token",
                _FIX_CONFIGURATION,
            ),
        )
    }
)
"""Every reason a push through FCM can be refused with, by name."""

OAUTH_REASONS: Final = frozenset(name for name in REASONS if name.islower())
"""The reasons that come from where the access token is asked for."""

TOKEN_REASONS: Final = frozenset({INVALID_TOKEN, "SENDER_ID_MISMATCH"})
"""Reasons that concern a registration token, from a service that accepts the service account."""

FIXES: Final = MappingProxyType(
    {
        Reaction.FIX_NOTIFICATION: Fix(
            Action.PREVIEW, "change the notification, and look at its request"
        ),
        Reaction.FIX_CONFIGURATION: Fix(
            Action.CHECK_UP, "check the service account and its Firebase project"
        ),
        Reaction.WRONG_APP: (
            "check that the key file is of the Firebase project that the app is built with"
        ),
        Reaction.CLOSE_SESSION: "nothing to do: the session opens again when the app registers",
        Reaction.RENEW_TOKEN: "check this machine's clock",
        Reaction.RECONNECT: "send it again",
        Reaction.SLOW_DOWN_DEVICE: "send less often to this one device",
        Reaction.BACK_OFF: "nothing: it is retried automatically",
    }
)
"""What to do about a refusal, by the reaction that it calls for."""

BACK_OFF: Final = MappingProxyType(
    {
        Reaction.RECONNECT: BackOff(RETRY_SECONDS, 2, _HOUR),
        Reaction.RENEW_TOKEN: BackOff(5, 4, _HOUR),
        Reaction.SLOW_DOWN_DEVICE: BackOff(QUOTA_SECONDS, 2, _HOUR),
        Reaction.BACK_OFF: BackOff(RETRY_SECONDS, 2, _HOUR),
    }
)
"""The delays after an answer, by the reaction that it calls for."""
