"""What push services refuse messages with, by status, and by the words of two of them.

RFC 8030 and RFC 8292 say what each status means. Two services say more: Mozilla by a number
(``errno``), Apple by a reason. Sources as in ``protocol.py``.
"""

from types import MappingProxyType
from typing import Final

from handbell._back_off import BackOff
from handbell.fixes import Action, Fix
from handbell.services.reactions import Reaction, Reason

_MINUTE: Final = 60
_HOUR: Final = 3600

_FIX_NOTIFICATION = Reaction.FIX_NOTIFICATION
_FIX_CONFIGURATION = Reaction.FIX_CONFIGURATION

_CLOCK_OR_SUBJECT: Final = Fix(
    Action.CHECK_UP, "check this machine's clock and HANDBELL_VAPID_SUBJECT"
)
_SHORTER: Final = Fix(
    Action.PREVIEW,
    "shorten the notification: Firefox on Android takes some 2,600 bytes",
)

BY_STATUS: Final = MappingProxyType(
    {
        row.status: row
        for row in (
            Reason(
                "BadRequest",
                400,
                "the push service does not accept the headers or the encryption",
                _FIX_NOTIFICATION,
            ),
            Reason(
                "Unauthorized",
                401,
                "the push service does not accept the VAPID key for this subscription",
                Reaction.WRONG_APP,
            ),
            Reason(
                "Forbidden",
                403,
                "the subscription was made with another VAPID key",
                Reaction.WRONG_APP,
            ),
            Reason(
                "NotFound",
                404,
                "the push service does not know the subscription; it has ended",
                Reaction.CLOSE_SESSION,
            ),
            Reason("MethodNotAllowed", 405, "the endpoint takes no messages", _FIX_NOTIFICATION),
            # Windows Push Notification Services answer so instead of 429.
            Reason(
                "NotAcceptable",
                406,
                "too many messages for this subscription",
                Reaction.SLOW_DOWN_DEVICE,
            ),
            Reason("RequestTimeout", 408, "the push service waited too long", Reaction.RECONNECT),
            Reason("Gone", 410, "the subscription has ended", Reaction.CLOSE_SESSION),
            Reason("PayloadTooLarge", 413, "the message is too large", _FIX_NOTIFICATION, _SHORTER),
            Reason(
                "TooManyRequests",
                429,
                "too many messages for this subscription",
                Reaction.SLOW_DOWN_DEVICE,
            ),
            Reason("InternalServerError", 500, "the push service failed", Reaction.BACK_OFF),
            Reason("BadGateway", 502, "the push service failed", Reaction.BACK_OFF),
            Reason(
                "ServiceUnavailable", 503, "the push service is not available", Reaction.BACK_OFF
            ),
            Reason("GatewayTimeout", 504, "the push service failed", Reaction.BACK_OFF),
        )
    }
)
"""What a status means, whatever stands in the answer."""

REDIRECTED: Final = Reason(
    "Redirected",
    307,
    "the push service answered with a redirect, which is not followed",
    _FIX_NOTIFICATION,
    "check the endpoint's host: a push service does not redirect messages",
)
"""Any status of the class 3xx."""

BY_ERRNO: Final = MappingProxyType(
    {
        int(row.name.removeprefix("errno-")): row
        for row in (
            Reason("errno-101", 400, "keys of the encryption are missing", _FIX_NOTIFICATION),
            Reason("errno-102", 404, "the endpoint is not valid", Reaction.CLOSE_SESSION),
            Reason("errno-103", 410, "the subscription has expired", Reaction.CLOSE_SESSION),
            Reason("errno-104", 413, "the message is too large", _FIX_NOTIFICATION, _SHORTER),
            Reason("errno-105", 410, "the browser became unavailable", Reaction.CLOSE_SESSION),
            Reason("errno-106", 410, "the subscription is not valid", Reaction.CLOSE_SESSION),
            Reason("errno-108", 400, "the endpoint's kind is not valid", _FIX_NOTIFICATION),
            Reason(
                "errno-109",
                401,
                "the push service does not accept the VAPID key for this subscription",
                Reaction.WRONG_APP,
            ),
            Reason("errno-110", 400, "the encryption is not valid", _FIX_NOTIFICATION),
            Reason("errno-111", 400, "a header is missing", _FIX_NOTIFICATION),
            Reason("errno-112", 400, "the TTL is not valid", _FIX_NOTIFICATION),
            Reason("errno-113", 400, "the Topic is not valid", _FIX_NOTIFICATION),
            Reason("errno-114", 400, "the TTL is negative", _FIX_NOTIFICATION),
            Reason("errno-201", 503, "Mozilla's service asks to be left alone", Reaction.BACK_OFF),
            Reason(
                "errno-202", 503, "Mozilla's service asks to be tried again", Reaction.RECONNECT
            ),
            Reason("errno-900", 502, "the way to the device is not set up", Reaction.BACK_OFF),
            Reason("errno-901", 502, "the way to the device is refused", Reaction.BACK_OFF),
            Reason("errno-902", 502, "the way to the device is closed", Reaction.BACK_OFF),
            Reason("errno-903", 502, "the way to the device is too slow", Reaction.BACK_OFF),
            Reason("errno-999", 500, "Mozilla's service failed", Reaction.BACK_OFF),
        )
    }
)
"""Mozilla's numbers, in the member ``errno`` of its answers."""

