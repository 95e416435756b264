"""The values of the HTTP/2 client: requests, ends and limits."""

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from handbell._proxy import Proxy
from handbell.errors import GatewayError

from .http2_headers import Headers

MAX_BODY_BYTES: Final = 8192
"""The maximum number of bytes kept of an answer's body; push services send less than 200."""

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
    ``client_certificate`` is PEM, certificate and key together. ``proxy`` is the HTTP proxy that
    leads there, None to connect directly; proxy variables of the environment are ignored.
    ``accepts`` tells of each address that the host resolves to whether it may be connected to, for
    a host that somebody else chose; where one may not, none is. A host that speaks HTTP/1.1 alone
    has up to ``http1_connections``, each with one request at a time; 0 means that HTTP/2 is needed.
    """

    url: str
    ca_file: Path | None = None
    client_certificate: bytes | None = None
    proxy: Proxy | None = None
    accepts: Callable[[str], bool] | None = None
    http1_connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of concurrency and time. Times are in seconds.

    ``in_flight`` is per connection. A request ends within ``request_timeout`` after it was handed
    to the connection; queued items end as not sent when nothing was answered for twice as long. A
    connection that was silent for ``rest`` is checked by a PING before it is used again.
    ``farewell_timeout`` is what TLS may take to close.

    So many requests as ``round`` says are written in one go, before they reach the kernel. Where
    making one takes long (``is_slow_to_prepare``), the event loop does its other work after each
    round.
    """

    connections: int = 1
    in_flight: int = 256
    connect_timeout: float = 10.0
    request_timeout: float = 30.0
    rest: float = 30.0
    farewell_timeout: float = 1.0
    round: int = 128
    is_slow_to_prepare: bool = False


class Request(NamedTuple):
    """The request of one item: path, headers and body.

    ``shared`` are the headers common to many requests, ``own`` those of this one.
    """

    path: str
    shared: Headers
    own: Headers
    body: bytes


class StreamResponse(NamedTuple):
    """The server's answer. ``pairs`` are its headers as they came; :meth:`headers` reads them.

    ``is_whole`` is False when it is incomplete: only the head is certain then.
    """

    status: int
    body: bytes = b""
    pairs: Sequence[tuple[bytes, bytes]] = ()
    is_whole: bool = True

    def headers(self) -> dict[str, str]:
        """Return the headers by lower-case name."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.pairs}


class NotSent(NamedTuple):
    """The request was certainly not processed, and may be sent again.

    ``after`` is the seconds until this side opens another connection, if it waits.
    """

    reason: str
    detail: str = ""
    after: float | None = None


class Lost(NamedTuple):
    """The request went out and no answer came: it may or may not have been processed."""

    reason: str
    detail: str = ""


End = StreamResponse | NotSent | Lost


class NoConnection(Exception):  # noqa: N818 - the pool's affair, it reaches no caller
    """No connection can be made; ``end`` is the end of all that would be sent."""

    def __init__(self, end: NotSent) -> None:
        super().__init__(end.detail)
        self.end = end


def trusted_certificates() -> Path:
    """Return the file of trusted certificates; ``SSL_CERT_FILE`` comes first.

    A wheel's OpenSSL does not know where the machine keeps them. Raises
    :class:`~handbell.errors.GatewayError` when there is none.
    """
    candidates = [os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile]
    for candidate in (*candidates, *_CA_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise GatewayError(
        "No file with trusted certificates was found on this machine",
        fix="Install the package ca-certificates, or name a PEM file in SSL_CERT_FILE",
    )


def certificate_refused(
    error: Exception | None, *, is_heard: bool, words: str = ""
) -> NotSent | None:
    """Return the end for a refusal of our certificate, or None when it is something else.

    ``error`` is what ended the connection, None when the host just closed; ``words`` is the host's
    explanation. A TLS alert about a certificate is certain. A silent close counts only for a host
    that has not answered with this certificate: ``is_heard`` is False then.
    """
    if is_certificate_error(error) or _CERTIFICATE in words.upper():
        why = words or in_words(error or ConnectionError())
        return NotSent(_REFUSED, f"it refused the app's certificate: {why}")
    if is_heard or words or not is_closed_by_peer(error):
        return None
    why = "the server hung up" if error is None else in_words(error)
    return NotSent(_REFUSED, f"{_WITHOUT_A_WORD}: {why}")


def is_certificate_error(error: Exception | None) -> bool:
    """Return whether the host refused our certificate by a TLS alert."""
    if not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLCertVerificationError):
        return False
    said = (error.reason or str(error)).upper()
    return "ALERT" in said and any(word in said for word in _ABOUT_CERTIFICATES)


def connect_error_text(error: Exception) -> NotSent:
    """Return the end of requests when the connection could not be made."""
    reason = next(reason for kind, reason in _REASON_OF if isinstance(error, kind))
    is_silent = isinstance(error, TimeoutError) and not error.args
    return NotSent(reason, "No connection was made in time" if is_silent else in_words(error))


def is_closed_by_peer(error: Exception | None) -> bool:
    """Return whether the error means that the host closed the connection; None does."""
    if error is None:
        return True
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    if isinstance(error, ssl.SSLError):
        said = (error.reason or str(error)).upper()
        is_end = "ALERT" in said or isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        return is_end and not any(other in said for other in _NOT_ABOUT_CERTIFICATES)
    return isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError)


def in_words(error: Exception) -> str:
    """Describe a network error in the system's words, without numbers and tuples."""
    said = next((each for each in error.args if isinstance(each, str)), "")
    said = getattr(error, "strerror", None) or said
    # An error not raised by OpenSSL itself lacks these members.
    if unverified := getattr(error, "verify_message", None):
        return f"its certificate cannot be verified: {unverified}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or ""
        said = reason.replace("_", " ").lower() or _PLACE_IN_C.sub("", said)
    elif isinstance(error, OSError):
        # Several addresses may have failed, each for its own reason.
        numbers = [error.errno] if error.errno is not None else map(int, _NUMBER.findall(said))
        known = [os.strerror(number) for number in numbers if number in errno.errorcode]
        said = ", ".join(dict.fromkeys(known)) or said
    return said or type(error).__name__


_REFUSED: Final = "ClientCertificateRefused"
_WITHOUT_A_WORD: Final = (
    "it ended the connection before it had answered anything, perhaps because it refuses the app's "
    "certificate"
)
_CERTIFICATE: Final = "CERTIFICATE"
_ABOUT_CERTIFICATES: Final = (_CERTIFICATE, "UNKNOWN_CA", "ACCESS_DENIED", "HANDSHAKE_FAILURE")
_NOT_ABOUT_CERTIFICATES: Final = (
    "PROTOCOL",
    "UNRECOGNIZED_NAME",
    "INTERNAL_ERROR",
    "RECORD",
    "DECODE",
)
_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")
_PLACE_IN_C: Final = re.compile(r" ?\(_ssl\.c:\d+\)")
_REASON_OF: Final[tuple[tuple[type[Exception], str], ...]] = (
    (ssl.SSLCertVerificationError, "CertificateNotTrusted"),
    (ssl.SSLError, "NoSecureConnection"),
    (socket.gaierror, "HostNotFound"),
    (Exception, "CannotConnect"),
)
