"""Build and connect all parts: the only place that knows every one of them."""

import asyncio
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING, Any, Final

from handbell._thread_pool import in_thread
from handbell.access.api_keys import ApiKeyStore
from handbell.access.audit import AuditTrail
from handbell.apps.app import App
from handbell.apps.app_services import services_of
from handbell.apps.checkup import Finding, check_credentials, check_web_push
from handbell.apps.credential_kinds import KINDS, Credential, kind_of
from handbell.apps.installation_key import InstallationKey
from handbell.apps.reseal import Resealer
from handbell.apps.store import AppStore, StoredCredential
from handbell.apps.templates import TemplateStore
from handbell.apps.vault import Vault
from handbell.clocks import MachineClock
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.creation.template import Template, read_template_use
from handbell.delivery.accept.preview import (
    LanguagePreview,
    Preview,
    ServicePreview,
    preview,
    preview_languages,
    preview_services,
)
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.delivery import GatewayName
from handbell.delivery.doctor import ProbedGateway, Serving, check_signals, probe
from handbell.delivery.engine import Engine
from handbell.delivery.events import Hooks
from handbell.delivery.ledger.blockers import Blocker, cautions, obstacles
from handbell.delivery.ledger.erasure import Eraser
from handbell.delivery.ledger.receipts import ReceiptBook
from handbell.delivery.ledger.reports import Reports
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.status import StatusBoard
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.ledger.why import Story, why
from handbell.delivery.observe.recent import Recent
from handbell.delivery.policy.app_rules import HELD_BY, read_rules, stopped_by
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.broker_address import BrokerAddress
from handbell.delivery.queue.cap_claims import CapClaims
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.nodes import NodeKind, Presence
from handbell.delivery.queue.revocations import Revocations
from handbell.delivery.queue.signal_listener import SignalListener
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.sql_work_queue import SqlWorkQueue
from handbell.delivery.queue.work_queue import WorkQueue
from handbell.delivery.queue.workers import Workers
from handbell.delivery.record.write import Recorder
from handbell.delivery.send.worker import Worker
from handbell.delivery.webhooks.safe_http import OutboundOptions
from handbell.delivery.webhooks.sender import WebhookSender
from handbell.delivery.webhooks.store import WebhookStore
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.app_states import RULES_SECONDS
from handbell.delivery.work.composed import Composed
from handbell.errors import HandbellError, StorageError
from handbell.gateway_pool import GatewayPool
from handbell.gateways.apns.client import ApnsGateway
from handbell.gateways.fcm.client import FcmGateway
from handbell.gateways.gateway import Gateway
from handbell.gateways.simulator import SimulatorGateway
from handbell.registry.identity import IdentityStore, check_identity
from handbell.registry.listing import Directory
from handbell.registry.proofs import ProofStore
from handbell.registry.store import Registry
from handbell.services.apns.credential import Certificate, pack, unpack
from handbell.services.forms import forms_of
from handbell.services.table import SERVICES
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.server_clock import ServerClock
from handbell.storage.shared_buckets import SharedBuckets
from handbell.storage.signals import Kind

if TYPE_CHECKING:
    from handbell.access.operators import OperatorStore

_PROBED: Final = ("apns", "fcm")
"""The services that can be asked whether they take a credential, without anybody's address."""
_LEAST_SECONDS: Final = 0.1
_ANSWER_MARGIN_SECONDS: Final = 5.0


