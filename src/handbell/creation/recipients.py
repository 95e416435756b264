"""Recipients of a notification: mail addresses, devices, simulators, or everybody."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn, Self

from handbell._mail import read_mail
from handbell._text import nearest
from handbell.errors import RecipientsError, RegistryError
from handbell.services.address import Address

from .devices import device_of, is_device, read_device, written

MIN_TOKEN_DIGITS: Final = 8
MAX_TOKEN_DIGITS: Final = 512

_HEX = re.compile(r"[0-9a-fA-F]+")
_UDID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_SPACED_TOKEN = re.compile(r"[<\s]*[0-9a-fA-F]+(?:\s+[0-9a-fA-F]+)*[>\s]*")
_LONGEST = max(MAX_TOKEN_DIGITS, 320)

_KINDS: Final = ("mails", "device_tokens", "simulators")
_SPELLINGS: Final = MappingProxyType(
    {
        "mails": "mails",
        "device_tokens": "device_tokens",
        "deviceTokens": "device_tokens",
        "addresses": "device_tokens",
        "simulators": "simulators",
        "everybody": "everybody",
    }
)
_NOUNS: Final = MappingProxyType(
    {
        "mails": "a mail address",
        "device_tokens": "a device token",
        "devices": "a device",
        "simulators": "a simulator",
    }
)

Devices = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
"""Devices: a text or a mapping for each."""


class _Checked(tuple[str, ...]):
    """Cache of parsed texts: validating a mail takes 40 us, too long to repeat."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Recipients:
    """The recipients of one notification, without duplicates, in the given order.

    ``mails`` are folded as :func:`~handbell._mail.read_mail` does; ``device_tokens`` are Apple's,
    in lower case, and ``devices`` the addresses of other push services; ``simulators`` are
    ``booted`` or a UDID in upper case. ``everybody`` stands for all active sessions of the app and
    excludes the others. Raises :class:`~handbell.errors.RecipientsError` for invalid or missing
    recipients.
    """

    mails: tuple[str, ...] = ()
    device_tokens: tuple[str, ...] = ()
    devices: tuple[Address, ...] = ()
    simulators: tuple[str, ...] = ()
    everybody: bool = False

    def __init__(
        self,
        *,
        mails: str | Iterable[str] = (),
        addresses: Devices = (),
        device_tokens: Devices = (),
        simulators: str | Iterable[str] = (),
        everybody: bool = False,
    ) -> None:
        if addresses and device_tokens:
            raise _two_spellings("device_tokens")
        tokens, devices = _split("device_tokens", addresses or device_tokens)
        object.__setattr__(self, "mails", _of_kind("mails", mails))
        object.__setattr__(self, "device_tokens", tokens)
        object.__setattr__(self, "devices", devices)
        object.__setattr__(self, "simulators", _of_kind("simulators", simulators))
        object.__setattr__(self, "everybody", everybody)
        self._check()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of all devices: Apple's tokens, FCM's, and endpoints."""
        if not self.devices:
            return self.device_tokens
        return (*self.device_tokens, *(device.token for device in self.devices))

    def _check(self) -> None:
        if not isinstance(self.everybody, bool):
            raise RecipientsError(
                f"`everybody` is {_shown(self.everybody)}", fix="It is true or false"
            )
        named = any(getattr(self, kind) for kind in (*_KINDS, "devices"))
        if self.everybody and named:
            raise RecipientsError(
                "Everybody and somebody are named at once", fix="Keep one of them"
            )
        if not (self.everybody or named):
            raise RecipientsError(
                "Nobody is named", fix="Name a mail address, such as `user@example.com`"
            )

    @classmethod
    def read(cls, value: object) -> Self:
        """Parse recipients.

        Takes one text, a list, tuple or set of texts, a mapping ``mails`` / ``addresses`` /
        ``simulators`` (or ``device_tokens``, ``deviceTokens``) of a text or a list each, or
        recipients read before. Of a text without a kind, an even run of hex digits is a device
        token, ``booted`` or a UDID a simulator, what begins with ``https://`` the endpoint of a
        registered subscription, what looks like a registration token FCM's, and a valid mail
        address a mail. A device may be named by a mapping as well: a browser's subscription, or
        ``service`` and ``token``. Raises :class:`~handbell.errors.RecipientsError` that says which
        item is wrong, and why.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            if not is_device(value):
                return cls(**_by_kind(value))
            value = [value]
        if isinstance(value, str):
            kind, plain = _recognised("recipients", value)
            if isinstance(plain, str):
                return cls._of(**{kind: _Checked((plain,))})
            return cls._of((plain,))
        named: dict[str, dict[Any, None]] = {kind: {} for kind in (*_KINDS, "devices")}
        for where, item in _items("recipients", value):
            kind, found = (
                _device(where, item) if isinstance(item, Mapping) else (_recognised(where, item))
            )
            named[kind][found] = None
        if not value:
            return cls()
        devices = tuple(named.pop("devices"))
        texts = {kind: _Checked(some) for kind, some in named.items() if some}
        return cls._of(devices, **texts)

    @classmethod
    def _of(cls, devices: tuple[Address, ...] = (), /, **named: _Checked) -> Self:
        """Return recipients from parsed values."""
        made = cls.__new__(cls)
        object.__setattr__(made, "devices", devices)
        for kind in _KINDS:
            object.__setattr__(made, kind, named.get(kind, _NOBODY))
        object.__setattr__(made, "everybody", False)
        return made

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-serializable form; :meth:`read` parses it to equal recipients."""
        return self._as_dict([*self.device_tokens, *(written(one) for one in self.devices)])

    def to_record(self) -> dict[str, Any]:
        """Return the form that is kept and shown: devices by their tokens, without any keys."""
        return self._as_dict(self.addresses)

    def _as_dict(self, devices: Sequence[Any]) -> dict[str, Any]:
        if self.everybody:
            return {"everybody": True}
        named = {"mails": self.mails, "device_tokens": devices, "simulators": self.simulators}
        return {kind: list(some) for kind, some in named.items() if some}


def _by_kind(given: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        kind = _SPELLINGS.get(key) if isinstance(key, str) else None
        if kind is None:
            raise _unknown_key(key)
        if kind in found:
            raise _two_spellings(kind)
        if value is not None:
            found[kind] = value
    return found


def _two_spellings(kind: str) -> RecipientsError:
    return RecipientsError(f"`{kind}` is given in two spellings", fix="Keep one of them")


def _unknown_key(key: object) -> RecipientsError:
    near = nearest(key[:80], _SPELLINGS) if isinstance(key, str) else None
    return RecipientsError(
        f"Unknown key in the recipients: {_shown(key)}",
        fix=f"Did you mean `{near}`?" if near else f"Known are {', '.join(_KINDS)}",
    )


def _texts(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield each text with its position, for errors."""
    for where, item in _items(name, value):
        if not isinstance(item, str):
            raise RecipientsError(f"`{where}` is {_shown(item)}", fix="It must be a text")
        yield where, item


