"""The push services' own names on the twin: an authority for them alone, and a proxy to them."""

import contextlib
import datetime as dt
import ipaddress
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from py_vapid import Vapid
from pywebpush import webpush
from tests.fcm import HELLO, FcmClient

from handbell.twin.host_authority import HostAuthority
from handbell.twin.hosts import HOSTS
from handbell.twin.threaded import RunningTwin, start_twin


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the twin's folder."""
    return tmp_path_factory.mktemp("twin")


@pytest.fixture(scope="module")
def twin(folder: Path) -> Iterator[RunningTwin]:
    """Run a twin with a proxy."""
    with start_twin(folder, proxy_port=0) as twin:
        yield twin


def through(twin: RunningTwin, *, http2: bool = True) -> httpx.Client:
    """Return a client that goes by the proxy, and trusts the authority of the names alone."""
    tls = ssl.create_default_context(cafile=str(twin.hosts_ca_file))
    return httpx.Client(http2=http2, verify=tls, trust_env=False, proxy=twin.proxy_url)


@pytest.mark.parametrize("name", HOSTS)
def test_each_name_is_answered_by_its_side(twin: RunningTwin, name: str) -> None:
    """A client that goes to a service's own name by the proxy meets that service's twin."""
    with through(twin) as client:
        answer = client.post(f"https://{name}/none")
    received = twin.requests[0]
    assert answer.status_code in {400, 404, 405}
    if name != "oauth2.googleapis.com":  # a page that is not there, as on the real host
        assert (received.side, received.request.host) == (HOSTS[name], name)


def test_a_message_by_googles_own_names(twin: RunningTwin) -> None:
    """Access token and message go to the names that are built into Google's libraries."""
    phone = twin.add_phone(platform="android", project="shop-4711")
    with FcmClient.of(twin, "shop-4711") as fcm, through(twin, http2=False) as client:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": fcm.assertion(),
        }
        issued = client.post("https://oauth2.googleapis.com/token", data=form).json()
        sent = client.post(
            "https://fcm.googleapis.com/v1/projects/shop-4711/messages:send",
            headers={"authorization": f"Bearer {issued['access_token']}"},
            json={"message": {"token": phone.token, **HELLO}},
        )
        assert sent.status_code == 200
        # Each of Google's hosts has its own paths alone.
        assert client.post("https://fcm.googleapis.com/token", data=form).status_code == 404
        assert client.post(str(sent.url).replace("fcm", "oauth2", 1)).status_code == 404
    assert len(twin.phone(phone.id).cards) == 1


def test_a_message_to_a_browser_by_mozillas_own_name(twin: RunningTwin) -> None:
    """Pywebpush goes by the proxy to the endpoint under Mozilla's name, for which it signs."""
    browser = twin.add_browser("Browser", mail="test@4d.com")
    key = Vapid()
    key.generate_keys()
    session = requests.Session()
    session.trust_env, session.verify = False, str(twin.hosts_ca_file)
    session.proxies = {"https": twin.proxy_url}
    path = urlsplit(browser.token).path
    answer = webpush(
        {
            "endpoint": f"https://updates.push.services.mozilla.com{path}",
            "keys": json.loads(browser.details or ""),
        },
        json.dumps({"notification": {"title": "Hello"}}),
        vapid_private_key=key,
        vapid_claims={"sub": "mailto:push@example.com"},
        ttl=60,
        requests_session=session,
    )
    session.close()
    assert answer.status_code == 201
    assert len(twin.phone(browser.id).cards) == 1


@pytest.mark.parametrize(
    "head",
    [
        "CONNECT example.com:443 HTTP/1.1",
        "CONNECT 127.0.0.1:443 HTTP/1.1",
        "CONNECT api.push.apple.com:22 HTTP/1.1",
        "CONNECT fcm.googleapis.com.example.com:443 HTTP/1.1",
        "GET http://fcm.googleapis.com/ HTTP/1.1",
        "nonsense",
    ],
    ids=["elsewhere", "loopback", "port", "longer", "get", "nonsense"],
)
def test_nothing_else_is_let_through(twin: RunningTwin, head: str) -> None:
    """The proxy answers 403 with a word, and opens no connection."""
    where = urlsplit(twin.proxy_url)
    with socket.create_connection((where.hostname or "", where.port or 0), timeout=5) as client:
        client.sendall(f"{head}\r\nhost: x\r\n\r\n".encode())
        answered = b"".join(iter(lambda: client.recv(4096), b""))
    assert answered.startswith(b"HTTP/1.1 403 ")
    assert b"fcm.googleapis.com" in answered


