"""Run a twin in a background thread, for programs and tests without an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from handbell.errors import TwinError

from .discovery import Address
from .faults import Fault
from .history import ReceivedRequest
from .phone import Phone
from .phones import DEFAULT_PROJECT
from .twin import Twin

_T = TypeVar("_T")


class RunningTwin:
    """A twin in a background thread; every method is thread-safe.

    Hooks run in the twin's thread. Returned values are snapshots.
    """

    def __init__(self, folder: Path, **options: Any) -> None:
        self._twin = Twin(folder, **options)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="handbell-twin", daemon=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._twin.start(), self._loop).result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._twin.stop(), self._loop).result()
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def call(self, function: Callable[[Twin], _T]) -> _T:
        """Call a function with the twin in the twin's thread and return its result.

        Raises TwinError when the twin is not running.
        """
        if not self._thread.is_alive():
            raise TwinError("The twin is not running", fix="Start it first")

        async def in_loop() -> _T:
            return function(self._twin)

        return asyncio.run_coroutine_threadsafe(in_loop(), self._loop).result()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Refuse new connections and cut open ones while the block runs."""
        asyncio.run_coroutine_threadsafe(self._twin.go_away(), self._loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(self._twin.come_back(), self._loop).result()

    @property
    def address(self) -> Address:
        """Return the twin's addresses."""
        return self._twin.address

    @property
    def production_url(self) -> str:
        """Return the production side's URL, ``https://127.0.0.1:PORT``."""
        return self._twin.production_url

    @property
    def development_url(self) -> str:
        """Return the development side's URL, ``https://127.0.0.1:PORT``."""
        return self._twin.development_url

    @property
    def fcm_url(self) -> str:
        """Return the URL of FCM, ``https://127.0.0.1:PORT``."""
        return self._twin.fcm_url

    @property
    def oauth_url(self) -> str:
        """Return the URL of the token endpoint of FCM's service accounts."""
        return self._twin.oauth_url

    @property
    def webpush_url(self) -> str:
        """Return the origin of browsers' endpoints, ``https://127.0.0.1:PORT``."""
        return self._twin.webpush_url

    @property
    def webpush_socket_url(self) -> str:
        """Return what a stock Firefox connects to, ``ws://127.0.0.1:PORT/``."""
        return self._twin.webpush_socket_url

    @property
    def browsers_connected(self) -> int:
        """Return the number of stock browsers that are connected."""
        return self._twin.browsers_connected

    @property
    def page_url(self) -> str:
        """Return the URL of the page with the phones, ``http://127.0.0.1:PORT``."""
        return self._twin.page_url

    @property
    def page_link(self) -> str:
        """Return the link that opens the page, with its token."""
        return self._twin.page_link

    @property
    def ca_file(self) -> Path:
        """Return the PEM file of the authority that a client has to trust."""
        return self._twin.ca_file

    @property
    def hosts_ca_file(self) -> Path:
        """Return the PEM file of the authority for the services' own names."""
        return self._twin.hosts_ca_file

    @property
    def proxy_url(self) -> str:
        """Return the URL of the proxy; empty without one."""
        return self._twin.proxy_url

    @property
    def phones(self) -> dict[str, Phone]:
        """Return the phones by id."""
        return self.call(lambda twin: dict(twin.phones))

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Return the last requests, newest first, 1000 at most."""
        return self.call(lambda twin: twin.requests)

    @property
    def accepted(self) -> int:
        """Return how many pushes were accepted since the start."""
        return self.call(lambda twin: twin.accepted)

    @property
    def connections(self) -> int:
        """Return the number of open connections, on both sides."""
        return self.call(lambda twin: twin.connections)

    @property
    def opened(self) -> int:
        """Return how many connections were opened since the start, on both sides."""
        return self.call(lambda twin: twin.opened)

    @property
    def faults(self) -> list[Fault]:
        """Return the planned faults."""
        return self.call(lambda twin: list(twin.faults))

    def accepted_of(self, token: str) -> dict[str, int]:
        """Return how often each ``apns-id`` was accepted for the token."""
        return self.call(lambda twin: twin.accepted_of(token))

    def shown(self, token: str) -> dict[str, int]:
        """Return how often each ``apns-id`` was shown on the phone of the token."""
        return self.call(lambda twin: twin.shown(token))

    def add_key(
        self,
        team_id: str,
        key_id: str,
        key_pem: str | bytes,
        environment: str | None = None,
        topics: Sequence[str] | None = None,
    ) -> None:
        """Add a key; see :meth:`Twin.add_key`."""
        self.call(lambda twin: twin.add_key(team_id, key_id, key_pem, environment, topics))

    def remove_key(self, team_id: str, key_id: str) -> None:
        """Revoke a key; see :meth:`Twin.remove_key`."""
        self.call(lambda twin: twin.remove_key(team_id, key_id))

    def make_service_account(self, project: str = DEFAULT_PROJECT, **details: Any) -> str:
        """Return a new account's key file; see :meth:`Twin.make_service_account`."""
        return self.call(lambda twin: twin.make_service_account(project, **details))

    def add_service_account(self, key_file: str | bytes, *, may_send: bool = True) -> str:
        """Add a service account; see :meth:`Twin.add_service_account`."""
        return self.call(lambda twin: twin.add_service_account(key_file, may_send=may_send))

    def remove_service_account(self, client_email: str) -> None:
        """Delete a service account; see :meth:`Twin.remove_service_account`."""
        self.call(lambda twin: twin.remove_service_account(client_email))

    def revoke_access_tokens(self) -> None:
        """Refuse every access token that was issued so far."""
        self.call(lambda twin: twin.revoke_access_tokens())

    def limit_fcm(self, **limits: Any) -> None:
        """Change FCM's quota, or the life of access tokens; see :meth:`Twin.limit_fcm`."""
        self.call(lambda twin: twin.limit_fcm(**limits))

    def set_channel(self, phone: Phone | str, channel_id: str, is_on: bool) -> Phone:  # noqa: FBT001
        """Switch a channel of an Android phone; see :meth:`Twin.set_channel`."""
        return self.call(lambda twin: twin.set_channel(phone, channel_id, is_on))

    def add_app(self, app_id: str, name: str) -> None:
        """Add an app; see :meth:`Twin.add_app`."""
        self.call(lambda twin: twin.add_app(app_id, name))

    def issue_client_certificate(
        self, topics: Sequence[str], *, environment: str | None = None
    ) -> bytes:
        """Return a push certificate; see :meth:`Twin.issue_client_certificate`."""
        return self.call(
            lambda twin: twin.issue_client_certificate(topics, environment=environment)
        )

    def add_phone(self, name: str | None = None, **details: Any) -> Phone:
        """Create a phone; see :meth:`Twin.add_phone`."""
        return self.call(lambda twin: twin.add_phone(name, **details))

    def add_browser(self, name: str | None = None, **details: Any) -> Phone:
        """Create a browser that has subscribed; see :meth:`Twin.add_browser`."""
        return self.call(lambda twin: twin.add_browser(name, **details))

    def phone(self, phone_id: str) -> Phone:
        """Return the phone; see :meth:`Twin.phone`."""
        return self.call(lambda twin: twin.phone(phone_id))

    def remove_phone(self, phone: Phone | str) -> None:
        """Uninstall the app; see :meth:`Twin.remove_phone`."""
        self.call(lambda twin: twin.remove_phone(phone))

    def switch(self, phone: Phone | str, is_on: bool) -> Phone:  # noqa: FBT001  as on the switch
        """Turn a phone on or off; see :meth:`Twin.switch`."""
        return self.call(lambda twin: twin.switch(phone, is_on))

    def open_app(self, phone: Phone | str) -> Phone:
        """Open the app; see :meth:`Twin.open_app`."""
        return self.call(lambda twin: twin.open_app(phone))

    def open_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Open a card; see :meth:`Twin.open_card`."""
        return self.call(lambda twin: twin.open_card(phone, card_id))

    def dismiss_card(self, phone: Phone | str, card_id: str) -> Phone:
        """Dismiss a card; see :meth:`Twin.dismiss_card`."""
        return self.call(lambda twin: twin.dismiss_card(phone, card_id))

    def add_fault(self, kind: str, **details: Any) -> Fault:
        """Add a fault; see :meth:`handbell.twin.faults.FaultPlan.add`."""
        return self.call(lambda twin: twin.faults.add(kind, **details))

    def remove_fault(self, fault_id: str) -> bool:
        """Remove a fault; return whether it existed."""
        return self.call(lambda twin: twin.faults.remove(fault_id))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.call(lambda twin: twin.faults.clear())


@contextlib.contextmanager
def start_twin(folder: Path, **options: Any) -> Iterator[RunningTwin]:
    """Run a twin in a background thread while the block runs; ``options`` are those of Twin."""
    with RunningTwin(folder, **options) as running:
        yield running
