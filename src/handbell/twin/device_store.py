"""The virtual phones of a twin, and the current or former owner of each device token."""

import secrets
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from handbell.errors import TwinError

from . import rules
from .phone import Phone


class DeviceStore:
    """The current phones by id, and the device of every token ever issued."""

    def __init__(self) -> None:
        self._phones: dict[str, Phone] = {}
        self._devices: dict[str, tuple[rules.Device, str]] = {}

    @property
    def phones(self) -> Mapping[str, Phone]:
        """Return the phones by id, in the order they were created."""
        return MappingProxyType(self._phones)

    def get(self, phone_id: str) -> Phone:
        """Return the phone; raises TwinError for an unknown id."""
        if phone_id not in self._phones:
            raise TwinError(f"The twin has no phone {phone_id!r}", fix="Make one first")
        return self._phones[phone_id]

    def of_token(self, token: str) -> Phone:
        """Return the phone whose app has this token."""
        _, phone_id = self._devices[token]
        return self._phones[phone_id]

    def id_of_token(self, token: str) -> str | None:
        """Return the id of the phone that has or had the token; None for an unknown one."""
        _, phone_id = self._devices.get(token, (None, None))
        return phone_id

    def device(self, token: str) -> rules.Device | None:
        """Return the device of a token."""
        device, _ = self._devices.get(token, (None, None))
        return device

    def free_token(self, token: str | None, digits: int) -> str:
        """Return a token for a new phone: the given one, or a random one of ``digits`` hex digits.

        Raises TwinError when another phone has it.
        """
        made = token.lower() if token else secrets.token_hex(digits // 2)
        device = self.device(made)
        if device is not None and device.gone_at is None:
            raise TwinError("Another phone has this token already", fix="Leave it out")
        return made

    def add(self, phone: Phone) -> None:
        """Add a new phone; its token belongs to it from now on."""
        self._devices[phone.token] = (_device_of(phone), phone.id)
        self._phones[phone.id] = phone

    def put(self, phone: Phone) -> None:
        """Replace a phone by its new state."""
        self._phones[phone.id] = phone

    def lose(self, token: str, at: int) -> Phone | None:
        """Remove the app from the phone of a token, as of ``at`` (UNIX milliseconds).

        Returns the phone, or None when no phone has the token.
        """
        _, phone_id = self._devices.get(token, (None, ""))
        phone = self._phones.get(phone_id)
        if phone is None or phone.token != token or phone.is_gone:
            return None
        self._devices[token] = (replace(_device_of(phone), gone_at=at), phone_id)
        self._phones[phone_id] = phone.lose_app()
        return self._phones[phone_id]

    def remove(self, phone_id: str, at: int) -> Phone | None:
        """Remove a phone and return it; its token is gone since ``at`` (UNIX milliseconds)."""
        gone = self._phones.pop(phone_id, None)
        if gone is not None:
            device, _ = self._devices[gone.token]
            since = device.gone_at or at
            self._devices[gone.token] = (replace(_device_of(gone), gone_at=since), gone.id)
        return gone


def _device_of(phone: Phone) -> rules.Device:
    return rules.Device(
        token=phone.token,
        side=phone.side,
        team_id=phone.team_id,
        bundle_id=phone.bundle_id,
        kind=phone.kind,
    )
