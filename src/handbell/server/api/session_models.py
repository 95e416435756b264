"""What is read and told of users and sessions."""

import json
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from handbell.errors import InvalidRequestError
from handbell.registry.device_attributes import FACTS, read_attributes, unknown_member
from handbell.registry.listing import ListedUser
from handbell.registry.session import Environment, Platform, Session
from handbell.server.pages import Instant, instant

_TOKEN = "0f744707bebcf74f9b7c25d48e3358945f6aa01da5ddb387462c7eaf61bb78ad"  # noqa: S105 - an example
_POINT = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"

_MOST_WARNINGS = 20

SessionStatus = Literal["pending", "active", "quarantined", "closed"]
Label = Annotated[str | None, Field(max_length=512)]
Token = Annotated[
    str,
    Field(
        min_length=8,
        max_length=4096,
        description="Apple's device token in hex digits, or FCM's registration token",
        examples=[_TOKEN],
    ),
]


_CHOICES: Final = ("platform", "environment", "service")


class SubscriptionKeys(BaseModel):
    """The keys by which a message for a browser is encrypted, in base64 for URLs."""

    p256dh: str = Field(max_length=200, description="The browser's public key")
    auth: str = Field(max_length=100, description="Its authentication secret")


class SubscriptionIn(BaseModel):
    """A browser's `PushSubscription`, as its `toJSON()` gives it."""

    endpoint: str = Field(
        max_length=2000, examples=["https://updates.push.services.mozilla.com/wpush/v2/gAAAA"]
    )
    keys: SubscriptionKeys


def _choice(value: Any) -> Any:
    """Return what is said of a list of words as the list has it: iOS itself says `iOS`."""
    return value.strip().lower() or None if isinstance(value, str) else value


