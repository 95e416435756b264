"""The stores of an installation: what reads and writes its database."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

from handbell.access.api_keys import ApiKeyStore
from handbell.access.audit import AuditTrail
from handbell.apps.installation_key import InstallationKey
from handbell.apps.reseal import Resealer
from handbell.apps.store import AppStore
from handbell.apps.templates import TemplateStore
from handbell.apps.vault import Vault
from handbell.clocks import MachineClock
from handbell.delivery.accept.send_store import SendStore
from handbell.delivery.ledger.erasure import Eraser
from handbell.delivery.ledger.receipts import ReceiptBook
from handbell.delivery.ledger.reports import Reports
from handbell.delivery.ledger.retention import Pruner
from handbell.delivery.ledger.status import StatusBoard
from handbell.delivery.ledger.store import Ledger
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.broker_address import BrokerAddress
from handbell.delivery.queue.broker_state import BrokerBoard
from handbell.delivery.queue.revocations import Revocations
from handbell.delivery.queue.sql_queue import Queue
from handbell.delivery.queue.workers import Workers
from handbell.delivery.record.write import Recorder
from handbell.delivery.webhooks.store import WebhookStore
from handbell.registry.identity import IdentityStore
from handbell.registry.listing import Directory
from handbell.registry.proofs import ProofStore
from handbell.registry.store import Registry
from handbell.service_endpoints import ServiceEndpoints
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.server_clock import ServerClock
from handbell.storage.shared_buckets import SharedBuckets

if TYPE_CHECKING:
    from handbell.access.operators import OperatorStore


class Stores:
    """The stores of one installation, each created on first use; they need no closing.

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
    def endpoints(self) -> ServiceEndpoints:
        """Return where push services are reached."""
        return ServiceEndpoints(self.settings, twin_folder=self.twin_folder)

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
            check_address=self.endpoints.check_address,
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
        return IdentityStore(
            self.database, self.vault, can_mail=self.settings.can_mail, now=self.now
        )

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

    @cached_property
    def queue(self) -> Queue:
        """Return the queue of due work."""
        return Queue(self.database, now=self.now)

    @cached_property
    def known_workers(self) -> Workers:
        """Return the workers of all processes."""
        return Workers(self.database, now=self.now, machine=self.machine)

    @cached_property
    def rules_store(self) -> RulesStore:
        """Return the store of apps' rules and waiting deliveries."""
        return RulesStore(self.database)

    @cached_property
    def reports(self) -> Reports:
        """Return the counts of notifications."""
        return Reports(self.database, now=self.now)

    @cached_property
    def status(self) -> StatusBoard:
        """Return what reads the status of the installation."""
        return StatusBoard(self.database, self.broker_board, now=self.now)

    @cached_property
    def broker_address(self) -> BrokerAddress | None:
        """Return where the broker is that hands out work, None where the rows alone do."""
        settings = self.settings
        if settings.engine is None:
            return None
        return BrokerAddress.read(
            settings.engine.get_secret_value(),
            credentials_file=settings.nats_credentials,
            ca_file=settings.nats_ca_file,
            replicas=settings.nats_replicas,
        )

    @cached_property
    def broker_board(self) -> BrokerBoard | None:
        """Return what looks at the broker from outside, None where there is none."""
        if self.broker_address is None:
            return None
        return BrokerBoard(self.broker_address, self.database, now=self.now)

    @cached_property
    def pruner(self) -> Pruner:
        """Return the pruner of the ledger's old rows."""
        return Pruner(self.database, keep_days=self.settings.keep_days, now=self.now)

    @cached_property
    def revocations(self) -> Revocations:
        """Return the revocations for workers of all processes."""
        return Revocations(self.database, self.known_workers)

    @cached_property
    def buckets(self) -> SharedBuckets:
        """Return the token buckets that all processes share."""
        return SharedBuckets(self.database, self.machine)
