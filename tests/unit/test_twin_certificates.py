"""The twin's certificate authority: kept, private, renewed, and strictly valid."""

import asyncio
import datetime as dt
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from handbell.errors import TwinError
from handbell.twin.certificates import (
    Authority,
    ClientCertificate,
    decode_topics,
    encode_topics,
    read_client_certificate,
)

BUNDLE = "com.sample.myapp"


def test_the_authority_is_made_once_and_kept(tmp_path: Path) -> None:
    """A second start finds the same authority and the same server certificate."""
    folder = tmp_path / "deep" / "twin"
    first = Authority.open(folder)
    first.server_context()
    served = (folder / "server.pem").read_bytes()
    second = Authority.open(folder)
    second.server_context()
    assert first.certificate == second.certificate
    assert (folder / "server.pem").read_bytes() == served


def test_private_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Keys are mode 600; the authority's certificate holds no key."""
    Authority.open(tmp_path).server_context()
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "server.pem": 0o600}
    assert b"PRIVATE" not in (tmp_path / "ca.pem").read_bytes()


@pytest.mark.parametrize("spoiled", ["ca.pem", "ca.key"])
def test_a_spoiled_authority_is_made_anew(tmp_path: Path, spoiled: str) -> None:
    """A broken file, or a key that does not fit, does not stop the twin."""
    former = Authority.open(tmp_path)
    former.server_context()
    (tmp_path / spoiled).write_text("nonsense")
    fresh = Authority.open(tmp_path)
    assert fresh.certificate != former.certificate
    asyncio.run(_handshake(fresh, "localhost"))


def test_certificates_near_their_end_are_renewed(tmp_path: Path) -> None:
    """A certificate with less than 30 days to go is replaced at the next start."""
    authority = Authority.open(tmp_path)
    authority.server_context()
    file = tmp_path / "server.pem"
    lasting = x509.load_pem_x509_certificate(file.read_bytes())
    key = serialization.load_pem_private_key((tmp_path / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    short = (
        x509.CertificateBuilder()
        .issuer_name(lasting.issuer)
        .subject_name(lasting.subject)
        .public_key(lasting.public_key())
        .serial_number(1)
        .not_valid_before(lasting.not_valid_before_utc)
        .not_valid_after(dt.datetime.now(dt.UTC) + dt.timedelta(days=29))
        .sign(key, hashes.SHA256())
    )
    file.write_bytes(short.public_bytes(serialization.Encoding.PEM))
    Authority.open(tmp_path).server_context()
    renewed = x509.load_pem_x509_certificate(file.read_bytes())
    assert renewed.not_valid_after_utc > short.not_valid_after_utc + dt.timedelta(days=300)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """The error names the folder and what to do."""
    file = tmp_path / "file"
    file.write_text("in the way")
    with pytest.raises(TwinError, match="another folder") as caught:
        Authority.open(file)
    assert str(file) in caught.value.what


async def _handshake(authority: Authority, name: str) -> str | None:
    """Return the protocol negotiated by a client that verifies strictly."""
    trust = ssl.create_default_context(cafile=str(authority.ca_file))
    trust.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    trust.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(
        lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=authority.server_context()
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trust, server_hostname=name
        )
        await reader.read()
        protocol: str | None = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        writer.close()
        await writer.wait_closed()
        return protocol


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_strict_clients_accept_every_loopback_name(tmp_path: Path, name: str) -> None:
    """Python's strict X.509 verification, the default from 3.13 on, finds nothing wrong."""
    assert asyncio.run(_handshake(Authority.open(tmp_path), name)) == "h2"


@pytest.mark.parametrize(
    ("topics", "environment", "expected"),
    [
        (
            [BUNDLE, f"{BUNDLE}.voip"],
            None,
            ClientCertificate((BUNDLE, f"{BUNDLE}.voip"), ("development", "production")),
        ),
        ([BUNDLE], "production", ClientCertificate((BUNDLE,), ("production",))),
        ([], None, ClientCertificate(())),
    ],
)
def test_a_client_certificate_says_what_it_is_for(
    tmp_path: Path, topics: list[str], environment: str | None, expected: ClientCertificate
) -> None:
    """Topics and environments are read back from the extensions that Apple uses."""
    pem = Authority.open(tmp_path).issue_client_certificate(topics, environment=environment)
    der = ssl.PEM_cert_to_DER_cert(pem.decode().partition("-----BEGIN PRIVATE")[0])
    assert read_client_certificate(der) == expected


@given(st.lists(st.text(min_size=1, max_size=200)))
def test_topics_survive_their_encoding(topics: list[str]) -> None:
    """What is written into the extension is read back, whatever its length."""
    assert decode_topics(encode_topics(topics)) == tuple(topics)


@given(st.binary())
def test_no_extension_breaks_the_reading(value: bytes) -> None:
    """Bytes that are no topics are read as some or none, never an error."""
    assert isinstance(decode_topics(value), tuple)
