"""A registration: what a device says about itself and its owner, validated but not stored."""

from dataclasses import dataclass
from typing import Final, Self

from handbell._mail import read_mail
from handbell.errors import RegistryError
from handbell.services.address import Address

from .addresses import Subscription, check_environment, read_address, service_of
from .session import (
    Environment,
    Platform,
    Session,
    read_environment,
    read_label,
    read_platform,
    read_time_zone,
)

_LABELS: Final = ("locale", "device", "app_version", "os_version", "external_id", "device_id")
DESCRIBED: Final = ("platform", "time_zone", *_LABELS)
"""The columns that a device's description fills, except the environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDescription:
    """A device's validated description of itself; None for missing attributes."""

    platform: str | None = None
    environment: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    device: str | None = None
    app_version: str | None = None
    os_version: str | None = None
    external_id: str | None = None
    device_id: str | None = None

    @classmethod
    def read(
        cls,
        *,
        platform: Platform | str | None = None,
        environment: Environment | str | None = None,
        time_zone: str | None = None,
        **labels: str | None,
    ) -> Self:
        """Validate a description. Raises :class:`~handbell.errors.RegistryError` when invalid."""
        return cls(
            platform=None if platform is None else read_platform(platform),
            environment=None if environment is None else read_environment(environment),
            time_zone=None if time_zone is None else read_time_zone(time_zone),
            **{name: read_label(name, labels.pop(name, None)) for name in _LABELS},
            **labels,
        )

    def given(self) -> dict[str, str]:
        """Return the given columns, without the environment."""
        values = {name: getattr(self, name) for name in DESCRIBED}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A device of a person, validated. ``at`` is in UNIX milliseconds.

    ``status`` is ``active`` if proven, else ``pending``. ``secret_digest`` is of the device's
    secret for its session, or None to keep the current one.
    """

    mail: str
    address: Address
    status: str
    at: int
    about: DeviceDescription
    secret_digest: str | None = None

    @property
    def token(self) -> str:
        """What identifies the device at its push service."""
        return self.address.token

    @classmethod
    def read(
        cls,
        mail: str,
        address: str | Subscription,
        *,
        status: str = "active",
        at: int,
        secret_digest: str | None = None,
        service: str | None = None,
        **about: str | None,
    ) -> Self:
        """Validate a registration, or raise :class:`~handbell.errors.RegistryError`.

        ``address`` is a token of ``service``, by default the platform's, or a browser's
        subscription.
        """
        if status not in ("active", "pending"):
            raise RegistryError(
                f"A session cannot be registered as {status!r}", fix="Use active or pending"
            )
        described = DeviceDescription.read(**about)
        found = read_address(address, service=service, platform=described.platform)
        check_environment(service_of(found.service), described.environment)
        return cls(
            mail=registered_mail(mail),
            address=found,
            status=status,
            at=at,
            about=described,
            secret_digest=secret_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """The registered session, and the sessions that lost its token.

    Stop sending to those that ``moved``: pass them to ``Engine.release`` before confirming the
    registration.
    """

    session: Session
    moved: tuple[int, ...] = ()


def registered_mail(text: str) -> str:
    """Return a mail address in its folded form, or raise RegistryError."""
    try:
        return read_mail(text)
    except ValueError as error:
        raise RegistryError(
            f"{text[:100]!r} is not a mail address: {error}",
            fix="Name the person by a mail address",
        ) from None
