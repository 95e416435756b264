"""Sending stored deliveries of one notification, and writing down what became of each."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Final, Protocol

from handbell._text import sentence
from handbell.errors import HandbellError
from handbell.gateways.gateway import Gateway, Message, Outcome, Push
from handbell.registry.store import Registry

from .circuit import Circuit
from .delivery import Delivery, GatewayName
from .outcome import Decision, Tried, decide, meaning
from .store import Ending, Ledger, StoredNotification

FIRST_BATCH: Final = 50
"""How many are sent before the first answers are looked at, so that a wrong key stops early."""

LISTED_AT_MOST: Final = 100
"""How many deliveries are named in a response; beyond that they are counted."""


class FindGateway(Protocol):
    """Gives the way to one environment, or raises the error that says why there is none."""

    def __call__(self, name: GatewayName, environment: str, /) -> Gateway: ...  # noqa: D102


@dataclass(slots=True)
class Tally:
    """What a run comes to, for the response."""

    reached: int = 0
    total: int = 0
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unlisted: int = 0


@dataclass(slots=True)
class _Attempt:
    """One delivery on its way through at most two environments."""

    delivery: Delivery
    environment: str
    attempts: int = 0
    tried: Tried | None = None
    decision: Decision | None = None
    ended_at: int | None = None


class Run:
    """One send: batches of stored deliveries in, endings in the ledger and the registry.

    A run holds what a whole send has in common: the notification, its message, the circuit and the
    tally. Memory does not grow with the number of batches.
    """

    def __init__(
        self,
        *,
        notification: StoredNotification,
        message: Message,
        ledger: Ledger,
        registry: Registry,
        find_gateway: FindGateway,
        now: Callable[[], float] = time,
    ) -> None:
        self.circuit = Circuit()
        self.tally = Tally()
        self._notification = notification
        self._message = message
        self._ledger = ledger
        self._registry = registry
        self._find_gateway = find_gateway
        self._now = now
        self._has_begun = False

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """Send a batch and write every ending before returning.

        Broken off from outside, what had no answer yet is written as interrupted.
        """
        self.tally.total += len(deliveries)
        attempts = [_Attempt(delivery, delivery.environment) for delivery in deliveries]
        try:
            for batch in self._split(attempts):
                await self._attempt(batch)
        finally:
            await asyncio.shield(asyncio.to_thread(self._settle, attempts))

    def _split(self, attempts: list[_Attempt]) -> Iterable[list[_Attempt]]:
        first, self._has_begun = (0 if self._has_begun else FIRST_BATCH), True
        return [part for part in (attempts[:first], attempts[first:]) if part]

    async def _attempt(self, attempts: list[_Attempt]) -> None:
        await self._send_wave(attempts)
        astray = [attempt for attempt in attempts if _is_astray(attempt)]
        for attempt in astray:
            _turn_to_other(attempt)
        await self._send_wave(astray)

    async def _send_wave(self, attempts: list[_Attempt]) -> None:
        if self.circuit.is_open:
            return
        by_way: dict[tuple[GatewayName, str], list[_Attempt]] = defaultdict(list)
        for attempt in attempts:
            by_way[attempt.delivery.gateway, attempt.environment].append(attempt)
        ways: list[Awaitable[None]] = [
            self._send_one_way(name, environment, part)
            for (name, environment), part in by_way.items()
        ]
        await asyncio.gather(*ways)

    async def _send_one_way(
        self, name: GatewayName, environment: str, attempts: list[_Attempt]
    ) -> None:
        try:
            gateway = self._find_gateway(name, environment)
        except HandbellError as error:
            self._note_no_way(attempts, error)
            return
        by_number = {attempt.delivery.number: attempt for attempt in attempts}

        def report(push: Push, outcome: Outcome) -> None:
            self._note(by_number[push.key], outcome)

        await gateway.send([self._push(attempt) for attempt in attempts], report)

    def _push(self, attempt: _Attempt) -> Push:
        attempt.attempts += 1
        delivery = attempt.delivery
        return Push(
            delivery.number, delivery.address, attempt.environment, delivery.apns_id, self._message
        )

    def _note(self, attempt: _Attempt, outcome: Outcome) -> None:
        attempt.decision = decide(outcome, attempt.environment, attempt.tried)
        attempt.ended_at = int(self._now() * 1000)
        self.circuit.note(attempt.decision)

    def _note_no_way(self, attempts: list[_Attempt], error: HandbellError) -> None:
        for attempt in attempts:
            # Where the other environment cannot be asked, the first answer stands, and it proves
            # nothing against the token.
            reason = attempt.tried.reason if attempt.tried else "NoCredential"
            attempt.decision = Decision("failed", reason=reason, detail=error.what)
            attempt.ended_at = int(self._now() * 1000)

    def _settle(self, attempts: list[_Attempt]) -> None:
        for attempt in attempts:
            attempt.decision = self._final_decision(attempt)
            attempt.ended_at = attempt.ended_at or int(self._now() * 1000)
        accepted = [
            attempt.delivery.session_id
            for attempt in attempts
            if attempt.delivery.session_id is not None and _is_sent(attempt)
        ]
        self._ledger.record(
            self._notification,
            [_ending(attempt) for attempt in attempts],
            also=lambda connection: self._registry.mark_accepted(accepted, connection=connection),
        )
        for attempt in attempts:
            self._tell_registry(attempt)
            self._tell_sender(attempt)

    def _final_decision(self, attempt: _Attempt) -> Decision:
        decision = attempt.decision
        if decision is None:
            if self.circuit.is_open:
                return Decision("failed", reason="CircuitOpen", detail=self._why_stopped())
            return Decision("failed", reason="Interrupted")
        if decision.state == "held":
            # Sending again over time is the queue's work; without one the sender decides.
            return Decision("failed", decision.reason, decision.status, decision.detail or "", None)
        return decision

    def _why_stopped(self) -> str:
        words, _ = meaning(self.circuit.reason or "", self.circuit.detail)
        return f"sending for this app was stopped after {self.circuit.reason}: {words}"

    def _tell_registry(self, attempt: _Attempt) -> None:
        session, decision = attempt.delivery.session_id, attempt.decision
        if session is None or decision is None:
            return
        if decision.moves_to is not None:
            self._registry.remember_environment(session, decision.moves_to)
        if decision.closes:
            self._registry.close_if_gone(
                session, since=decision.gone_since, reason=decision.reason or "gone"
            )
        if decision.quarantines and self._may_judge(decision):
            self._registry.quarantine(session, reason=decision.reason or "refused")

    def _may_judge(self, decision: Decision) -> bool:
        if self.circuit.is_open:
            return False
        # A token of another app looks the same as a wrong bundle id, until something arrived.
        return decision.reason != "DeviceTokenNotForTopic" or self.circuit.has_worked

    def _tell_sender(self, attempt: _Attempt) -> None:
        decision = attempt.decision
        if decision is None or decision.state == "sent":
            self.tally.reached += decision is not None
            return
        is_warning = decision.closes or decision.reason == "SimulatorUnavailable"
        listed = self.tally.warnings if is_warning else self.tally.errors
        if len(listed) >= LISTED_AT_MOST:
            self.tally.unlisted += 1
            return
        listed.append(_tell(attempt.delivery, decision))


def _is_astray(attempt: _Attempt) -> bool:
    return attempt.decision is not None and attempt.decision.environment is not None


def _is_sent(attempt: _Attempt) -> bool:
    return attempt.decision is not None and attempt.decision.state == "sent"


def _turn_to_other(attempt: _Attempt) -> None:
    decision = attempt.decision
    if decision is not None and decision.environment is not None:
        attempt.tried = Tried(attempt.environment, decision.reason or "")
        attempt.environment = decision.environment


def _ending(attempt: _Attempt) -> Ending:
    decision = attempt.decision or Decision("failed", reason="Interrupted")
    return Ending(
        number=attempt.delivery.number,
        state=decision.state,
        environment=attempt.environment,
        attempts=attempt.attempts,
        reason=decision.reason,
        status=decision.status,
        unique_id=decision.unique_id,
        sent_at=attempt.ended_at if decision.state == "sent" else None,
        finished_at=attempt.ended_at,
    )


def _tell(delivery: Delivery, decision: Decision) -> str:
    reason = decision.reason or "unknown"
    words, fix = meaning(reason, decision.detail)
    what = sentence(f"{delivery.label}: {reason}: {words}")
    return f"{what} {sentence(fix[:1].upper() + fix[1:])}" if fix else what
