"""What Apple's side knows: the teams' keys, and whose device tokens are."""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from handbell.errors import CredentialError
from handbell.twin.device_store import DeviceStore
from handbell.twin.hooks import call
from handbell.twin.sides import check_side

from . import rules
from .provider_token import Key, read_public_key

logger = logging.getLogger(__name__)


class ApnsKnown:
    """The state that the rules query; ``apps`` are the names of the known apps by id."""

    def __init__(
        self,
        devices: DeviceStore,
        apps: Mapping[str, str],
        *,
        find_key: Callable[[str, str], str | None],
        now: Callable[[], float],
    ) -> None:
        self._keys: dict[tuple[str, str], Key] = {}
        self._devices = devices
        self._apps = apps
        self._find_key = find_key
        self._now = now

    @property
    def keys(self) -> Mapping[tuple[str, str], Key]:
        """Return the known keys, by team id and key id."""
        return MappingProxyType(self._keys)

    def add_key(
        self,
        team_id: str,
        key_id: str,
        key_pem: str | bytes,
        environment: str | None = None,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Add a key; see :meth:`handbell.twin.state.TwinState.add_key`."""
        if environment is not None:
            check_side(environment)
        self._keys[team_id, key_id] = Key(
            team_id=team_id,
            key_id=key_id,
            public_key=read_public_key(key_pem, key_id),
            environment=environment,
            topics=None if topics is None else frozenset(topics),
        )

    def remove_key(self, team_id: str, key_id: str) -> None:
        """Revoke a key."""
        self._keys.pop((team_id, key_id), None)

    def now(self) -> float:
        """Return the time by the twin's clock, in UNIX seconds."""
        return self._now()

    def find_key(self, team_id: str, key_id: str) -> Key | None:
        """Return the key, from the ``find_key`` hook if it is not known yet."""
        if (team_id, key_id) not in self._keys:
            pem = call(self._find_key, team_id, key_id)
            if isinstance(pem, str | bytes):
                try:
                    self.add_key(team_id, key_id, pem)
                except CredentialError as error:
                    logger.warning("Could not use the key from the find_key hook: %s", error)
        return self._keys.get((team_id, key_id))

    def find_device(self, token: str) -> rules.Device | None:
        """Return the state of a device token of Apple's."""
        device = self._devices.device(token)
        if device is None or device.phone.service != "apns":
            return None
        return rules.Device(
            token=token,
            side=device.phone.side,
            team_id=device.phone.team_id,
            bundle_id=device.phone.bundle_id,
            kind=device.phone.kind,
            gone_at=device.gone_at,
        )

    def owns_topic(self, team_id: str, bundle_id: str) -> bool:
        """Return whether the team may push to the app; True for an unknown app."""
        owners = {app.partition(".")[0] for app in self._apps if app.partition(".")[2] == bundle_id}
        return not owners or team_id in owners
