"""Every error that Handbell raises, as one tree.

::

    HandbellError
    ├── SettingsError           a setting, an environment variable or an option cannot be used
    ├── NotificationError       the notification is invalid
    │   ├── PayloadTooLargeError
    │   ├── NotForServiceError  a push service cannot carry a notification of this kind
    │   └── TemplateError       a template is invalid, or cannot be rendered
    │       └── UnknownTemplateError
    ├── RecipientsError         the recipients are invalid or missing
    ├── AppError
    │   ├── UnknownAppError
    │   ├── AmbiguousAppError
    │   ├── AppExistsError
    │   └── NameTakenError
    ├── CredentialError         a key or certificate cannot be read, or does not fit
    │   ├── MissingCredentialError
    │   └── CredentialInUseError
    ├── RegistryError           a user or a session was not found, or a change to one is invalid
    │   ├── UnknownSessionError
    │   ├── UnknownUserError
    │   ├── ProofRequiredError
    │   ├── SessionLimitError
    │   ├── WebPushKeyError
    │   └── IdentityError
    ├── UnknownNotificationError  the app has no such notification
    ├── DeliveryError           deliveries failed; raised by `Response.raise_for_errors` alone
    ├── MailError               no mail can be sent
    ├── WebhookError            a webhook is invalid, or cannot be called
    │   └── UnknownWebhookError
    ├── OperatorError           an operator or a password is invalid
    │   ├── UnknownOperatorError
    │   └── InvitationError
    ├── IdempotencyError        an idempotency key was used for another request
    ├── StorageError            the database or the home folder cannot be used
    │   ├── DatabaseUnavailableError
    │   ├── QueueUnavailableError
    │   ├── DatabaseLockedError
    │   ├── DatabaseFullError
    │   ├── ReadOnlyError
    │   ├── ContradictionError
    │   └── StatementError
    ├── StoppedError            sending was stopped, or the program ends
    ├── DeadlockError           a call would wait for itself
    ├── GatewayError            a push service cannot be used from this machine
    ├── TwinError               the twin is not running, or cannot start
    ├── AccessError             an API key or an operator, or a change to one, is invalid
    │   └── UnknownKeyError
    ├── ServeError              the send server cannot start
    └── RequestError            a request to the send server is malformed
        ├── CursorError
        ├── UnauthorizedError
        ├── ForbiddenError
        │   └── AppForbiddenError
        ├── NotFoundError
        ├── MethodNotAllowedError
        ├── MisdirectedError
        ├── RequestTimeoutError
        ├── BodyTooLargeError
        ├── MediaTypeError
        ├── InvalidRequestError
        ├── RateLimitedError
        ├── HeadersTooLargeError
        ├── InternalError
        └── UnavailableError

Each says what happened, and in :attr:`HandbellError.fix` what to do next. ``code`` is stable and
documented in docs/errors.md; ``status`` is the HTTP status the send server answers with.
What became of one push is never an exception: see :mod:`handbell.gateways.gateway`. Who wants one
asks for it: :meth:`Response.raise_for_errors <handbell.Response.raise_for_errors>`.
"""

from collections.abc import Sequence
from typing import ClassVar

from ._text import sentence
from .diagnostic import Diagnostic
from .fixes import as_sentence


class HandbellError(Exception):
    """The root: whatever Handbell itself raises on purpose is one of these.

    ``what`` says what is wrong and where; ``fix`` says what to do. The text of the error is both.
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, what: str, *, fix: str = "") -> None:
        self.what = sentence(what)
        self.fix = as_sentence(fix)
        super().__init__(" ".join(part for part in (self.what, self.fix) if part))


class SettingsError(HandbellError):
    """A setting, an environment variable or an option cannot be used."""

    code = "settings-invalid"


class NotificationError(HandbellError):
    """The notification is invalid."""

    code = "notification-invalid"
    status = 422


class PayloadTooLargeError(NotificationError):
    """The payload is over the push service's limit; ``size`` and ``limit`` are in bytes."""

    code = "payload-too-large"
    status = 413

    def __init__(self, what: str, *, fix: str = "", size: int, limit: int) -> None:
        super().__init__(what, fix=fix)
        self.size = size
        self.limit = limit


