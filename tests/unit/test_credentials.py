import base64
import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    pkcs12,
)
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from handbell.errors import CredentialError
from handbell.services.apns.credential import AuthKey, Certificate, read_auth_key, read_certificate

TEAM, KEY_ID = "TEAM123456", "ABC123DEFG"
KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = ec.generate_private_key(ec.SECP256R1())
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EXPIRES = dt.datetime(2030, 1, 2, tzinfo=dt.UTC)

# SEQUENCE { UTF8String topic, SEQUENCE { UTF8String kind }, … }, as `openssl asn1parse` shows it.
TOPICS = bytes.fromhex(
    "3038"
    "0c10" + b"com.sample.myapp".hex() + "3005" + "0c03" + b"app".hex() + ""
    "0c15" + b"com.sample.myapp.voip".hex() + "3006" + "0c04" + b"voip".hex()
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def pkcs8(key: PrivateKey) -> bytes:
    """Return a key as Apple's .p8 files hold it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def make_certificate(
    *,
    key: ec.EllipticCurvePrivateKey = KEY,
    topics: bytes | None = None,
    environments: tuple[int, ...] = (),
) -> x509.Certificate:
    """Return a certificate shaped like Apple's; ``environments`` are the last arc of its marks."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.USER_ID, "com.sample.myapp"),
            x509.NameAttribute(NameOID.COMMON_NAME, "Apple Push Services: com.sample.myapp"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, TEAM),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(EXPIRES - dt.timedelta(days=395))
        .not_valid_after(EXPIRES)
    )
    marks = {f"1.2.840.113635.100.6.3.{last}": b"\x05\x00" for last in environments}
    if topics is not None:
        marks["1.2.840.113635.100.6.3.6"] = topics
    for oid, value in marks.items():
        extension = x509.UnrecognizedExtension(ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256())


CERTIFICATE = make_certificate(topics=TOPICS)
PEM_PAIR = CERTIFICATE.public_bytes(Encoding.PEM) + pkcs8(KEY)


def test_a_key_is_read_with_the_id_in_its_name(tmp_path: Path) -> None:
    """The file as Apple hands it out needs nothing but the team."""
    file = tmp_path / f"AuthKey_{KEY_ID}.p8"
    file.write_bytes(pkcs8(KEY))
    for source in (file, str(file)):
        key = read_auth_key(source, team_id=TEAM)
        assert (key.team_id, key.key_id) == (TEAM, KEY_ID)
        assert key.private_key.private_numbers() == KEY.private_numbers()


def test_a_key_is_read_from_its_text() -> None:
    """Text and bytes do as well, also with other line ends, a comment, or line ends written out."""
    text = pkcs8(KEY).decode()
    texts = (
        text,
        text.encode(),
        text.replace("\n", "\r\n"),
        "\ufeffKey of our team\n" + text,
        text.replace("\n", "\\n"),
    )
    keys = {read_auth_key(one, team_id=TEAM, key_id=KEY_ID) for one in texts}
    assert len(keys) == 1


@pytest.mark.parametrize(
    "name", [f"AuthKey_{KEY_ID}.p8", f"AuthKey_{KEY_ID} (1).p8", f"AuthKey_{KEY_ID}-copy.p8"]
)
def test_a_copy_of_the_file_keeps_its_key_id(tmp_path: Path, name: str) -> None:
    """What a browser or a file manager adds to the name does no harm."""
    (tmp_path / name).write_bytes(pkcs8(KEY))
    assert read_auth_key(tmp_path / name, team_id=TEAM).key_id == KEY_ID


def test_a_link_has_the_key_id_of_its_target(tmp_path: Path) -> None:
    """A link of any name leads to the file whose name holds the key id."""
    (tmp_path / f"AuthKey_{KEY_ID}.p8").write_bytes(pkcs8(KEY))
    link = tmp_path / "push.p8"
    link.symlink_to(f"AuthKey_{KEY_ID}.p8")
    assert read_auth_key(link, team_id=TEAM).key_id == KEY_ID


def test_a_key_shows_its_fingerprint_and_no_secret() -> None:
    """The text of a key names it and holds nothing of the private part."""
    key = read_auth_key(pkcs8(KEY), team_id=TEAM, key_id=KEY_ID)
    spki = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    assert key.fingerprint == digest.finalize().hex()[:16]
    assert repr(key) == (
        f"AuthKey(team_id='{TEAM}', key_id='{KEY_ID}', fingerprint='{key.fingerprint}')"
    )
    assert load_pem_public_key(key.public_key_pem.encode()) == KEY.public_key()
    assert read_auth_key(key.private_key_pem(), team_id=TEAM, key_id=KEY_ID) == key


