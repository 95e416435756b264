"""Provider tokens: the same everywhere, and within Apple's rules at every instant."""

import base64
import hashlib
import hmac
import json
import re

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.standing_clock import StandingClock

from handbell.gateways.apns.token import GRID_SECONDS, ProviderTokens, provider_token
from handbell.services.apns.credential import AuthKey
from handbell.services.apns.protocol import (
    PROVIDER_TOKEN_MAX_AGE_SECONDS,
    PROVIDER_TOKEN_MIN_REFRESH_SECONDS,
)

TEAM, KEY_ID = "TEAM123456", "KEY1234567"
KEY = AuthKey(team_id=TEAM, key_id=KEY_ID, private_key=ec.generate_private_key(ec.SECP256R1()))
INSTANTS = st.floats(min_value=1.7e9, max_value=4e9)
MEMBERS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}")


def issued_at(token: str) -> int:
    """Return the instant that a token says it was issued at."""
    claims = token.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(claims + "=="))["iat"])


def current(at: float) -> str:
    """Return the token that a process of its own makes at an instant."""
    return ProviderTokens(KEY, StandingClock(at)).current()


def test_another_library_verifies_the_token() -> None:
    """PyJWT takes the signature, and finds Apple's header and claims and nothing else."""
    token = provider_token(KEY, 1_800_000_000)
    assert MEMBERS.fullmatch(token)
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "kid": KEY_ID}
    claims = jwt.decode(
        token, KEY.public_key_pem, algorithms=["ES256"], options={"verify_iat": False}
    )
    assert claims == {"iss": TEAM, "iat": 1_800_000_000}


def test_another_key_does_not_verify_it() -> None:
    """A token of one key is refused under another."""
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(provider_token(KEY, 0), other, algorithms=["ES256"])


def test_the_same_key_and_instant_give_the_same_token() -> None:
    """The signature is deterministic (RFC 6979): no process differs from another."""
    assert len({provider_token(KEY, 1_800_000_000) for _ in range(20)}) == 1


def test_the_signature_is_the_one_of_rfc_6979() -> None:
    """The published key of RFC 6979 A.2.5 signs the token as the algorithm prescribes.

    What to expect is computed by the RFC's own steps (section 3.2), below.
    """
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    key = AuthKey(
        team_id=TEAM,
        key_id=KEY_ID,
        private_key=ec.derive_private_key(secret, ec.SECP256R1()),
    )
    signed, _, signature = provider_token(key, 1_800_000_000).rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    assert (raw[:32], raw[32:]) == sign_by_rfc_6979(secret, signed.encode())


def test_the_published_vectors_of_rfc_6979_hold() -> None:
    """The reference used above gives the RFC's own signature of the text "sample" (A.2.5)."""
    secret = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
    r, s = sign_by_rfc_6979(secret, b"sample")
    assert r.hex().upper() == "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
    assert s.hex().upper() == "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"


@given(INSTANTS, st.floats(min_value=-3600, max_value=3600))
def test_no_two_tokens_within_twenty_minutes(at: float, later: float) -> None:
    """Two tokens made at any two instants are the same or were issued over 20 minutes apart."""
    first, second = current(at), current(at + later)
    apart = abs(issued_at(first) - issued_at(second))
    assert first == second or apart > PROVIDER_TOKEN_MIN_REFRESH_SECONDS


@given(INSTANTS)
def test_no_token_is_too_old_or_of_the_future(at: float) -> None:
    """A token in use is at most 35 minutes old, which leaves 25 for a clock that is slow."""
    age = at - issued_at(current(at))
    assert 0 <= age <= GRID_SECONDS
    assert GRID_SECONDS + 25 * 60 <= PROVIDER_TOKEN_MAX_AGE_SECONDS


@given(INSTANTS)
def test_the_former_token_is_offered_while_it_is_valid(at: float) -> None:
    """The former token was the current one 35 minutes ago, and is never an hour old."""
    former = ProviderTokens(KEY, StandingClock(at)).former()
    age = at - issued_at(current(at)) + GRID_SECONDS
    if former is None:
        assert age >= PROVIDER_TOKEN_MAX_AGE_SECONDS - 60
    else:
        assert former == current(at - GRID_SECONDS)
        assert age < PROVIDER_TOKEN_MAX_AGE_SECONDS


@given(INSTANTS, st.lists(st.floats(min_value=0, max_value=7200), max_size=20))
def test_time_only_ever_brings_newer_tokens(at: float, steps: list[float]) -> None:
    """While the clock goes forward no older token comes back as the current one."""
    clock = StandingClock(at)
    tokens = ProviderTokens(KEY, clock, clock)
    last = issued_at(tokens.current())
    for step in steps:
        clock.at += step
        tokens.former()
        assert issued_at(tokens.current()) >= last
        last = issued_at(tokens.current())


def test_a_lead_makes_tokens_by_another_clock() -> None:
    """With a lead the tokens are those of a process whose clock is right."""
    tokens = ProviderTokens(KEY, StandingClock(1_800_000_000.0))
    tokens.follow(3000.0)
    assert tokens.current() == current(1_800_003_000.0)


@given(INSTANTS, st.floats(-86_400, 86_400), st.floats(0, GRID_SECONDS))
def test_a_clock_that_is_set_changes_no_token(at: float, jump: float, later: float) -> None:
    """However the wall's clock is set, the token that Apple knows is used to its end."""
    wall, steady = StandingClock(at), StandingClock(5.0)
    tokens = ProviderTokens(KEY, wall, steady)
    first = tokens.current()
    age = at - issued_at(first)
    wall.at += later + jump
    steady.at += later
    assume(abs(age + later - GRID_SECONDS) > 1)
    expected = first if age + later < GRID_SECONDS else current(wall.at)
    assert tokens.current() == expected


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 86_400.0])
def test_what_the_service_calls_expired_is_made_by_its_clock(jump: float) -> None:
    """Told that its token has expired, a process goes by the service's clock, then by its own."""
    wall, steady = StandingClock(1_800_000_000.0), StandingClock(5.0)
    tokens = ProviderTokens(KEY, wall, steady)
    tokens.current()
    wall.at += jump
    tokens.follow(-jump)
    assert tokens.current() == current(1_800_000_000.0)
    wall.at -= jump
    tokens.follow(0.0)
    steady.at += 1
    assert tokens.current() == current(1_800_000_000.0)


def sign_by_rfc_6979(secret: int, text: bytes) -> tuple[bytes, bytes]:
    """Return r and s of ECDSA over P-256 with SHA-256: the RFC's steps, independent of OpenSSL."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    digest = hashlib.sha256(text).digest()
    z = int.from_bytes(digest, "big")
    seed = secret.to_bytes(32, "big") + (z % order).to_bytes(32, "big")
    v, k = b"\x01" * 32, b"\x00" * 32
    for separator in (b"\x00", b"\x01"):
        k = hmac.digest(k, v + separator + seed, "sha256")
        v = hmac.digest(k, v, "sha256")
    while True:
        v = hmac.digest(k, v, "sha256")
        nonce = int.from_bytes(v, "big")
        if 0 < nonce < order:
            point = ec.derive_private_key(nonce, ec.SECP256R1()).public_key().public_numbers()
            r = point.x % order
            s = pow(nonce, -1, order) * (z + r * secret) % order
            if r and s:
                return r.to_bytes(32, "big"), s.to_bytes(32, "big")
        k = hmac.digest(k, v + b"\x00", "sha256")
        v = hmac.digest(k, v, "sha256")