class NotForServiceError(NotificationError):
    """The push service cannot carry a notification of this kind."""

    code = "not-for-service"


class TemplateError(NotificationError):
    """A template is invalid, or cannot be rendered with the given variables."""

    code = "template-invalid"


class UnknownTemplateError(TemplateError):
    """The app has no template of this name."""

    code = "template-unknown"
    status = 404


class RecipientsError(HandbellError):
    """The recipients are invalid or missing."""

    code = "recipients-invalid"
    status = 422


class AppError(HandbellError):
    """An app, or a change to one, is invalid."""

    code = "app-invalid"
    status = 422


class UnknownAppError(AppError):
    """No app has the given id, name or bundle id."""

    code = "app-unknown"
    status = 404


class AmbiguousAppError(AppError):
    """More than one app has the given name or bundle id, or no app was named.

    ``candidates`` holds the app ids to choose from.
    """

    code = "app-ambiguous"
    status = 409

    def __init__(self, what: str, *, fix: str = "", candidates: tuple[str, ...] = ()) -> None:
        super().__init__(what, fix=fix)
        self.candidates = candidates


class AppExistsError(AppError):
    """An app with this team id and bundle id already exists."""

    code = "app-exists"
    status = 409


class NameTakenError(AppError):
    """The name or id of an app also identifies another app."""

    code = "name-taken"
    status = 409


class CredentialError(HandbellError):
    """A key or certificate cannot be read, or does not fit the app."""

    code = "credential-invalid"
    status = 422


class MissingCredentialError(CredentialError):
    """The app has no key and no certificate for the requested environment."""

    code = "credential-missing"
    status = 409


class CredentialInUseError(CredentialError):
    """A web push key is to be removed or replaced, and subscriptions live by it.

    ``sessions`` is how many would be lost.
    """

    code = "credential-in-use"
    status = 409

    def __init__(self, what: str, *, fix: str = "", sessions: int = 0) -> None:
        super().__init__(what, fix=fix)
        self.sessions = sessions


class RegistryError(HandbellError):
    """A user or a session was not found, or a change to one is invalid."""

    code = "registry-invalid"
    status = 422


class UnknownSessionError(RegistryError):
    """The app has no such session, or it is not the caller's."""

    code = "session-unknown"
    status = 404


class UnknownUserError(RegistryError):
    """The app has no such user."""

    code = "user-unknown"
    status = 404


class ProofRequiredError(RegistryError):
    """A device did not present the proof that this app requires."""

    code = "proof-required"
    status = 403


class SessionLimitError(RegistryError):
    """A person has reached the limit of sessions, and all of them work."""

    code = "session-limit"
    status = 409


class WebPushKeyError(RegistryError):
    """A browser subscribed with another web push key than the app's."""

    code = "web-push-key-changed"
    status = 409


class IdentityError(RegistryError):
    """An identity token is invalid, or cannot be verified."""

    code = "identity-refused"
    status = 403


class UnknownNotificationError(HandbellError):
    """The app has no such notification, or no longer."""

    code = "notification-unknown"
    status = 404


class DeliveryError(HandbellError):
    """Deliveries of a notification failed; ``errors`` holds those of the response.

    Only :meth:`Response.raise_for_errors <handbell.Response.raise_for_errors>` raises it.
    """

    code = "delivery-failed"
    status = 502

    def __init__(self, errors: Sequence[Diagnostic], *, notification_id: str | None = None) -> None:
        self.errors = tuple(errors)
        self.notification_id = notification_id
        super().__init__(" ".join(self.errors))


class MailError(HandbellError):
    """No mail can be sent: no mail server is configured, or it cannot be used."""

    code = "mail-unavailable"
    status = 503


class WebhookError(HandbellError):
    """A webhook is invalid, or cannot be called."""

    code = "webhook-invalid"
    status = 422


class UnknownWebhookError(WebhookError):
    """There is no webhook with this id."""

    code = "webhook-unknown"
    status = 404


class OperatorError(HandbellError):
    """An operator or a password is invalid."""

    code = "operator-invalid"
    status = 422


class UnknownOperatorError(OperatorError):
    """There is no operator with this mail address."""

    code = "operator-unknown"
    status = 404


