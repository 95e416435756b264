"""A notification: content and options, validated on input."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from handbell.errors import NotificationError

from . import languages as speech
from . import values
from .android import read_android
from .tap_target import Record, TapTarget, read_target
from .values import CriticalSound
from .web import read_web

Reader = Callable[[str, Any], Any]
InterruptionLevel = Literal["passive", "active", "time-sensitive", "critical"]
LiveActivityEvent = Literal["start", "update", "end"]
PushType = Literal[
    "alert",
    "background",
    "location",
    "voip",
    "complication",
    "fileprovider",
    "liveactivity",
    "pushtotalk",
    "controls",
    "widgets",
]

RESERVED_MEMBER: Final = "handbell"
"""The payload member beside ``aps`` with the notification's id, for receipts."""

_TEXTS = (
    "subtitle",
    "body",
    "launch_image",
    "title_loc_key",
    "subtitle_loc_key",
    "loc_key",
    "thread_id",
    "category",
    "target_content_id",
    "interruption_level",
    "filter_criteria",
    "url",
    "image_url",
    "event",
    "attributes_type",
    "input_push_channel",
    "push_type",
    "collapse_id",
)
_FLAGS = (
    "content_available",
    "mutable_content",
    "content_changed",
    "input_push_token",
    "silent",
    "shorten",
)
_INSTANTS = ("expires_at", "timestamp", "stale_date", "dismissal_date")
_MAPPINGS = ("user_info", "content_state", "attributes")

_READERS: Final[Mapping[str, Reader]] = MappingProxyType(
    {
        "title": values.title,
        "color": values.color,
        "sound": values.sound,
        "badge": values.badge,
        "priority": values.whole,
        "relevance_score": values.number,
        "ttl": values.ttl,
        "languages": speech.read_languages,
        "payload": values.raw_payload,
        "android": read_android,
        "web": read_web,
        **dict.fromkeys(_TEXTS, values.text),
        **dict.fromkeys(("title_loc_args", "subtitle_loc_args", "loc_args"), values.texts),
        **dict.fromkeys(_FLAGS, values.flag),
        **dict.fromkeys(_INSTANTS, values.instant),
        **dict.fromkeys(_MAPPINGS, values.json_mapping),
    }
)

_TEXTS_SHOWN = ("title", "subtitle", "body", "title_loc_key", "subtitle_loc_key", "loc_key")
_ALERT_TEXTS = frozenset(_TEXTS_SHOWN)
_SHOWN = (*_TEXTS_SHOWN, "badge", "sound")
_LOC_ARGS = ("title_loc_args", "subtitle_loc_args", "loc_args")
_DONE = ("silent", "content_available", "content_changed", "event", "payload")
_SHOWN_APS = frozenset({"alert", "badge", "sound"})


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


