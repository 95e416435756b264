"""The twin: every push service on loopback, with virtual phones and browsers.

::

    async with Twin(folder) as twin:
        twin.add_key("TEAM123456", "KEY1234567", path.read_text())
        phone = twin.add_phone("First phone", app="TEAM123456.com.sample.myapp")
        ...                                     # push to twin.production_url, trust twin.ca_file
        twin.phones[phone.id].cards             # what the phone shows

:func:`handbell.twin.threaded.start_twin` runs one in a thread, for programs without an event loop.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from handbell._thread_pool import in_thread
from handbell.errors import TwinError

from .certificates import Authority
from .discovery import Address, remove_address, write_address
from .fcm.oauth import TOKEN_PATH
from .hooks import TwinHooks
from .host_authority import HostAuthority
from .page_server import PageServer
from .ports import WEBPUSH_SOCKET_PORT, bind, bind_usual, check_host
from .proxy import TwinProxy
from .sides import check_side
from .state import TwinState
from .webpush.saved import Saved, read_saved, write_saved
from .webpush.socket_server import BrowserSockets
from .wire.server import WireServer
from .wire.side import IDLE_SECONDS, Side

_SAVE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Twin(TwinState):
    """A twin with its sides, its page and its phones. Use it within one event loop.

    ``folder`` holds the certificate authority and the address file; a port of 0 is a free one.
    ``host`` has to be a loopback address. ``now`` is the twin's clock in UNIX seconds: provider
    tokens, expirations and the ``date`` of answers depend on it. A connection without a frame for
    ``idle_seconds`` gets ``IdleTimeout`` and is closed. With a ``proxy_port`` it has a proxy, for
    clients with the services' own names built in. A ``webpush_socket_port`` of None is 8027 where
    that is free: browsers find it again there. A ``webpush_port`` of 0 is that of the folder's
    former twin, if it is free: its subscriptions go on. Raises TwinError for a host, a folder or a
    port that is unusable.
    """

    def __init__(
        self,
        folder: Path,
        *,
        production_port: int = 0,
        development_port: int = 0,
        page_port: int = 0,
        fcm_port: int = 0,
        webpush_port: int = 0,
        webpush_socket_port: int | None = 0,
        proxy_port: int | None = None,
        host: str = "127.0.0.1",
        hooks: TwinHooks | None = None,
        now: Callable[[], float] = time.time,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        check_host(host)
        super().__init__(hooks=hooks, now=now)
        self._folder = folder
        self._host = host
        self._ports: dict[str, int | None] = {
            "production": production_port,
            "development": development_port,
            "fcm": fcm_port,
            # Endpoints name it, so it is the former one where that is free.
            "webpush": webpush_port or None,
            "webpush_socket": webpush_socket_port,
            "page": page_port,
        } | ({} if proxy_port is None else {"proxy": proxy_port})
        self._idle_seconds = idle_seconds
        self._running: _Running | None = None
        self._saving: asyncio.TimerHandle | None = None

    # Lifecycle

    async def start(self) -> None:
        """Open the ports and write the address file; return when all of them answer."""
        authority = await in_thread(Authority.open, self._folder)
        hosts = HostAuthority(self._folder)
        await in_thread(hosts.prepare)
        async with contextlib.AsyncExitStack() as undo:
            saved = await in_thread(read_saved, self._folder)
            usual = {"webpush_socket": WEBPUSH_SOCKET_PORT, "webpush": saved.port}
            bound = {
                name: undo.enter_context(
                    bind_usual(self._host, usual[name]) if port is None else bind(self._host, port)
                )
                for name, port in self._ports.items()
            }
            servers = {
                side.name: WireServer(
                    side, _context(authority, hosts, side), idle_seconds=self._idle_seconds
                )
                for side in self._sides()
            }
            proxy = TwinProxy(self._host, self._port_of)
            page = PageServer(self, bound["page"])
            sockets = BrowserSockets(self._webpush)
            self._running = _Running(authority, servers, page, sockets, proxy)
            self._address = self._addresses(authority, hosts, bound)
            self._fcm.token_uri = self._address.oauth_url
            self._restore(saved)
            undo.push_async_exit(self.__aexit__)
            for name, server in servers.items():
                await server.start(bound[name])
            await sockets.start(bound["webpush_socket"])
            if "proxy" in bound:
                await proxy.start(bound["proxy"])
            await page.start()
            write_address(self._folder, self.address)
            undo.pop_all()

    async def stop(self) -> None:
        """Close every connection and port, and remove the address file."""
        running, self._running = self._running, None
        if running is None:
            return
        self._save()
        remove_address(self._folder, self.address)
        self._address = None
        self._history.close()
        await asyncio.gather(
            *(server.stop() for server in running.servers.values()),
            running.page.stop(),
            running.sockets.stop(),
            running.proxy.stop(),
        )

    def _restore(self, saved: Saved) -> None:
        store, loop = self._webpush.store, asyncio.get_running_loop()
        for one in saved.moved_to(self.webpush_url):
            store.add(one)

        def save_soon() -> None:
            if self._saving is None:
                self._saving = loop.call_later(_SAVE_SECONDS, self._save)

        store.changed = save_soon

    def _save(self) -> None:
        if self._saving is not None:
            self._saving.cancel()
            self._saving = None
        try:
            write_saved(self._folder, self.webpush_url, self._webpush.store.all)
        except OSError as error:
            _log.warning("Subscriptions not saved; a restart loses browsers: %s", error)

    async def go_away(self) -> None:
        """Cut every connection and refuse new ones until :meth:`come_back`.

        The page with the phones stays.
        """
        await asyncio.gather(*(server.leave() for server in self._started().servers.values()))

    async def come_back(self) -> None:
        """Accept connections again after :meth:`go_away`, on the same ports.

        Raises TwinError when a port has been taken meanwhile.
        """
        for name, server in self._started().servers.items():
            await server.start(bind(self._host, self._port_of(name)))

    def _port_of(self, side: str) -> int:
        urls = {
            "production": self.production_url,
            "development": self.development_url,
            "fcm": self.fcm_url,
            "webpush": self.webpush_url,
        }
        return urlsplit(urls[side]).port or 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    def _addresses(
        self, authority: Authority, hosts: HostAuthority, bound: Mapping[str, socket.socket]
    ) -> Address:
        host = f"[{self._host}]" if ":" in self._host else self._host
        at = {name: f"{host}:{item.getsockname()[1]}" for name, item in bound.items()}
        return Address(
            production_url=f"https://{at['production']}",
            development_url=f"https://{at['development']}",
            page_url=f"http://{at['page']}",
            ca_file=str(authority.ca_file),
            pid=os.getpid(),
            page_token=self._page_token,
            fcm_url=f"https://{at['fcm']}",
            oauth_url=f"https://{at['fcm']}{TOKEN_PATH}",
            webpush_url=f"https://{at['webpush']}",
            webpush_socket_url=f"ws://{at['webpush_socket']}/",
            hosts_ca_file=str(hosts.ca_file),
            proxy_url=f"http://{at['proxy']}" if "proxy" in at else "",
        )

    def _started(self) -> "_Running":
        if self._running is None:
            raise TwinError("The twin is not running", fix="Start it first")
        return self._running

    @property
    def production_url(self) -> str:
        """Return the production side's URL, ``https://127.0.0.1:PORT``."""
        return self.address.production_url

    @property
    def development_url(self) -> str:
        """Return the development side's URL, ``https://127.0.0.1:PORT``."""
        return self.address.development_url

    @property
    def fcm_url(self) -> str:
        """Return the URL of FCM, ``https://127.0.0.1:PORT``."""
        return self.address.fcm_url

    @property
    def oauth_url(self) -> str:
        """Return the URL of the token endpoint of FCM's service accounts."""
        return self.address.oauth_url

    @property
    def webpush_url(self) -> str:
        """Return the origin of browsers' endpoints, ``https://127.0.0.1:PORT``."""
        return self.address.webpush_url

    @property
    def webpush_socket_url(self) -> str:
        """Return what a stock Firefox connects to (``dom.push.serverURL``)."""
        return self.address.webpush_socket_url

    def forget_browsers(self) -> None:
        """Forget the stock browsers that are connected, as a service does that lost its data.

        Their subscriptions are gone, and pages get ``pushsubscriptionchange``.
        """
        self._started().sockets.forget_all()

    @property
    def browsers_connected(self) -> int:
        """Return the number of stock browsers that are connected."""
        return self._running.sockets.connected if self._running else 0

    @property
    def page_url(self) -> str:
        """Return the URL of the page with the phones, ``http://127.0.0.1:PORT``."""
        return self.address.page_url

    @property
    def page_link(self) -> str:
        """Return the link that opens the page, with its token."""
        return self.address.page_link

    @property
    def ca_file(self) -> Path:
        """Return the PEM file of the authority that a client has to trust."""
        return Path(self.address.ca_file)

    @property
    def hosts_ca_file(self) -> Path:
        """Return the PEM file of the authority that vouches for the services' own names.

        A client that reaches the twin by the proxy, or by a mapped host, has to trust it.
        """
        return Path(self.address.hosts_ca_file)

    @property
    def proxy_url(self) -> str:
        """Return the URL of the proxy, ``http://127.0.0.1:PORT``; empty without one."""
        return self.address.proxy_url

    def issue_client_certificate(
        self, topics: Sequence[str], *, environment: str | None = None
    ) -> bytes:
        """Return a push certificate with its key, one PEM text, for certificate authentication.

        ``environment`` limits it to one side; without topics it is a certificate that cannot push.
        """
        if environment is not None:
            check_side(environment)
        return self._started().authority.issue_client_certificate(topics, environment=environment)

    @property
    def _servers(self) -> list[WireServer]:
        return list(self._running.servers.values()) if self._running else []

    @property
    def connections(self) -> int:
        """Return the number of open connections, on all sides."""
        return sum(server.connections for server in self._servers)

    @property
    def opened(self) -> int:
        """Return how many connections were opened since the start, on all sides."""
        return sum(server.opened for server in self._servers)


@dataclass(frozen=True, slots=True)
class _Running:
    authority: Authority
    servers: dict[str, WireServer]
    page: PageServer
    sockets: BrowserSockets
    proxy: TwinProxy


def _context(authority: Authority, hosts: HostAuthority, side: Side) -> ssl.SSLContext:
    context = authority.server_context(speaks_http1=side.speaks_http1)
    hosts.serve(context, speaks_http1=side.speaks_http1)
    return context
