"""Apple's table of reasons: each with its status, its meaning and the reaction to it.

Gateway, worker and twin share this table and no logic. Source:
handling-notification-responses-from-apns (status, reasons, what may be sent again), below
https://developer.apple.com/documentation/usernotifications/ .
"""

from types import MappingProxyType
from typing import Final

from handbell._back_off import BackOff
from handbell.fixes import Action, Fix
from handbell.services.reactions import Reaction, Reason

from .protocol import PROVIDER_TOKEN_MIN_REFRESH_SECONDS, RETRY_SERVER_ERROR_SECONDS

_MINUTE: Final = 60
_HOUR: Final = 3600
_OTHER_KEY: Final = Fix(Action.ADD_KEY, "add a key that serves this environment")

_FIX_NOTIFICATION = Reaction.FIX_NOTIFICATION
_FIX_CONFIGURATION = Reaction.FIX_CONFIGURATION

REASONS: Final = MappingProxyType(
    {
        row.name: row
        for row in (
            Reason(
                "BadCollapseId", 400, "the collapse id is longer than 64 bytes", _FIX_NOTIFICATION
            ),
            Reason(
                "BadDeviceToken",
                400,
                "the token is malformed or lives in the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
            ),
            Reason("BadExpirationDate", 400, "apns-expiration is not valid", _FIX_NOTIFICATION),
            Reason("BadMessageId", 400, "apns-id is not a canonical UUID", _FIX_NOTIFICATION),
            Reason("BadPriority", 400, "apns-priority is not valid", _FIX_NOTIFICATION),
            Reason("BadTopic", 400, "apns-topic is not valid", _FIX_CONFIGURATION),
            Reason(
                "DeviceTokenNotForTopic",
                400,
                "the token belongs to another app",
                Reaction.WRONG_APP,
            ),
            Reason("DuplicateHeaders", 400, "a header was sent twice", _FIX_NOTIFICATION),
            Reason("IdleTimeout", 400, "the connection was idle for too long", Reaction.RECONNECT),
            Reason("InvalidPushType", 400, "apns-push-type is not valid", _FIX_NOTIFICATION),
            Reason("MissingDeviceToken", 400, "the path names no device token", _FIX_NOTIFICATION),
            Reason("MissingTopic", 400, "apns-topic is missing", _FIX_CONFIGURATION),
            Reason("PayloadEmpty", 400, "the request has no body", _FIX_NOTIFICATION),
            Reason(
                "TopicDisallowed",
                400,
                "this key or certificate may not push to the topic",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "BadCertificate", 403, "the client certificate is not valid", _FIX_CONFIGURATION
            ),
            Reason(
                "BadCertificateEnvironment",
                403,
                "the client certificate is for the other environment",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "ExpiredProviderToken",
                403,
                "the provider token is older than an hour",
                Reaction.RENEW_TOKEN,
            ),
            Reason("Forbidden", 403, "the action is not allowed", _FIX_CONFIGURATION),
            Reason(
                "InvalidProviderToken",
                403,
                "Apple does not accept the signature: key, key id or team id is wrong",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "MissingProviderToken",
                403,
                "neither a provider token nor a certificate was presented",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "UnrelatedKeyIdInToken",
                403,
                "the connection was opened with an unrelated key",
                Reaction.RECONNECT,
            ),
            Reason(
                "BadEnvironmentKeyIdInToken",
                403,
                "the key is limited to the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
                _OTHER_KEY,
            ),
            Reason(
                # Not in Apple's table, but observed from the production host.
                "BadEnvironmentKeyInToken",
                403,
                "the key is limited to the other environment",
                Reaction.TRY_OTHER_ENVIRONMENT,
                _OTHER_KEY,
            ),
            Reason("BadPath", 404, "the path is not valid", _FIX_NOTIFICATION),
            Reason("MethodNotAllowed", 405, "the method is not POST", _FIX_NOTIFICATION),
            Reason("ExpiredToken", 410, "the device token has expired", Reaction.CLOSE_SESSION),
            Reason(
                "Unregistered",
                410,
                "the app is no longer on the device, or the device withdrew the token",
                Reaction.CLOSE_SESSION,
            ),
            Reason("PayloadTooLarge", 413, "the payload is too large", _FIX_NOTIFICATION),
            Reason(
                "TooManyProviderTokenUpdates",
                429,
                "the provider token was renewed more than once in 20 minutes",
                Reaction.KEEP_FORMER_TOKEN,
            ),
            Reason(
                "TooManyRequests",
                429,
                "too many requests in a row for one device token",
                Reaction.SLOW_DOWN_DEVICE,
            ),
            Reason("InternalServerError", 500, "Apple's server failed", Reaction.BACK_OFF),
            Reason(
                "ServiceUnavailable", 503, "Apple's service is not available", Reaction.BACK_OFF
            ),
            Reason("Shutdown", 503, "this server of Apple's is shutting down", Reaction.RECONNECT),
        )
    }
)
"""Every reason a device push can be refused with, by name."""

TOKEN_REASONS: Final = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})
"""Reasons that concern a device token, from a service that accepts the key."""

FIXES: Final = MappingProxyType(
    {
        Reaction.FIX_NOTIFICATION: Fix(
            Action.PREVIEW, "change the notification, and look at its request"
        ),
        Reaction.FIX_CONFIGURATION: Fix(
            Action.CHECK_UP, "check team id, key id, bundle id and the key's scope"
        ),
        Reaction.TRY_OTHER_ENVIRONMENT: (
            "let the app register again, so that a fresh token and its environment are known"
        ),
        Reaction.WRONG_APP: "check that the bundle id is the one of the app that made the token",
        Reaction.CLOSE_SESSION: "nothing to do: the session opens again when the app registers",
        Reaction.RENEW_TOKEN: "check this machine's clock",
        Reaction.RECONNECT: "send it again",
        Reaction.SLOW_DOWN_DEVICE: "send less often to this one device",
        Reaction.KEEP_FORMER_TOKEN: (
            "wait some minutes; no other program may mint tokens for this key"
        ),
        Reaction.BACK_OFF: "send it again in fifteen minutes or later",
    }
)
"""What to do about a refusal, by the reaction that it calls for."""

BACK_OFF: Final = MappingProxyType(
    {
        Reaction.RECONNECT: BackOff(1, 4, 15 * _MINUTE),
        Reaction.RENEW_TOKEN: BackOff(5, 4, _HOUR),
        Reaction.SLOW_DOWN_DEVICE: BackOff(30, 2, _HOUR),
        Reaction.KEEP_FORMER_TOKEN: BackOff(2 * _MINUTE, 2, PROVIDER_TOKEN_MIN_REFRESH_SECONDS),
        Reaction.BACK_OFF: BackOff(RETRY_SERVER_ERROR_SECONDS, 2, 4 * _HOUR),
    }
)
"""The delays after an answer, by the reaction that it calls for."""

BACK_OFF_BY_REASON: Final = MappingProxyType({"Shutdown": BackOff(15, 60, _HOUR)})
"""One server shuts down: soon again, over a new connection; from then on as any other 5xx."""