BY_WORD: Final = MappingProxyType(
    {
        row.name: row
        for row in (
            Reason("BadTtl", 400, "the TTL is not valid", _FIX_NOTIFICATION),
            Reason("BadUrgency", 400, "the Urgency is not valid", _FIX_NOTIFICATION),
            Reason("BadWebPushRequest", 400, "the encryption is not valid", _FIX_NOTIFICATION),
            Reason("BadWebPushTopic", 400, "the Topic is not valid", _FIX_NOTIFICATION),
            Reason(
                "VapidPkHashMismatch",
                400,
                "the subscription was made with another VAPID key",
                Reaction.WRONG_APP,
            ),
            Reason("IdleTimeout", 400, "the connection was idle for too long", Reaction.RECONNECT),
            Reason(
                "BadAuthorizationHeader",
                403,
                "the authorization is missing or cannot be read",
                _FIX_CONFIGURATION,
            ),
            Reason(
                "BadJwtToken",
                403,
                "the VAPID token is not valid: its subject, origin, time or signature",
                _FIX_CONFIGURATION,
                _CLOCK_OR_SUBJECT,
            ),
            Reason("BadVapidPublicKey", 403, "the VAPID key is not valid", _FIX_CONFIGURATION),
            Reason("BadPath", 404, "the endpoint is not valid", Reaction.CLOSE_SESSION),
            Reason("Shutdown", 503, "this server of Apple's is shutting down", Reaction.RECONNECT),
        )
    }
)
"""Apple's reasons, in the member ``reason`` of its answers, where a status alone says less."""

REASONS: Final = MappingProxyType(
    {
        row.name: row
        for row in (*BY_STATUS.values(), REDIRECTED, *BY_ERRNO.values(), *BY_WORD.values())
    }
)
"""Every reason that a message can be refused with, by name."""

TOKEN_REASONS: Final = frozenset(
    row.name for row in REASONS.values() if row.reaction is Reaction.WRONG_APP
)
"""Reasons that concern one subscription, from a service that may accept the key."""

FIXES: Final = MappingProxyType(
    {
        Reaction.FIX_NOTIFICATION: Fix(
            Action.PREVIEW, "change the notification, and look at its request"
        ),
        Reaction.FIX_CONFIGURATION: Fix(
            Action.CHECK_UP, "check the VAPID key and HANDBELL_VAPID_SUBJECT"
        ),
        Reaction.WRONG_APP: "let the page subscribe anew, with the VAPID key that the app has now",
        Reaction.CLOSE_SESSION: "nothing to do: the session opens again when the page subscribes",
        Reaction.RECONNECT: "send it again",
        Reaction.SLOW_DOWN_DEVICE: "send less often to this one browser",
        Reaction.BACK_OFF: "send it again in a minute or later",
    }
)
"""What to do about a refusal, by the reaction that it calls for."""

BACK_OFF: Final = MappingProxyType(
    {
        Reaction.RECONNECT: BackOff(1, 4, 15 * _MINUTE),
        Reaction.SLOW_DOWN_DEVICE: BackOff(30, 2, _HOUR),
        Reaction.BACK_OFF: BackOff(_MINUTE, 2, 4 * _HOUR),
    }
)
"""The delays after an answer, by the reaction that it calls for; ``Retry-After`` makes longer."""
