"""RFC 8291's encryption and RFC 8292's tokens, against published vectors and other libraries."""

from itertools import pairwise

import http_ece
import jwt
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from handbell._base64url import base64url, read_base64url
from handbell.gateways.webpush.encrypt import encrypt, encrypt_from
from handbell.gateways.webpush.vapid import GRID_SECONDS, VapidTokens, vapid_token
from handbell.services.webpush.credential import VapidKey
from handbell.services.webpush.protocol import (
    AUTH_SECRET_BYTES,
    HEADER_BYTES,
    MAX_BODY_BYTES,
    MAX_PLAINTEXT_BYTES,
    MAX_VAPID_SECONDS,
    VAPID_MIN_REFRESH_SECONDS,
)

# The example of RFC 8291, section 5.
TEXT = b"When I grow up, I want to be a watermelon"
SALT = read_base64url("DGv6ra1nlYgDCS1FRnbzlw")
SECRET = read_base64url("BTBZMqHH6r4Tts7J_aSIgg")
RECEIVER = VapidKey.read("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94")
RECEIVER_KEY = read_base64url(
    "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
)
SENDER = VapidKey.read("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS"
    "6TlzAC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qu"
    "lcy4a-fN"
)
# The example of RFC 8292, section 2.4.
TOKEN = (
    "eyJ0eXAiOiJKV1QiLCJhbGciOiJFUzI1NiJ9.eyJhdWQiOiJodHRwczovL3B1c2guZXhhbXBsZS5uZXQiLCJleHAiOjE0"
    "NTM1MjM3NjgsInN1YiI6Im1haWx0bzpwdXNoQGV4YW1wbGUuY29tIn0.i3CYb7t4xfxCDquptFOepC9GAu_HLGkMlMuCGS"
    "K2rpiUfnK9ojFwDXb1JrErtmysazNjjvW2L9OkSSHzvoD1oA"
)
TOKEN_KEY = (
    "BA1Hxzyi1RUM1b5wjxsn7nGxAszw2u61m164i3MrAIxHF6YK5h4SDYic-dRuU_RCPCfA5aq9ojSwk5Y2EmClBPs"
)
KEY = VapidKey.make()


def test_the_published_message_is_made() -> None:
    """The bytes are those of RFC 8291, from its keys, its salt and its text."""
    body = encrypt_from(SENDER.private_key, SALT, TEXT, RECEIVER_KEY, SECRET)
    assert base64url(body) == BODY
    assert read_base64url(RECEIVER.public_key) == RECEIVER_KEY


@given(st.binary(max_size=MAX_PLAINTEXT_BYTES), st.binary(min_size=16, max_size=16))
def test_another_library_decrypts_what_is_sent(plaintext: bytes, secret: bytes) -> None:
    """``http-ece`` reads each message: one record, whatever its length."""
    body = encrypt(plaintext, RECEIVER_KEY, secret)
    assert http_ece.decrypt(body, private_key=RECEIVER.private_key, auth_secret=secret) == plaintext
    assert len(body) == len(plaintext) + MAX_BODY_BYTES - MAX_PLAINTEXT_BYTES


def test_no_two_messages_share_a_key_or_a_salt() -> None:
    """The same text to the same browser is another message each time."""
    bodies = [encrypt(TEXT, RECEIVER_KEY, SECRET) for _ in range(50)]
    assert len({body[:16] for body in bodies}) == 50
    assert len({body[21:HEADER_BYTES] for body in bodies}) == 50


def test_the_largest_message_fits() -> None:
    """A body has 4,096 bytes where its text has 3,993, and no more is ever sent."""
    assert MAX_PLAINTEXT_BYTES == 3993
    assert len(encrypt(b"x" * MAX_PLAINTEXT_BYTES, RECEIVER_KEY, SECRET)) == MAX_BODY_BYTES


def test_a_message_is_for_one_receiver() -> None:
    """Neither another key nor another secret opens it."""
    body = encrypt(TEXT, RECEIVER_KEY, SECRET)
    for key, secret in ((KEY, SECRET), (RECEIVER, b"x" * AUTH_SECRET_BYTES)):
        with pytest.raises((http_ece.ECEException, InvalidTag)):
            http_ece.decrypt(body, private_key=key.private_key, auth_secret=secret)


