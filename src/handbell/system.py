"""Build and connect all parts: the only place that knows every one of them."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final

from handbell._thread_pool import in_thread
from handbell.apps.app import App
from handbell.apps.credential_kinds import KINDS, Credential, kind_of
from handbell.creation.recipients import Recipients
from handbell.delivery.accept.previewer import Previewer
from handbell.delivery.accept.resolve import ResolvedRecipients
from handbell.delivery.delivery import GatewayName
from handbell.delivery.doctor import Doctor
from handbell.delivery.engine import Engine
from handbell.delivery.events import Hooks
from handbell.delivery.ledger.app_control import AppControl
from handbell.delivery.ledger.why import Story, why
from handbell.delivery.observe.recent import Recent
from handbell.delivery.queue.cap_claims import CapClaims
from handbell.delivery.queue.clock_jumps import ClockJumps
from handbell.delivery.queue.nodes import NodeKind, Presence
from handbell.delivery.queue.signal_listener import SignalListener
from handbell.delivery.queue.sql_work_queue import SqlWorkQueue
from handbell.delivery.queue.work_queue import WorkQueue
from handbell.delivery.send.graceful_shutdown import HAND_BACK_SECONDS
from handbell.delivery.send.worker import Worker
from handbell.delivery.webhooks.safe_http import OutboundOptions
from handbell.delivery.webhooks.sender import WebhookSender
from handbell.delivery.work.app_state import AppState
from handbell.delivery.work.composed import Composed
from handbell.errors import StorageError
from handbell.gateway_pool import GatewayPool
from handbell.gateways.gateway import Gateway
from handbell.gateways.simulator import SimulatorGateway
from handbell.services.apns.credential import pack, unpack
from handbell.storage.signals import Kind
from handbell.stores import Stores

if TYPE_CHECKING:
    from handbell.delivery.queue.broker import Broker

_LEAST_SECONDS: Final = 0.1
ANSWER_MARGIN_SECONDS: Final = 5.0
"""How much longer than its time-outs a push may take until its answer is given up."""


class System(Stores):
    """A Handbell system: its stores, and what sends, each created on first use.

    A system's gateways belong to the event loop in which they were first used. Close it in that
    loop; the stores alone need no closing. The arguments are those of :class:`Stores`.
    """

    _node_kind: NodeKind = "worker"
    _is_node = False
    _figures: Callable[[], Mapping[str, float]] = staticmethod(dict)

    @cached_property
    def gateways(self) -> GatewayPool:
        """Return the clients of push services."""
        return GatewayPool(
            self.settings,
            endpoints=self.endpoints,
            now=self.now,
            seconds=self.machine.seconds,
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
    def work_queue(self) -> WorkQueue:
        """Return what hands out due work; a broker's belongs to the event loop of its first use."""
        if self.broker is None:
            return SqlWorkQueue(self.queue, self.known_workers)
        from handbell.delivery.queue.nats_work_queue import nats_work_queue  # noqa: PLC0415 - extra

        return nats_work_queue(
            self.broker, self.database, self.queue, self.known_workers, now=self.now
        )

    @cached_property
    def broker(self) -> "Broker | None":
        """Return this process's connection to the broker; it connects at its first use."""
        if self.broker_address is None:
            return None
        from handbell.delivery.queue.broker import Broker  # noqa: PLC0415 - of the extra `nats`

        return Broker(self.broker_address, now=self.now)

    @property
    def broker_away_since(self) -> float | None:
        """Return since when the broker does not answer this process, in UNIX seconds."""
        return None if self.broker is None else self.broker.away_since

    @cached_property
    def presence(self) -> Presence:
        """Return this process's row among the nodes."""
        return Presence(
            self.database,
            kind=self._node_kind,
            figures=self._figures,
            secret_keys=self.installation_key.follow,
            broker_away_since=lambda: self.broker_away_since,
            now=self.now,
        )

    def run_as(self, kind: NodeKind) -> None:
        """Be a node of a kind, which counts what it does; call it before anything is sent.

        It stops within seconds, and leaves to others what is not on the wire by then. A program
        that sends by the library is a worker, not slowed down by counting, and sends all of it.
        """
        recent = Recent(self.clock)
        self.hooks.add(recent)
        self._node_kind, self._figures = kind, recent.figures
        self._is_node = True

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
    def previewer(self) -> Previewer:
        """Return what shows a notification before it is sent."""
        return Previewer(
            self.apps,
            self.templates,
            self.sends,
            self.rules_store,
            plan=self._plan,
            describe_host=self.endpoints.describe_host,
            now=self.now,
        )

    def _plan(self, app: App, recipients: Recipients) -> ResolvedRecipients:
        return self.engine.plan(app, recipients)

    @cached_property
    def app_control(self) -> AppControl:
        """Return the operators' hand on the sending of apps: rules, switch, circuits."""
        return AppControl(self.apps, self.rules_store, self.known_workers, now=self.now)

    @cached_property
    def doctor(self) -> Doctor:
        """Return what checks the configuration of apps."""
        return Doctor(
            self.settings,
            self.database,
            self.apps,
            self.identities,
            open_gateway=self.gateways.gateway,
            now=self.now,
        )

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
            + ANSWER_MARGIN_SECONDS,
            hand_back_seconds=HAND_BACK_SECONDS if self._is_node else None,
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

    def app_of(self, notification_id: str) -> App:
        """Return the app of a notification. Raises RegistryError for an unknown one."""
        named = App.read_id(self.reports.app_id_of(notification_id))
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
            if (broker := self.__dict__.pop("broker", None)) is not None:
                await broker.close()
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