def test_the_twins_own_authority_does_not_vouch_for_the_names(twin: RunningTwin) -> None:
    """Who trusts a twin for years trusts it for its own address, and for nobody's name."""
    tls = ssl.create_default_context(cafile=str(twin.ca_file))
    with (
        httpx.Client(verify=tls, trust_env=False, proxy=twin.proxy_url) as client,
        pytest.raises(httpx.ConnectError, match="certificate verify failed"),
    ):
        client.get("https://api.push.apple.com/")
    names = ssl.create_default_context(cafile=str(twin.hosts_ca_file))
    with (
        httpx.Client(verify=names, trust_env=False) as client,
        pytest.raises(httpx.ConnectError, match="certificate verify failed"),
    ):
        client.get(twin.fcm_url)


def test_its_files_are_private_and_last_for_days(folder: Path, twin: RunningTwin) -> None:
    """Mode 600 each, a life of seven days at most, and names that it may not exceed."""
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.glob("hosts-*")}
    assert modes == dict.fromkeys(("hosts-ca.pem", "hosts-ca.key", "hosts-server.pem"), 0o600)
    certificate = x509.load_pem_x509_certificate(twin.hosts_ca_file.read_bytes())
    assert certificate.not_valid_after_utc - dt.datetime.now(dt.UTC) <= dt.timedelta(days=7)
    constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    permitted = constraints.value.permitted_subtrees or []
    assert {name.value for name in permitted} == set(HOSTS)


@pytest.mark.parametrize("name", ["www.example.com", "127.0.0.1"])
def test_its_key_vouches_for_no_other_name(folder: Path, twin: RunningTwin, name: str) -> None:
    """Whoever steals the key gets no certificate for another name past a client."""
    stolen = serialization.load_pem_private_key((folder / "hosts-ca.key").read_bytes(), None)
    authority = x509.load_pem_x509_certificate(twin.hosts_ca_file.read_bytes())
    assert isinstance(stolen, ec.EllipticCurvePrivateKey)
    forged = folder / "forged.pem"
    forged.write_bytes(_forge(authority, stolen, name))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(forged)
    client = ssl.create_default_context(cafile=str(twin.hosts_ca_file))
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(ours, theirs, server_side=True)
    here = client.wrap_bio(theirs, ours, server_hostname=name)
    with pytest.raises(ssl.SSLCertVerificationError, match="subtree"):
        _shake_hands(here, there)


def _shake_hands(*sides: ssl.SSLObject) -> None:
    for side in sides * 4:
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()


def _forge(authority: x509.Certificate, key: ec.EllipticCurvePrivateKey, name: str) -> bytes:
    own, now = ec.generate_private_key(ec.SECP256R1()), dt.datetime.now(dt.UTC)
    is_address = name[0].isdigit()
    kind = x509.IPAddress(ipaddress.ip_address(name)) if is_address else x509.DNSName(name)
    certificate = (
        x509.CertificateBuilder()
        .issuer_name(authority.subject)
        .subject_name(x509.Name([]))
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([kind]), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + own.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_a_spoiled_authority_is_made_anew(tmp_path: Path) -> None:
    """A kept one serves the next start; a broken file or other names are replaced."""
    HostAuthority(tmp_path).prepare()
    first = (tmp_path / "hosts-ca.pem").read_bytes()
    HostAuthority(tmp_path).prepare()
    assert (tmp_path / "hosts-ca.pem").read_bytes() == first
    (tmp_path / "hosts-server.pem").write_text("nonsense")
    HostAuthority(tmp_path).prepare()
    assert (tmp_path / "hosts-ca.pem").read_bytes() != first


def test_the_address_file_says_where_they_are(folder: Path, twin: RunningTwin) -> None:
    """Other programs find the proxy and the authority beside the rest."""
    written = json.loads((folder / "address.json").read_text())
    assert written["proxy_url"] == twin.proxy_url
    assert written["hosts_ca_file"] == str(twin.hosts_ca_file)
    assert written["oauth_url"] == twin.oauth_url == f"{twin.fcm_url}/token"