class InvitationError(OperatorError):
    """An invitation was used already, was withdrawn, or has expired."""

    code = "invitation-used"
    status = 410


class IdempotencyError(HandbellError):
    """An idempotency key was used for another request."""

    code = "idempotency-conflict"
    status = 409


class StorageError(HandbellError):
    """The database or the home folder cannot be used."""

    code = "storage-failed"
    status = 503


class DatabaseLockedError(StorageError):
    """Another process locked the database for too long."""

    code = "database-locked"


class DatabaseUnavailableError(StorageError):
    """The database server cannot be reached, or accepts no work at the moment; try again."""

    code = "database-unavailable"


class QueueUnavailableError(StorageError):
    """The broker of the work queue cannot be reached; what is accepted goes out later."""

    code = "queue-unavailable"


class DatabaseFullError(StorageError):
    """The disk, or the space the database may use, is full."""

    code = "database-full"


class ReadOnlyError(StorageError):
    """The database or the home folder cannot be written."""

    code = "storage-read-only"


class ContradictionError(StorageError):
    """A write contradicts the stored data; a retry cannot help."""

    code = "storage-contradiction"
    status = 500


class StatementError(StorageError):
    """The database cannot execute a statement; a retry cannot help."""

    code = "storage-statement"
    status = 500


class StoppedError(HandbellError):
    """Sending was stopped, or the program ends; the next start finishes what is stored."""

    code = "sender-stopped"
    status = 503


class DeadlockError(HandbellError):
    """A call would wait for itself: it was made in the thread that has to answer it."""

    code = "deadlock"


class GatewayError(HandbellError):
    """A push service cannot be used from this machine."""

    code = "gateway-failed"
    status = 502


class TwinError(HandbellError):
    """The twin is not running, or cannot start."""

    code = "twin-failed"
    status = 502


class AccessError(HandbellError):
    """An API key or an operator, or a change to one, is invalid."""

    code = "access-invalid"
    status = 422


class UnknownKeyError(AccessError):
    """There is no API key with this prefix."""

    code = "api-key-unknown"
    status = 404


class ServeError(HandbellError):
    """The send server cannot start."""

    code = "serve-failed"


class RequestError(HandbellError):
    """A request to the send server is malformed."""

    code = "request-malformed"
    status = 400


class CursorError(RequestError):
    """A cursor is not from this list."""

    code = "cursor-invalid"


class UnauthorizedError(RequestError):
    """A request has no API key, or an invalid one."""

    code = "unauthorized"
    status = 401


class ForbiddenError(RequestError):
    """The API key may not do this."""

    code = "forbidden"
    status = 403


class AppForbiddenError(ForbiddenError):
    """The API key belongs to another app."""

    code = "app-forbidden"


class NotFoundError(RequestError):
    """Nothing exists at this address."""

    code = "not-found"
    status = 404


class MethodNotAllowedError(RequestError):
    """The address does not support this method."""

    code = "method-not-allowed"
    status = 405


class RequestTimeoutError(RequestError):
    """The request did not arrive in time."""

    code = "request-timeout"
    status = 408


class BodyTooLargeError(RequestError):
    """The body of the request is over the limit."""

    code = "body-too-large"
    status = 413


class MediaTypeError(RequestError):
    """The body of the request has an unsupported media type."""

    code = "media-type-unsupported"
    status = 415


class MisdirectedError(RequestError):
    """The request names a host that is not this server's."""

    code = "host-not-served"
    status = 421


class InvalidRequestError(RequestError):
    """A member or a parameter of the request is missing, unknown or out of range."""

    code = "request-invalid"
    status = 422


class RateLimitedError(RequestError):
    """Too many requests in a short time; ``retry_after`` is in seconds."""

    code = "rate-limited"
    status = 429

    def __init__(self, what: str, *, fix: str = "", retry_after: float) -> None:
        super().__init__(what, fix=fix)
        self.retry_after = retry_after


class HeadersTooLargeError(RequestError):
    """The headers of the request are over the limit."""

    code = "headers-too-large"
    status = 431


class InternalError(RequestError):
    """Internal server error; the server's log has the details."""

    code = "internal-error"
    status = 500


class UnavailableError(RequestError):
    """The server is starting, stopping or overloaded."""

    code = "unavailable"
    status = 503