def _items(name: str, value: object) -> Iterator[tuple[str, Any]]:
    """Yield each text or mapping with its position, for errors."""
    if isinstance(value, str | Mapping):
        yield name, value
        return
    if isinstance(value, bytes | bytearray) or not isinstance(value, Sequence | AbstractSet):
        raise RecipientsError(
            f"`{name}` is {_shown(value)}", fix="It must be a text or a list of texts"
        )
    items: Iterable[object] = value
    for place, item in enumerate(items):
        if not isinstance(item, str | Mapping):
            raise RecipientsError(
                f"`{name}[{place}]` is {_shown(item)}", fix="Each recipient must be a text"
            )
        yield f"{name}[{place}]", item


def _of_kind(kind: str, value: object) -> tuple[str, ...]:
    if isinstance(value, _Checked):
        return value
    if value == ():
        return _NOBODY
    found: dict[str, None] = {}
    for where, text in _texts(kind, value):
        actual, plain = _recognised(where, text)
        if actual != kind or not isinstance(plain, str):
            raise _misplaced(where, text, actual)
        found[plain] = None
    return _Checked(found)


def _split(name: str, value: object) -> tuple[tuple[str, ...], tuple[Address, ...]]:
    """Return Apple's device tokens, and the addresses of other push services."""
    if isinstance(value, _Checked) or value == ():
        return _of_kind(name, value), ()
    tokens: dict[str, None] = {}
    devices: dict[Address, None] = {}
    for where, item in _items(name, value):
        kind, found = (
            _device(where, item) if isinstance(item, Mapping) else (_recognised(where, item))
        )
        if isinstance(found, Address):
            devices[found] = None
        elif kind == "device_tokens":
            tokens[found] = None
        else:
            raise _misplaced(where, item, kind)
    return _Checked(tokens), tuple(devices)


