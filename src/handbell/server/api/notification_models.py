"""What the API's notifications look like, for its description.

Requests are not read by these models but by the core, which knows more and says it better; a test
holds that they name the same members.
"""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel
from pydantic.config import JsonDict
from pydantic.json_schema import models_json_schema

from handbell.creation.values import MAX_BADGE
from handbell.delivery.delivery import GatewayName, State
from handbell.server.problems import Problem

from .session_models import SessionOut

Instant = Annotated[
    datetime | None, Field(description="ISO 8601 with an offset; UNIX seconds are taken as well")
]
Texts = Annotated[list[str] | None, Field(description="In the order of the text's place holders")]

_EXAMPLE: Final[JsonDict] = {
    "notification": {"title": "Hello", "body": "Your parcel has arrived"},
    "recipients": "user1@example.com",
}


class CriticalSoundContent(BaseModel):
    """The sound of a critical alert."""

    name: str = "default"
    critical: Literal[1]
    volume: float | None = Field(default=None, ge=0, le=1)


class Sound(RootModel[str | CriticalSoundContent]):
    """The name of a sound, or that of a critical alert."""


class NotificationContent(BaseModel):
    """What is shown, what is handed to the app, and how it is sent; see docs/notification.md.

    Either its texts, or a template's name with the values of its variables.
    """

    model_config = ConfigDict(extra="forbid")

    template: str | None = Field(default=None, description="Name of a stored template")
    variables: dict[str, Any] | None = Field(default=None, description="For the template")
    title: str | None = None
    subtitle: str | None = None
    body: str | None = None
    launch_image: str | None = None
    title_loc_key: str | None = None
    title_loc_args: Texts = None
    subtitle_loc_key: str | None = None
    subtitle_loc_args: Texts = None
    loc_key: str | None = None
    loc_args: Texts = None
    badge: int | None = Field(
        default=None, ge=0, le=MAX_BADGE, description="Number on the icon; 0 clears it"
    )
    sound: Sound | None = None
    color: str | None = Field(default=None, examples=["#1e90ff"])
    thread_id: str | None = None
    category: str | None = None
    url: str | None = Field(default=None, description="What a tap opens")
    image_url: str | None = Field(default=None, description="A picture to show")
    content_available: bool | None = None
    mutable_content: bool | None = None
    silent: bool | None = Field(default=None, description="Wake the app, show nothing")
    target_content_id: str | None = None
    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = None
    relevance_score: float | None = None
    filter_criteria: str | None = None
    content_changed: bool | None = None
    event: Literal["start", "update", "end"] | None = None
    timestamp: Instant = None
    content_state: dict[str, Any] | None = None
    stale_date: Instant = None
    dismissal_date: Instant = None
    attributes_type: str | None = None
    attributes: dict[str, Any] | None = None
    input_push_token: bool | None = None
    input_push_channel: str | None = None
    user_info: dict[str, Any] | None = Field(default=None, description="For the app")
    payload: dict[str, Any] | None = Field(
        default=None, description="Members of the payload as they are, beside and within `aps`"
    )
    android: dict[str, Any] | None = Field(
        default=None,
        description="Members of FCM's object `android`, for Android alone",
        examples=[{"notification": {"channel_id": "orders"}}],
    )
    web: dict[str, Any] | None = Field(
        default=None,
        description="Members of a browser's notification, for Web Push alone",
        examples=[{"icon": "/bell.png", "actions": [{"action": "track", "title": "Track"}]}],
    )
    priority: Literal[1, 5, 10] | None = None
    push_type: str | None = None
    expires_at: Instant = None
    ttl: int | None = Field(default=None, ge=0, description="Seconds; 0 for now or never")
    collapse_id: str | None = Field(default=None, description="Replaces what is shown under it")
    languages: dict[str, dict[str, Any]] | None = Field(
        default=None, description="By BCP 47 tag: the texts that differ", examples=[{"fr": {}}]
    )
    shorten: bool | None = Field(default=None, description="Cut texts that are too long")


class DeviceAddress(BaseModel):
    """A device that needs no session: a token with its push service, or a whole subscription."""

    model_config = ConfigDict(extra="forbid")

    service: str | None = Field(default=None, examples=["fcm"])
    token: str | None = None
    endpoint: str | None = None
    keys: dict[str, str] | None = Field(default=None, description="A browser's: p256dh and auth")
    expirationTime: float | None = None  # noqa: N815 - as browsers write it


class RecipientLists(BaseModel):
    """Recipients by kind."""

    model_config = ConfigDict(extra="forbid")

    mails: list[str] | None = None
    addresses: list[str | DeviceAddress] | None = Field(
        default=None,
        description="Of devices: device tokens, endpoints of registered subscriptions, or objects",
    )
    device_tokens: list[str | DeviceAddress] | None = Field(
        default=None, description="The same as addresses"
    )
    simulators: list[str] | None = None
    everybody: bool | None = None


