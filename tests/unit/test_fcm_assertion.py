"""The signed request for an access token, judged by PyJWT."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from handbell.gateways.fcm.token import assertion, default_token_endpoint
from handbell.gateways.http2 import Endpoint
from handbell.services.fcm.credential import ServiceAccount
from handbell.services.fcm.protocol import SCOPE, TOKEN_URI

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def account() -> ServiceAccount:
    """Return a service account with a key of its own."""
    return ServiceAccount(
        client_email="sender@shop-4d.iam.gserviceaccount.com",
        project_id="shop-4d",
        private_key=rsa.generate_private_key(public_exponent=65537, key_size=2048),
        private_key_id="0123456789abcdef",
    )


@pytest.mark.judge("PyJWT")
def test_google_can_verify_it(account: ServiceAccount) -> None:
    """It is signed by RS256, names its key, and asks for an hour and the scope of sending."""
    text = assertion(account, NOW)
    assert jwt.get_unverified_header(text) == {
        "alg": "RS256",
        "typ": "JWT",
        "kid": "0123456789abcdef",
    }
    claims = jwt.decode(
        text,
        account.public_key_pem,
        ["RS256"],
        options={"verify_exp": False, "verify_iat": False},
        audience=TOKEN_URI,
    )
    assert claims == {
        "iss": account.client_email,
        "scope": SCOPE,
        "aud": TOKEN_URI,
        "iat": NOW,
        "exp": NOW + 3600,
    }


def test_a_key_without_a_name_is_not_named(account: ServiceAccount) -> None:
    """``kid`` is left out where the file has no ``private_key_id``; Google tries each key then."""
    unnamed = ServiceAccount(
        client_email=account.client_email,
        project_id=account.project_id,
        private_key=account.private_key,
    )
    assert "kid" not in jwt.get_unverified_header(assertion(unnamed, NOW))


def test_the_token_is_asked_for_as_pushes_are_sent(account: ServiceAccount) -> None:
    """By the same certificates and the same proxy, at the address of the key file."""
    like = Endpoint("https://fcm.googleapis.com", client_certificate=b"pem")
    assert default_token_endpoint(account, like) == Endpoint(TOKEN_URI)