def mismatched() -> bytes:
    """Return a PKCS#8 file whose public part is another key's."""
    der = KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    own, other = (
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        for key in (KEY, OTHER_KEY)
    )
    assert own in der
    body = base64.encodebytes(der.replace(own, other))
    return b"-----BEGIN PRIVATE KEY-----\n" + body + b"-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("content", "what", "fix"),
    [
        (b"", "empty", "AuthKey_"),
        (b" \n\t", "empty", "AuthKey_"),
        (b"hello", "not a PEM text", "AuthKey_"),
        (bytes(range(256)), "not a PEM text", "AuthKey_"),
        (b"x" * 70_000, "far too large", "AuthKey_"),
        (pkcs8(KEY)[:-30], "cut short", "AuthKey_"),
        (pkcs8(KEY).replace(b"M", b"*"), "damaged", "AuthKey_"),
        (b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", "damaged", "AuthKey_"),
        (mismatched(), "damaged|does not belong", "AuthKey_"),
        (pkcs8(RSA_KEY), "an RSA key", "AuthKey_"),
        (
            RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            "an RSA key",
            "AuthKey_",
        ),
        (pkcs8(ec.generate_private_key(ec.SECP384R1())), "curve secp384r1", "AuthKey_"),
        (pkcs8(ed25519.Ed25519PrivateKey.generate()), "another kind of key", "AuthKey_"),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            "SEC1",
            "openssl pkcs8 -topk8 -nocrypt",
        ),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "protected by a password",
            "openssl pkcs8",
        ),
        (
            KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "a public key",
            "private one",
        ),
        (make_certificate().public_bytes(Encoding.PEM), "a certificate", "as a certificate"),
        (
            KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
            "an OpenSSH key",
            "AuthKey_",
        ),
        (b"-----BEGIN NONSENSE-----\n", "something else", "AuthKey_"),
    ],
)
def test_a_file_that_is_no_auth_key_says_what_it_is(
    tmp_path: Path, content: bytes, what: str, fix: str
) -> None:
    """Each mistaken file is named for what it is, with the way to the right one."""
    file = tmp_path / f"AuthKey_{KEY_ID}.p8"
    file.write_bytes(content)
    with pytest.raises(CredentialError, match=what) as caught:
        read_auth_key(file, team_id=TEAM)
    assert fix in caught.value.fix
    assert str(file) in caught.value.what


def test_a_path_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """A missing file and a folder are told apart, and a text that is no path is not shown."""
    with pytest.raises(CredentialError, match="no file"):
        read_auth_key(tmp_path / "AuthKey_ABC123DEFG.p8", team_id=TEAM)
    with pytest.raises(CredentialError, match="is a folder"):
        read_auth_key(tmp_path, team_id=TEAM)
    with pytest.raises(CredentialError, match="cannot be read"):
        read_auth_key("MIGHAgEAMBMGByqG\0SM49AgEG", team_id=TEAM)
    with pytest.raises(CredentialError) as caught:
        read_auth_key("MIGHAgEAMBMGByqGSM49AgEG" * 200, team_id=TEAM)
    assert "MIGH" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["key.p8", "AuthKey_.p8", "AuthKey_ABC.p8", "AuthKey_ABC123DEFGH.p8"]
)
def test_a_missing_key_id_is_asked_for(tmp_path: Path, name: str) -> None:
    """A file whose name holds no key id is refused, until the id is given beside it."""
    (tmp_path / name).write_bytes(pkcs8(KEY))
    with pytest.raises(CredentialError, match="key id is missing") as refused:
        read_auth_key(tmp_path / name, team_id=TEAM)
    assert "--key-id" in refused.value.fix
    assert read_auth_key(tmp_path / name, team_id=TEAM, key_id=KEY_ID).key_id == KEY_ID


@pytest.mark.parametrize(
    ("team_id", "key_id", "what"),
    [
        (TEAM, "abc123defg", "not a key id"),
        (TEAM, "ABC123DEF", "not a key id"),
        (TEAM, "ABC123\nDEFG", "not a key id"),
        ("team123456", KEY_ID, "not a team id"),
        ("", KEY_ID, "not a team id"),
    ],
)
def test_ids_are_checked(team_id: str, key_id: str, what: str) -> None:
    """Both ids are 10 upper-case letters and digits."""
    with pytest.raises(CredentialError, match=what):
        read_auth_key(pkcs8(KEY), team_id=team_id, key_id=key_id)


def read_anything(data: bytes | str) -> None:
    """Read the data as whatever it may be; only the right error may come out."""
    for read in (
        lambda: read_auth_key(data, team_id=TEAM, key_id=KEY_ID),
        lambda: read_certificate(data, password="x"),
    ):
        try:
            found = read()
        except CredentialError:
            continue
        assert isinstance(found, AuthKey | Certificate)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=2000), st.text(max_size=500)))
def test_nothing_but_a_credential_error_comes_out_of_any_data(data: bytes | str) -> None:
    """Whatever is taken for a key or certificate, the reader is told in one kind of error."""
    read_anything(data)


