"""The virtual phones of a twin, and the current or former owner of each device token."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from handbell.errors import TwinError

from .phone import Phone


@dataclass(frozen=True, slots=True)
class Device:
    """Whose token it is or was; ``gone_at`` (UNIX ms) is set once its app was uninstalled.

    ``phone`` is as it was when it got the token: its service, side, app and kind hold.
    """

    phone: Phone
    gone_at: int | None = None


class DeviceStore:
    """The current phones by id, and the device of every token ever issued."""

    def __init__(self) -> None:
        self._phones: dict[str, Phone] = {}
        self._devices: dict[str, Device] = {}

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
        return self._phones[self._devices[token].phone.id]

    def id_of_token(self, token: str) -> str | None:
        """Return the id of the phone that has or had the token; None for an unknown one."""
        device = self._devices.get(token)
        return None if device is None else device.phone.id

    def device(self, token: str) -> Device | None:
        """Return the device of a token."""
        return self._devices.get(token)

    def check_free(self, token: str) -> str:
        """Return a token for a new phone; raises TwinError when another phone has it."""
        device = self.device(token)
        if device is not None and device.gone_at is None:
            raise TwinError("Another phone has this token already", fix="Leave it out")
        return token

    def add(self, phone: Phone) -> None:
        """Add a new phone; its token belongs to it from now on."""
        self._devices[phone.token] = Device(phone)
        self._phones[phone.id] = phone

    def put(self, phone: Phone) -> None:
        """Replace a phone by its new state."""
        self._phones[phone.id] = phone

    def lose(self, token: str, at: int) -> Phone | None:
        """Remove the app from the phone of a token, as of ``at`` (UNIX milliseconds).

        Returns the phone, or None when no phone has the token.
        """
        device = self._devices.get(token)
        phone = None if device is None else self._phones.get(device.phone.id)
        if phone is None or phone.token != token or phone.is_gone:
            return None
        self._devices[token] = Device(phone, at)
        self._phones[phone.id] = phone.lose_app()
        return self._phones[phone.id]

    def remove(self, phone_id: str, at: int) -> Phone | None:
        """Remove a phone and return it; its token is gone since ``at`` (UNIX milliseconds)."""
        gone = self._phones.pop(phone_id, None)
        if gone is not None:
            device = self._devices[gone.token]
            self._devices[gone.token] = replace(device, gone_at=device.gone_at or at)
        return gone