class System:
    """A Handbell system: database, stores and connections, each created on first use.

    A system's gateways belong to the event loop in which they were first used. Close it in that
    loop; the stores alone need no closing.

    ``now`` is the wall clock in UNIX seconds. On a database server, its clock takes the place of
    ``now`` (:class:`~handbell.storage.server_clock.ServerClock`), so that all machines agree;
    ``has_own_time`` keeps ``now`` even so. Intervals are measured by ``clock`` within this process
    and by ``machine`` between processes of one machine: both are monotonic.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        now: Callable[[], float] = time,
        clock: Callable[[], float] = monotonic,
        machine: MachineClock | None = None,
        has_own_time: bool = False,
    ) -> None:
        self.settings = settings
        self._wall_clock = now
        self._has_own_time = has_own_time
        self.clock = clock
        self.machine = machine or MachineClock.here()
        self._node_kind: NodeKind = "worker"
        self._figures: Callable[[], Mapping[str, float]] = dict

    @cached_property
    def now(self) -> Callable[[], float]:
        """Return the wall clock that everything here goes by, in UNIX seconds."""
        if self._has_own_time or self.settings.database_url.startswith("sqlite"):
            return self._wall_clock
        return ServerClock(lambda: self.database, self.machine)

    @property
    def twin_folder(self) -> Path:
        """Return the folder of a twin's certificates and address file."""
        return self.settings.home / "twin"

    @cached_property
    def gateways(self) -> GatewayPool:
        """Return the clients of push services."""
        return GatewayPool(
            self.settings,
            twin_folder=self.twin_folder,
            now=self.now,
            seconds=self.machine.seconds,
        )

    @cached_property
    def database(self) -> Database:
        """Return the database, migrated when it is first opened."""
        direct = self.settings.signals_url
        signals_url = "" if direct is None else direct.get_secret_value()
        return Database.open(self.settings.database_url, signals_url=signals_url)

    @cached_property
    def vault(self) -> Vault:
        """Return the vault, which encrypts credentials: with the installation's key alone."""
        return Vault.open(self.settings, find_note=self._find_note)

    @cached_property
    def installation_key(self) -> InstallationKey:
        """Return what tells whether this machine has the installation's secret key."""
        return InstallationKey(self.database, Vault.open(self.settings))

    def _find_note(self) -> bytes:
        return self.installation_key.note()

    def _check_key(self) -> None:
        self.installation_key.check_once()

    @cached_property
    def apps(self) -> AppStore:
        """Return the store of apps and their credentials."""
        return AppStore(self.database, self.vault, now=self.now, clock=self.clock)

    @property
    def resealer(self) -> Resealer:
        """Return what replaces the installation's secret key."""
        return Resealer(self.database, self.vault, self.installation_key)

    @cached_property
    def api_keys(self) -> ApiKeyStore:
        """Return the store of API keys."""
        return ApiKeyStore(self.database, now=self.now, clock=self.clock)

    @cached_property
    def audit(self) -> AuditTrail:
        """Return the audit trail."""
        return AuditTrail(self.database, now=self.now)

    @cached_property
    def registry(self) -> Registry:
        """Return the store of users and sessions."""
        return Registry(
            self.database,
            most_sessions=self.settings.sessions_per_user,
            check_address=self.gateways.check_address,
            now=self.now,
        )

    @cached_property
    def directory(self) -> Directory:
        """Return the paginated lists of users and sessions."""
        return Directory(self.database)

    @cached_property
    def proofs(self) -> ProofStore:
        """Return the store of mailed links, which prove the owner of a device."""
        return ProofStore(self.database, self.registry, now=self.now)

    @cached_property
    def identities(self) -> IdentityStore:
        """Return the store of apps' proofs of identity."""
        return IdentityStore(self.database, self.vault, can_mail=self.can_mail, now=self.now)

    @cached_property
    def receipts(self) -> ReceiptBook:
        """Return the store of receipts, devices' reports on notifications."""
        return ReceiptBook(self.database, now=self.now)

    @cached_property
    def eraser(self) -> Eraser:
        """Return what erases a person."""
        return Eraser(self.database)

    @cached_property
    def operators(self) -> "OperatorStore":
        """Return the store of operators."""
        from handbell.access.operators import OperatorStore  # noqa: PLC0415 - of the extra `server`

        return OperatorStore(self.database, now=self.now)

    @cached_property
    def templates(self) -> TemplateStore:
        """Return the store of templates."""
        return TemplateStore(self.database, now=self.now)

    @cached_property
    def ledger(self) -> Ledger:
        """Return the store of notifications and deliveries."""
        return Ledger(self.database, now=self.now)

    @cached_property
    def sends(self) -> SendStore:
        """Return the store of sends."""
        return SendStore(self.database, now=self.now)

    @cached_property
    def recorder(self) -> Recorder:
        """Return what writes outcomes of deliveries."""
        return Recorder(self.database, now=self.now)

    @cached_property
    def webhooks(self) -> WebhookStore:
        """Return the store of webhooks."""
        return WebhookStore(
            self.database,
            self.vault,
            allow_private=self.settings.webhook_allow_private,
            now=self.now,
        )

    @property
    def outbound(self) -> OutboundOptions:
        """Return the HTTP client of webhooks."""
        return OutboundOptions(
            allow_private=self.settings.webhook_allow_private,
            proxies=self.settings.webhook_proxies,
        )

    @cached_property
    def hooks(self) -> Hooks:
        """Return the hooks on events."""
        return Hooks()

    @cached_property
    def queue(self) -> Queue:
        """Return the queue of due work."""
        return Queue(self.database, now=self.now)

    @cached_property
    def work_queue(self) -> WorkQueue:
        """Return what hands out due work; a broker's belongs to the event loop of its first use."""
        settings = self.settings
        if settings.engine is None:
            return SqlWorkQueue(self.queue, self.known_workers)
        from handbell.delivery.queue.nats_work_queue import nats_work_queue  # noqa: PLC0415 - extra

        address = BrokerAddress.read(
            settings.engine.get_secret_value(),
            credentials_file=settings.nats_credentials,
            ca_file=settings.nats_ca_file,
            replicas=settings.nats_replicas,
        )
        return nats_work_queue(address, self.database, self.queue, self.known_workers, now=self.now)

    @cached_property
    def known_workers(self) -> Workers:
        """Return the workers of all processes."""
        return Workers(self.database, now=self.now, machine=self.machine)

    @cached_property
    def presence(self) -> Presence:
        """Return this process's row among the nodes."""
        return Presence(
            self.database,
            kind=self._node_kind,
            figures=self._figures,
            secret_keys=self.installation_key.follow,
            now=self.now,
        )

    def run_as(self, kind: NodeKind) -> None:
        """Be a node of a kind, which counts what it does; call it before anything is sent.

        A program that sends by the library is a worker, and not slowed down by counting.
        """
        recent = Recent(self.clock)
        self.hooks.add(recent)
        self._node_kind, self._figures = kind, recent.figures

    @cached_property
    def status(self) -> StatusBoard:
        """Return what reads the status of the installation."""
        return StatusBoard(self.database, now=self.now)

    @cached_property
    def revocations(self) -> Revocations:
        """Return the revocations for workers of all processes."""
        return Revocations(self.database, self.known_workers)

    @cached_property
    def buckets(self) -> SharedBuckets:
        """Return the token buckets that all processes share."""
        return SharedBuckets(self.database, self.machine)

    @cached_property
    def signals(self) -> SignalListener:
        """Return what hears of changes in the database; it belongs to the engine's event loop."""
        signals = SignalListener(lambda: self.database.signals)
        signals.on(Kind.RULES, lambda _: self._forget())
        return signals

    def _forget(self) -> None:
        self.apps.forget()
        self.api_keys.forget()

    @cached_property
    def rules_store(self) -> RulesStore:
        """Return the store of apps' rules and waiting deliveries."""
        return RulesStore(self.database)

    @cached_property
    def reports(self) -> Reports:
        """Return the counts of notifications."""
        return Reports(self.database, now=self.now)

    @cached_property
    def pruner(self) -> Pruner:
        """Return the pruner of the ledger's old rows."""
        return Pruner(self.database, keep_days=self.settings.keep_days, now=self.now)

    @cached_property
    def engine(self) -> Engine:
        """Return the engine; it belongs to the event loop of its first use."""
        worker = Worker(
            self.work_queue,
            backlog=self.queue,
            ledger=self.ledger,
            recorder=self.recorder,
            known_workers=self.known_workers,
            revocations=self.revocations,
            jumps=ClockJumps(self.database, self.machine, now=self.now),
            on_beat=self.presence.beat,
            on_place=self.gateways.share_connections if self.settings.total_connections else None,
            rules_store=self.rules_store,
            buckets=self.buckets,
            cap_claims=CapClaims(self.database),
            signals=self.signals,
            find_gateway=self.find_gateway,
            drop_gateway=self.gateways.drop,
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
            signals=self.signals,
            find_gateway=self.find_gateway,
            seal=lambda key: self.vault.seal(pack(key)),
            hold_templates=self.templates.held,
            before_start=self._check_key,
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
        """Return an app's gateway to an environment; ``key`` replaces credentials of its service.

        Of those, the ones whose fingerprints are in ``excluded`` come last. Raises
        MissingCredentialError or TwinError when there is none.
        """
        if name == "simulator":
            return SimulatorGateway(bundle_id=app.apple.bundle_id)
        credential: Credential
        if key is not None and KINDS[kind_of(key)].service == name:
            credential = key
        else:
            credential = self.apps.credential_for(app, environment, service=name, excluded=excluded)
        return self.gateways.gateway(credential, environment)

    def preview(
        self, app: App, notification: Notification, recipients: Recipients
    ) -> list[Preview]:
        """Return the requests that a send would make; for everybody, the first ones."""
        return preview(
            app,
            notification,
            self.engine.plan(app, recipients),
            describe_host=self.gateways.describe_host,
            has_token=lambda environment: self._has_token(app, environment),
            project_of=lambda environment: self._project_of(app, environment),
            now=self.now(),
        )

    def _has_token(self, app: App, environment: str) -> bool:
        """Return whether an app uses a provider token there, or has no credential."""
        try:
            return not isinstance(self.apps.credential_for(app, environment), Certificate)
        except HandbellError:
            return True

    def _project_of(self, app: App, environment: str) -> str | None:
        """Return the project at Google that an app sends by there, None without a credential."""
        try:
            return self.apps.credential_for(app, environment, service="fcm").project_id
        except HandbellError:
            return None

    def read_notification(self, app: App, value: object) -> Notification:
        """Parse a notification, or render one of the app's templates.

        A mapping with ``template`` names it and gives its ``variables``; its other members
        override the template's. Raises NotificationError, TemplateError or UnknownTemplateError.
        """
        use = read_template_use(value)
        return Notification.read(value) if use is None else self.templates.render(app, *use)

    def preview_template(
        self,
        app: App,
        template: Template | str,
        variables: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
    ) -> list[LanguagePreview]:
        """Render a template in each language, its default language first.

        ``template`` is a stored one's name, or an unstored template. Raises TemplateError for a
        variable that is missing or unknown.
        """
        if isinstance(template, str):
            template = self.templates.get(app, template).template
        notification = template.render(variables, overrides)
        own, *others = self.preview_languages(app, notification)
        language = template.default_language
        # One of its parents is among the others; it is reported once.
        return [
            replace(own, language=language),
            *(other for other in others if other.language != language),
        ]

    def preview_languages(self, app: App, notification: Notification) -> list[LanguagePreview]:
        """Return each language of a notification as composed for the app's first push service."""
        service = next(iter(self.services_of(app)), "apns")
        return preview_languages(app, notification, form=service, now=self.now())

    def preview_services(self, app: App, notification: Notification) -> list[ServicePreview]:
        """Return a notification as each push service of an app carries it; Apple's for none."""
        return preview_services(app, notification, self.forms_of(app), now=self.now())

    def forms_of(self, app: App) -> list[str]:
        """Return the forms in which an app's devices may get a notification, at least one.

        They are those of the services that it is set up for; a variant where it has sessions of it.
        """
        services = self.services_of(app) or ["apns"]
        held = self.sends.other_forms(app) if "fcm" in services else []
        return [
            form
            for service in services
            for form in forms_of(service)
            if form == service or form in held
        ]

    def services_of(self, app: App) -> list[str]:
        """Return the push services that an app is set up for, in their order."""
        return services_of(app, [] if app.row is None else self.apps.credentials(app))

    def _make_sender(self) -> WebhookSender | None:
        if not self.webhooks.list():
            return None
        return WebhookSender(
            self.database, self.vault, outbound=self.outbound, now=self.now, clock=self.clock
        )

    def why(self, app: App, mail: str) -> Story:
        """Explain why a person saw the last notifications or did not; see delivery.ledger.why."""
        return why(
            app,
            mail,
            registry=self.registry,
            ledger=self.ledger,
            rules_store=self.rules_store,
            known_workers=self.known_workers,
            now=self.now(),
        )

    def obstacles(self, app: App) -> list[Blocker]:
        """Return what blocks all sends of an app; see delivery.ledger.blockers."""
        return obstacles(
            app,
            self.rules_store.rules_of(app.id),
            now=self.now(),
            workers=self.known_workers.live_workers(),
            has_key=bool(self.apps.credentials(app)),
        )

    def cautions(self, app: App) -> list[Blocker]:
        """Return the refused keys of an app that others replace."""
        return cautions(app, self.rules_store.rules_of(app.id))

    def set_rules(self, app: App, rules: Mapping[str, str]) -> None:
        """Set an app's rules from an operator's texts; ``none`` removes one.

        Deliveries held by a changed rule are checked again within seconds. Raises AppError for an
        invalid text; nothing is changed then.
        """
        self.apps.set_rules(app, read_rules(rules))
        self._look_again(app, frozenset().union(*(HELD_BY[name] for name in rules)))

    @property
    def can_mail(self) -> bool:
        """Return whether the settings name a mail server and a sender."""
        return self.settings.smtp_url is not None and self.settings.mail_from is not None

    def switch(self, app: App, is_enabled: bool) -> App:  # noqa: FBT001 - the switch's position
        """Enable or disable an app and return it; held deliveries resume within seconds."""
        switched = self.apps.set_enabled(app, is_enabled)
        self._look_again(app, {"AppDisabled"} if is_enabled else ())
        return switched

    def resume(self, app: App) -> bool:
        """Close an app's circuits by hand; return whether one was open.

        Deliveries held by it resume within seconds.
        """
        was_stopped = self.rules_store.resume(app.id)
        self._look_again(app, stopped_by())
        self.rules_store.resume_broadcasts(app.id, self._soon)
        return was_stopped

    def _look_again(self, app: App, reasons: Collection[str]) -> None:
        if reasons:
            self.rules_store.make_due(app.id, reasons, self._soon)

    @property
    def _soon(self) -> float:
        # Workers cache rules for some seconds; after that they would not hold these again.
        return self.now() + RULES_SECONDS + 1

    def app_of(self, notification_id: str) -> App:
        """Return the app of a notification. Raises RegistryError for an unknown one."""
        return self._app(self.reports.app_id_of(notification_id))

    def _app(self, app_id: str) -> App:
        named = App.read_id(app_id)
        return self.apps.by_ids([named.id]).get(named.id, named)

    def _load_composed(
        self, rows: Sequence[int], app_state_of: Callable[[App], AppState]
    ) -> dict[int, Composed | Exception]:
        loaded: dict[int, Composed | Exception] = {}
        found = self.ledger.rows(rows)
        known = self.apps.by_ids({stored.app for stored in found})
        for stored in found:
            try:
                app = known.get(stored.app) or App.read_id(stored.app)
                sealed = stored.sealed_key
                key = None if sealed is None else unpack(self.vault.unseal(sealed))
                loaded[stored.id] = Composed.read(stored, app_state_of(app), key)
            except Exception as error:  # noqa: BLE001 - the others have no part in it
                loaded[stored.id] = error
        return loaded

    async def check_up(self, app: App) -> list[Finding]:
        """Check an app's configuration; see delivery.doctor."""
        stored = self.apps.credentials(app)
        unusable = self.apps.unusable(app)
        findings = list(check_credentials(app, stored, now=self.now(), unusable=unusable))
        findings += check_web_push(
            app,
            stored,
            contact=self.settings.web_push_contact,
            hosts=self.settings.web_push_hosts,
        )
        findings += check_identity(self.identities.of(app), can_mail=self.can_mail)
        if self.database.path is None:
            findings.append(await in_thread(check_signals, self.database.signals))
        serving = [
            Serving(name, environment, found)
            for name in _PROBED
            for environment in SERVICES[name].environments
            if (found := _serving(name, environment, stored, unusable))
        ]
        return findings + await probe(app, serving, partial(self._probed, app))

    def _probed(self, app: App, environment: str, key_id: str) -> ProbedGateway:
        gateway = self.gateways.gateway(self.apps.credential(app, key_id), environment)
        assert isinstance(gateway, ApnsGateway | FcmGateway)  # noqa: S101 - of _PROBED
        return gateway

    @property
    def connections(self) -> int:
        """Return the number of open connections to push services."""
        return self.gateways.connections

    @property
    def in_flight(self) -> int:
        """Return how many pushes this process has on the wire."""
        engine = self.__dict__.get("engine")
        return 0 if engine is None else engine.worker.app_states.in_flight

    async def close_gateways(self, *, within: float | None = None) -> None:
        """Finish pushes in flight, give back the rest, and close every connection.

        Pushes in flight after ``within`` seconds are given back too.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            if (engine := self.__dict__.pop("engine", None)) is not None:
                self.__dict__.pop("signals", None)
                await engine.stop(within=within)
            if (work_queue := self.__dict__.pop("work_queue", None)) is not None:
                await work_queue.close()
            if (presence := self.__dict__.pop("presence", None)) is not None:
                with suppress(StorageError):
                    await in_thread(presence.end)
        finally:
            left = None if within is None else max(_LEAST_SECONDS, within - loop.time() + began)
            if (gateways := self.__dict__.get("gateways")) is not None:
                await gateways.close(within=left)

    async def close(self, *, within: float | None = None) -> None:
        """Finish pushes in flight and close every connection and the database."""
        try:
            await self.close_gateways(within=within)
        finally:
            if "database" in self.__dict__:
                self.database.close()

    def abandon(self) -> None:
        """Give back leased work and close the database, after the event loop is closed.

        If the database fails, others take the work over when the worker's heartbeat ends.
        """
        engine: Engine | None = self.__dict__.pop("engine", None)
        with suppress(StorageError):
            if engine is not None and engine.worker.id:
                self.known_workers.retire(engine.worker.id)
            if "presence" in self.__dict__:
                self.presence.end()
        if "database" in self.__dict__:
            self.database.close()


def _serving(
    service: str, environment: str, stored: list[StoredCredential], unusable: Container[str]
) -> list[StoredCredential]:
    return [
        item
        for item in stored
        if item.service == service
        and item.key_id not in unusable
        and (item.environment or environment) == environment
        and (item.environment is not None or environment != "twin")
    ]
