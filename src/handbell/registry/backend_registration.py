"""Registration of a device by an app's back end, locally or at a send server."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from handbell.apps.app import App

from .addresses import Subscription
from .device_attributes import read_attributes
from .registration import Registered, Registration
from .secret import SESSION_MARK, digest_of, new_secret
from .session import RegisteredSession, Session
from .store import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendRegistration:
    """A validated registration by a back end; ``warnings`` name what was left out."""

    mail: str
    address: str | Subscription
    about: Mapping[str, Any]
    service: str | None = None
    warnings: tuple[str, ...] = ()
    secret: str = field(default_factory=lambda: new_secret(SESSION_MARK), repr=False)

    def admit(self, registry: Registry, app: App, at: int) -> Registered:
        """Store it in a registry as active; ``at`` is in UNIX milliseconds."""
        registration = Registration.read(
            self.mail,
            self.address,
            service=self.service,
            at=at,
            secret_digest=digest_of(self.secret),
            **self.about,
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
    mail: str,
    address: str | Subscription,
    *,
    platform: str | None,
    environment: str | None,
    service: str | None = None,
    **given: object,
) -> BackendRegistration:
    """Parse a back end's registration. Raises RegistryError."""
    facts, warnings = read_attributes(given)
    about: dict[str, Any] = {"platform": platform, "environment": environment, **facts}
    read = Registration.read(mail, address, service=service, at=0, **about)
    is_token = read.address.details is None
    return BackendRegistration(
        mail=read.mail,
        address=read.token if is_token else address,
        service=service,
        about={**read.about.given(), "environment": read.about.environment},
        warnings=tuple(warnings),
    )