def test_a_key_off_the_curve_encrypts_nothing() -> None:
    """A receiver's key that is not a point is an error, and never used."""
    with pytest.raises(ValueError, match=r"(?i)point|key"):
        encrypt(TEXT, b"\x04" + b"\x01" * 64, SECRET)


# -- tokens --------------------------------------------------------------------------------------


def _verified(authorization: str, origin: str, at: float) -> dict[str, object]:
    """Return the claims of an authorization, verified by PyJWT as a push service does."""
    scheme, _, rest = authorization.partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    assert scheme == "vapid"
    public = ec.EllipticCurvePublicKey.from_encoded_point(
        ec.SECP256R1(), read_base64url(parts["k"])
    )
    claims: dict[str, object] = jwt.decode(
        parts["t"], public, algorithms=["ES256"], audience=origin, options={"verify_exp": False}
    )
    left = int(str(claims["exp"])) - at
    assert 0 < left <= MAX_VAPID_SECONDS
    return claims


def test_the_published_token_has_our_form() -> None:
    """The token of RFC 8292 has the header and the claims that ours has of the same values."""
    ours = vapid_token(
        KEY,
        origin="https://push.example.net",
        subject="mailto:push@example.com",
        expires_at=1453523768,
    )
    assert ours.split(".")[:2] == TOKEN.split(".")[:2]
    _verified(f"vapid t={TOKEN}, k={TOKEN_KEY}", "https://push.example.net", 1453520000)


def _tokens(now: float, seconds: float = 0.0) -> VapidTokens:
    return VapidTokens(KEY, "mailto:push@example.com", lambda: now, lambda: seconds)


def test_a_token_is_for_one_origin() -> None:
    """Its audience is the origin of the endpoint, and its subject whom to write to."""
    tokens = _tokens(1_800_000_000)
    for origin in ("https://fcm.googleapis.com", "https://push.example.com:8443"):
        claims = _verified(tokens.authorization(origin), origin, 1_800_000_000)
        assert claims["aud"] == origin
        assert claims["sub"] == "mailto:push@example.com"


@given(st.integers(0, 4_000_000_000))
def test_every_process_makes_the_same_token(now: int) -> None:
    """Within one stretch of the grid each start gives the same text, with six hours to live."""
    start = now // GRID_SECONDS * GRID_SECONDS
    texts = {_tokens(at).authorization("https://a") for at in (start, now, start + 21_599.9)}
    assert len(texts) == 1
    claims = _verified(texts.pop(), "https://a", start)
    assert claims["exp"] == start + 2 * GRID_SECONDS


def test_a_token_is_renewed_rarely_and_in_time() -> None:
    """Over two days a new one comes every six hours, and none is within an hour of its end."""
    clock = {"now": 1_800_000_123.0}
    tokens = VapidTokens(KEY, "mailto:a@b.example", lambda: clock["now"], lambda: clock["now"])
    seen: dict[str, float] = {}
    for _ in range(2 * 24 * 12):
        text = tokens.authorization("https://a")
        seen.setdefault(text, clock["now"])
        assert int(str(_verified(text, "https://a", clock["now"])["exp"])) - clock["now"] >= 3600
        clock["now"] += 300
    changes = sorted(seen.values())
    assert len(seen) == 9
    assert min(after - before for before, after in pairwise(changes[1:])) > (
        VAPID_MIN_REFRESH_SECONDS
    )


def test_a_clock_that_is_set_makes_no_new_token() -> None:
    """The wall clock is read when a token is due, and not before."""
    clock = {"now": 1_800_000_000.0, "seconds": 0.0}
    tokens = VapidTokens(KEY, "mailto:a@b.example", lambda: clock["now"], lambda: clock["seconds"])
    first = tokens.authorization("https://a")
    clock["now"] += 10 * GRID_SECONDS
    assert tokens.authorization("https://a") == first
    clock["seconds"] += GRID_SECONDS
    assert tokens.authorization("https://a") != first


def test_origins_of_strangers_do_not_pile_up() -> None:
    """However many there are, memory is bounded, and a token made anew is the same."""
    tokens = _tokens(1_800_000_000)
    first = tokens.authorization("https://0.example")
    for number in range(1001):
        tokens.authorization(f"https://{number}.example")
    assert tokens.authorization("https://0.example") == first


def test_a_public_key_is_written_as_the_page_has_it() -> None:
    """``k`` is the uncompressed point without padding."""
    point = KEY.private_key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert _tokens(0).authorization("https://a").endswith(f", k={base64url(point)}")
