"""The shop of examples/backend does what its README says, with a real send server."""

import asyncio
import runpy
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.conftest import APP, Stage
from tests.serving import Server, server

__all__ = ["server"]

SHOP = Path(__file__).parents[2] / "examples/backend/shop.py"
IDENTITY_KEY = "k" * 44
CUSTOMER = ("test@4d.com", "sesame")


@pytest.fixture
def shop(server: Server, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the shop's names, with a key of the server and the identity key that the app knows."""
    stage.system.identities.set(stage.app, proof="token", identity_key=IDENTITY_KEY)
    for name, value in {
        "SHOP_APP": APP,
        "SHOP_IDENTITY_KEY": IDENTITY_KEY,
        "SHOP_PASSWORD": CUSTOMER[1],
        "HANDBELL_SERVER": server.url,
        "HANDBELL_API_KEY": server.key("send", app=stage.app),
    }.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(SHOP))


async def _ask(shop: dict[str, Any], *paths: str, auth: tuple[str, str]) -> list[httpx.Response]:
    transport = httpx.ASGITransport(shop["application"])
    async with httpx.AsyncClient(transport=transport, base_url="http://shop", auth=auth) as client:
        answers = [await client.post(path) for path in paths]
    await shop["push"].close()
    return answers


def test_a_customer_registers_and_hears_of_an_order_once(
    shop: dict[str, Any], server: Server, stage: Stage
) -> None:
    """The shop's token registers the phone; a repeated event is told once."""
    phone = stage.twin.add_phone(app=APP)
    (answer,) = asyncio.run(_ask(shop, "/push-identity", auth=CUSTOMER))
    token = answer.json()["identity_token"]
    with server.client() as device:
        body = {"identity_token": token, "device_token": phone.token}
        assert device.post(f"/v1/apps/{APP}/sessions", json=body).json()["status"] == "active"
    answers = asyncio.run(_ask(shop, *["/orders/42/send-off"] * 2, auth=CUSTOMER))
    assert [answer.status_code for answer in answers] == [202, 202]
    (card,) = stage.twin.phone(phone.id).cards
    assert card.title == "Your order is on its way"


def test_who_is_not_signed_in_gets_no_token(shop: dict[str, Any]) -> None:
    """A wrong password is refused."""
    (answer,) = asyncio.run(_ask(shop, "/push-identity", auth=("test@4d.com", "wrong")))
    assert answer.status_code == 401
