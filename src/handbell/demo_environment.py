"""A twin connected to a Handbell home, as an app with a back end would be.

A virtual phone registers itself when it is created, and reports displayed and opened notifications
to the ledger. ``handbell twin``, ``handbell demo`` and the pytest fixtures are built on this.
"""

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from handbell.apps.app import App
from handbell.apps.credential_kinds import Credential
from handbell.apps.sample_keys import make_key, make_service_account
from handbell.delivery.ledger.receipts import ReceiptKind
from handbell.registry.registration import DeviceDescription, Registration
from handbell.registry.session import Session
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey

from ._device_reports import DeviceReports
from ._extras import install
from .errors import HandbellError, MissingCredentialError, TwinError
from .settings import DATABASE_FILE, Settings
from .system import System

if TYPE_CHECKING:
    from handbell.twin.hooks import TwinHooks
    from handbell.twin.phone import Card, Phone
    from handbell.twin.twin import Twin

SAMPLE_APP: Final = "TEAM123456.com.sample.myapp"
SAMPLE_NAME: Final = "My App"
SAMPLE_MAIL: Final = "test@4d.com"
_PLATFORMS: Final = {"fcm": "android", "webpush": "web"}
"""What a virtual device of each service registers as; a phone of Apple's is an iPhone."""


