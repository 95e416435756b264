"""Subscriptions of browsers, and the messages that wait for those that are not connected."""

import secrets
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from .encryption import BrowserKeys

ENDPOINT_PATH: Final = "/wpush/v2/"
"""Where endpoints are; what follows is the capability of one subscription (RFC 8030, 8.3)."""

_TOKEN_BYTES: Final = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class PushMessage:
    """An accepted message. ``body`` is as it was received: the service cannot decrypt it.

    ``ttl`` is in seconds, ``received_at`` in UNIX seconds.
    """

    id: str
    endpoint: str
    body: bytes = field(repr=False)
    encoding: str | None
    ttl: int
    urgency: str
    topic: str | None
    received_at: float

    def is_expired(self, now: float) -> bool:
        """Return whether it is not delivered any more; a TTL of 0 allows one attempt at once."""
        return now >= self.received_at + self.ttl


Messages = tuple[PushMessage, ...]


def enqueue(waiting: Messages, message: PushMessage, now: float) -> Messages:
    """Return the queue with a message at its end, without those that expired or it replaces.

    A message replaces one of the same topic that was not delivered yet (RFC 8030, 5.4).
    """
    kept = (
        other
        for other in waiting
        if not other.is_expired(now) and (message.topic is None or other.topic != message.topic)
    )
    return (*kept, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """One subscription. ``browser`` names who holds it, ``channel`` how that browser calls it.

    ``key`` is the application server's public key, base64url without padding; None admits any
    sender (RFC 8292, 4). ``keys`` are those of a virtual browser; a real one keeps its own.
    """

    endpoint: str
    browser: str
    channel: str
    key: str | None
    is_gone: bool = False
    waiting: Messages = ()
    keys: BrowserKeys | None = field(default=None, repr=False)


class SubscriptionStore:
    """The subscriptions of one service, by endpoint and by browser.

    ``changed`` is called when one was made or has ended.
    """

    def __init__(self) -> None:
        self.changed: Callable[[], None] = _nothing
        self._by_endpoint: dict[str, Subscription] = {}
        self._by_browser: dict[str, dict[str, str]] = {}

    def __len__(self) -> int:
        return sum(not item.is_gone for item in self._by_endpoint.values())

    def knows(self, browser: str) -> bool:
        """Return whether a browser with this id was seen."""
        return browser in self._by_browser

    def admit(self, browser: str | None = None) -> str:
        """Return the id of a browser: the given one, or a new one."""
        known = browser or uuid.uuid4().hex
        self._by_browser.setdefault(known, {})
        return known

    def subscribe(
        self,
        origin: str,
        browser: str,
        channel: str | None = None,
        *,
        key: str | None = None,
        keys: BrowserKeys | None = None,
    ) -> Subscription:
        """Return a new subscription; a browser that repeats channel and key gets the same one."""
        channel = channel or str(uuid.uuid4())
        former = self.of_channel(browser, channel)
        if former is not None and former.key == key:
            return former
        if former is not None:
            self.end(former.endpoint)
        made = Subscription(
            endpoint=f"{origin}{ENDPOINT_PATH}{secrets.token_urlsafe(_TOKEN_BYTES)}",
            browser=browser,
            channel=channel,
            key=key,
            keys=keys,
        )
        self.add(made)
        self.changed()
        return made

    def add(self, subscription: Subscription) -> None:
        """Add a subscription as it is."""
        self._by_endpoint[subscription.endpoint] = subscription
        mine = self._by_browser[self.admit(subscription.browser)]
        mine[subscription.channel] = subscription.endpoint

    @property
    def all(self) -> list[Subscription]:
        """Return the subscriptions that have not ended."""
        return [one for one in self._by_endpoint.values() if not one.is_gone]

    def find(self, endpoint: str) -> Subscription | None:
        """Return the subscription of an endpoint, ended or not; None for an unknown one."""
        return self._by_endpoint.get(endpoint)

    def of_channel(self, browser: str, channel: str) -> Subscription | None:
        """Return a browser's subscription of this channel, unless it has ended."""
        found = self.find(self._by_browser.get(browser, {}).get(channel, ""))
        return None if found is None or found.is_gone else found

    def end(self, endpoint: str) -> Subscription | None:
        """End a subscription: its endpoint answers 410 from now on. Returns it as it was."""
        former = self.find(endpoint)
        if former is None or former.is_gone:
            return None
        self._by_endpoint[endpoint] = replace(former, is_gone=True, waiting=())
        self.changed()
        return former

    def forget(self, browser: str) -> None:
        """End all subscriptions of a browser, and its id."""
        for endpoint in self._by_browser.pop(browser, {}).values():
            self.end(endpoint)

    # Messages that wait

    def put(self, message: PushMessage, now: float) -> None:
        """Add a message to its subscription's queue."""
        former = self._by_endpoint[message.endpoint]
        self._by_endpoint[message.endpoint] = replace(
            former, waiting=enqueue(former.waiting, message, now)
        )

    def waiting(self, browser: str, now: float) -> list[tuple[Subscription, PushMessage]]:
        """Return what waits for a browser, the oldest first; expired messages are dropped."""
        found: list[tuple[Subscription, PushMessage]] = []
        for endpoint in self._by_browser.get(browser, {}).values():
            item = self._by_endpoint[endpoint]
            kept = tuple(message for message in item.waiting if not message.is_expired(now))
            self._by_endpoint[endpoint] = item = replace(item, waiting=kept)
            found += [(item, message) for message in kept]
        return sorted(found, key=lambda pair: pair[1].received_at)

    def acknowledge(self, browser: str, ids: Iterable[str]) -> list[PushMessage]:
        """Drop the messages that a browser acknowledged, and return them."""
        wanted, found = set(ids), []
        for endpoint in self._by_browser.get(browser, {}).values():
            item = self._by_endpoint[endpoint]
            found += [message for message in item.waiting if message.id in wanted]
            kept = tuple(message for message in item.waiting if message.id not in wanted)
            self._by_endpoint[endpoint] = replace(item, waiting=kept)
        return found

    def withdraw(self, message_id: str) -> bool:
        """Drop a message that was not delivered yet, as its sender asks; return whether it was."""
        for endpoint, item in self._by_endpoint.items():
            kept = tuple(message for message in item.waiting if message.id != message_id)
            if len(kept) < len(item.waiting):
                self._by_endpoint[endpoint] = replace(item, waiting=kept)
                return True
        return False


def _nothing() -> None:
    return None
