"""Builds everything once: the only place that knows all parts."""

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from handbell.access.api_keys import ApiKeyStore
from handbell.access.audit import AuditTrail
from handbell.apps.app import App
from handbell.apps.checkup import Finding, check_credentials
from handbell.apps.credentials import AuthKey, Certificate, pack, unpack
from handbell.apps.store import AppStore, StoredCredential
from handbell.apps.templates import TemplateStore
from handbell.apps.vault import Vault
from handbell.clocks import MachineClock
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.creation.template import Template, read_use
from handbell.delivery.accept.preview import LanguagePreview, Preview, preview, preview_languages
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.delivery import GatewayName
from handbell.delivery.doctor import probe
from handbell.delivery.engine import Engine
from handbell.delivery.events import Hooks
from handbell.delivery.ledger.blockers import Obstacle, cautions, obstacles
from handbell.delivery.ledger.erasure import Eraser
from handbell.delivery.ledger.receipts import ReceiptBook
from handbell.delivery.ledger.reports import Reports
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.ledger.why import Story, why
from handbell.delivery.policy.app_rules import HELD_BY, STOPPED_BY, read_rules
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.revocations import Revocations
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.workers import Workers
from handbell.delivery.record.write import Recorder
from handbell.delivery.send.worker import Worker
from handbell.delivery.webhooks.safe_http import Outbound
from handbell.delivery.webhooks.sender import WebhookSender
from handbell.delivery.webhooks.store import WebhookStore
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.app_states import RULES_SECONDS
from handbell.delivery.work.composed import Composed
from handbell.errors import HandbellError, StorageError, TwinError
from handbell.fixes import Action, Fix
from handbell.gateways.apns.client import ApnsGateway, Endpoint
from handbell.gateways.apns.protocol import DEVELOPMENT_URL, PRODUCTION_URL
from handbell.gateways.gateway import Gateway
from handbell.gateways.simulator import SimulatorGateway
from handbell.registry.identity import IdentityStore, check_identity
from handbell.registry.listing import Directory
from handbell.registry.proofs import ProofStore
from handbell.registry.store import Registry
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.twin.discovery import read_address

if TYPE_CHECKING:
    from handbell.access.operators import OperatorStore

Credential = AuthKey | Certificate
ENVIRONMENTS: Final = ("production", "development", "twin")
_LEAST_SECONDS: Final = 0.1
_ANSWER_MARGIN_SECONDS: Final = 5.0