class DemoEnvironment:
    """Connects a system and a twin: keys for the twin, registrations and reports for the system.

    Use it as a context manager around the twin: at the end, pending reports are written.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        self._reporter = DeviceReports(system)
        self._sessions: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reporter.close()

    def prepare(self) -> list[App]:
        """Return the apps, each with a key; create a sample app if there is none.

        A created key is limited to the twin and never used with Apple.
        """
        apps = self._system.apps.list()
        if not apps:
            sample = App.read_id(SAMPLE_APP)
            made = self._system.apps.add(
                sample.team_id, sample.bundle_id, SAMPLE_NAME, is_suggested=True
            )
            key = make_key(made.apple.team_id, is_of_sample=True)
            self._system.apps.add_credential(made, key, environment="twin")
            apps = [made]
        for app in apps:
            if app.team_id is not None and not self._system.apps.credentials(app, "apns"):
                self._system.apps.add_credential(app, make_key(app.team_id), environment="twin")
        return apps

    def hooks(self) -> "TwinHooks":
        """Return the hooks for the twin."""
        from handbell.twin.hooks import TwinHooks  # noqa: PLC0415 - an extra

        return TwinHooks(
            on_phone=self._register,
            on_displayed=self._note_displayed,
            on_opened=self._note_opened,
            find_key=self._find_key,
            find_service_account=self._find_service_account,
            name_of_app=self._name_of_app,
            android_of_app=self._android_of_app,
            web_push_key=self._web_push_key,
            guards_page=self._asks_for_proof,
        )

    def _asks_for_proof(self) -> bool:
        # A phone of this page is active at once, for any user.
        return any(identity.proof != "key" for identity in self._system.identities.all().values())

    def known_sessions(self, app: App) -> list[Session]:
        """Return the sessions of former twins' phones, for the next twin to recreate.

        There is one per device: its owner's, rather than a pending one.
        """
        found = [
            item
            for item in self._system.registry.sessions(app)
            if item.environment == "twin" and item.platform == _PLATFORMS.get(item.service, "ios")
        ]
        by_token: dict[str, Session] = {}
        for status in ("active", "pending"):
            for session in found:
                if session.status == status:
                    by_token.setdefault(session.token, session)
        return list(by_token.values())

    def restore(self, twin: "Twin", app: App) -> None:
        """Give a twin the devices that former ones had, each with its address.

        A browser whose endpoint has to be another one keeps its session, which gets it. One that
        the twin knows nothing of is left alone: it subscribes again by itself.
        """
        for known in self.known_sessions(app):
            # A phone with an owner registers itself; a pending one has no owner yet.
            owner = known.mail if known.status == "active" else None
            device: dict[str, Any] = {"name": known.device, "mail": owner, "app": app.id}
            if known.service == "webpush":
                self._move(app, known, twin)
                twin.restore_browser(known.token, known.details or "", **device)
            else:
                twin.add_phone(
                    **device, token=known.token, platform=_PLATFORMS.get(known.service, "ios")
                )

    def _move(self, app: App, known: Session, twin: "Twin") -> None:
        moved = twin.endpoint_of(known.token)
        if moved in (None, known.token):
            return
        address = {"endpoint": moved, "keys": json.loads(known.details or "{}")}
        self._system.registry.change(app, known.id, DeviceDescription(), address=address)

    def _register(self, phone: "Phone") -> None:
        # `twin` is Apple's production side; the other is for other clients.
        if phone.mail is None or phone.side == "development":
            return
        registration = Registration.read(
            phone.mail,
            _address(phone),
            at=int(self._system.now() * 1000),
            environment="twin",
            platform=phone.platform or None,
            device=phone.name,
        )
        app = self._system.apps.find(phone.app)
        registered = self._system.registry.admit(app, registration)
        self._sessions[phone.token] = registered.session.id
        # Nobody waits for an answer here; the workers are notified all the same.
        self._system.revocations.add(registered.moved)

    def _note_displayed(self, phone: "Phone", card: "Card") -> None:
        self._note(phone, card, "displayed")

    def _note_opened(self, phone: "Phone", card: "Card") -> None:
        self._note(phone, card, "opened")

    def _note(self, phone: "Phone", card: "Card", event: ReceiptKind) -> None:
        if phone.service == "apns":
            self._reporter.add(card.push_id, event)
        elif (session := self._sessions.get(phone.token)) is not None:
            self._reporter.add_of_session(card.push_id, session, event)

    def _credential(self, app: App, service: Literal["fcm", "webpush"]) -> Credential:
        """Return what an app sends to the twin with; it is made for the first phone of a kind."""
        apps = self._system.apps
        try:
            return apps.credential_for(app, "twin", service=service)
        except MissingCredentialError:
            made = make_service_account(app) if service == "fcm" else VapidKey.make()
            apps.add_credential(app, made, environment="twin")
            return made

    def _web_push_key(self, app_id: str) -> str | None:
        found = self._credential(self._system.apps.find(app_id), "webpush")
        return found.public_key if isinstance(found, VapidKey) else None

    def _android_of_app(self, app_id: str) -> tuple[str | None, str | None]:
        app = self._system.apps.find(app_id)
        found = self._credential(app, "fcm")
        project = found.project_id if isinstance(found, ServiceAccount) else None
        return project, app.android_package or app.bundle_id

    def _find_service_account(self, client_email: str) -> dict[str, str] | None:
        with suppress(HandbellError):
            found = self._system.apps.service_account(client_email)
            if found is not None:
                return {
                    "client_email": found.client_email,
                    "project_id": found.project_id,
                    "private_key_id": found.private_key_id,
                    "public_key": found.public_key_pem,
                }
        return None

    def _name_of_app(self, app_id: str) -> str | None:
        return next((app.name for app in self._system.apps.list() if app.id == app_id), None)

    def _find_key(self, team_id: str, key_id: str) -> str | None:
        with suppress(HandbellError):
            key = self._system.apps.auth_key(team_id, key_id)
            return None if key is None else key.public_key_pem
        return None


def _address(phone: "Phone") -> str | dict[str, Any]:
    """Return where a phone is reached, as its app tells the back end."""
    if phone.details is None:
        return phone.token
    return {"endpoint": phone.token, "keys": json.loads(phone.details)}


def without_twin(error: ModuleNotFoundError) -> TwinError:
    """Return the error for a twin without its dependencies."""
    return TwinError(
        f"The twin needs {error.name}, which is not installed",
        fix=install("twin"),
    )


def isolated_settings(home: Path) -> Settings:
    """Return settings for a separate home, whatever the environment says."""
    return Settings.load(
        home=home, database_url=f"sqlite:///{home.absolute() / DATABASE_FILE}", app=SAMPLE_APP
    )
