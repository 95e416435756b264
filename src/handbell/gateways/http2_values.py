"""What is asked of HTTP/2 and what comes of it: values alone, without a connection."""

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import pycurl

from handbell.errors import GatewayError

MAX_BODY_BYTES: Final = 8192
"""The answer's body is kept up to this size; push services answer with less than 200 bytes."""

HTTP2_STREAM: Final = 92
"""CURLE_HTTP2_STREAM, which pycurl does not name."""

_CA_BUNDLES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host to send to: ``url`` is ``https://host[:port]`` without a path.

    ``ca_file`` is trusted instead of the system's certificates (a private CA, the twin's).
    ``client_certificate`` is PEM, certificate and key together. ``proxy`` is used only when given
    here: the environment's proxies are not.
    """

    url: str
    ca_file: Path | None = None
    client_certificate: bytes | None = None
    proxy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much at once, and for how long. Times are in seconds.

    ``in_flight`` is per connection. A request ends within ``request_timeout`` after it was handed
    to the connection; what still waits for its turn ends as not sent when nothing at all was
    answered for twice as long.
    """

    connections: int = 1
    in_flight: int = 256
    connect_timeout: float = 10.0
    request_timeout: float = 30.0


class Request(NamedTuple):
    """What goes on the wire for one item: the path, ``name: value`` lines, and the body."""

    path: str
    headers: Sequence[bytes]
    body: bytes


class Answer(NamedTuple):
    """The server's answer. ``lines`` are the raw header lines; :meth:`headers` reads them."""

    status: int
    body: bytes = b""
    lines: Sequence[bytes] = ()

    def headers(self) -> dict[str, str]:
        """Return the headers by lower-case name."""
        pairs = (line.partition(b":") for line in self.lines if b":" in line)
        return {
            name.decode("latin-1").strip().lower(): value.decode("latin-1").strip()
            for name, _, value in pairs
        }


class NotSent(NamedTuple):
    """The request was certainly not processed, and may be sent again."""

    reason: str
    detail: str = ""


class Lost(NamedTuple):
    """The request went out and no answer came: it may or may not have been processed."""

    reason: str
    detail: str = ""


End = Answer | NotSent | Lost


def trusted_certificates() -> Path:
    """Return the file of certificates that the machine trusts; ``SSL_CERT_FILE`` comes first.

    pycurl's wheel carries its own OpenSSL, which does not know where this machine keeps them.
    Raises :class:`~handbell.errors.GatewayError` when there is none.
    """
    candidates = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    for candidate in (*candidates, *_CA_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise GatewayError(
        "No file with trusted certificates was found on this machine",
        fix="Install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
    )


_ADVICE: Final = {
    pycurl.E_COULDNT_RESOLVE_HOST: (
        "HostNotFound",
        "Check the address and that this machine can resolve names",
    ),
    pycurl.E_COULDNT_CONNECT: (
        "CannotConnect",
        "Check that the network and the firewall let this machine reach that port",
    ),
    pycurl.E_SSL_CACERT: (
        "CertificateNotTrusted",
        "Check the machine's clock and its trusted certificates (SSL_CERT_FILE)",
    ),
    pycurl.E_SSL_CACERT_BADFILE: (
        "NoTrustedCertificates",
        "Check that the file with trusted certificates exists and can be read",
    ),
    pycurl.E_SSL_CERTPROBLEM: (
        "ClientCertificateUnusable",
        "Check the certificate and its key, and that they belong together",
    ),
    pycurl.E_SSL_CONNECT_ERROR: (
        "NoSecureConnection",
        "The other side does not speak TLS with HTTP/2; check the address and the port",
    ),
    pycurl.E_OPERATION_TIMEDOUT: (
        "TimedOut",
        "Check that the network and the firewall let this machine reach that port",
    ),
}


def failure(code: int, text: str, *, is_sent: bool) -> NotSent | Lost:
    """Return the end of a request that libcurl gave up with a code and a text of its own."""
    reason, advice = _ADVICE.get(code, ("ConnectionLost", "It will be tried again"))
    if is_sent:
        reason = "TimedOut" if code == pycurl.E_OPERATION_TIMEDOUT else "ConnectionLost"
        reason = "StreamReset" if code == HTTP2_STREAM else reason
        return Lost(reason, text)
    return NotSent(reason, f"{text}. {advice}" if text else advice)