class AboutDevice(BaseModel):
    """What a device says of itself; what it leaves out stays as it was.

    Beside platform and environment, which say what the token is for, none of it refuses a
    registration: what cannot be stored, or is not known, is left out with a warning.
    """

    model_config = ConfigDict(extra="ignore")

    platform: Platform | None = Field(
        default=None,
        description="Without it, for a new one: ios, or that of the service; web for a "
        "subscription",
    )
    service: str | None = Field(
        default=None,
        max_length=40,
        description="The push service: apns, fcm or webpush. Without it the platform decides, and "
        "webpush for a subscription",
        examples=["fcm"],
    )
    environment: Environment | None = Field(
        default=None,
        description="Where the token lives; development is Apple's sandbox, other services have "
        "none. Without it: production",
    )
    locale: Label = Field(default=None, examples=["fr-CH"])
    time_zone: str | None = Field(default=None, max_length=100, examples=["Europe/Zurich"])
    device: Label = Field(default=None, examples=["iPhone17,3"])
    app_version: Label = Field(default=None, examples=["2.1"])
    os_version: Label = Field(default=None, examples=["18.2.0"])
    device_id: Label = Field(
        default=None,
        description="One and the same for all sessions of a device, through whichever service, so "
        "that it is reached once; at most 128 characters",
        examples=["5f0c6b0e-2a53-4c3e-9d1b-3c1a6f0f7a10"],
    )

    ignored: SkipJsonSchema[tuple[str, ...]] = ()
    passed_over: ClassVar[frozenset[str]] = frozenset()
    """Members that are left out without a word."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out(cls, given: Any) -> Any:
        """Keep what can be stored, and note what cannot under ``ignored``."""
        if not isinstance(given, dict):
            return given
        if "address" in cls.model_fields:
            given = _by_one_name(given)
        known = tuple(name for name in cls.model_fields if name != "ignored")
        facts, warnings = read_attributes(
            {name: value for name, value in given.items() if name in known}
        )
        warnings += [
            unknown_member(str(name), known)
            for name in given
            if name not in known and name not in cls.passed_over
        ]
        others = {
            name: _choice(value) if name in _CHOICES else value
            for name, value in given.items()
            if name not in FACTS
        }
        return {**others, **facts, "ignored": tuple(warnings[:_MOST_WARNINGS])}

    def about(self) -> dict[str, Any]:
        """Return what describes the device, as :class:`Description` reads it."""
        return {name: getattr(self, name) for name in _ABOUT}


class Reachable(AboutDevice):
    """What a device says of itself, and where it is reached."""

    device_token: Token | None = None
    address: Token | None = Field(default=None, description="The same as device_token")
    subscription: SubscriptionIn | None = Field(
        default=None, description="A browser's; it takes the place of device_token"
    )

    application_server_key: str | None = Field(
        default=None,
        max_length=200,
        description="The key that the subscription was made with, in base64 for URLs: the page's "
        "`subscription.options.applicationServerKey`. One that is not the app's is refused",
    )

    def reached_at(self) -> str | dict[str, Any] | None:
        """Return the token or the subscription, or None. Raises InvalidRequestError for both."""
        if self.subscription is None:
            return self.device_token
        if self.device_token not in (None, self.subscription.endpoint):
            raise InvalidRequestError(
                "A device token and a subscription are given", fix="Register each for itself"
            )
        return self.subscription.model_dump()


_ABOUT: Final = tuple(
    name for name in AboutDevice.model_fields if name not in ("ignored", "service")
)


def _by_one_name(given: dict[str, Any]) -> dict[str, Any]:
    """Return what a device says, with its address under both of its names."""
    address, token = given.get("address"), given.get("device_token")
    if address is None:
        return given
    if token is not None and token != address:
        raise ValueError("address and device_token are the same, and two were given")
    return {**given, "device_token": address}


class RegistrationIn(Reachable):
    """A device and whose it is.

    A device that repeats itself with its session's secret names neither ``mail`` nor
    ``identity_token``, and ``device_token`` or ``subscription`` only if it may have changed.
    """

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "mail": "test@4d.com",
                    "device_token": _TOKEN,
                    "platform": "ios",
                    "locale": "fr-CH",
                    "time_zone": "Europe/Zurich",
                },
                {
                    "mail": "test@4d.com",
                    "subscription": {
                        "endpoint": "https://updates.push.services.mozilla.com/wpush/v2/gAAAA",
                        "keys": {
                            "p256dh": _POINT,
                            "auth": "BTBZMqHH6r4Tts7J_aSIgg",
                        },
                    },
                },
            ]
        },
    )

    mail: str | None = Field(default=None, max_length=320, examples=["test@4d.com"])
    identity_token: str | None = Field(
        default=None, max_length=4096, description="What the app's back end signed for this person"
    )
    external_id: Label = Field(default=None, description="The session's id in another system")

    def about(self) -> dict[str, Any]:
        """Return what describes the device, as :class:`Description` reads it."""
        return {**super().about(), "external_id": self.external_id}


class SessionChange(Reachable):
    """What is better known of a session; a member that is not given stays."""

    model_config = ConfigDict(
        extra="ignore", json_schema_extra={"examples": [{"locale": "de-CH", "app_version": "2.2"}]}
    )


class SessionOut(BaseModel):
    """One device of one user."""

    id: int = Field(examples=[7])
    mail: str | None = Field(examples=["test@4d.com"])
    service: str = Field(description="By which it is reached", examples=["apns"])
    kind: str = Field(
        description="Its form of address: device, fid or subscription", examples=["device"]
    )
    address: str = Field(
        description="Where the device is reached: a token, or a subscription's endpoint",
        examples=[_TOKEN],
    )
    device_token: str = Field(description="The same", examples=[_TOKEN])
    platform: str = Field(examples=["ios"])
    environment: Environment
    status: SessionStatus
    reason: str | None = Field(description="Why it is closed or quarantined")
    locale: str | None
    time_zone: str | None
    device: str | None
    app_version: str | None
    os_version: str | None
    device_id: str | None
    external_id: str | None
    created_at: Instant
    registered_at: Instant = Field(description="When the device last said that it is there")
    accepted_at: Instant | None = Field(
        description="When the push service last took something for it, broadcasts aside"
    )
    closed_at: Instant | None


class SessionChanged(SessionOut):
    """A session after a change, and what of the change was left out."""

    warnings: list[str] = Field(description="What was said and cannot be stored", examples=[[]])


class RegistrationOut(BaseModel):
    """The answer to a registration.

    While it is pending there is nothing more than this, whoever is known already.
    """

    id: int = Field(description="The session's id", examples=[7])
    status: SessionStatus = Field(description="pending: the link that was mailed is not opened yet")
    secret: str | None = Field(
        description="By which the device speaks for its session; told this once, null where the "
        "device has it already",
        examples=["hbs_2Yd0cVn3mQ8rT5wZ1xKp7LbHs4GfJa9E"],
    )
    session: SessionOut | None = Field(description="The session, once it is proven")
    warnings: list[str] = Field(
        description="What the device said of itself and cannot be stored; it is left out",
        examples=[[]],
    )


class UserOut(BaseModel):
    """A person in one app."""

    mail: str | None = Field(examples=["test@4d.com"])
    created_at: Instant
    sessions: dict[str, int] = Field(
        description="How many sessions are in each status that occurs", examples=[{"active": 2}]
    )


class UserDetail(UserOut):
    """A person in one app, with their newest sessions."""

    devices: list[SessionOut] = Field(description="The newest 100 sessions")


def session_out(session: Session) -> dict[str, Any]:
    """Return what is told of a session; never its secret."""
    return {
        "id": session.id,
        "mail": session.mail,
        "service": session.service,
        "kind": session.kind,
        "address": session.address,
        "device_token": session.token,
        "platform": session.platform,
        "environment": session.environment,
        "status": session.status,
        "reason": session.reason,
        "locale": session.locale,
        "time_zone": session.time_zone,
        "device": session.device,
        "app_version": session.app_version,
        "os_version": session.os_version,
        "device_id": session.device_id,
        "external_id": session.external_id,
        "created_at": instant(session.created_at),
        "registered_at": instant(session.registered_at),
        "accepted_at": instant(session.accepted_at),
        "closed_at": instant(session.closed_at),
    }


def session_exported(session: Session) -> dict[str, Any]:
    """Return a session as an import takes it, with the keys of a browser's subscription."""
    told = session_out(session)
    if session.details is None:
        return told
    return {
        **told,
        "subscription": {"endpoint": session.token, "keys": json.loads(session.details)},
    }


def user_out(listed: ListedUser) -> dict[str, Any]:
    """Return what is told of a user in a list."""
    return {
        "mail": listed.user.mail,
        "created_at": instant(listed.user.created_at),
        "sessions": listed.sessions,
    }
