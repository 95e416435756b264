"""SSRF-safe POST to a user-supplied URL.

The host is resolved here, each of its addresses must be public, and only those are connected to, so
DNS rebinding gains nothing. No redirect is followed, no proxy of the environment is used,
certificates are checked, at most :data:`MOST_ANSWER_BYTES` of a response are read, and a
request takes at most :data:`REQUEST_SECONDS`, whatever the receiver does.

Where an operator names a proxy for it, the proxy resolves the host, and which addresses it reaches
is the proxy's to decide. What the URL itself says is checked as before, and so is the certificate.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from handbell._proxy import DIRECT, Proxies
from handbell._url_target import Resolve, resolve
from handbell._version import __version__
from handbell.errors import HandbellError

from .call_target import CallResult, CallTarget

MOST_ANSWER_BYTES: Final = 64 * 1024
CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 20.0
"""From the first byte to the last; Standard Webhooks advises 15 to 30 seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundOptions:
    """Options of requests to user-supplied URLs.

    ``allow_private`` lifts the check of addresses, and lets ``http`` through to loopback.
    ``ca_file`` is trusted instead of the machine's certificates. ``proxies`` says which hosts are
    asked through a proxy, which then resolves their names. Times are in seconds.
    """

    allow_private: bool = False
    proxies: Proxies = DIRECT
    resolve: Resolve = resolve
    ca_file: Path | None = None
    connect_seconds: float = CONNECT_SECONDS
    request_seconds: float = REQUEST_SECONDS

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, stop: threading.Event
    ) -> CallResult:
        """Post the body and return the result; no behaviour of the receiver raises.

        Blocks for at most ``request_seconds`` and what the resolver takes; within a second once
        ``stop`` is set. It runs an event loop of its own: not for a thread that is in one.
        """
        from .exchange import Exchange, perform  # noqa: PLC0415 - a client that few programs need

        try:
            target = CallTarget.read(url, allow_private=self.allow_private)
            proxy = self.proxies.to(target.url)
            if proxy is None:
                addresses = target.addresses(self.resolve, allow_private=self.allow_private)
            else:
                target.require_tls()
                addresses = ()
            exchange = Exchange(
                target=target,
                addresses=addresses,
                proxy=proxy,
                headers={"user-agent": f"handbell/{__version__}", **headers},
                body=body,
                ca_file=self.ca_file,
                connect_seconds=self.connect_seconds,
                seconds=self.request_seconds,
                most_bytes=MOST_ANSWER_BYTES,
            )
        except HandbellError as error:
            return CallResult.none(error.what)
        return perform(exchange, stop)
