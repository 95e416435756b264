"""Registration of a device by an app's back end, locally or at a send server."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from handbell.apps.app import App
from handbell.services.apns.address import read_token

from .device_attributes import read_attributes
from .registration import DeviceDescription, Registered, Registration, registered_mail
from .secret import SESSION_MARK, digest_of, new_secret
from .session import RegisteredSession, Session
from .store import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRegistration:
    """A validated registration by a back end; ``warnings`` name what was left out."""

    mail: str
    token: str
    about: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    secret: str = field(default_factory=lambda: new_secret(SESSION_MARK), repr=False)

    def admit(self, registry: Registry, app: App, at: int) -> Registered:
        """Store it in a registry as active; ``at`` is in UNIX milliseconds."""
        registration = Registration.read(
            self.mail, self.token, at=at, secret_digest=digest_of(self.secret), **self.about
        )
        return registry.admit(app, registration)

    def registered(
        self, session: Session, *, secret: str | None = None, warnings: tuple[str, ...] = ()
    ) -> RegisteredSession:
        """Return the session with its secret and warnings, which only its registrant gets."""
        known = {item.name: getattr(session, item.name) for item in fields(Session)}
        return RegisteredSession(
            **known, secret=secret or self.secret, warnings=(*self.warnings, *warnings)
        )


def read_registration(
    mail: str, address: str, *, platform: str | None, environment: str | None, **given: object
) -> BackendRegistration:
    """Parse a back end's registration. Raises RegistryError."""
    facts, warnings = read_attributes(given)
    about = {"platform": platform, "environment": environment, **facts}
    described = DeviceDescription.read(**about)
    return BackendRegistration(
        mail=registered_mail(mail),
        token=read_token(address),
        about={**described.given(), "environment": described.environment},
        warnings=tuple(warnings),
    )