# Without slots: of dozens of fields, absent ones cost neither memory nor time.
@dataclass(frozen=True, kw_only=True)
class Notification:
    """One notification: what is shown, the app's data, and delivery options.

    Built from keywords or, at a border, by :meth:`read`; docs/notification.md lists every field. A
    field that is None, False or an empty text is absent. Instants are UNIX seconds (a datetime
    with a zone or ISO 8601 text is read too), ``ttl`` is in seconds. Mappings are copied; do not
    change the copies. Raises :class:`~handbell.errors.NotificationError` for a value of the wrong
    kind, for contradicting fields, and when there is nothing to send.
    """

    title: str | None = None
    subtitle: str | None = None
    body: str | None = None
    launch_image: str | None = None
    title_loc_key: str | None = None
    title_loc_args: tuple[str, ...] = ()
    subtitle_loc_key: str | None = None
    subtitle_loc_args: tuple[str, ...] = ()
    loc_key: str | None = None
    loc_args: tuple[str, ...] = ()
    badge: int | None = None
    sound: str | CriticalSound | None = None
    color: str | None = None
    thread_id: str | None = None
    category: str | None = None
    url: str | None = None
    image_url: str | None = None
    content_available: bool = False
    mutable_content: bool = False
    silent: bool = False
    target_content_id: str | None = None
    interruption_level: InterruptionLevel | None = None
    relevance_score: float | None = None
    filter_criteria: str | None = None
    content_changed: bool = False
    event: LiveActivityEvent | None = None
    timestamp: int | None = None
    content_state: Mapping[str, Any] | None = field(default=None, hash=False)
    stale_date: int | None = None
    dismissal_date: int | None = None
    attributes_type: str | None = None
    attributes: Mapping[str, Any] | None = field(default=None, hash=False)
    input_push_token: bool = False
    input_push_channel: str | None = None
    user_info: Mapping[str, Any] = field(default_factory=dict, hash=False)
    payload: Mapping[str, Any] | None = field(default=None, hash=False)
    android: Mapping[str, Any] | None = field(default=None, hash=False)
    web: Mapping[str, Any] | None = field(default=None, hash=False)
    priority: Literal[1, 5, 10] | None = None
    push_type: PushType | None = None
    expires_at: int | None = None
    ttl: int | None = None
    collapse_id: str | None = None
    languages: Mapping[str, Mapping[str, Any]] | None = field(default=None, hash=False)
    shorten: bool = False

    def __post_init__(self) -> None:
        _take(self, self.__dict__)

    @classmethod
    def read(cls, value: object) -> Self:
        """Parse a notification from a mapping of its fields; a Notification is returned unchanged.

        Each field may be spelled ``image_url``, ``imageUrl`` or ``image-url``; null is absent.
        Raises :class:`~handbell.errors.NotificationError`, for an unknown key with the nearest
        known name. The mapping is not changed.
        """
        if isinstance(value, cls):
            return value
        if type(value) is not dict and not isinstance(value, Mapping):
            raise NotificationError(
                f"The notification is {values.shown(value)}",
                fix='It must be a mapping, such as {"title": "Hello", "body": "How are you?"}',
            )
        # As the constructor does, but only for the given fields: called thousands of times a
        # second.
        made = cls.__new__(cls)
        _take(made, values.by_field(value, SPELLINGS, "in the notification"))
        return made

    def given(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the set ones of the named fields, in this order; a badge of 0 counts as set."""
        mine = self.__dict__
        return {name: mine[name] for name in names if name in mine}

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are set, by their snake_case names, JSON-serializable.

        ``Notification.read(notification.to_dict()) == notification``.
        """
        return {
            name: _plain(value)
            for name, value in self.__dict__.items()
            if value or name != "user_info"
        }

    def with_target(self, target: TapTarget) -> Self:
        """Return a copy that makes the app open a data class, or one record of it.

        ``target`` is the name of a data class, a :class:`Record`, a pair (data class, primary key)
        or a mapping ``{"dataClass": …, "entity": {"primaryKey": …}}``, with ``entity`` left out
        for the class itself. It is added to ``user_info`` under the names that the 4D mobile app
        reads; for a record the app is asked to synchronise (``dataSynchro``) unless the caller has
        set it.
        """
        record = read_target(target)
        if isinstance(record, Record):
            info = {"dataSynchro": True, **self.user_info, **record.to_user_info()}
        else:
            info = {**self.user_info, "dataClass": record}
        return replace(self, user_info=info)

    def in_language(self, locale: str | None) -> Self:
        """Return the notification for this locale, without the other languages.

        The nearest language is chosen as :func:`~handbell.creation.languages.choose` does; missing
        members come from its parent or the notification itself.
        """
        if self.languages is None:
            return self
        own = {name: value for name, value in self.__dict__.items() if name != "languages"}
        tag = speech.choose(locale, self.languages)
        made = type(self).__new__(type(self))
        if tag is None:
            object.__setattr__(made, "__dict__", own)
            return made
        for name, value in speech.changes_in(self.languages, tag).items():
            if value is None:
                own.pop(name, None)
            else:
                # Languages are kept as JSON has them, with lists and mappings.
                own[name] = value if type(value) is str else _READERS[name](name, value)
        object.__setattr__(made, "__dict__", own)
        try:
            _check(made)
        except NotificationError as error:
            raise NotificationError(f"In `languages.{tag}`: {error.what}", fix=error.fix) from None
        return made

    def expiry(self, now: float) -> int | None:
        """Return its expiry in UNIX seconds, when accepted at ``now``.

        0 asks for one attempt and no storage; None leaves it to the push service.
        """
        if self.ttl is not None:
            return int(now) + self.ttl if self.ttl else 0
        return self.expires_at

    @property
    def has_alert(self) -> bool:
        """Whether there is a text to show."""
        return not _ALERT_TEXTS.isdisjoint(self.__dict__) or "alert" in self.raw_aps

    @property
    def is_shown(self) -> bool:
        """Whether there is a text, a badge or a sound."""
        mine = self.__dict__
        shown = not _ALERT_TEXTS.isdisjoint(mine) or "badge" in mine or "sound" in mine
        return shown or not _SHOWN_APS.isdisjoint(self.raw_aps)

    @property
    def raw_aps(self) -> Mapping[str, Any]:
        """What ``payload`` adds within ``aps``."""
        payload = self.payload
        return _NOTHING if payload is None else payload.get("aps", _NOTHING)


_ABSENT: Final[Mapping[str, Any]] = MappingProxyType(
    {item.name: {} if item.name == "user_info" else item.default for item in fields(Notification)}
)


def fields_of(value: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the given values by field name, without parsing them.

    Null is left out. Raises NotificationError for an unknown key; ``where`` names its place.
    """
    named = values.by_field(value, SPELLINGS, where)
    return {name: member for name, member in named.items() if member is not None}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.title() for word in rest)


SPELLINGS: Final = MappingProxyType(
    {
        spelling: name
        for name in _ABSENT
        for spelling in (name.replace("_", "-"), _camel(name), name)
    }
)
"""Every key that :meth:`Notification.read` accepts, and its field."""


def _plain(value: Any) -> Any:
    if isinstance(value, CriticalSound):
        return value.to_dict()
    if isinstance(value, str | int | float):
        return value
    return list(value) if isinstance(value, tuple) else deepcopy(value)


_WRITTEN: Final = MappingProxyType(
    {
        "aps": "Use the field for it, or `payload`, whose `aps` is added to Handbell's",
        "data": "Use `image_url`, or `payload`, which goes out as it is given",
        RESERVED_MEMBER: "Choose another key for your own value",
    }
)
"""The payload members that Handbell writes, and what to use instead."""


def _take(notification: Notification, written: Mapping[str, Any]) -> None:
    """Store the fields that are set, parsed and validated."""
    given: dict[str, Any] = {"user_info": {}}
    for name, value in written.items():
        absent = _ABSENT[name]
        if value is not absent and value is not None:
            plain = _READERS[name](name, value)
            if plain != absent:
                given[name] = plain
    object.__setattr__(notification, "__dict__", given)
    _check(notification)
    for tag in given.get("languages", ()):
        notification.in_language(tag)


_CHECKED: Final = frozenset({"expires_at", "silent", *_LOC_ARGS})
_SAYING: Final = frozenset(_SHOWN + _DONE)


def _check(notification: Notification) -> None:
    """Raise NotificationError if fields exclude each other, or there is nothing to send."""
    given = notification.__dict__
    if "payload" in given:
        _check_payload(notification)
    if given["user_info"]:
        _check_user_info(notification)
    if not _CHECKED.isdisjoint(given):
        _check_options(notification)
        _check_loc_args(notification)
    if _SAYING.isdisjoint(given) and not notification.push_type:
        raise NotificationError(
            "The notification has nothing to show and nothing to do",
            fix="Give a `title`, a `body`, a `badge` or a `sound`, or set `silent` to wake the app",
        )


def _check_payload(notification: Notification) -> None:
    if RESERVED_MEMBER in (notification.payload or {}):
        raise NotificationError(
            f"`payload` holds `{RESERVED_MEMBER}`, by which a device reports what it displayed",
            fix="Choose another key for your own value",
        )


def _check_user_info(notification: Notification) -> None:
    for key, instead in _WRITTEN.items():
        if key in notification.user_info:
            raise NotificationError(
                f"`user_info` holds `{key}`, which Handbell writes itself", fix=instead
            )
    url = notification.url
    if url is not None and notification.user_info.get("url", url) != url:
        raise NotificationError(
            "`url` and `user_info.url` differ, and both go to one place", fix="Keep one of them"
        )


def _check_options(notification: Notification) -> None:
    if notification.expires_at is not None and notification.ttl is not None:
        raise NotificationError("Both `expires_at` and `ttl` are given", fix="Keep one of them")
    if notification.silent and (shown := notification.given(_SHOWN)):
        raise NotificationError(
            f"`silent` is set beside `{min(shown, key=_SHOWN.index)}`: "
            "a silent notification shows and plays nothing",
            fix="Drop one of the two; `content_available` wakes the app behind what is shown",
        )


def _check_loc_args(notification: Notification) -> None:
    for args in notification.given(_LOC_ARGS):
        key = args.replace("_args", "_key")
        if getattr(notification, key) is None:
            raise NotificationError(f"`{args}` is given without `{key}`", fix=f"Name the `{key}`")


def shared_dict(notification: Notification) -> dict[str, Any]:
    """Return ``to_dict()`` without copying nested values: for encoding only."""
    return {
        name: value.to_dict() if isinstance(value, CriticalSound) else value
        for name, value in notification.__dict__.items()
        if value or name != "user_info"
    }


def has_any(notification: Notification, names: AbstractSet[str]) -> bool:
    """Return whether one of the named fields is set; a badge of 0 is."""
    return not names.isdisjoint(notification.__dict__)


def has_only(notification: Notification, names: AbstractSet[str]) -> bool:
    """Return whether none but the named fields are set."""
    return notification.__dict__.keys() <= names