class Recipients(RootModel[str | list[str | DeviceAddress] | DeviceAddress | RecipientLists]):
    """A mail address, a device, a simulator, a list of these, or lists by kind.

    "everybody": true stands for everybody. Within the lists a single text is taken as well.
    """


class SendRequest(BaseModel):
    """One send: notification, recipients, options."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    notification: NotificationContent
    recipients: Recipients
    send_at: str | None = Field(
        default=None,
        description="2026-12-24T18:00 for that time wherever each recipient is, "
        "2026-12-24T18:00+01:00 for one moment; UNIX seconds are taken as well",
    )
    urgency: Literal["urgent", "normal", "bulk"] | None = Field(
        default=None, description="Who goes first; normal, and bulk for everybody"
    )
    idempotency_key: str | None = Field(
        default=None, min_length=1, max_length=255, description="As the header Idempotency-Key"
    )
    is_development: bool | None = Field(
        default=None, description="Begin with Apple's development hosts where nothing is known"
    )


class PreviewRequest(BaseModel):
    """A notification to preview."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    notification: NotificationContent
    recipients: Recipients


class ReplaceRequest(BaseModel):
    """New content for those who got a notification."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"notification": {"title": "Now with a new time"}}]},
    )

    notification: NotificationContent


class DiagnosticAnswer(BaseModel):
    """A warning or an error in parts."""

    recipient: str | None = Field(description="Whom it is about; null for the whole send")
    reason: str = Field(description="A stable word; docs/errors.md explains each")
    fix: str = Field(description="What to do, empty where nothing is")


Details = Annotated[
    list[DiagnosticAnswer] | None,
    Field(description="The same in parts and in the same order, where there are any"),
]


class SendAnswer(BaseModel):
    """The answer to one of many sends: as for a single send, or an error."""

    id: str | None = Field(default=None, description="The notification's id, where it is accepted")
    warnings: list[str] | None = Field(
        default=None, description="Who will not be reached, and why, where it is accepted"
    )
    warning_details: Details = None
    error: Problem | None = Field(default=None, description="Why it is not accepted")


class DeliveryAnswer(BaseModel):
    """One notification to one session; APNs gets its ``id`` as the apns-id."""

    id: str
    apns_id: str = Field(description="The same as id")
    notification_id: str
    session_id: int | None = Field(description="Null for an address that no session holds")
    mail: str | None
    gateway: GatewayName = Field(description="The push service, or a simulator")
    address: str = Field(
        description="Shortened for a key without the scope register; empty once the device was "
        "removed with its person"
    )
    device_token: str = Field(description="The same as address")
    environment: Literal["production", "development", "twin"]
    state: State
    reason: str | None = Field(description="Why it is so; docs/errors.md explains each")
    detail: str | None = Field(description="What is known beyond the reason")
    status: int | None = Field(description="The HTTP status of the push service's last answer")
    attempts: int = Field(description="How often it was handed to the push service")
    unique_id: str | None = Field(description="Apple's own id of it, at its development hosts")
    created_at: datetime
    due_at: datetime | None = Field(description="When it goes on, while it waits")
    sent_at: datetime | None = Field(description="When the push service accepted it")
    finished_at: datetime | None
    displayed_at: datetime | None
    opened_at: datetime | None


class OutcomeAnswer(BaseModel):
    """The outcome of a send. A user without a device is a warning, a failed push an error.

    Where it is stored and nothing is known yet (202), there are `id` and `warnings` alone.
    """

    id: str = Field(description="The notification's id", examples=["0f3a5c7e9b1d2f4"])
    warnings: list[str] = Field(description="Who will not be reached, and why")
    success: bool | None = Field(
        default=None,
        description="At least one device was reached, and nothing failed; false while all of it "
        "waits for its time or a rule, which is no error either",
    )
    reached: int | None = Field(
        default=None, description="How many deliveries the push service accepted"
    )
    total: int | None = Field(default=None, description="How many deliveries there are")
    errors: list[str] | None = Field(default=None, description="What failed, and what to do")
    warning_details: Details = None
    error_details: Details = None
    states: dict[str, int] | None = Field(default=None, description="Deliveries by state")
    is_running: bool | None = Field(
        default=None, description="Something of it is due or on its way, and goes on"
    )
    deliveries: list[DeliveryAnswer] | None = Field(default=None, description="The first 100")


class NotificationOverview(BaseModel):
    """A notification with the states of its deliveries."""

    id: str
    title: str = Field(description="The first thing it says")
    recipients: str = Field(description="Whom the sender named, in words")
    created_at: datetime
    cancelled_at: datetime | None
    is_running: bool = Field(description="Something of it is due or on its way")
    accepted: int = Field(description="How many deliveries there are")
    ahead: int = Field(description="How many sessions a broadcast has not come to")
    states: dict[str, int] = Field(description="Deliveries by state")
    displayed: int
    opened: int


class ReasonAnswer(BaseModel):
    """The number of deliveries in one state for one reason."""

    state: State
    reason: str
    number: int
    meaning: str
    fix: str
    service: str | None = Field(
        default=None, description="The push service whose reason it is; null for one of ours"
    )


class ServiceCountAnswer(BaseModel):
    """The deliveries of a notification by one push service."""

    service: str = Field(description="apns, fcm or webpush")
    number: int = Field(description="How many deliveries have come to it")
    sent: int
    failed: int = Field(description="Failed, or expired")
    displayed: int
    opened: int


class NotificationAnswer(NotificationOverview):
    """A notification with its funnel: accepted, sent, displayed, opened, and reasons."""

    success: bool = Field(
        description="At least one device was reached, and nothing failed; false while all of it "
        "waits for its time or a rule, which is no error either"
    )
    reached: int = Field(description="How many deliveries the push service accepted")
    total: int = Field(description="How many deliveries there are")
    warnings: list[str]
    errors: list[str]
    warning_details: Details = None
    error_details: Details = None
    sent: int
    urgency: Literal["urgent", "normal", "bulk"]
    send_at: str | None = Field(description="The later time that was asked for")
    replaces: str | None = Field(description="The id of the notification that it replaces")
    next_due_at: datetime | None = Field(description="When the next of what waits goes on")
    reasons: list[ReasonAnswer]
    services: list[ServiceCountAnswer] = Field(description="The counts of each push service")
    notification: dict[str, Any] = Field(description="The content, as it was written")
    named: dict[str, Any] = Field(description="The recipients, as they were named")


class Cancelled(BaseModel):
    """The number of deliveries cancelled before they were sent."""

    cancelled: int


class Resent(BaseModel):
    """The number of dead letters that are sent again."""

    resent: int


class PreviewAnswer(BaseModel):
    """The exact request for one target, or a warning why there is none."""

    recipient: str
    warning: str | None
    method: str
    url: str
    headers: list[list[str]]
    payload: str
    size: int = Field(description="Bytes of the payload")
    limit: int = Field(description="Bytes that the push service takes")
    language: str | None = Field(description="Null for the notification's own text")


class SessionTold(BaseModel):
    """One device of the user, and whether pushes are sent to it."""

    session: SessionOut
    is_sent_to: bool
    what: str = Field(description="How it stands, in a sentence")
    fix: str = Field(description="What to do, empty where nothing is")


class DeliveryTold(BaseModel):
    """The outcome of a notification on one device."""

    delivery: DeliveryAnswer
    what: str = Field(description="What became of it, in a sentence")
    next: str = Field(description="What happens by itself, empty where nothing does")
    fix: str = Field(description="What to do, empty where nothing is")


class NotificationTold(BaseModel):
    """The outcome of one notification for the user."""

    id: str
    title: str = Field(description="The first thing it says")
    recipients: str = Field(description="Whom the sender named, in words")
    created_at: datetime
    deliveries: list[DeliveryTold]
    is_ahead: bool = Field(description="Their turn in a broadcast has not come")
    note: str = Field(description="What no delivery tells: that there was no device, for example")


class StoryAnswer(BaseModel):
    """Why a user saw the last notifications or did not: in words, with the facts."""

    mail: str
    app: str
    is_sent: bool = Field(description="The last notification was accepted for a device of theirs")
    answer: str = Field(description="The answer, in a sentence or two")
    text: str = Field(description="The whole story")
    to_do: list[str] = Field(description="What mends it, the most pressing first")
    obstacles: list[str] = Field(description="What holds up everything for the app")
    cautions: list[str] = Field(description="Keys that are refused while another one is used")
    sessions: list[SessionTold] = Field(description="The newest first")
    notifications: list[NotificationTold] = Field(description="The last ones, the newest first")


def body(model: type[BaseModel], *, is_list: bool = False) -> dict[str, Any]:
    """Return the description of a request's body, a model or a list of them."""
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{model.__name__}"}
    whole = {"type": "array", "items": schema} if is_list else schema
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole}}}}


def components() -> dict[str, Any]:
    """Return the schemas that request bodies refer to, by name."""
    models = (SendRequest, PreviewRequest, ReplaceRequest)
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    return dict(definitions["$defs"])