class System:
    """One Handbell: its database, its stores and its connections, each made when first needed.

    A system's gateways belong to the event loop in which they were first used. Close it in that
    loop; the stores alone need no closing.

    ``now`` is the wall's clock in UNIX seconds. Intervals go by ``clock`` within this process and
    by ``machine`` between those of one machine: neither is ever set.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time,
        clock: Callable[[], float] = monotonic,
        machine: MachineClock | None = None,
    ) -> None:
        self.settings = settings
        self.now = now
        self.clock = clock
        self.machine = machine or MachineClock.here()
        self._gateways: dict[tuple[str, str, Endpoint], ApnsGateway] = {}
        # Several threads ask for the way at once, and two connections would not be shared.
        self._gateways_lock = threading.Lock()

    @property
    def twin_folder(self) -> Path:
        """Where a twin keeps its certificates and says where it listens."""
        return self.settings.home / "twin"

    @cached_property
    def database(self) -> Database:
        """The database, brought up to date when it is first opened."""
        return Database.open(self.settings.database_url)

    @cached_property
    def vault(self) -> Vault:
        """What seals credentials."""
        return Vault.open(self.settings)

    @cached_property
    def apps(self) -> AppStore:
        """Apps and their credentials."""
        return AppStore(self.database, self.vault, now=self.now, clock=self.clock)

    @cached_property
    def api_keys(self) -> ApiKeyStore:
        """The keys of those who use the send server."""
        return ApiKeyStore(self.database, now=self.now, clock=self.clock)

    @cached_property
    def audit(self) -> AuditTrail:
        """Who changed what."""
        return AuditTrail(self.database, now=self.now)

    @cached_property
    def registry(self) -> Registry:
        """Users and sessions."""
        return Registry(self.database, most_sessions=self.settings.sessions_per_user, now=self.now)

    @cached_property
    def directory(self) -> Directory:
        """Users and sessions, page by page."""
        return Directory(self.database)

    @cached_property
    def proofs(self) -> ProofStore:
        """Mailed links by which people prove whose devices are."""
        return ProofStore(self.database, self.registry, now=self.now)

    @cached_property
    def identities(self) -> IdentityStore:
        """How each app's devices prove whose they are."""
        return IdentityStore(self.database, self.vault, can_mail=self.can_mail, now=self.now)

    @cached_property
    def receipts(self) -> ReceiptBook:
        """What devices say of notifications."""
        return ReceiptBook(self.database, now=self.now)

    @cached_property
    def eraser(self) -> Eraser:
        """What forgets a person."""
        return Eraser(self.database)

    @cached_property
    def operators(self) -> "OperatorStore":
        """Who signs in to the console."""
        from handbell.access.operators import OperatorStore  # noqa: PLC0415 - of the extra `server`

        return OperatorStore(self.database, now=self.now)

    @cached_property
    def templates(self) -> TemplateStore:
        """Templates of notifications."""
        return TemplateStore(self.database, now=self.now)

    @cached_property
    def ledger(self) -> Ledger:
        """Notifications and deliveries."""
        return Ledger(self.database, now=self.now)

    @cached_property
    def sends(self) -> SendStore:
        """What stores sends."""
        return SendStore(self.database, now=self.now)

    @cached_property
    def recorder(self) -> Recorder:
        """What writes the outcomes of deliveries."""
        return Recorder(self.database, now=self.now)

    @cached_property
    def webhooks(self) -> WebhookStore:
        """Addresses of the apps' own back ends that are told of events."""
        return WebhookStore(
            self.database,
            self.vault,
            allow_private=self.settings.webhook_allow_private,
            now=self.now,
        )

    @property
    def outbound(self) -> Outbound:
        """How webhooks are called."""
        return Outbound(
            allow_private=self.settings.webhook_allow_private,
            proxies=self.settings.webhook_proxies,
        )

    @cached_property
    def hooks(self) -> Hooks:
        """Who is told what happens."""
        return Hooks()

    @cached_property
    def queue(self) -> Queue:
        """The work that is due."""
        return Queue(self.database, now=self.now)

    @cached_property
    def known_workers(self) -> Workers:
        """Who works, of all processes."""
        return Workers(self.database, now=self.now, machine=self.machine)

    @cached_property
    def revocations(self) -> Revocations:
        """What workers of all processes are to let go of."""
        return Revocations(self.database, self.known_workers)

    @cached_property
    def rules_store(self) -> RulesStore:
        """The apps' rules, and who waits for them."""
        return RulesStore(self.database)

    @cached_property
    def reports(self) -> Reports:
        """What became of notifications, counted."""
        return Reports(self.database, now=self.now)

    @cached_property
    def pruner(self) -> Pruner:
        """What forgets the ledger's old rows."""
        return Pruner(self.database, keep_days=self.settings.keep_days, now=self.now)

    @cached_property
    def engine(self) -> Engine:
        """What accepts and sends; it belongs to the event loop in which it is first asked for."""
        worker = Worker(
            self.queue,
            ledger=self.ledger,
            recorder=self.recorder,
            known_workers=self.known_workers,
            revocations=self.revocations,
            jumps=ClockJumps(self.database, self.machine, now=self.now),
            rules_store=self.rules_store,
            find_gateway=self.find_gateway,
            drop_gateway=self.drop_gateway,
            load=self._load_composed,
            hooks=self.hooks,
            answer_seconds=self.settings.connect_timeout
            + self.settings.request_timeout
            + _ANSWER_MARGIN_SECONDS,
            now=self.now,
            clock=self.clock,
        )
        return Engine(
            sends=self.sends,
            ledger=self.ledger,
            registry=self.registry,
            worker=worker,
            revocations=self.revocations,
            find_gateway=self.find_gateway,
            seal=lambda key: self.vault.seal(pack(key)),
            make_sender=self._make_sender,
            pruner=self.pruner,
            now=self.now,
        )

    def find_gateway(
        self,
        app: App,
        key: Credential | None,
        name: GatewayName,
        environment: str,
        *,
        excluded: Collection[str] = (),
    ) -> Gateway:
        """Return the way for an app to an environment; ``key`` replaces the stored credentials.

        Of those, the ones whose fingerprints are in ``excluded`` come last. Raises
        MissingCredentialError or TwinError when there is none.
        """
        if name == "simulator":
            return SimulatorGateway(bundle_id=app.bundle_id)
        credential = key or self.apps.credential_for(app, environment, excluded=excluded)
        return self.apns(credential, environment)

    def preview(
        self, app: App, notification: Notification, recipients: Recipients
    ) -> list[Preview]:
        """Return the exact requests that a send would make; of everybody, the first ones."""
        return preview(
            app,
            notification,
            self.engine.plan(app, recipients),
            describe_host=self.describe_host,
            has_token=lambda environment: self._has_token(app, environment),
            now=self.now(),
        )

    def _has_token(self, app: App, environment: str) -> bool:
        """Return whether an app proves itself by a provider token there, as it would with none."""
        try:
            return not isinstance(self.apps.credential_for(app, environment), Certificate)
        except HandbellError:
            return True

    def read_notification(self, app: App, value: object) -> Notification:
        """Return the notification that was written, or that one of the app's templates makes.

        A mapping with ``template`` names it and gives its ``variables``; what else is in it wins
        over the template's own. Raises NotificationError, TemplateError or UnknownTemplateError.
        """
        use = read_use(value)
        return Notification.read(value) if use is None else self.templates.render(app, *use)

    def preview_template(
        self,
        app: App,
        template: Template | str,
        variables: Mapping[str, Any],
        beside: Mapping[str, Any] | None = None,
    ) -> list[LanguagePreview]:
        """Return what a template comes to in each language, its default language first.

        ``template`` is a stored one's name, or one that is not stored. Raises TemplateError for a
        variable that is missing or not known.
        """
        if isinstance(template, str):
            template = self.templates.get(app, template).template
        notification = template.render(variables, beside)
        own, *others = self.preview_languages(app, notification)
        language = template.default_language
        # It stands among the others where one of its parents does; it is told once.
        return [
            replace(own, language=language),
            *(other for other in others if other.language != language),
        ]

    def preview_languages(self, app: App, notification: Notification) -> list[LanguagePreview]:
        """Return what each language of a notification comes to; see delivery.preview."""
        return preview_languages(app, notification, now=self.now())

    def _make_sender(self) -> WebhookSender | None:
        if not self.webhooks.list():
            return None
        return WebhookSender(
            self.database, self.vault, outbound=self.outbound, now=self.now, clock=self.clock
        )

    def why(self, app: App, mail: str) -> Story:
        """Return why a person saw the last notifications, or did not; see delivery.why."""
        return why(
            app,
            mail,
            registry=self.registry,
            ledger=self.ledger,
            rules_store=self.rules_store,
            known_workers=self.known_workers,
            now=self.now(),
        )

    def obstacles(self, app: App) -> list[Obstacle]:
        """Return what holds up everything that an app sends; see delivery.obstacles."""
        return obstacles(
            app,
            self.rules_store.rules_of(app.id),
            now=self.now(),
            workers=self.known_workers.live_workers(),
            has_key=bool(self.apps.credentials(app)),
        )

    def cautions(self, app: App) -> list[Obstacle]:
        """Return which of an app's keys are refused while others are used in their place."""
        return cautions(app, self.rules_store.rules_of(app.id))

    def set_rules(self, app: App, rules: Mapping[str, str]) -> None:
        """Set an app's rules by the texts of an operator; ``none`` removes one.

        What waits because of a rule that changed is looked at again within seconds. Raises AppError
        for a text that cannot be read; nothing is changed then.
        """
        self.apps.set_rules(app, read_rules(rules))
        self._look_again(app, frozenset().union(*(HELD_BY[name] for name in rules)))

    @property
    def can_mail(self) -> bool:
        """Whether the settings name a mail server and a sender."""
        return self.settings.smtp_url is not None and self.settings.mail_from is not None

    def switch(self, app: App, is_enabled: bool) -> App:  # noqa: FBT001 - the switch's position
        """Switch an app on or off and return it; what waited goes on within seconds."""
        switched = self.apps.set_enabled(app, is_enabled)
        self._look_again(app, {"AppDisabled"} if is_enabled else ())
        return switched

    def resume(self, app: App) -> bool:
        """Close an app's circuits by hand, and say whether one was open.

        What waited because of it goes on within seconds.
        """
        was_stopped = self.rules_store.resume(app.id)
        self._look_again(app, STOPPED_BY)
        self.rules_store.hurry_broadcasts(app.id, self._soon)
        return was_stopped

    def _look_again(self, app: App, reasons: Collection[str]) -> None:
        if reasons:
            self.rules_store.hurry(app.id, reasons, self._soon)

    @property
    def _soon(self) -> float:
        # Workers know the rules of some seconds ago; what they would hold again comes after that.
        return self.now() + RULES_SECONDS + 1

    def app_of(self, notification_id: str) -> App:
        """Return the app of a notification. Raises RegistryError when there is no such one."""
        return self._app(self.reports.app_id_of(notification_id))

    def _app(self, app_id: str) -> App:
        named = App.read_id(app_id)
        return next((known for known in self.apps.list() if known.id == named.id), named)

    def _load_composed(
        self, rows: Sequence[int], app_state_of: Callable[[App], AppState]
    ) -> dict[int, Composed | Exception]:
        known = {app.id: app for app in self.apps.list()}
        loaded: dict[int, Composed | Exception] = {}
        for stored in self.ledger.rows(rows):
            try:
                app = known.get(stored.app) or App.read_id(stored.app)
                sealed = stored.sealed_key
                key = None if sealed is None else unpack(self.vault.unseal(sealed))
                loaded[stored.id] = Composed.read(stored, app_state_of(app), key)
            except Exception as error:  # noqa: BLE001 - the others have no part in it
                loaded[stored.id] = error
        return loaded

    def apns(self, credential: Credential, environment: str) -> ApnsGateway:
        """Return the gateway for a credential and an environment; the same one each time.

        Raises TwinError for the environment ``twin`` while no twin is running.
        """
        endpoint = self.endpoint(environment)
        key = (credential.fingerprint, environment, endpoint)
        with self._gateways_lock:
            if key not in self._gateways:
                self._gateways[key] = ApnsGateway(
                    credential=credential,
                    endpoints={environment: endpoint},
                    connections=self.settings.connections,
                    in_flight=self.settings.in_flight,
                    connect_timeout=self.settings.connect_timeout,
                    request_timeout=self.settings.request_timeout,
                    now=self.now,
                    seconds=self.machine.seconds,
                )
            return self._gateways[key]

    async def drop_gateway(self, gateway: Gateway) -> None:
        """Close a gateway that nothing is sent by any more; whoever asks again gets another."""
        with self._gateways_lock:
            places = [place for place, one in self._gateways.items() if one is gateway]
            for place in places:
                del self._gateways[place]
        if places:
            await gateway.close()

    def endpoint(self, environment: str) -> Endpoint:
        """Return where an environment is reached, and which authority vouches for it."""
        if environment in self._apples:
            return self._apples[environment]
        address = read_address(self.twin_folder)
        if address is None:
            raise TwinError(
                "The twin is not running",
                fix=Fix(Action.START_TWIN, "Start it in another terminal"),
            )
        return Endpoint(address.production_url, Path(address.ca_file))

    @cached_property
    def _apples(self) -> dict[str, Endpoint]:
        settings, proxies = self.settings, self.settings.proxies
        urls = {
            "production": settings.apns_production_url or PRODUCTION_URL,
            "development": settings.apns_development_url or DEVELOPMENT_URL,
        }
        return {
            environment: Endpoint(url, settings.apns_ca_file, proxy=proxies.to(url))
            for environment, url in urls.items()
        }

    async def check_up(self, app: App) -> list[Finding]:
        """Return what is right and wrong about an app's configuration; see delivery.doctor."""
        stored = self.apps.credentials(app)
        unusable = self.apps.unusable(app)
        findings = list(check_credentials(app, stored, now=self.now(), unusable=unusable))
        findings += check_identity(self.identities.of(app), can_mail=self.can_mail)
        usable = [item for item in stored if item.key_id not in unusable]
        if not usable:
            return findings
        serving = {name: _serving(name, usable) for name in ENVIRONMENTS}
        return findings + await probe(
            app,
            {environment: found for environment, found in serving.items() if found},
            lambda environment, key_id: self.apns(self.apps.credential(app, key_id), environment),
        )

    @property
    def connections(self) -> int:
        """How many connections to push services are open."""
        return sum(gateway.connections for gateway in list(self._gateways.values()))

    @property
    def in_flight(self) -> int:
        """How many pushes this process has on the wire."""
        engine = self.__dict__.get("engine")
        return 0 if engine is None else engine.worker.app_states.in_flight

    def describe_host(self, environment: str) -> str:
        """Return the address of an environment, also while the twin is not running."""
        try:
            return self.endpoint(environment).url
        except TwinError:
            return "https://(the twin, not running)"

    async def close_gateways(self, *, within: float | None = None) -> None:
        """Finish what is in flight, give back the rest, and close every connection.

        What is in flight longer than ``within`` seconds is given back, too.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if (engine := self.__dict__.pop("engine", None)) is not None:
                await engine.stop(within=within)
        finally:
            gateways, self._gateways = list(self._gateways.values()), {}
            left = None if within is None else max(_LEAST_SECONDS, within - loop.time() + began)
            await asyncio.gather(*(gateway.close(within=left) for gateway in gateways))

    async def close(self, *, within: float | None = None) -> None:
        """Finish what is in flight and close every connection and the database."""
        try:
            await self.close_gateways(within=within)
        finally:
            if "database" in self.__dict__:
                self.database.close()

    def abandon(self) -> None:
        """Give back what was taken, and close the database, once the event loop is closed.

        Where the database takes nothing, others take it over once the worker does not beat.
        """
        engine: Engine | None = self.__dict__.pop("engine", None)
        with suppress(StorageError):
            if engine is not None and engine.worker.id:
                self.known_workers.retire(engine.worker.id)
        if "database" in self.__dict__:
            self.database.close()


def _serving(environment: str, stored: list[StoredCredential]) -> list[StoredCredential]:
    return [
        item
        for item in stored
        if item.environment == environment or (item.environment is None and environment != "twin")
    ]