def _misplaced(where: str, text: object, kind: str) -> RecipientsError:
    return RecipientsError(
        f"`{where}` is {_shown(text)}, which is {_NOUNS[kind]}",
        fix=f"Put it under `{'device_tokens' if kind == 'devices' else kind}`",
    )


def _device(where: str, given: Mapping[Any, Any]) -> tuple[str, str | Address]:
    """Return the kind and the address of a device that is named by a mapping."""
    try:
        found = read_device(given)
    except RegistryError as error:
        raise RecipientsError(
            f"`{where}` is no device: {error.what[:1].lower()}{error.what[1:]}", fix=error.fix
        ) from None
    return ("device_tokens", found.token) if found.service == "apns" else ("devices", found)


def _device_of(where: str, text: str) -> Address | None:
    """Return the device of another service than Apple's that a text certainly names."""
    try:
        return device_of(text)
    except RegistryError as error:
        raise RecipientsError(f"`{where}`: {error.what}", fix=error.fix) from None


def _recognised(where: str, text: str) -> tuple[str, str | Address]:
    """Return the kind of a text and its canonical form."""
    plain = str.__str__(text).strip()
    if (device := _device_of(where, plain)) is not None:
        return "devices", device
    if "@" in plain:
        return "mails", _mail(where, plain)
    if _HEX.fullmatch(plain):
        return "device_tokens", _token(where, plain)
    if plain.lower() == "booted":
        return "simulators", "booted"
    if _UDID.fullmatch(plain):
        return "simulators", plain.upper()
    return "mails", _mail(where, plain)


def _token(where: str, text: str) -> str:
    if not MIN_TOKEN_DIGITS <= len(text) <= MAX_TOKEN_DIGITS:
        _refuse(
            where,
            text,
            f"a device token has {MIN_TOKEN_DIGITS} to {MAX_TOKEN_DIGITS} hex digits, "
            f"this has {len(text):,}",
            "Give the token in full, as the app sent it",
        )
    if len(text) % 2:
        _refuse(
            where,
            text,
            f"it has an odd number of hex digits ({len(text)})",
            "Look whether a digit of the device token was lost",
        )
    return text.lower()


def _mail(where: str, text: str) -> str:
    if not text:
        raise RecipientsError(f"`{where}` is empty", fix="Name a mail address or leave it out")
    if "@" not in text:
        _refuse(
            where, text, "it is neither a mail address, a device token nor a simulator", _hint(text)
        )
    if len(text) > _LONGEST:
        _refuse(where, text, "it is too long for a mail address", "Name one address in each text")
    try:
        return read_mail(text)
    except ValueError as error:
        _refuse(where, text, f"as a mail address it is not valid: {error}", _mail_hint(text))


def _hint(text: str) -> str:
    if _SPACED_TOKEN.fullmatch(text[:_LONGEST]):
        return "Write a device token as hex digits alone, without blanks and angle brackets"
    return (
        "Write a mail address such as `user@example.com`, the hex digits of a device token, the "
        "endpoint of a subscription, `booted`, or the UDID of a simulator; name another service's "
        "token with its service"
    )


def _mail_hint(text: str) -> str:
    if "," in text or ";" in text:
        return "Name several addresses as a list of texts"
    if "<" in text:
        return "Give the address alone, without the name and the angle brackets"
    return "Write it as in `user@example.com`"


def _refuse(where: str, text: str, why: str, fix: str) -> NoReturn:
    raise RecipientsError(f"`{where}` is {_shown(text)}: {why}", fix=fix)


def _shown(value: object, limit: int = 60) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= limit else f"{value[:limit]!r} and more"
    return "null" if value is None else f"a Python {type(value).__name__}"


_NOBODY: Final = _Checked()
EVERYBODY: Final = Recipients(everybody=True)
"""All active sessions of the app."""
