"""The clients of push services that one process shares."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from handbell.apps.credential_kinds import Credential
from handbell.errors import CredentialError
from handbell.gateways.apns.client import ApnsGateway
from handbell.gateways.fcm.client import FcmGateway
from handbell.gateways.gateway import Gateway
from handbell.gateways.push_client import PushClient
from handbell.gateways.webpush.client import WebPushGateway
from handbell.services.apns.credential import AuthKey, Certificate
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.webpush.credential import VapidKey
from handbell.settings import Settings

from .service_endpoints import TWIN, ServiceEndpoints

# The twin needs nobody to write to.
_TWIN_SUBJECT: Final = "https://localhost"


class GatewayPool:
    """The gateways of one process, each created on first use.

    ``endpoints`` says where services are reached. ``now`` gives UNIX seconds, ``seconds`` those of
    a monotonic clock. A gateway belongs to the event loop in which it was first used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        endpoints: ServiceEndpoints,
        now: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._now = now
        self._seconds = seconds
        # A worker that is new begins with one, until the others have heard of it.
        self._most_connections = 1 if settings.total_connections else settings.connections
        self._gateways: dict[tuple[object, ...], PushClient] = {}
        # Threads may look up the same gateway at once, and two connections would not be shared.
        self._lock = threading.Lock()

    def gateway(self, credential: Credential, environment: str) -> PushClient:
        """Return the gateway for a credential and an environment, cached.

        Raises TwinError for the environment ``twin`` while no twin is running.
        """
        key = (credential.fingerprint, environment, *self._places(credential, environment))
        with self._lock:
            known = self._gateways.get(key)
            if known is None:
                opener = _OPENERS[type(credential)]
                known = self._gateways[key] = opener(
                    self,
                    credential,
                    environment,
                    connections=self._most_connections,
                    in_flight=self._settings.in_flight,
                    connect_timeout=self._settings.connect_timeout,
                    request_timeout=self._settings.request_timeout,
                    now=self._now,
                    seconds=self._seconds,
                )
            return known

    def _places(self, credential: Credential, environment: str) -> tuple[object, ...]:
        """Return where a gateway leads: another one is needed where that has changed."""
        match credential:
            case ServiceAccount():
                tokens = self._endpoints.token_endpoint(credential, environment)
                return self._endpoints.endpoint("fcm", environment), tokens
            case VapidKey():
                return (self._endpoints.web_push_twin().webpush_url,) if environment == TWIN else ()
            case _:
                return (self._endpoints.endpoint("apns", environment),)

    def open_apns(
        self, credential: AuthKey | Certificate, environment: str, **options: Any
    ) -> ApnsGateway:
        """Return a gateway to Apple."""
        endpoints = {environment: self._endpoints.endpoint("apns", environment)}
        return ApnsGateway(credential=credential, endpoints=endpoints, **options)

    def open_fcm(self, credential: ServiceAccount, environment: str, **options: Any) -> FcmGateway:
        """Return a gateway to FCM."""
        return FcmGateway(
            credential=credential,
            endpoint=self._endpoints.endpoint("fcm", environment),
            token_endpoint=self._endpoints.token_endpoint(credential, environment),
            **options,
        )

    def open_web_push(
        self, credential: VapidKey, environment: str, **options: Any
    ) -> WebPushGateway:
        """Return a gateway to the push services of browsers.

        Raises CredentialError where no push service could write to anybody.
        """
        is_twin = environment == TWIN
        subject = _TWIN_SUBJECT if is_twin else self._settings.web_push_contact
        if subject is None:
            raise CredentialError(
                "Web Push needs somebody whom a push service may write to",
                fix="Set HANDBELL_VAPID_SUBJECT to a mailto: or https: address",
            )
        return WebPushGateway(
            credential=credential,
            subject=subject,
            hosts=self._endpoints.push_hosts,
            ca_file=Path(self._endpoints.web_push_twin().ca_file) if is_twin else None,
            proxies=self._settings.proxies,
            **options,
        )

    @property
    def connections(self) -> int:
        """Return the number of open connections to push services."""
        return sum(gateway.connections for gateway in list(self._gateways.values()))

    def share_connections(self, place: int, workers: int) -> None:
        """Limit the connections of each gateway to this worker's share of the ceiling."""
        share, rest = divmod(self._settings.total_connections, workers)
        mine = max(1, share + (place < rest))
        self._most_connections = min(self._settings.connections, mine)
        with self._lock:
            gateways = list(self._gateways.values())
        for gateway in gateways:
            gateway.limit_connections(self._most_connections)

    async def drop(self, gateway: Gateway) -> None:
        """Close a gateway that is no longer used; the next call creates another."""
        with self._lock:
            places = [place for place, known in self._gateways.items() if known is gateway]
            for place in places:
                del self._gateways[place]
        if places:
            await gateway.close()

    async def close(self, *, within: float | None = None) -> None:
        """Finish pushes in flight, at most ``within`` seconds, and close every connection."""
        gateways, self._gateways = list(self._gateways.values()), {}
        await asyncio.gather(*(gateway.close(within=within) for gateway in gateways))


_OPENERS: Final[Mapping[type, Callable[..., PushClient]]] = MappingProxyType(
    {
        AuthKey: GatewayPool.open_apns,
        Certificate: GatewayPool.open_apns,
        ServiceAccount: GatewayPool.open_fcm,
        VapidKey: GatewayPool.open_web_push,
    }
)
"""How the client of each kind of credential is made."""