@settings(deadline=None)
@given(st.data())
def test_nothing_but_a_credential_error_comes_out_of_a_damaged_file(data: st.DataObject) -> None:
    """Nor does another error come from a real file in which some bytes were changed."""
    content = bytearray(data.draw(st.sampled_from([pkcs8(KEY), PEM_PAIR, bundle(None)])))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read_anything(bytes(content))


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_nothing_but_a_credential_error_comes_out_of_strange_topics(topics: bytes) -> None:
    """An extension that is not what Apple writes is refused or read, and never breaks."""
    pair = make_certificate(topics=topics).public_bytes(Encoding.PEM) + pkcs8(KEY)
    read_anything(pair)


def bundle(password: str | None) -> bytes:
    """Return a .p12 file as Keychain Access exports it."""
    encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"push", KEY, CERTIFICATE, None, encryption)


@pytest.mark.parametrize("password", [None, "hunter2"])
def test_a_certificate_is_read_from_p12(tmp_path: Path, password: str | None) -> None:
    """A .p12 with or without a password gives name, team, topics and expiry."""
    file = tmp_path / "push.p12"
    file.write_bytes(bundle(password))
    certificate = read_certificate(file, password=password)
    assert certificate.name == "Apple Push Services: com.sample.myapp"
    assert certificate.team_id == TEAM
    assert certificate.topics == ("com.sample.myapp", "com.sample.myapp.voip")
    assert certificate.environments == ("production", "development")
    assert certificate.expires_at == int(EXPIRES.timestamp() * 1000)
    assert certificate.key_id == certificate.fingerprint


def test_a_certificate_is_read_from_pem() -> None:
    """Certificate and key in one PEM text are the same as the .p12, in either order."""
    first, second = PEM_PAIR.split(b"-----BEGIN PRIVATE")
    turned = b"-----BEGIN PRIVATE" + second + first
    assert read_certificate(PEM_PAIR) == read_certificate(turned) == read_certificate(bundle(None))


def test_a_protected_key_beside_a_certificate_is_opened() -> None:
    """In PEM too the key may have a password; one that is not needed does no harm."""
    key = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))
    protected = CERTIFICATE.public_bytes(Encoding.PEM) + key
    assert read_certificate(protected, password="hunter2") == read_certificate(PEM_PAIR)
    assert read_certificate(PEM_PAIR, password="hunter2") == read_certificate(PEM_PAIR)


def test_what_a_certificate_holds_can_be_read_again() -> None:
    """The PEM kept for the vault is whole, and the text of a certificate shows none of it."""
    certificate = read_certificate(PEM_PAIR)
    assert read_certificate(certificate.pem) == certificate
    assert "PRIVATE" not in repr(certificate)


@pytest.mark.parametrize(
    ("marks", "expected"),
    [((1,), ("development",)), ((2,), ("production",)), ((1, 2), ("production", "development"))],
)
def test_a_certificate_says_which_environments_it_is_for(
    marks: tuple[int, ...], expected: tuple[str, ...]
) -> None:
    """Apple's marks for production and development are read."""
    pair = make_certificate(environments=marks).public_bytes(Encoding.PEM) + pkcs8(KEY)
    assert read_certificate(pair).environments == expected


def test_a_certificate_without_a_list_of_topics_is_for_its_bundle_id() -> None:
    """The older kind, for one app alone, names it in the subject."""
    pair = make_certificate().public_bytes(Encoding.PEM) + pkcs8(KEY)
    assert read_certificate(pair).topics == ("com.sample.myapp",)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"hello", "not a certificate with its private key"),
        (pkcs8(KEY), "a private key without its certificate"),
        (make_certificate().public_bytes(Encoding.PEM), "no private key"),
        (
            make_certificate().public_bytes(Encoding.PEM) + pkcs8(OTHER_KEY),
            "belongs to no certificate",
        ),
        (bundle("another password"), "the password is wrong"),
        (bundle("x")[:-40], "the password is wrong"),
    ],
)
def test_a_file_that_is_no_certificate_with_its_key_is_refused(content: bytes, wrong: str) -> None:
    """Half a pair, another's key or the wrong password is an error with the fix."""
    with pytest.raises(CredentialError, match=wrong) as caught:
        read_certificate(content, password="hunter2")
    assert "Keychain Access" in caught.value.fix
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("password", ["x\0y", "\0", "\ud800", "x" * 100_000])
def test_a_password_that_none_can_be_is_wrong(password: str) -> None:
    """It ends neither the process nor a request, and is not repeated."""
    with pytest.raises(CredentialError, match="the password is wrong"):
        read_certificate(bundle("x"), password=password)


def test_a_bundle_in_base64_is_read() -> None:
    """Build systems keep a .p12 so, in one line or in several."""
    whole, secret = bundle("x"), "x"
    for encoded in (base64.b64encode(whole), base64.encodebytes(whole).decode()):
        read = read_certificate(encoded, password=secret)
        assert read == read_certificate(whole, password=secret)
