"""The direct path: resolve, store, send, answer, all before the caller goes on."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

from handbell._text import count, shortened
from handbell.apps.app import App
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.errors import HandbellError
from handbell.gateways.apns.payload import compose
from handbell.gateways.apns.protocol import AUTHORIZATION, DEVICE_PATH
from handbell.gateways.gateway import Message
from handbell.registry.store import Registry

from .delivery import Target
from .dispatch import Plan, resolve, resolve_everybody
from .response import Response
from .run import FindGateway, Run
from .store import Ledger, StoredNotification


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """The request that a send would make for one target, or the warning why there is none.

    ``headers`` are complete but for the secret in ``authorization``, and for the ``apns-id``, which
    a delivery gets when it is stored.
    """

    recipient: str
    warning: str | None = None
    method: str = "POST"
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    payload: str = ""
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """Sends at once, and answers when every delivery has ended.

    ``find_gateway`` gives the way to an environment for this app's credential, ``describe_host``
    the address that a preview shows for it. ``environment`` is assumed for device tokens that no
    session holds.
    """

    app: App
    registry: Registry
    ledger: Ledger
    find_gateway: FindGateway
    describe_host: Callable[[str], str]
    environment: str = "production"
    is_development: bool = False
    now: Callable[[], float] = time

    async def send(self, notification: Notification, recipients: Recipients) -> Response:
        """Send to the named recipients, or to every active session of the app.

        Raises NotificationError when the notification cannot be sent as it stands, and the error of
        the way there (no credential, no twin) when not one target could be reached. Nothing is
        stored then.
        """
        message = compose(notification, bundle_id=self.app.bundle_id, now=self.now())
        if recipients.everybody:
            return await self._send_to_everybody(notification, message)
        plan = await asyncio.to_thread(self.plan, recipients)
        return await self._send_pages(
            notification, message, recipients.to_dict(), iter([plan.targets]), plan.warnings
        )

    def plan(self, recipients: Recipients) -> Plan:
        """Return whom a send would reach, without sending."""
        if recipients.everybody:
            pages = resolve_everybody(self.app, self.registry, is_development=self.is_development)
            return Plan(targets=[target for page in pages for target in page])
        return resolve(
            self.app,
            recipients,
            self.registry,
            environment="development" if self.is_development else self.environment,
            is_development=self.is_development,
        )

    def preview(self, notification: Notification, recipients: Recipients) -> list[Preview]:
        """Return the exact request per target, and a preview with a warning for whoever has none.

        Raises NotificationError when the notification cannot be sent. Nothing is stored or sent.
        """
        message = compose(notification, bundle_id=self.app.bundle_id, now=self.now())
        plan = self.plan(recipients)
        return [
            *(Preview(recipient="", warning=warning) for warning in plan.warnings),
            *(self._preview(target, message) for target in plan.targets),
        ]

    def _preview(self, target: Target, message: Message) -> Preview:
        label = f"{target.mail} ({shortened(target.address)})" if target.mail else target.address
        text, size = message.payload.decode(), len(message.payload)
        if target.gateway == "simulator":
            command = f"xcrun simctl push {target.address} {self.app.bundle_id} -"
            return Preview(recipient=label, method="run", url=command, payload=text, size=size)
        return Preview(
            recipient=label,
            url=f"{self.describe_host(target.environment)}{DEVICE_PATH}{target.address}",
            headers=((AUTHORIZATION, "bearer (hidden)"), *message.headers),
            payload=text,
            size=size,
        )

    async def _send_to_everybody(self, notification: Notification, message: Message) -> Response:
        pages = resolve_everybody(self.app, self.registry, is_development=self.is_development)
        response = await self._send_pages(notification, message, {"everybody": True}, pages, [])
        if response.total:
            return response
        return Response(
            success=False,
            warnings=(f"Nobody has a device: {self.app.id} has no active session.",),
            notification_id=response.notification_id,
        )

    async def _send_pages(
        self,
        notification: Notification,
        message: Message,
        recipients: dict[str, Any],
        pages: Iterator[list[Target]],
        warnings: list[str],
    ) -> Response:
        first = await _next_page(pages)
        self._require_a_way(first)
        stored, deliveries = await asyncio.to_thread(
            self.ledger.accept, self.app, notification, recipients, first
        )
        run = Run(
            notification=stored,
            message=message,
            ledger=self.ledger,
            registry=self.registry,
            find_gateway=self.find_gateway,
            now=self.now,
        )
        await run.send(deliveries)
        while page := await _next_page(pages):
            await run.send(await asyncio.to_thread(self.ledger.add, stored, page))
        return self._answer(stored, run, warnings)

    def _require_a_way(self, targets: list[Target]) -> None:
        problem: HandbellError | None = None
        for way in {(target.gateway, target.environment) for target in targets}:
            try:
                self.find_gateway(*way)
            except HandbellError as error:
                problem = error
            else:
                return
        if problem is not None:
            raise problem

    def _answer(self, stored: StoredNotification, run: Run, warnings: list[str]) -> Response:
        tally = run.tally
        warnings = [*warnings, *tally.warnings]
        errors = list(tally.errors)
        if tally.unlisted:
            more = errors or warnings
            more.append(
                f"And {count(tally.unlisted, 'more delivery', 'more deliveries')} not listed here: "
                f"see .deliveries of this response."
            )
        return Response(
            success=tally.reached > 0 and not errors,
            warnings=tuple(warnings),
            errors=tuple(errors),
            notification_id=stored.id,
            reached=tally.reached,
            total=tally.total,
            _load=lambda: self.ledger.deliveries_of(stored.id),
        )


async def _next_page(pages: Iterator[list[Target]]) -> list[Target]:
    nothing: list[Target] = []
    return await asyncio.to_thread(next, pages, nothing)
