"""Where each push service is reached from here: its host, its proxy, the authority to trust."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Final

from handbell.errors import TwinError
from handbell.fixes import Action, Fix
from handbell.gateways.http2 import Endpoint
from handbell.services.address import Address
from handbell.services.apns.protocol import DEVELOPMENT_URL, PRODUCTION_URL
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.protocol import URL as FCM_URL
from handbell.services.table import SERVICES
from handbell.services.webpush.hosts import PushHosts
from handbell.settings import Settings
from handbell.twin.discovery import Address as TwinAddress
from handbell.twin.discovery import KnownTwin

TWIN: Final = "twin"
_NO_TWIN: Final = "https://(the twin, not running)"


class ServiceEndpoints:
    """The endpoints of push services, by the settings and by what a twin says of itself.

    ``twin_folder`` is where a twin writes its addresses: they are looked up each time, because a
    twin may start later or elsewhere.
    """

    def __init__(self, settings: Settings, *, twin_folder: Path) -> None:
        self._settings = settings
        self._known_twin = KnownTwin(twin_folder)

    def endpoint(self, service: str, environment: str) -> Endpoint:
        """Return the endpoint of a service's environment, with its trusted authority.

        Raises TwinError while no twin is running. Endpoints of Web Push come with the addresses.
        """
        if environment != TWIN:
            return self._hosts[service, environment]
        address = self._twin()
        url = address.production_url if service == "apns" else address.fcm_url
        return Endpoint(_of_twin(url, service), Path(address.ca_file))

    def token_endpoint(self, account: ServiceAccount, environment: str) -> Endpoint:
        """Return where a service account asks for access tokens.

        Raises TwinError while no twin is running.
        """
        if environment != TWIN:
            settings, url = self._settings, account.token_uri
            return Endpoint(url, settings.apns_ca_file, proxy=settings.proxies.to(url))
        address = self._twin()
        return Endpoint(_of_twin(address.oauth_url, "fcm"), Path(address.ca_file))

    def describe_host(self, service: str, environment: str) -> str:
        """Return the address of a service, even while the twin is not running."""
        try:
            return self.endpoint(service, environment).url
        except TwinError:
            return _NO_TWIN

    @property
    def push_hosts(self) -> PushHosts:
        """Return which endpoints of browsers are sent to."""
        address = self._known_twin.address()
        twin = None if address is None else address.webpush_url or None
        return replace(self._public_hosts, twin=twin)

    @cached_property
    def _public_hosts(self) -> PushHosts:
        return PushHosts.read(self._settings.web_push_hosts)

    def check_address(self, address: Address, environment: str) -> None:
        """Raise RegistryError for an address at a host that is not sent to."""
        if SERVICES[address.service].origin_of is not None:
            # Only the twin's own addresses depend on where it is.
            hosts = self.push_hosts if environment == TWIN else self._public_hosts
            hosts.target(address.token, environment)

    def web_push_twin(self) -> TwinAddress:
        """Return the addresses of a twin that knows Web Push. Raises TwinError for none."""
        address = self._twin()
        _of_twin(address.webpush_url, "webpush")
        return address

    def _twin(self) -> TwinAddress:
        address = self._known_twin.address()
        if address is None:
            raise TwinError(
                "The twin is not running",
                fix=Fix(Action.START_TWIN, "Start it in another terminal"),
            )
        return address

    @cached_property
    def _hosts(self) -> Mapping[tuple[str, str], Endpoint]:
        settings, proxies = self._settings, self._settings.proxies
        urls = {
            ("apns", "production"): settings.apns_production_url or PRODUCTION_URL,
            ("apns", "development"): settings.apns_development_url or DEVELOPMENT_URL,
            ("fcm", "production"): settings.fcm_url or FCM_URL,
        }
        return {
            place: Endpoint(url, settings.apns_ca_file, proxy=proxies.to(url))
            for place, url in urls.items()
        }


def _of_twin(url: str, service: str) -> str:
    if not url:
        raise TwinError(
            f"The twin that is running knows no {SERVICES[service].title}",
            fix=Fix(Action.START_TWIN, "Start one of this version"),
        )
    return url
