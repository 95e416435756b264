"""The authority that vouches for the push services' own names, and for no others.

It is apart from the twin's own authority, which a client may trust for years: this one lives for
days, its certificate is constrained to these names (RFC 5280, 4.2.1.10), and its keys are readable
by their owner alone. Nothing installs it anywhere: a client is told its file.
"""

import datetime as dt
import ipaddress
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .certificates import (
    CA_FILE,
    SIGNING,
    authority_builder,
    key_pem,
    leaf_builder,
    to_pem,
    write_file,
)
from .discovery import cannot_use
from .hosts import HOSTS, side_of

AUTHORITY_FILE: Final = "hosts-ca.pem"
AUTHORITY_KEY_FILE: Final = "hosts-ca.key"
SERVER_FILE: Final = "hosts-server.pem"
LIFE: Final = dt.timedelta(days=7)
_RENEW_BEFORE: Final = dt.timedelta(days=2)
_PRIVATE: Final = 0o600
_SUBJECT: Final = "Handbell twin, push services' names, for tests on this machine"
_EVERY_ADDRESS: Final = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


class HostAuthority:
    """The authority in a folder, made at the first start and anew before it expires."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: dict[bool, ssl.SSLContext] = {}
        self._renew_at: dt.datetime | None = None

    @property
    def ca_file(self) -> Path:
        """Return the file with the authority's certificate: what a client has to trust."""
        return self._folder / AUTHORITY_FILE

    def prepare(self) -> None:
        """Make the files where they are missing, spoiled or about to expire.

        Raises TwinError where the folder cannot be written.
        """
        now = dt.datetime.now(dt.UTC)
        if self._renew_at is not None and now < self._renew_at:
            return
        self._contexts.clear()
        until = self._valid_until()
        if until is None or now >= until - _RENEW_BEFORE:
            try:
                until = self._make()
            except OSError as error:
                raise cannot_use(self._folder, error) from None
        self._renew_at = until - _RENEW_BEFORE

    def serve(self, context: ssl.SSLContext, *, speaks_http1: bool) -> None:
        """Let a server's TLS context answer for the names too, where a client asks for one."""

        def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
            if name is not None and side_of(name) is not None:
                connection.context = self._context(speaks_http1=speaks_http1)

        context.sni_callback = choose

    def _context(self, *, speaks_http1: bool) -> ssl.SSLContext:
        self.prepare()
        if speaks_http1 not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["h2", "http/1.1"] if speaks_http1 else ["h2"])
            context.load_cert_chain(self._folder / SERVER_FILE)
            # A push certificate of the twin's is good under these names as well.
            context.load_verify_locations(self._folder / CA_FILE)
            context.verify_mode = ssl.CERT_OPTIONAL
            self._contexts[speaks_http1] = context
        return self._contexts[speaks_http1]

    def _valid_until(self) -> dt.datetime | None:
        """Return until when the files are good; None when they are not."""
        try:
            authority = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            server = x509.load_pem_x509_certificate((self._folder / SERVER_FILE).read_bytes())
            server.verify_directly_issued_by(authority)
            names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except Exception:  # noqa: BLE001 - whatever is wrong with them, they are made anew
            return None
        if set(names.get_values_for_type(x509.DNSName)) != set(HOSTS):
            return None
        return min(authority.not_valid_after_utc, server.not_valid_after_utc)

    def _make(self) -> dt.datetime:
        key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        names = [x509.DNSName(name) for name in HOSTS]
        constraints = x509.NameConstraints(
            permitted_subtrees=names,
            excluded_subtrees=[x509.IPAddress(network) for network in _EVERY_ADDRESS],
        )
        authority = (
            authority_builder(_SUBJECT, key, LIFE)
            .add_extension(constraints, critical=True)
            .sign(key, SIGNING)
        )
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, "Handbell twin")]
        server = (
            leaf_builder(authority, subject, server_key, ExtendedKeyUsageOID.SERVER_AUTH, LIFE)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .sign(key, SIGNING)
        )
        write_file(self._folder / AUTHORITY_KEY_FILE, key_pem(key), mode=_PRIVATE)
        pem = to_pem(server) + key_pem(server_key)
        write_file(self._folder / SERVER_FILE, pem, mode=_PRIVATE)
        write_file(self.ca_file, to_pem(authority), mode=_PRIVATE)
        return server.not_valid_after_utc
